//! A sandbox's run folder: two sockets that accept one connection each, one for calls of functions,
//! and the FIFO of its output.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use hanshu_core::InstanceId;
use hanshu_runtimes::wire::{CALLS_SOCKET, CONTROL_SOCKET, DATA_SOCKET, OUTPUT_FIFO};
use nix::sys::stat::Mode;

/// Only its sandbox may enter the folder.
const DIR_MODE: u32 = 0o700;
const SOCKET_MODE: u32 = 0o600;
/// A sandbox may write its output and not read it.
const FIFO_MODE: u32 = 0o200;

/// A run folder. Dropping it removes nothing: see [`remove`].
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    pub(crate) control: UnixListener,
    pub(crate) data: UnixListener,
    /// Accepts connections as long as the sandbox lives.
    pub(crate) calls: UnixListener,
    /// Open for reading and writing, so that it has no end of file, in non-blocking mode.
    pub(crate) output: File,
}

impl RunDir {
    /// Makes `base/<instance>`, with everything in it owned by `uid`.
    ///
    /// # Errors
    /// What the file system says. Nothing is left behind.
    pub(crate) fn make(base: &Path, instance: InstanceId, uid: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(base)?;
        let path = base.join(instance.to_string());
        DirBuilder::new().mode(DIR_MODE).create(&path)?;
        Self::fill(path.clone(), uid).inspect_err(|_| remove(&path))
    }

    fn fill(path: PathBuf, uid: u32) -> io::Result<Self> {
        let control = listen(&path, CONTROL_SOCKET)?;
        let data = listen(&path, DATA_SOCKET)?;
        let calls = listen(&path, CALLS_SOCKET)?;
        let fifo = path.join(OUTPUT_FIFO);
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let output = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(&fifo)?;
        fs::set_permissions(&fifo, Permissions::from_mode(FIFO_MODE))?;
        if uid != nix::unistd::geteuid().as_raw() {
            for socket in [CONTROL_SOCKET, DATA_SOCKET, CALLS_SOCKET] {
                chown(path.join(socket), Some(uid), Some(uid))?;
            }
            chown(&path, Some(uid), Some(uid))?;
            chown(&fifo, Some(uid), Some(uid))?;
        }
        Ok(Self { path, control, data, calls, output })
    }
}

/// Removes a socket whose connection was accepted.
pub(crate) fn unlink(run_dir: &Path, socket: &str) {
    // Best effort: its listener is closed and refuses further connections.
    let _ = fs::remove_file(run_dir.join(socket));
}

/// Removes a run folder and what is in it.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "Could not remove a sandbox's run folder");
    }
}

/// Removes every run folder that an earlier process left below `base`; returns how many.
///
/// # Errors
/// `base` cannot be read.
pub(crate) fn sweep(base: &Path) -> io::Result<u32> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        // Only folders of sandboxes.
        if entry.file_name().to_str().is_some_and(|name| name.parse::<InstanceId>().is_ok()) {
            remove(&entry.path());
            removed += 1;
        }
    }
    Ok(removed)
}

fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    // A socket's path may have 107 bytes, a data folder's more: bind through the folder's descriptor.
    let opened = File::open(dir)?;
    let short_path = PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
    let listener = UnixListener::bind(short_path)?;
    fs::set_permissions(dir.join(name), Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_run_folder_works_below_a_long_path_and_is_swept() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("d".repeat(120)).join("run");
        let uid = nix::unistd::geteuid().as_raw();
        let made = RunDir::make(&base, InstanceId::new(), uid).unwrap();
        for name in [CONTROL_SOCKET, DATA_SOCKET, CALLS_SOCKET] {
            assert!(fs::metadata(made.path.join(name)).unwrap().file_type().is_socket());
        }
        let opened = File::open(&made.path).unwrap();
        UnixStream::connect(format!("/proc/self/fd/{}/{CONTROL_SOCKET}", opened.as_raw_fd()))
            .unwrap();
        made.control.accept().unwrap();
        fs::create_dir(base.join("not-ours")).unwrap();
        assert_eq!(sweep(&base).unwrap(), 1);
        assert!(!made.path.exists() && base.join("not-ours").exists());
    }
}
