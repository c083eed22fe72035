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
#[cfg(feature = "measured")]
#[doc(hidden)]
pub mod measured;
mod metrics;
mod node;
mod pool;
mod pools;
mod prewarm;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod run_dir;
mod running;
mod runtime;
mod tmp;
mod uids;
mod watch;

pub use backend::docker::{DockerBackend, DockerOptions};
pub use backend::process::{ProcessBackend, ProcessOptions};
pub use backend::{Backend, Guarantee, Held, Network, Sandbox, SandboxSpec, StartError, Whose};
pub use config::Options;
#[cfg(any(test, fuzzing))]
pub use exchange::exchange;
pub use images::{DockerImages, ProcessImages, image_reference};
pub use invoker::{Invoker, Ports, Sandboxes};
