//! Speaking HTTP: the native API, HTTP triggers, the internal API between roles, metrics.

pub mod wire;
