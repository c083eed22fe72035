//! Control groups, versions 1 and 2: those of sandboxes that we start, and those that Docker made.
//!
//! What is asked often (freeze, thaw, memory) goes through files that were opened once: a write
//! or read of some microseconds, where the engine's API takes milliseconds or, for its
//! statistics, a second.

mod group;
mod hierarchy;

pub(crate) use group::SandboxCgroup;
pub(crate) use hierarchy::CgroupHierarchy;

use std::path::PathBuf;

/// The folder of ours in every hierarchy.
const PARENT: &str = "hanshu";

/// What a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupLimits {
    /// Bytes, without swap.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) pids: u64,
    /// Thousandths of one core: the share when cores are scarce. It bounds nothing otherwise, so
    /// that a cold start is as quick as the node allows.
    pub(crate) cpu_milli: u32,
}

/// The groups of one node's sandboxes: the folder above them.
#[derive(Debug)]
pub(crate) struct NodeCgroups {
    hierarchy: CgroupHierarchy,
    /// Below the hierarchy's root: `hanshu/<node>`.
    path: PathBuf,
}

impl NodeCgroups {
    /// Makes the folders.
    ///
    /// # Errors
    /// What the kernel says: mostly that this is not for us to do.
    pub(crate) fn create(hierarchy: CgroupHierarchy, node: &str) -> std::io::Result<Self> {
        let path = PathBuf::from(PARENT).join(node);
        hierarchy.prepare(&path)?;
        Ok(Self { hierarchy, path })
    }

    /// Makes the group of a sandbox. A group of this name is used as it is.
    ///
    /// # Errors
    /// What the kernel says. Nothing is left then.
    pub(crate) fn make(&self, name: &str, limits: &CgroupLimits) -> std::io::Result<SandboxCgroup> {
        let path = self.path.join(name);
        let made = self
            .hierarchy
            .make(&path, limits)
            .and_then(|()| SandboxCgroup::open(&self.hierarchy, &path, name));
        if made.is_err() {
            let _ = self.hierarchy.remove(&path);
        }
        made
    }

    /// Kills whatever runs in groups of this node and removes them; returns how many there were.
    /// Blocks for some milliseconds per group.
    pub(crate) fn sweep(&self) -> u32 {
        let names = self.hierarchy.children(&self.path);
        let groups = names.iter().filter_map(|name| {
            SandboxCgroup::open(&self.hierarchy, &self.path.join(name), name).ok()
        });
        let swept = groups.map(|group| group.kill_and_remove()).filter(|gone| *gone).count();
        u32::try_from(swept).unwrap_or(u32::MAX)
    }

    /// Removes the folder, if nothing is in it.
    pub(crate) fn close(&self) {
        let _ = self.hierarchy.remove(&self.path);
    }
}

#[cfg(test)]
mod tests;
