//! Where the code of prewarmed sandboxes is mounted: a folder of the host for each, mounted at
//! `/var/user` when the container is made, and mounted upon once its function is known.
//!
//! The engine's `exec` would do as well and takes 20 ms; these four system calls take 50 µs. The
//! folders are in a shared mount of the platform's and containers see theirs as slaves of it, so
//! that what is mounted on the host appears inside and nothing propagates back. A bind mount is as
//! read-only as its original, so the code is first mounted read-only in a private folder and bound
//! from there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hanshu_core::InstanceId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;

use crate::backend::host::SandboxHost;
use crate::backend::port::CODE_DIR;

/// Below the backend's folder: shared, with one folder for each prewarmed sandbox.
const SHARED: &str = "shared";
/// Below the backend's folder: private, where code becomes read-only.
const PRIVATE: &str = "private";

/// A prewarmed sandbox's folder, and the process that must see what is mounted there.
#[derive(Debug)]
pub(super) struct PrewarmMount {
    pub(super) path: PathBuf,
    /// Process 1 of the container, by its id on this node; `None` where the engine did not tell.
    pub(super) pid: Option<u32>,
}

/// The mounts of a node's prewarmed sandboxes.
#[derive(Debug)]
pub(super) struct PrewarmMounts {
    dir: PathBuf,
}

impl PrewarmMounts {
    /// Removes what an earlier process left in `dir` and makes the shared and the private mount.
    /// Blocks for about a millisecond.
    ///
    /// # Errors
    /// Why there can be none here, as a text for the operator.
    pub(super) fn open(dir: &Path, host: &Result<SandboxHost, &str>) -> Result<Self, String> {
        match host {
            Err(reason) => return Err((*reason).to_owned()),
            Ok(host) if host.contains_us() => {
                return Err("this program runs in a container beside the engine".into());
            }
            Ok(_) => {}
        }
        if !Uid::effective().is_root() {
            return Err("only root may mount".into());
        }
        let mounts = Self { dir: dir.to_owned() };
        mounts.clear();
        mounts.prepare().map_err(|error| error.to_string())?;
        Ok(mounts)
    }

    fn prepare(&self) -> io::Result<()> {
        for (name, propagation) in [(SHARED, MsFlags::MS_SHARED), (PRIVATE, MsFlags::MS_PRIVATE)] {
            let folder = self.dir.join(name);
            fs::create_dir_all(&folder)?;
            bind(&folder, &folder)?;
            // First removed from the group of mounts that the folder's own mount is shared with.
            propagate(&folder, MsFlags::MS_PRIVATE)?;
            propagate(&folder, propagation)?;
        }
        Ok(())
    }

    /// Makes the empty folder of a prewarmed sandbox.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make(&self, instance: InstanceId) -> io::Result<PathBuf> {
        let folder = self.dir.join(SHARED).join(instance.to_string());
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Mounts `code_dir` read-only and checks that it is visible inside. Blocks for a fraction of a
    /// millisecond.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` where the container does not see the code.
    pub(super) fn show(&self, mount: &PrewarmMount, code_dir: &Path) -> io::Result<()> {
        self.fill(&mount.path, code_dir)?;
        let inside = mount.pid.map(|pid| format!("/proc/{pid}/root{CODE_DIR}"));
        let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        let inside = identity(inside.as_deref().map(Path::new).ok_or(io::ErrorKind::NotFound)?)?;
        if inside == identity(code_dir)? { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn fill(&self, folder: &Path, code_dir: &Path) -> io::Result<()> {
        let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let private = self.dir.join(PRIVATE).join(name);
        fs::create_dir(&private)?;
        let filled = fill(&private, folder, code_dir);
        let _ = umount2(&private, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&private);
        filled
    }

    /// Removes the folder of a container that is gone.
    pub(super) fn remove(folder: &Path) {
        // Fails where no code was mounted.
        let _ = umount2(folder, MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_dir(folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %folder.display(), "Could not remove a prewarmed sandbox's folder");
        }
    }

    /// Unmounts and removes all folders.
    pub(super) fn clear(&self) {
        for name in [SHARED, PRIVATE] {
            let folder = self.dir.join(name);
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                Self::remove(&entry.path());
            }
            // As often as killed processes have mounted it.
            while umount2(&folder, MntFlags::MNT_DETACH).is_ok() {}
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                Self::remove(&entry.path());
            }
            let _ = fs::remove_dir(&folder);
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// What was not cleared explicitly leaves nothing behind either.
impl Drop for PrewarmMounts {
    fn drop(&mut self) {
        self.clear();
    }
}

fn fill(private: &Path, folder: &Path, code_dir: &Path) -> io::Result<()> {
    bind(code_dir, private)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, private, NONE, flags, NONE)?;
    bind(private, folder)
}

const NONE: Option<&str> = None;

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?)
}

fn propagate(target: &Path, propagation: MsFlags) -> io::Result<()> {
    Ok(mount(NONE, target, NONE, propagation, NONE)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn code_is_mounted_read_only_and_nothing_stays_mounted() {
        let temp = tempfile::tempdir().unwrap();
        if !Uid::effective().is_root() {
            let refused =
                PrewarmMounts::open(&temp.path().join("prewarm"), &Ok(SandboxHost::local()));
            assert_eq!(refused.unwrap_err(), "only root may mount");
            return;
        }
        let (dir, code) = (temp.path().join("prewarm"), temp.path().join("code"));
        fs::create_dir(&code).unwrap();
        fs::write(code.join("index.py"), "x = 1").unwrap();
        // Read from the folder itself: the list of mounts misses lines at times.
        let mount_id = |path: &Path| {
            let opened = fs::File::open(path).unwrap();
            let info = format!("/proc/self/fdinfo/{}", opened.as_raw_fd());
            let info = fs::read_to_string(info).unwrap();
            let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap();
            id.trim().to_owned()
        };
        let is_mounted = |path: &Path| mount_id(path) != mount_id(path.parent().unwrap());
        // One that a killed process left behind.
        std::mem::forget(PrewarmMounts::open(&dir, &Ok(SandboxHost::local())).unwrap());
        let mounts = PrewarmMounts::open(&dir, &Ok(SandboxHost::local())).unwrap();
        let folder = mounts.make(InstanceId::new()).unwrap();
        mounts.fill(&folder, &code).unwrap();
        assert_eq!(fs::read(folder.join("index.py")).unwrap(), b"x = 1");
        let refused = fs::write(folder.join("index.py"), "x = 2").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        fs::write(code.join("index.py"), "x = 3").unwrap();
        let (shared, private) = (dir.join(SHARED), dir.join(PRIVATE));
        assert!(is_mounted(&folder) && is_mounted(&shared) && is_mounted(&private));
        assert_eq!(fs::read_dir(&private).unwrap().count(), 0);
        let once = mount_id(&dir);
        PrewarmMounts::remove(&folder);
        assert!(!folder.exists() && is_mounted(&shared));
        drop(mounts);
        // A mounted folder could not have been removed; and the mount below is the original one.
        assert!(!dir.exists());
        assert_eq!(mount_id(temp.path()), once);
        assert!(code.join("index.py").exists());
    }
}
