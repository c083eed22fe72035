//! The disk of a data folder: a small file system in a file, mounted.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::run;

const MIB: u64 = 1024 * 1024;
/// Steps in which it is filled, bytes: the first and the last.
const STEP_MAX: i64 = 64 * 1024 * 1024;
const STEP_MIN: i64 = 4_096;

#[derive(Debug)]
pub(crate) struct LoopDisk {
    mount: PathBuf,
}

impl LoopDisk {
    /// Makes and mounts a disk of this size, MiB. Its file is sparse.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub(crate) async fn new(dir: &Path, size_mb: u64) -> anyhow::Result<Self> {
        let (image, mount) = (dir.join("image"), dir.join("disk"));
        std::fs::create_dir_all(&mount)?;
        File::create(&image)?.set_len(size_mb * MIB)?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", &image]).await?;
        run("mount", &["-o", "loop", &image, &mount.display().to_string()]).await?;
        Ok(Self { mount })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Allocates all free space, without writing to it.
    ///
    /// # Errors
    /// The allocation fails for another reason than a full disk.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        let ballast = self.ballast();
        let filled = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let file = File::create(ballast)?;
            let (mut length, mut size) = (0, STEP_MAX);
            while STEP_MIN <= size {
                match fallocate(&file, FallocateFlags::empty(), length, size) {
                    Ok(()) => length += size,
                    Err(Errno::ENOSPC) => size /= 4,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
        filled.await?
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    /// # Errors
    /// The disk is still in use.
    pub(crate) async fn unmount(self) -> anyhow::Result<()> {
        run("umount", &[&self.mount.display().to_string()]).await.map(|_| ())
    }
}
