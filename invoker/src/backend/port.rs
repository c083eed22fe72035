//! The port through which sandboxes are started, and the plain data that crosses it.
//!
//! A backend only has to run `/var/runtime/hanshu shim` as process 1 of an isolated environment.
//! Everything else (sockets, start-up, events, output) is the same for all backends and lives in
//! `sandbox/`. No backend knows a runtime by its name: what a runtime needs is in the specification.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hanshu_core::{ErrorKind, FunctionId, InstanceId, NodeId, Qualifier};

use crate::backend::guarantee::SandboxGuarantee;

/// Where a function's code is inside its sandbox.
pub const CODE_DIR: &str = "/var/user";

/// Starts sandboxes, and removes what an earlier process left behind.
#[async_trait]
pub trait SandboxBackend: Send + Sync + fmt::Debug {
    /// `docker` or `process`, for logs and metrics.
    fn name(&self) -> &'static str;

    /// The network that a function gets unless it asks for another: the most that this backend can
    /// give. `listens`: whether its runtime listens on a port.
    fn default_network(&self, listens: bool) -> NetworkAccess;

    /// Runs `/var/runtime/hanshu shim` as process 1 of a new sandbox with `spec.run_dir` read-only
    /// at `/run/hanshu`, the specification's mounts, a `/tmp`, standard output and error to
    /// `/run/hanshu/out` and standard input from `/dev/null` (`PROTOCOL.md`). Returns as soon as it
    /// was started; whether it answers is for the caller to find out.
    ///
    /// Called in a task that is never dropped. After a failure nothing is left behind.
    ///
    /// # Errors
    /// [`StartError`]; only `Unsupported` is the function's fault.
    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError>;

    /// Whether sandboxes can be started without a function here ([`SandboxOwner::Unassigned`]).
    ///
    /// # Errors
    /// Why not, as a text for the operator.
    fn prewarming(&self) -> Result<(), String> {
        Err(format!("{} sandboxes start with their code in place", self.name()))
    }

    /// Removes what an earlier process of this node left behind (containers, control groups,
    /// mounts); returns how many sandboxes that were. Called once, before the first start.
    ///
    /// # Errors
    /// [`StartError::Unavailable`] where the engine does not answer.
    async fn sweep(&self) -> Result<u32, StartError>;

    /// What its sandboxes guarantee on this host: printed at the start.
    fn guarantees(&self) -> Vec<SandboxGuarantee> {
        Vec::new()
    }

    /// Removes what the backend keeps for itself (a network, firewall rules, prepared folders).
    /// Called once, after the last sandbox was stopped.
    async fn close(&self) {}
}

/// A sandbox that was started. Dropping it stops nothing.
#[async_trait]
pub trait Sandbox: Send + Sync + fmt::Debug {
    /// Stops every process in it at once, thawing them first if need be, and removes everything of
    /// it except `run_dir`. Called once, in a task that is never dropped. Problems are logged, not
    /// returned: a caller could not do anything about them.
    async fn stop(&self);

    /// Makes `code_dir` visible read-only at [`CODE_DIR`] in a sandbox that was started without a
    /// function. Called at most once, before any code of a user runs in it.
    ///
    /// # Errors
    /// [`StartError`]; the sandbox is of no use then.
    async fn give_code(&self, code_dir: &Path) -> Result<(), StartError> {
        Err(StartError::Unsupported(format!("no place for `{}`", code_dir.display())))
    }

    /// Returns when process 1 has ended. May never return where that cannot be known: a sandbox
    /// that does not come up is then given up after a time limit only.
    async fn ended(&self) {
        std::future::pending::<()>().await;
    }

    /// Freezes every process by a write to an open control group file, in well under a millisecond.
    /// `false` where that is impossible; then [`Sandbox::pause`] is tried.
    fn freeze(&self) -> bool;

    /// Reverses [`Sandbox::freeze`]. `false` where it failed: the sandbox is lost.
    fn thaw(&self) -> bool;

    /// Freezes by a slow way, such as the engine's API. `false` where there is none.
    async fn pause(&self) -> bool {
        false
    }

    /// Reverses [`Sandbox::pause`]. `false` where it failed: the sandbox is lost.
    async fn unpause(&self) -> bool {
        false
    }

    /// Bytes of memory in use now, from an open control group file; `None` where unknown. Must be
    /// quick: it is called after events, at most ten times a second.
    fn memory_bytes(&self) -> Option<u64>;

    /// How often the kernel killed a process of this sandbox for lack of memory; `None` where
    /// unknown.
    fn oom_kills(&self) -> Option<u64>;
}

/// What a sandbox is to be. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Part of the names of its container, control group and folders.
    pub instance: InstanceId,
    /// The node that starts it: the label by which leftovers are found.
    pub node: NodeId,
    /// The function it is started for.
    pub owner: SandboxOwner,
    /// The image that a container is made of. Process sandboxes use the host's own files.
    pub image: String,
    /// What is mounted beside the platform's own folders, read-only.
    pub mounts: Vec<SandboxMount>,
    /// MiB: the limit of the whole sandbox, without swap.
    pub memory_mb: u32,
    /// Thousandths of one core.
    pub cpu_milli: u32,
    /// What it may reach.
    pub network: NetworkAccess,
    /// Whether its runtime listens on a port: two of them cannot share a network namespace.
    pub listens: bool,
    /// Processes and threads.
    pub pids_max: u64,
    /// Open files of one process.
    pub open_files_max: u64,
    /// User and group id of everything in it. The node's own where the node is not root.
    pub uid: u32,
    /// Holds `control.sock`, `data.sock` and the FIFO `out`, all owned by `uid`; mounted at
    /// `/run/hanshu`.
    pub run_dir: PathBuf,
}

/// A folder or file of the host that a sandbox sees, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxMount {
    /// Its path on the host.
    pub source: PathBuf,
    /// Its path inside.
    pub target: PathBuf,
}

/// The function that a sandbox is started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxOwner {
    /// One version of a function; written into labels.
    Function {
        /// The function that it runs.
        function: FunctionId,
        /// The version that was called.
        version: Qualifier,
    },
    /// None yet: a prewarmed sandbox. Its code comes with [`Sandbox::give_code`].
    Unassigned,
}

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkAccess {
    /// A loopback interface of its own and nothing else.
    None,
    /// Docker: a bridge of the platform's without traffic between containers. Processes: the host's
    /// network, or, for runtimes that listen on a port, [`NetworkAccess::None`].
    Bridge,
}

/// Why a sandbox did not start, or leftovers were not swept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What the backend needs does not answer; it may come back.
    #[error("{0}")]
    Unavailable(String),
    /// The sandbox's image is missing; the text says how to get it.
    #[error("{0}")]
    Image(String),
    /// The function asks for what this backend cannot give here.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else. `what` is shown, the source is logged.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// `what` was tried and `source` went wrong.
    pub fn failed(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }

    /// The kind that decides on status codes and retries.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Image(_) => ErrorKind::Unavailable,
            Self::Unsupported(_) => ErrorKind::Invalid,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}
