//! Control groups, versions 1 and 2: those of sandboxes that this node starts, and those that Docker
//! made.
//!
//! Freezing, thawing and memory go through files that are opened once: a read or write of some
//! microseconds, where the engine's API takes 6 ms to pause a container and a second for its
//! statistics.

mod hierarchy;
mod node_cgroups;
mod sandbox_cgroup;
#[cfg(test)]
mod tests;

pub(crate) use hierarchy::{CgroupHierarchy, CgroupLimits};
pub(crate) use node_cgroups::NodeCgroups;
pub(crate) use sandbox_cgroup::SandboxCgroup;
