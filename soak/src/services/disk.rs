//! A small file system in a file, mounted: the data folder's disk.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::run;

const MIB: u64 = 1024 * 1024;
/// What is written at a time to fill it, bytes.
const BLOCK: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// With so much room, MiB. The file under it takes only what is written.
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

    /// Writes until there is no room.
    ///
    /// # Errors
    /// Another error than that there is no room.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        let ballast = self.ballast();
        let filled = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut file = File::create(ballast)?;
            let mut size = BLOCK;
            let block = vec![0; BLOCK];
            while 512 < size {
                match file.write_all(block.get(..size).unwrap_or_default()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 4,
                    Err(error) => return Err(error),
                }
            }
            // What was not given room yet may find none now.
            let _ = file.sync_all();
            Ok(())
        });
        Ok(filled.await??)
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    /// # Errors
    /// Somebody still uses it.
    pub(crate) async fn unmount(self) -> anyhow::Result<()> {
        run("umount", &[&self.mount.display().to_string()]).await.map(|_| ())
    }
}
