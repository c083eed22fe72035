//! The control group of one sandbox, with the files open that are used often.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hierarchy::CgroupHierarchy;
use crate::backend::host::SandboxHost;

/// How often, and with what pause, a group is checked until it is empty: 2 s in all. A killed process
/// of 128 MiB needs some milliseconds to be gone.
const EMPTY_TRIES: u32 = 400;
const EMPTY_PAUSE: Duration = Duration::from_millis(5);
/// Bytes read of a file: `memory.stat` has some forty lines.
const STAT_BYTES: usize = 8 * 1024;

/// The control group of one sandbox.
#[derive(Debug)]
pub(crate) struct SandboxCgroup {
    hierarchy: CgroupHierarchy,
    /// One for each controller, since Docker may place them differently.
    folders: Vec<(&'static str, PathBuf)>,
    freezer: Option<CgroupFreezer>,
    stat: Option<File>,
    /// The file with the line `oom_kill N`.
    events: Option<File>,
}

#[derive(Debug)]
struct CgroupFreezer {
    file: File,
    frozen: &'static [u8],
    thawed: &'static [u8],
}

impl SandboxCgroup {
    /// Opens a group that this node made.
    pub(super) fn open(hierarchy: &CgroupHierarchy, path: &Path, name: &str) -> io::Result<Self> {
        if name.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self::with_folders(hierarchy.clone(), hierarchy.folders(path)))
    }

    /// Opens the group that process `pid` is in, if `mark` is part of its path: the id alone may
    /// belong to another process id namespace, or to another process by now.
    pub(crate) fn of_process(
        host: &SandboxHost,
        hierarchy: &CgroupHierarchy,
        pid: u32,
        mark: &str,
    ) -> Option<Self> {
        let text = host.cgroup_of_pid(pid).ok()?;
        let folders = folders_of(hierarchy, &text, mark);
        (!folders.is_empty()).then(|| Self::with_folders(hierarchy.clone(), folders))
    }

    fn with_folders(hierarchy: CgroupHierarchy, folders: Vec<(&'static str, PathBuf)>) -> Self {
        let folder = |name: &str| {
            let found = folders.iter().find(|(controller, _)| *controller == name);
            found.map(|(_, folder)| folder.clone())
        };
        let (freezer, stat, events) = match hierarchy {
            CgroupHierarchy::V1(_) => (
                folder("freezer").and_then(|at| CgroupFreezer::v1(&at)),
                folder("memory").and_then(|at| File::open(at.join("memory.stat")).ok()),
                folder("memory").and_then(|at| File::open(at.join("memory.oom_control")).ok()),
            ),
            CgroupHierarchy::V2(_) => (
                folder("unified").and_then(|at| CgroupFreezer::v2(&at)),
                folder("unified").and_then(|at| File::open(at.join("memory.stat")).ok()),
                folder("unified").and_then(|at| File::open(at.join("memory.events")).ok()),
            ),
        };
        Self { hierarchy, folders, freezer, stat, events }
    }

    /// The files to which a process of one thread writes 0 in order to join.
    pub(crate) fn joining_files(&self) -> Vec<PathBuf> {
        let name = match self.hierarchy {
            // A thread that moves itself need not stop all forks of the machine, for which
            // `cgroup.procs` waits some 10 ms.
            CgroupHierarchy::V1(_) => "tasks",
            CgroupHierarchy::V2(_) => "cgroup.procs",
        };
        self.folders.iter().map(|(_, folder)| folder.join(name)).collect()
    }

    /// The folder to mount, and where inside the sandbox, so that its process 1 can count
    /// out-of-memory kills; see `shim/oom_kills.rs` in the runtimes.
    pub(crate) fn memory_view(&self) -> Option<(PathBuf, PathBuf)> {
        let name = match self.hierarchy {
            CgroupHierarchy::V1(_) => "memory",
            CgroupHierarchy::V2(_) => "unified",
        };
        let (_, folder) = self.folders.iter().find(|(controller, _)| *controller == name)?;
        let place = match self.hierarchy {
            CgroupHierarchy::V1(_) => "/sys/fs/cgroup/memory",
            CgroupHierarchy::V2(_) => "/sys/fs/cgroup",
        };
        Some((folder.clone(), PathBuf::from(place)))
    }

    /// Freezes all processes; `false` where that is impossible.
    pub(crate) fn freeze(&self) -> bool {
        self.freezer.as_ref().is_some_and(|freezer| freezer.write(freezer.frozen))
    }

    /// Lets them run again; `false` where that is impossible.
    pub(crate) fn thaw(&self) -> bool {
        self.freezer.as_ref().is_some_and(|freezer| freezer.write(freezer.thawed))
    }

    /// Bytes that cannot be reclaimed without ending a process: anonymous and shared memory, without
    /// cached files such as those of `/tmp`.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let names: &[&str] = match self.hierarchy {
            CgroupHierarchy::V1(_) => &["total_rss", "total_shmem"],
            CgroupHierarchy::V2(_) => &["anon", "shmem"],
        };
        let text = read(self.stat.as_ref()?)?;
        let values = names.iter().map(|name| value(&text, name));
        values.flatten().reduce(|sum, next| sum.saturating_add(next))
    }

    /// How often the kernel killed a process here for lack of memory.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        value(&read(self.events.as_ref()?)?, "oom_kill")
    }

    /// Kills everything in the group, frozen or not, and removes it. Blocks until it is empty, at
    /// most 2 s; returns whether it is gone.
    pub(crate) fn kill_and_remove(&self) -> bool {
        for _ in 0..EMPTY_TRIES {
            self.kill();
            // A frozen process dies when it thaws, before it runs on.
            self.thaw();
            if self.remove() {
                return true;
            }
            thread::sleep(EMPTY_PAUSE);
        }
        false
    }

    /// Sends SIGKILL to everything in the group.
    pub(crate) fn kill(&self) {
        for (_, folder) in &self.folders {
            if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) else { continue };
            // 0 stands for a process of a namespace that is not visible from here.
            for pid in text.lines().filter_map(|line| line.parse().ok()).filter(|pid| 0 < *pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn remove(&self) -> bool {
        self.folders.iter().all(|(_, folder)| match fs::remove_dir(folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        })
    }
}

impl CgroupFreezer {
    fn write(&self, state: &[u8]) -> bool {
        self.file.write_at(state, 0).is_ok()
    }

    fn v1(folder: &Path) -> Option<Self> {
        let file = writable(&folder.join("freezer.state"))?;
        Some(Self { file, frozen: b"FROZEN", thawed: b"THAWED" })
    }

    fn v2(folder: &Path) -> Option<Self> {
        let file = writable(&folder.join("cgroup.freeze"))?;
        Some(Self { file, frozen: b"1", thawed: b"0" })
    }
}

fn writable(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).open(path).ok()
}

/// The folders of a group in the lines of `/proc/PID/cgroup`: `number:controllers:path`.
pub(super) fn folders_of(
    hierarchy: &CgroupHierarchy,
    text: &str,
    mark: &str,
) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if !path.contains(mark) {
            continue;
        }
        let path = path.trim_start_matches('/');
        match hierarchy {
            CgroupHierarchy::V1(trees) => found.extend(
                trees
                    .iter()
                    .filter(|(name, _)| controllers.split(',').any(|one| one == **name))
                    .map(|(name, at)| (*name, at.join(path))),
            ),
            CgroupHierarchy::V2(root) if controllers.is_empty() => {
                found.push(("unified", root.join(path)));
            }
            CgroupHierarchy::V2(_) => {}
        }
    }
    found
}

fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; STAT_BYTES];
    let len = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(len);
    String::from_utf8(bytes).ok()
}

/// The value of the line `name value`.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
