//! `/tmp` of sandboxes: sparse file systems of their own where the platform may mount, so that
//! files do not count as memory; else memory, and less of it.
//!
//! A file system is made and mounted ahead (11 ms) and unmounted behind (32 ms), both off the path
//! of a call. None is used twice: what one function wrote is nobody else's to read.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hanshu_core::TMP_BYTES;
use nix::unistd::Uid;
use tokio_util::task::TaskTracker;

use crate::backend::host::SandboxHost;

/// Where memory serves as `/tmp`: bytes, within the function's memory.
pub(crate) const MEMORY_TMP_BYTES: u64 = 64 * 1024 * 1024;
/// How many lie ready: for as many starts as an engine is given at once on a small machine.
const READY: usize = 4;
/// How often, and how long in between, a closing pool looks for what is still being made: 5 s.
const CLOSE_TRIES: u32 = 500;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);
/// While others lie ready, one that was taken is replaced when the start that took it is over: until
/// then the processor is the start's.
const REPLACE_AFTER: Duration = Duration::from_millis(500);
/// What ext4 needs for itself, so that [`TMP_BYTES`] can be written.
const OVERHEAD_BYTES: u64 = 24 * 1024 * 1024;
/// Suffix of the file beside the folder.
const IMAGE: &str = "img";

/// A sandbox's `/tmp`.
#[derive(Debug)]
pub(crate) enum SandboxTmp {
    /// A mounted file system of [`TMP_BYTES`].
    Folder(PathBuf),
    /// [`MEMORY_TMP_BYTES`] of memory, which the sandbox mounts itself.
    Memory,
}

/// Makes them.
#[derive(Clone, Debug)]
pub(crate) struct TmpPool {
    shared: Arc<TmpContext>,
}

#[derive(Debug)]
struct TmpContext {
    /// Holds `<n>.img` and `<n>`, of this node alone.
    dir: PathBuf,
    /// Where they are mounted: sandboxes are started from there.
    host: SandboxHost,
    /// Why memory must serve, if it must.
    refused: Option<String>,
    ready: Mutex<ReadyFolders>,
    /// Told of by whoever closes.
    closing: Condvar,
    next: AtomicU64,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct ReadyFolders {
    folders: Vec<PathBuf>,
    /// How many are being made.
    coming: usize,
    closed: bool,
}

impl TmpPool {
    /// Removes what an earlier process left in `dir`, and finds out by doing it whether file
    /// systems can be mounted on `host`, or takes its word why they would be of no use. Blocks
    /// for some tens of milliseconds.
    pub(crate) fn open(dir: &Path, host: Result<SandboxHost, &str>, tasks: TaskTracker) -> Self {
        let refused = host.as_ref().err().map(|reason| (*reason).to_owned());
        let host = host.unwrap_or_else(|_| SandboxHost::ours());
        sweep(&host, dir);
        let mut shared = TmpContext {
            dir: dir.to_owned(),
            host,
            refused: None,
            ready: Mutex::default(),
            closing: Condvar::new(),
            next: AtomicU64::new(0),
            tasks,
        };
        match refused.map_or_else(|| probe(&shared), Err) {
            Ok(folder) => lock(&shared.ready).folders.push(folder),
            Err(reason) => shared.refused = Some(reason),
        }
        Self { shared: Arc::new(shared) }
    }

    /// Why `/tmp` is memory, if it is; for people.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.shared.refused.as_deref()
    }

    /// Takes one for the user `uid`.
    ///
    /// # Errors
    /// A file system could not be made: mostly that the disk is full.
    pub(crate) async fn take(&self, uid: u32) -> io::Result<SandboxTmp> {
        if self.shared.refused.is_some() {
            return Ok(SandboxTmp::Memory);
        }
        let ready = lock(&self.shared.ready).folders.pop();
        self.refill();
        let shared = Arc::clone(&self.shared);
        let made = self.shared.tasks.spawn_blocking(move || {
            let folder = ready.map_or_else(|| make(&shared), Ok)?;
            chown(shared.host.path(&folder), Some(uid), Some(uid))
                .map(|()| SandboxTmp::Folder(folder))
        });
        made.await.map_err(io::Error::other)?
    }

    /// Removes one, whose sandbox has ended.
    pub(crate) async fn give_back(&self, tmp: SandboxTmp) {
        let SandboxTmp::Folder(folder) = tmp else { return };
        let host = self.shared.host.clone();
        let removed = self.shared.tasks.spawn_blocking(move || remove(&host, &folder));
        let _ = removed.await;
    }

    /// Removes those that lie ready; none is made from here on. Blocks, until those that are
    /// being made are gone, too: a process that ended earlier would leave them.
    pub(crate) fn close(&self) {
        let mut folders = Vec::new();
        for _ in 0..CLOSE_TRIES {
            let mut ready = lock(&self.shared.ready);
            ready.closed = true;
            folders.append(&mut ready.folders);
            let coming = ready.coming;
            drop(ready);
            self.shared.closing.notify_all();
            if coming == 0 {
                // Nothing can come any more.
                break;
            }
            thread::sleep(CLOSE_PAUSE);
        }
        folders.iter().for_each(|folder| remove(&self.shared.host, folder));
    }

    /// Makes in the background what is missing.
    fn refill(&self) {
        let (missing, pause) = {
            let mut ready = lock(&self.shared.ready);
            let there = ready.folders.len() + ready.coming;
            let missing = if ready.closed { 0 } else { READY.saturating_sub(there) };
            ready.coming += missing;
            (missing, if ready.folders.is_empty() { Duration::ZERO } else { REPLACE_AFTER })
        };
        (0..missing).for_each(|_| self.make_one(pause));
    }

    /// Makes one that was counted as coming, after a pause.
    fn make_one(&self, pause: Duration) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn_blocking(move || make_counted(&shared, pause));
    }
}

/// Whoever forgets to close leaves nothing either; it only takes longer then and there.
impl Drop for TmpContext {
    fn drop(&mut self) {
        let ready = self.ready.get_mut().unwrap_or_else(PoisonError::into_inner);
        ready.folders.iter().for_each(|folder| remove(&self.host, folder));
    }
}

fn lock(ready: &Mutex<ReadyFolders>) -> std::sync::MutexGuard<'_, ReadyFolders> {
    // A panic elsewhere leaves a list that is still true.
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

fn probe(shared: &TmpContext) -> Result<PathBuf, String> {
    if !Uid::effective().is_root() {
        return Err("only root may mount file systems".into());
    }
    // What a sandbox writes is nobody else's on this host: others get no further than here.
    let private = || {
        fs::create_dir_all(&shared.dir)?;
        fs::set_permissions(&shared.dir, fs::Permissions::from_mode(0o700))
    };
    private().and_then(|()| make(shared)).map_err(|error| error.to_string())
}

/// Makes one that was counted as coming, after a pause, unless none is wanted any more.
fn make_counted(shared: &TmpContext, pause: Duration) {
    let waiting = shared.closing.wait_timeout_while(lock(&shared.ready), pause, |it| !it.closed);
    let wanted = !waiting.unwrap_or_else(PoisonError::into_inner).0.closed;
    let made = wanted.then(|| make(shared));
    let mut ready = lock(&shared.ready);
    ready.coming -= 1;
    match made {
        // Also when closed meanwhile: whoever closes waits for it.
        Some(Ok(folder)) => ready.folders.push(folder),
        // The next one who takes makes it, and tells of the error.
        Some(Err(error)) => tracing::warn!(%error, "Could not prepare a file system for /tmp"),
        None => {}
    }
}

/// Makes and mounts one.
fn make(shared: &TmpContext) -> io::Result<PathBuf> {
    let folder = shared.dir.join(shared.next.fetch_add(1, Ordering::Relaxed).to_string());
    let made = fill(&shared.host, &folder);
    if made.is_err() {
        remove(&shared.host, &folder);
    }
    made.map(|()| folder)
}

fn fill(host: &SandboxHost, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let image = folder.with_extension(IMAGE);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&image)?;
    file.set_len(TMP_BYTES + OVERHEAD_BYTES)?;
    drop(file);
    let options = "lazy_itable_init=1,nodiscard,root_owner=0:0";
    let features = ["-q", "-F", "-O", "^has_journal", "-m", "0", "-E", options];
    run(SandboxHost::ours().command("mkfs.ext4".as_ref()).args(features).arg(&image))?;
    let mut mount = host.command("mount".as_ref());
    run(mount.args(["-o", "loop,nodev,nosuid"]).arg(&image).arg(folder))?;
    fs::remove_dir(host.path(&folder.join("lost+found")))
}

/// Unmounts and removes one, however far its making came.
fn remove(host: &SandboxHost, folder: &Path) {
    let umount = || host.command("umount".as_ref());
    // Not asked before whether it is mounted: the kernel's list lacks some at times.
    if run(umount().arg(folder)).is_err() {
        // Somebody still looks into it; the kernel lets go when they do. Or it is not mounted.
        let _ = run(umount().arg("-l").arg(folder));
    }
    let _ = fs::remove_dir(folder);
    let _ = fs::remove_file(folder.with_extension(IMAGE));
}

/// Mount points at and below `dir`.
fn mounts_below(host: &SandboxHost, dir: &Path) -> Vec<PathBuf> {
    let text = host.mounts().unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    let paths = points.map(|point| PathBuf::from(point.replace("\\040", " ")));
    paths.filter(|path| path.starts_with(dir)).collect()
}

/// What a killed server left.
fn sweep(host: &SandboxHost, dir: &Path) {
    if host.is_around_us() {
        // Our container was started with copies of them.
        for folder in mounts_below(&SandboxHost::ours(), dir) {
            let _ = run(SandboxHost::ours().command("umount".as_ref()).arg("-l").arg(folder));
        }
    }
    for folder in mounts_below(host, dir) {
        remove(host, &folder);
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        remove(host, &entry.path().with_extension(""));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("{name} (packages e2fsprogs, mount): {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{name}: {}", text.trim())))
}
