//! HTTP triggers: which trigger a request is for, the event that its function reads, and what the
//! function's answer means to the client. All pure: the gateway does the I/O.

pub mod cors;
pub mod event;
mod hop_by_hop;
pub(crate) mod path_pattern;
mod path_tree;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod response;
pub mod route;
mod rules;
