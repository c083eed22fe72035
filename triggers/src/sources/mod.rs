//! Users' queues that feed functions.

mod batch;
mod group;
pub(crate) mod redis;
pub(crate) mod state;

pub(crate) use group::is_url;
