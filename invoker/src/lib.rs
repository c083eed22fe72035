//! Running: admission, pools, sandboxes, the exchange with the runtime.
//!
//! Folders stand on each other: `invoker/` (one invocation) on `scheduling/` (which sandbox) on
//! `sandbox/` (one sandbox) on `backend/` (containers and processes). No import runs back up.

mod backend;
#[cfg(feature = "measured")]
#[doc(hidden)]
pub mod bench_hooks;
mod config;
mod invoker;
mod metrics;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod sandbox;
mod scheduling;
mod tasks;
#[cfg(test)]
mod test_support;

pub use backend::docker::images::{DockerImages, image_reference};
pub use backend::docker::{DockerBackend, DockerOptions};
pub use backend::guarantee::{GuaranteeLevel, SandboxGuarantee};
pub use backend::port::{
    NetworkAccess, Sandbox, SandboxBackend, SandboxOwner, SandboxSpec, StartError,
};
pub use backend::process::images::ProcessImages;
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use config::InvokerOptions;
pub use invoker::{Invoker, InvokerPorts};
pub use metrics::SandboxCounts;
#[cfg(any(test, fuzzing))]
pub use sandbox::exchange::exchange;
