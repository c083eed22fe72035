//! `/tmp` of sandboxes: sparse file systems of their own where the platform may mount, so that
//! files do not count as memory; elsewhere memory, and less of it.
//!
//! A folder of the host would be simpler, but has no size limit of its own. A file system takes
//! 11 ms to make and 32 ms to unmount, so some are made ahead and all are removed afterwards, off
//! the path of a call. None is used twice: what one function wrote is not readable for another.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hanshu_core::{TMP_BYTES, lock};
use nix::unistd::Uid;
use tokio_util::task::TaskTracker;

use crate::backend::host::SandboxHost;

/// Bytes of `/tmp` where memory serves, within the function's memory.
pub(crate) const MEMORY_TMP_BYTES: u64 = 64 * 1024 * 1024;
/// How many are kept ready: for as many starts as a small machine's engine is given at once.
const READY: usize = 4;
/// How often, and with what pause, a closing pool checks whether one is still being made: 5 s.
const CLOSE_TRIES: u32 = 500;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);
/// While others are ready, one that was taken is replaced after this delay: until the start that
/// took it is over, the processor is for that start.
const REPLACE_AFTER: Duration = Duration::from_millis(500);
/// What ext4 needs for itself, so that [`TMP_BYTES`] can be written.
const OVERHEAD_BYTES: u64 = 24 * 1024 * 1024;
/// Suffix of the image file beside its folder.
const IMAGE: &str = "img";

/// A sandbox's `/tmp`.
#[derive(Debug)]
pub(crate) enum SandboxTmp {
    /// A mounted file system of [`TMP_BYTES`].
    Folder(PathBuf),
    /// [`MEMORY_TMP_BYTES`] of memory, which the sandbox mounts itself.
    Memory,
}

/// Makes file systems for `/tmp` ahead, hands them out and removes them.
#[derive(Clone, Debug)]
pub(crate) struct TmpPool {
    context: Arc<TmpContext>,
}

#[derive(Debug)]
struct TmpContext {
    /// Holds `<n>.img` and `<n>`, of this node alone.
    dir: PathBuf,
    /// Where they are mounted: sandboxes are started from there.
    host: SandboxHost,
    /// Why memory has to serve, if it has to.
    refused: Option<String>,
    ready: Mutex<ReadyFolders>,
    /// Notified when the pool closes.
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
    /// Removes what an earlier process left in `dir`, and makes a first file system to find out
    /// whether they can be mounted on `host`. `host` may be the reason why they would be of no use.
    /// Blocks for some tens of milliseconds.
    pub(crate) fn open(dir: &Path, host: Result<SandboxHost, &str>, tasks: TaskTracker) -> Self {
        let refused = host.as_ref().err().map(|reason| (*reason).to_owned());
        let host = host.unwrap_or_else(|_| SandboxHost::local());
        sweep(&host, dir);
        let mut context = TmpContext {
            dir: dir.to_owned(),
            host,
            refused: None,
            ready: Mutex::default(),
            closing: Condvar::new(),
            next: AtomicU64::new(0),
            tasks,
        };
        match refused.map_or_else(|| probe(&context), Err) {
            Ok(folder) => lock(&context.ready).folders.push(folder),
            Err(reason) => context.refused = Some(reason),
        }
        Self { context: Arc::new(context) }
    }

    /// Why `/tmp` is memory, if it is; a text for the operator.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.context.refused.as_deref()
    }

    /// Takes one for the user `uid`.
    ///
    /// # Errors
    /// A file system could not be made: mostly that the disk is full.
    pub(crate) async fn take(&self, uid: u32) -> io::Result<SandboxTmp> {
        if self.context.refused.is_some() {
            return Ok(SandboxTmp::Memory);
        }
        let ready = lock(&self.context.ready).folders.pop();
        self.refill();
        let context = Arc::clone(&self.context);
        let made = self.context.tasks.spawn_blocking(move || {
            let folder = ready.map_or_else(|| make(&context), Ok)?;
            chown(context.host.path(&folder), Some(uid), Some(uid))
                .map(|()| SandboxTmp::Folder(folder))
        });
        made.await.map_err(io::Error::other)?
    }

    /// Removes one whose sandbox has ended.
    pub(crate) async fn give_back(&self, tmp: SandboxTmp) {
        let SandboxTmp::Folder(folder) = tmp else { return };
        let host = self.context.host.clone();
        let removed = self.context.tasks.spawn_blocking(move || remove(&host, &folder));
        let _ = removed.await;
    }

    /// Removes those that are ready; none is made from here on. Blocks until those that are being
    /// made are gone as well: a process that ended earlier would leave them behind.
    pub(crate) fn close(&self) {
        let mut folders = Vec::new();
        for _ in 0..CLOSE_TRIES {
            let mut ready = lock(&self.context.ready);
            ready.closed = true;
            folders.append(&mut ready.folders);
            let coming = ready.coming;
            drop(ready);
            self.context.closing.notify_all();
            if coming == 0 {
                break;
            }
            thread::sleep(CLOSE_PAUSE);
        }
        folders.iter().for_each(|folder| remove(&self.context.host, folder));
    }

    /// Makes in the background what is missing.
    fn refill(&self) {
        let (missing, pause) = {
            let mut ready = lock(&self.context.ready);
            let there = ready.folders.len() + ready.coming;
            let missing = if ready.closed { 0 } else { READY.saturating_sub(there) };
            ready.coming += missing;
            (missing, if ready.folders.is_empty() { Duration::ZERO } else { REPLACE_AFTER })
        };
        for _ in 0..missing {
            let context = Arc::clone(&self.context);
            self.context.tasks.spawn_blocking(move || make_counted(&context, pause));
        }
    }
}

/// A pool that nobody closed leaves nothing behind either; removing only takes longer then.
impl Drop for TmpContext {
    fn drop(&mut self) {
        let ready = self.ready.get_mut().unwrap_or_else(PoisonError::into_inner);
        ready.folders.iter().for_each(|folder| remove(&self.host, folder));
    }
}

fn probe(context: &TmpContext) -> Result<PathBuf, String> {
    if !Uid::effective().is_root() {
        return Err("only root may mount file systems".into());
    }
    // Other users of this host must not read what sandboxes write.
    let private = || {
        fs::create_dir_all(&context.dir)?;
        fs::set_permissions(&context.dir, fs::Permissions::from_mode(0o700))
    };
    private().and_then(|()| make(context)).map_err(|error| error.to_string())
}

/// Makes one that was counted as coming, after a pause, unless the pool has closed by then.
fn make_counted(context: &TmpContext, pause: Duration) {
    let ready = lock(&context.ready);
    let waited = context.closing.wait_timeout_while(ready, pause, |ready| !ready.closed);
    let wanted = !waited.unwrap_or_else(PoisonError::into_inner).0.closed;
    let made = wanted.then(|| make(context));
    let mut ready = lock(&context.ready);
    ready.coming -= 1;
    match made {
        // Also when the pool has closed meanwhile: closing waits for it and removes it.
        Some(Ok(folder)) => ready.folders.push(folder),
        // The next start makes its own, and reports the error.
        Some(Err(error)) => tracing::warn!(%error, "Could not prepare a file system for /tmp"),
        None => {}
    }
}

/// Makes and mounts one.
fn make(context: &TmpContext) -> io::Result<PathBuf> {
    let folder = context.dir.join(context.next.fetch_add(1, Ordering::Relaxed).to_string());
    let made = fill(&context.host, &folder);
    if made.is_err() {
        remove(&context.host, &folder);
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
    run(SandboxHost::local().command("mkfs.ext4".as_ref()).args(features).arg(&image))?;
    let mut mount = host.command("mount".as_ref());
    run(mount.args(["-o", "loop,nodev,nosuid"]).arg(&image).arg(folder))?;
    fs::remove_dir(host.path(&folder.join("lost+found")))
}

/// Unmounts and removes one, complete or not.
fn remove(host: &SandboxHost, folder: &Path) {
    let umount = || host.command("umount".as_ref());
    // Tried without looking it up first: the kernel's list of mounts misses some at times.
    if run(umount().arg(folder)).is_err() {
        // A process still uses it, and the kernel unmounts it later; or it is not mounted.
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

/// Removes what a killed server left.
fn sweep(host: &SandboxHost, dir: &Path) {
    if host.contains_us() {
        // Our container was started with copies of these mounts.
        for folder in mounts_below(&SandboxHost::local(), dir) {
            let _ = run(SandboxHost::local().command("umount".as_ref()).arg("-l").arg(folder));
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
