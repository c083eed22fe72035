//! Deploying: what a function may be, its versions and triggers as data, access keys, and the
//! catalog of what is deployed, which the other crates read.
//!
//! [`Controller`] has the use-cases, one method each. It decides nothing about HTTP and knows no
//! database: it meets both at ports.

mod access;
mod catalog;
mod config_rules;
mod controller;
mod error;
#[cfg(test)]
mod golden_tests;
mod handler_file;
mod random;
mod revision_digest;
mod snapshot;

pub use access::{AccessKeys, MasterKey, SecretKey};
pub use catalog::CachedCatalog;
pub use config_rules::check_config;
pub use controller::{Controller, DeployRequest, Deployment, TriggerRequest};
pub use error::ControllerError;
pub use snapshot::CatalogSnapshot;
