//! Speaking HTTP: the native API, HTTP triggers, the internal API between roles, metrics.

mod forward;
mod front;
mod headers;
pub mod internal;
mod ndjson;
mod problem;
pub mod wire;

pub use front::{Answer, Body, FrontOptions, serve};
pub use problem::Problem;
