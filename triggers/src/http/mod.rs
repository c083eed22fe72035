//! HTTP triggers: which one a request is for, what its function reads, and what its answer means
//! to the client. All pure: the gateway does the talking.

pub mod answer;
pub mod cors;
pub mod event;
mod hop;
pub(crate) mod pattern;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod route;
mod tree;
