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
pub use backend::guarantee::{Guarantee, Held};
pub use backend::port::{Backend, Network, Sandbox, SandboxSpec, StartError, Whose};
pub use backend::process::images::ProcessImages;
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use config::Options;
pub use invoker::{Invoker, Ports};
pub use metrics::Sandboxes;
#[cfg(any(test, fuzzing))]
pub use sandbox::exchange::exchange;
