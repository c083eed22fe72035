//! Running: admission, pools, sandboxes, the exchange with the runtime.

mod backend;
mod cgroup;
mod images;
mod tmp;

pub use backend::docker::{DockerBackend, DockerOptions};
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use backend::{Backend, Guarantee, Held, Network, Sandbox, SandboxSpec, StartError};
pub use images::{DockerImages, ProcessImages};
