//! What starts sandboxes: the port, its two implementations, and what they share.

pub(crate) mod cgroup;
pub(crate) mod docker;
pub(crate) mod guarantee;
pub(crate) mod host;
pub(crate) mod image_recipe;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod tmp;
