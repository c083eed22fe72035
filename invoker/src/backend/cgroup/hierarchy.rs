//! Where the control groups of a host are mounted, and the file names of its version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::host::SandboxHost;

/// Controllers that are used of version 1. The first is required, the others are optional.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "freezer", "cpu"];
/// Controllers that are used of version 2; freezing needs none there.
const CONTROLLERS_V2: &str = "+memory +pids +cpu";
/// The kernel's bounds for a weight in version 2.
const WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;

/// What a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupLimits {
    /// Bytes, without swap.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) pids: u64,
    /// Thousandths of one core: the share when cores are scarce. It limits nothing otherwise, so
    /// that a cold start is as quick as the node allows.
    pub(crate) cpu_milli: u32,
}

/// The control groups of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupHierarchy {
    /// One tree for each controller, by the controller's name.
    V1(BTreeMap<&'static str, PathBuf>),
    /// One tree of control groups.
    V2(PathBuf),
}

impl CgroupHierarchy {
    /// The hierarchy of a host; `None` where none is mounted.
    pub(crate) fn find(host: &SandboxHost) -> Option<Self> {
        let found = Self::parse(&host.mounts().ok()?)?;
        Some(match found {
            Self::V1(trees) => {
                Self::V1(trees.into_iter().map(|(name, at)| (name, host.path(&at))).collect())
            }
            Self::V2(at) => Self::V2(host.path(&at)),
        })
    }

    /// The hierarchy in the lines of `/proc/mounts`. A hybrid host, whose memory is counted by
    /// version 1, is one of version 1.
    pub(super) fn parse(mounts: &str) -> Option<Self> {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => v1.extend(
                    CONTROLLERS
                        .into_iter()
                        .filter(|name| options.split(',').any(|option| option == *name))
                        .map(|name| (name, PathBuf::from(at))),
                ),
                "cgroup2" => v2 = Some(PathBuf::from(at)),
                _ => {}
            }
        }
        if v1.contains_key("memory") { Some(Self::V1(v1)) } else { v2.map(Self::V2) }
    }

    /// The folders of the group at the relative `path`, by controller; the single folder of
    /// version 2 is called `unified`.
    pub(super) fn folders(&self, path: &Path) -> Vec<(&'static str, PathBuf)> {
        match self {
            Self::V1(trees) => trees.iter().map(|(name, at)| (*name, at.join(path))).collect(),
            Self::V2(root) => vec![("unified", root.join(path))],
        }
    }

    /// Makes the folders above the sandboxes' groups and delegates the controllers to them.
    pub(super) fn prepare(&self, path: &Path) -> io::Result<()> {
        for (_, folder) in self.folders(path) {
            fs::create_dir_all(folder)?;
        }
        let Self::V2(root) = self else { return Ok(()) };
        let mut at = root.clone();
        let mut steps = path.iter();
        loop {
            fs::write(at.join("cgroup.subtree_control"), CONTROLLERS_V2)?;
            match steps.next() {
                Some(step) => at.push(step),
                None => return Ok(()),
            }
        }
    }

    /// Makes a sandbox's folders and sets its limits.
    pub(super) fn make(&self, path: &Path, limits: &CgroupLimits) -> io::Result<()> {
        for (controller, folder) in self.folders(path) {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            match controller {
                "memory" => memory_v1(&folder, limits.memory_bytes)?,
                "pids" => fs::write(folder.join("pids.max"), limits.pids.to_string())?,
                "cpu" => fs::write(folder.join("cpu.shares"), shares(limits).to_string())?,
                "unified" => unified(&folder, limits)?,
                // The freezer has no limit.
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the folders, if nothing runs in them.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.folders(path).iter().try_for_each(|(_, folder)| match fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
    }

    /// The names of the groups below `path`.
    pub(super) fn children(&self, path: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for (_, folder) in self.folders(path) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            names.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .filter_map(|entry| entry.file_name().into_string().ok()),
            );
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn memory_v1(folder: &Path, bytes: u64) -> io::Result<()> {
    fs::write(folder.join("memory.limit_in_bytes"), bytes.to_string())?;
    // Both are absent on hosts that do not count swap: memory is then limited in main memory only.
    let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), bytes.to_string());
    let _ = fs::write(folder.join("memory.swappiness"), "0");
    Ok(())
}

fn unified(folder: &Path, limits: &CgroupLimits) -> io::Result<()> {
    fs::write(folder.join("memory.max"), limits.memory_bytes.to_string())?;
    // Absent where the kernel has no swap.
    let _ = fs::write(folder.join("memory.swap.max"), "0");
    fs::write(folder.join("pids.max"), limits.pids.to_string())?;
    fs::write(folder.join("cpu.weight"), weight(limits).to_string())
}

/// 1,024 shares are one core.
fn shares(limits: &CgroupLimits) -> u64 {
    (u64::from(limits.cpu_milli) * 1024 / 1000).max(2)
}

/// 100 is the weight of a group that says nothing, as 1,024 shares are.
fn weight(limits: &CgroupLimits) -> u64 {
    (u64::from(limits.cpu_milli) / 10).clamp(*WEIGHT.start(), *WEIGHT.end())
}
