//! The control groups of one node's sandboxes.

use std::io;
use std::path::PathBuf;

use super::hierarchy::{CgroupHierarchy, CgroupLimits};
use super::sandbox_cgroup::SandboxCgroup;

/// The platform's folder in every hierarchy.
const PARENT: &str = "hanshu";

/// The folder that holds the groups of one node's sandboxes.
#[derive(Debug)]
pub(crate) struct NodeCgroups {
    hierarchy: CgroupHierarchy,
    /// Below the hierarchy's root: `hanshu/<node>`.
    path: PathBuf,
}

impl NodeCgroups {
    /// Makes the folder.
    ///
    /// # Errors
    /// What the kernel says: mostly that this process may not.
    pub(crate) fn create(hierarchy: CgroupHierarchy, node: &str) -> io::Result<Self> {
        let path = PathBuf::from(PARENT).join(node);
        hierarchy.prepare(&path)?;
        Ok(Self { hierarchy, path })
    }

    /// Makes the group of a sandbox. A group of this name is used as it is.
    ///
    /// # Errors
    /// What the kernel says. Nothing is left behind then.
    pub(crate) fn make(&self, name: &str, limits: &CgroupLimits) -> io::Result<SandboxCgroup> {
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
