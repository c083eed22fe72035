//! The server: configuration, choice of adapters, start of the roles, shutdown, logging, metrics.
//! The only crate that imports all the others.

mod adapters;
mod catalog_feed;
mod cluster_listener;
mod config;
mod data_dir;
mod data_plane;
mod error;
mod function_calls;
mod history_writer;
mod lifecycle;
mod listeners;
mod logging;
mod metrics;
mod missing_images;
mod process_signals;
mod readiness;
mod retention;
mod retention_config;
mod role_startup;
mod server;

pub use config::{Config, LogFormat, Roles, SandboxChoice, default_data_dir};
pub use error::Error;
pub use logging::start_logging;
pub use server::Server;
