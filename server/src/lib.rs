//! Assembling: configuration, choice of adapters, roles, life cycle, telemetry. The only crate
//! that knows all the others, and the one that end-to-end tests start.

mod assembly;
mod config;
mod data_plane;
mod error;
mod folder;
mod images;
mod lifecycle;
mod platform;
mod readiness;
mod retention;
mod running;
mod telemetry;

pub use config::{Config, LogFormat, Roles, SandboxChoice, default_data_dir};
pub use error::Error;
pub use platform::Platform;
pub use telemetry::start_logging;
