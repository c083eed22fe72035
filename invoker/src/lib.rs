//! Running: admission, pools, sandboxes, the exchange with the runtime.

mod backend;

pub use backend::{Backend, Network, Sandbox, SandboxSpec, StartError};
