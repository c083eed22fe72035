//! Where the code of prewarmed sandboxes appears: a folder of the host for each, shown at `/var/user` when
//! the container is made, and mounted upon once it is known for which function.
//!
//! The folders are in a shared mount of our own and containers see theirs as slaves of it, so that
//! what we mount arrives inside and nothing comes back. A copy of a mount is as read-only as its
//! original; so the code is made read-only in a corner that nobody sees, and copied from there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hanshu_core::InstanceId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;

use super::container_spec::CODE_DIR;
use crate::backend::host::SandboxHost;

/// Below our folder: shared, one folder for each prewarmed sandbox.
const SHARED: &str = "shared";
/// Below our folder: private, where code becomes read-only.
const CORNER: &str = "corner";

/// A prewarmed sandbox's folder, and who is to see what is mounted there.
#[derive(Debug)]
pub(super) struct PrewarmMount {
    pub(super) path: PathBuf,
    /// Process 1 of the container, by its number here; `None` where it was not told.
    pub(super) pid: Option<u32>,
}

/// The slots of a node.
#[derive(Debug)]
pub(super) struct PrewarmMounts {
    dir: PathBuf,
}

impl PrewarmMounts {
    /// Removes what an earlier process left in `dir` and makes it ready; says why it cannot.
    /// Blocks for about a millisecond.
    pub(super) fn open(dir: &Path, host: &Result<SandboxHost, &str>) -> Result<Self, String> {
        match host {
            Err(reason) => return Err((*reason).to_owned()),
            Ok(host) if host.is_around_us() => {
                return Err("this program runs in a container beside the engine".into());
            }
            Ok(_) => {}
        }
        if !Uid::effective().is_root() {
            return Err("only root may mount".into());
        }
        let slots = Self { dir: dir.to_owned() };
        slots.clear();
        slots.prepare().map_err(|error| error.to_string())?;
        Ok(slots)
    }

    fn prepare(&self) -> io::Result<()> {
        for (name, propagation) in [(SHARED, MsFlags::MS_SHARED), (CORNER, MsFlags::MS_PRIVATE)] {
            let folder = self.dir.join(name);
            fs::create_dir_all(&folder)?;
            bind(&folder, &folder)?;
            // Out of whatever the folder's own mount is shared with first.
            propagate(&folder, MsFlags::MS_PRIVATE)?;
            propagate(&folder, propagation)?;
        }
        Ok(())
    }

    /// The slot of a prewarmed sandbox, empty.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make(&self, instance: InstanceId) -> io::Result<PathBuf> {
        let slot = self.dir.join(SHARED).join(instance.to_string());
        fs::create_dir(&slot)?;
        Ok(slot)
    }

    /// Shows `code_dir` in the slot, read-only, and looks whether it is seen inside. Blocks for a
    /// fraction of a millisecond.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` where the container does not see it.
    pub(super) fn show(&self, slot: &PrewarmMount, code_dir: &Path) -> io::Result<()> {
        self.fill(&slot.path, code_dir)?;
        let inside = slot.pid.map(|pid| format!("/proc/{pid}/root{CODE_DIR}"));
        let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        let inside = identity(inside.as_deref().map(Path::new).ok_or(io::ErrorKind::NotFound)?)?;
        if inside == identity(code_dir)? { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn fill(&self, slot: &Path, code_dir: &Path) -> io::Result<()> {
        let name = slot.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let corner = self.dir.join(CORNER).join(name);
        fs::create_dir(&corner)?;
        let filled = fill(&corner, slot, code_dir);
        let _ = umount2(&corner, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&corner);
        filled
    }

    /// Removes a slot, whose container is gone.
    pub(super) fn remove(slot: &Path) {
        // An empty one has nothing mounted on it.
        let _ = umount2(slot, MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_dir(slot)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %slot.display(), "Could not remove a prewarmed sandbox's folder");
        }
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        for name in [SHARED, CORNER] {
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

/// Whoever forgets to clear leaves nothing either.
impl Drop for PrewarmMounts {
    fn drop(&mut self) {
        self.clear();
    }
}

fn fill(corner: &Path, slot: &Path, code_dir: &Path) -> io::Result<()> {
    bind(code_dir, corner)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, corner, NONE, flags, NONE)?;
    bind(corner, slot)
}

const NONE: Option<&str> = None;

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?)
}

fn propagate(at: &Path, how: MsFlags) -> io::Result<()> {
    Ok(mount(NONE, at, NONE, how, NONE)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn code_is_shown_read_only_and_nothing_stays_mounted() {
        let temp = tempfile::tempdir().unwrap();
        if !Uid::effective().is_root() {
            let refused =
                PrewarmMounts::open(&temp.path().join("prewarm"), &Ok(SandboxHost::ours()));
            assert_eq!(refused.unwrap_err(), "only root may mount");
            return;
        }
        let (dir, code) = (temp.path().join("prewarm"), temp.path().join("code"));
        fs::create_dir(&code).unwrap();
        fs::write(code.join("index.py"), "x = 1").unwrap();
        // Asked of the folder itself: the list of mounts lacks lines at times.
        let mount_id = |path: &Path| {
            let folder = fs::File::open(path).unwrap();
            let info = format!("/proc/self/fdinfo/{}", folder.as_raw_fd());
            let info = fs::read_to_string(info).unwrap();
            let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap();
            id.trim().to_owned()
        };
        let is_mounted = |path: &Path| mount_id(path) != mount_id(path.parent().unwrap());
        // One that a killed process left.
        std::mem::forget(PrewarmMounts::open(&dir, &Ok(SandboxHost::ours())).unwrap());
        let slots = PrewarmMounts::open(&dir, &Ok(SandboxHost::ours())).unwrap();
        let slot = slots.make(InstanceId::new()).unwrap();
        slots.fill(&slot, &code).unwrap();
        assert_eq!(fs::read(slot.join("index.py")).unwrap(), b"x = 1");
        let refused = fs::write(slot.join("index.py"), "x = 2").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        fs::write(code.join("index.py"), "x = 3").unwrap();
        let (shared, corner) = (dir.join(SHARED), dir.join(CORNER));
        assert!(is_mounted(&slot) && is_mounted(&shared) && is_mounted(&corner));
        assert_eq!(fs::read_dir(&corner).unwrap().count(), 0);
        let once = mount_id(&dir);
        PrewarmMounts::remove(&slot);
        assert!(!slot.exists() && is_mounted(&shared));
        drop(slots);
        // What is still mounted cannot be removed; and nothing was, once more, below.
        assert!(!dir.exists());
        assert_eq!(mount_id(temp.path()), once);
        assert!(code.join("index.py").exists());
    }
}
