//! Bad luck: disks, databases, queues, the Docker engine and sandboxes that fail at a bad moment.
//! Each is said clearly, nothing waits without an end, and what was accepted is still there.

mod database;
mod disk;
mod engine;
mod queue;
pub(crate) mod sandboxes;
