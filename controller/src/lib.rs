//! Deploying: what a function may be, its versions and triggers as data, access keys, and the
//! catalog that tells everybody else what is live.
//!
//! [`Controller`] has the use-cases, one method each. It decides nothing about HTTP and knows no
//! database: it meets both at ports.

mod access;
mod catalog;
mod check;
mod controller;
mod error;
#[cfg(test)]
mod golden_tests;
mod handler;
mod random;
mod revision_digest;
mod snapshot;

pub use access::{Access, MasterKey, SecretKey};
pub use catalog::CachedCatalog;
pub use check::check_config;
pub use controller::{Controller, DeployRequest, Deployment, TriggerRequest};
pub use error::Error;
pub use snapshot::Snapshot;
