//! Which sandbox serves which event, and how many there are: pools, cold starts, prewarmed
//! sandboxes, room on the node.

pub(crate) mod admission;
pub(crate) mod cold_start;
pub(crate) mod maintenance;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod pool_registry;
pub(crate) mod pools;
pub(crate) mod prewarm;
pub(crate) mod prewarm_keeper;
