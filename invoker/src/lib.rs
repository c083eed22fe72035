//! Running: admission, pools, sandboxes, the exchange with the runtime.

mod admission;
mod backend;
mod cgroup;
mod config;
mod control;
#[cfg(test)]
mod doubles;
mod exchange;
mod freezer;
mod host;
mod images;
mod instance;
mod invoker;
mod launch;
mod logs;
mod metrics;
mod node;
mod pool;
mod pools;
mod run_dir;
mod running;
mod runtime;
mod tmp;
mod uids;

pub use backend::docker::{DockerBackend, DockerOptions};
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use backend::{Backend, Guarantee, Held, Network, Sandbox, SandboxSpec, StartError, Whose};
mod stems;
pub use config::Options;
pub use images::{DockerImages, ProcessImages, image_reference};
pub use invoker::{Invoker, Ports, Sandboxes};
