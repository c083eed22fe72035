//! What starts sandboxes: the port, and the plain data that goes through it.
//!
//! A backend only has to run `/var/runtime/hanshu shim` as process 1 behind walls; everything else
//! (sockets, start-up talk, events, output) is the same for all backends and lives in
//! `sandbox/`.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hanshu_core::{ErrorKind, FunctionId, InstanceId, NodeId, Qualifier, RuntimeFamily};

use crate::backend::guarantee::SandboxGuarantee;

/// Starts sandboxes.
#[async_trait]
pub trait SandboxBackend: Send + Sync + fmt::Debug {
    /// `docker` or `process`, for logs and metrics.
    fn name(&self) -> &'static str;

    /// What a function gets that does not say whether it wants the network: the most that this
    /// backend can give to its family.
    fn default_network(&self, family: RuntimeFamily) -> NetworkAccess;

    /// Runs `/var/runtime/hanshu shim` as process 1 of a new sandbox with the mounts of
    /// `PROTOCOL.md` (`spec.run_dir` read-only at `/run/hanshu`, the function's code read-only at
    /// `/var/user`, a `/tmp`), standard output and error to `/run/hanshu/out`, standard input from
    /// `/dev/null`. Returns as soon as it was started; whether it answers is the caller's to see.
    ///
    /// It is called in a task that nobody drops half-way. When it fails, it has removed what it
    /// made.
    ///
    /// # Errors
    /// [`StartError`]; nothing of it is the function's fault save `Unsupported`.
    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError>;

    /// Whether it can start prewarmed sandboxes here: sandboxes that are [`SandboxOwner::Unassigned`]'s at first.
    ///
    /// # Errors
    /// Why it cannot; for people.
    fn prewarming(&self) -> Result<(), String> {
        Err(format!("{} sandboxes start with their code in place", self.name()))
    }

    /// Removes what an earlier process of this node left behind (containers, cgroups, mounts);
    /// returns how many sandboxes that were. Called once, before the first start.
    ///
    /// # Errors
    /// [`StartError::Unavailable`] where the engine does not answer.
    async fn sweep(&self) -> Result<u32, StartError>;

    /// What its sandboxes hold on this host: printed at the start.
    fn guarantees(&self) -> Vec<SandboxGuarantee> {
        Vec::new()
    }

    /// Removes what the backend keeps for itself (a network, firewall rules, prepared folders).
    /// Called once, when the last sandbox was stopped.
    async fn close(&self) {}
}

/// A sandbox that was started. Dropping it stops nothing.
#[async_trait]
pub trait Sandbox: Send + Sync + fmt::Debug {
    /// Stops every process in it at once (thawing them first where need be) and removes
    /// everything of it except `run_dir`. Called once, in a task that nobody drops half-way.
    /// Problems are logged, not returned: there is nothing a caller could do.
    async fn stop(&self);

    /// Shows a prewarmed sandbox its function's code: from here on `code_dir` is read-only at `/var/user`.
    /// Called at most once, before any code of a user runs in it.
    ///
    /// # Errors
    /// [`StartError`]; the prewarmed sandbox is of no use then.
    async fn give_code(&self, code_dir: &Path) -> Result<(), StartError> {
        Err(StartError::Unsupported(format!("no place for `{}`", code_dir.display())))
    }

    /// Returns when process 1 has ended. May never return where that cannot be known: then a
    /// sandbox that does not come up is given up after a time limit only.
    async fn ended(&self) {
        std::future::pending::<()>().await;
    }

    /// Freezes every process by a write to an open cgroup file, in well under a millisecond.
    /// `false` where that cannot be done; then [`Sandbox::pause`] is tried.
    fn freeze(&self) -> bool;

    /// The contrary of [`Sandbox::freeze`]. `false` where it failed: the sandbox is lost.
    fn thaw(&self) -> bool;

    /// Freezes by a slow way, such as the engine's API. `false` where there is none.
    async fn pause(&self) -> bool {
        false
    }

    /// The contrary of [`Sandbox::pause`]. `false` where it failed: the sandbox is lost.
    async fn unpause(&self) -> bool {
        false
    }

    /// Bytes of memory in use now, from an open cgroup file; `None` where unknown. Must be quick:
    /// it is called after events, at most ten times a second.
    fn memory_bytes(&self) -> Option<u64>;

    /// How often the kernel killed in this sandbox for want of memory; `None` where unknown.
    fn oom_kills(&self) -> Option<u64>;
}

/// What a sandbox is to be. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Names it: part of container, cgroup and folder names.
    pub instance: InstanceId,
    /// Whose it is: the label by which leftovers are found.
    pub node: NodeId,
    /// For whom it is started.
    pub whose: SandboxOwner,
    /// Which image or interpreter.
    pub family: RuntimeFamily,
    /// MiB: the limit of the whole sandbox, without swap.
    pub memory_mb: u32,
    /// Thousandths of one core.
    pub cpu_milli: u32,
    /// What it may reach.
    pub network: NetworkAccess,
    /// Processes and threads.
    pub pids_max: u64,
    /// Open files of one process.
    pub open_files_max: u64,
    /// User and group id that everything in it runs as. The node's own where it is not root.
    pub uid: u32,
    /// Holds `control.sock`, `data.sock` and the FIFO `out`, all owned by `uid`;
    /// `/run/hanshu`.
    pub run_dir: PathBuf,
}

/// For whom a sandbox is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxOwner {
    /// For a function.
    Function {
        /// For labels.
        function: FunctionId,
        /// For labels.
        version: Qualifier,
        /// The unpacked package; `/var/user`.
        code_dir: PathBuf,
    },
    /// For nobody yet: a prewarmed sandbox. Its code comes with [`Sandbox::give_code`].
    Unassigned,
}

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkAccess {
    /// A loopback of its own and nothing else.
    None,
    /// Docker: a bridge of our own without traffic between containers. Processes: the host's
    /// network, or, for families that listen on a port, [`NetworkAccess::None`].
    Bridge,
}

/// Why a sandbox did not start, or leftovers were not swept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What the backend needs does not answer; it may come back.
    #[error("{0}")]
    Unavailable(String),
    /// There is no image for the function's family; the text says how to get it.
    #[error("{0}")]
    Image(String),
    /// The function asks for what this backend cannot give here.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else that went wrong. The source is logged, `what` is shown.
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
    /// `what` was tried and `source` came of it.
    pub fn failed(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Image(_) => ErrorKind::Unavailable,
            Self::Unsupported(_) => ErrorKind::Invalid,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}
