//! Running: admission, pools, sandboxes, the exchange with the runtime.
//!
//! The folders are layers: `invoker/` (one invocation) uses `scheduling/` (which sandbox), that uses
//! `sandbox/` (one sandbox), that uses `backend/` (containers and processes). No import goes up.

mod backend;
#[cfg(feature = "bench-hooks")]
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

pub use backend::docker::images::DockerImages;
pub use backend::docker::{DockerBackend, DockerOptions};
pub use backend::guarantee::{GuaranteeLevel, SandboxGuarantee};
pub use backend::image_recipe::image_reference;
pub use backend::port::{
    CODE_DIR, NetworkAccess, Sandbox, SandboxBackend, SandboxMount, SandboxOwner, SandboxSpec,
    StartError,
};
pub use backend::process::host_programs::HostPrograms;
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use config::InvokerOptions;
pub use invoker::{Invoker, InvokerPorts};
pub use metrics::SandboxCounts;
#[cfg(any(test, fuzzing))]
pub use sandbox::exchange::exchange;
