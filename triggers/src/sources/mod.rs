//! Streams of users that feed functions.

mod batch_event;
mod consumer_group;
#[cfg(test)]
mod golden_tests;
pub(crate) mod redis;
pub(crate) mod stream_status;

pub(crate) use consumer_group::is_url;
