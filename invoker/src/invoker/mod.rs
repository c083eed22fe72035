//! The invoker of a node: what it is made of, its start and its stop.

mod execution;
mod function_executor;
mod record;
mod router;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{FunctionCalls, InvocationJournal, PackageStore};
use hanshu_core::{Clock, Digest, FunctionId, NodeId, Revision};
use tokio::runtime::Handle;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backend::port::{SandboxBackend, StartError};
use crate::config::InvokerOptions;
use crate::metrics::SandboxCounts;
use crate::sandbox::deadlines;
use crate::sandbox::function_calls::FunctionCallPort;
use crate::sandbox::launch::SandboxLauncher;
use crate::sandbox::logs::JournalSink;
use crate::sandbox::run_dir;
use crate::sandbox::shape::can_be_prewarmed;
use crate::sandbox::user_ids::UserIdPool;
use crate::scheduling::node::NodeContext;
use crate::scheduling::{maintenance, prewarm_keeper};
use crate::tasks::BackgroundTasks;
use function_executor::FunctionExecutor;

/// How long stopping waits for sandboxes that were killed at the end of the grace period.
const KILLED_WAIT: Duration = Duration::from_secs(15);

/// Runs invocations on this machine.
#[derive(Debug)]
pub struct Invoker {
    node: Arc<NodeContext>,
    functions: FunctionExecutor,
    _deadlines: AbortOnDropHandle<()>,
}

/// What an invoker works with.
#[derive(Clone)]
pub struct InvokerPorts {
    /// Starts the node's sandboxes.
    pub backend: Arc<dyn SandboxBackend>,
    /// Has the functions' code.
    pub packages: Arc<dyn PackageStore>,
    /// Takes records and logs.
    pub journal: Arc<dyn InvocationJournal>,
    /// Dates records and logs.
    pub clock: Arc<dyn Clock>,
    /// Answers the calls that functions make.
    pub calls: Arc<dyn FunctionCalls>,
}

impl std::fmt::Debug for InvokerPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvokerPorts").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Invoker {
    /// An invoker for `node`. Starts, stops, late output and events whose callers hung up run on
    /// `general`; the invocations themselves run wherever `invoke` is called. Call
    /// [`Invoker::recover`] before the first invocation.
    pub fn new(
        options: InvokerOptions,
        ports: InvokerPorts,
        node: NodeId,
        general: Handle,
    ) -> Arc<Self> {
        let InvokerPorts { backend, packages, journal, clock, calls } = ports;
        let user_ids = UserIdPool::new(options.uid_first, options.sandboxes_max);
        let prewarming = backend.prewarming();
        if 0 < options.prewarmed_min
            && let Err(reason) = &prewarming
        {
            tracing::debug!(reason, "There will be no prewarmed sandboxes");
        }
        let tasks = BackgroundTasks::new(general);
        let launcher = SandboxLauncher {
            options: Arc::new(options),
            backend,
            packages,
            sink: JournalSink { journal, clock },
            calls: FunctionCallPort::new(calls, tasks.clone()),
            node,
            user_ids,
            abort: CancellationToken::new(),
        };
        let node = NodeContext::new(launcher, prewarming.is_ok(), tasks.clone());
        tasks.spawn(maintenance::run(Arc::clone(&node)));
        tasks.spawn(prewarm_keeper::run(Arc::clone(&node)));
        let watching = deadlines::run(Arc::clone(&node.deadlines), tasks.clone());
        let watching = AbortOnDropHandle::new(tasks.spawn_uncounted(watching));
        let functions = FunctionExecutor::new(Arc::clone(&node));
        Arc::new(Self { node, functions, _deadlines: watching })
    }

    /// Removes what an earlier process of this node left behind, sandboxes and run folders; returns
    /// how many sandboxes.
    ///
    /// # Errors
    /// The backend does not answer, or the run folder cannot be read.
    pub async fn recover(&self) -> Result<u32, StartError> {
        let launcher = &self.node.launcher;
        let sandboxes = launcher.backend.sweep().await?;
        let base = &launcher.options.run_dir;
        let folders = run_dir::sweep(base)
            .map_err(|error| StartError::failed(format!("sweep `{}`", base.display()), error))?;
        if 0 < sandboxes.max(folders) {
            tracing::info!(sandboxes, folders, "Removed what an earlier process left behind");
        }
        Ok(sandboxes)
    }

    /// Only these revisions of the function are current: idle sandboxes of others are stopped, and
    /// running events of others finish.
    pub fn retire(&self, function: &FunctionId, keep: &[Digest]) {
        self.functions.retire(function, keep);
    }

    /// The revisions that may be called: prewarmed sandboxes of their shapes are kept ready.
    pub fn expect<'a>(&self, revisions: impl Iterator<Item = &'a Arc<Revision>>) {
        let suited = revisions.filter(|revision| can_be_prewarmed(&revision.config));
        self.node.prewarm.expect(suited.map(|revision| self.node.launcher.shape(revision)));
    }

    /// How many sandboxes are in which state.
    pub fn sandboxes(&self) -> SandboxCounts {
        self.node.pools.counts()
    }

    /// Stops: refuses new events, gives running ones `grace`, then removes every sandbox. Returns some
    /// seconds after `grace` at the latest.
    pub async fn stop(&self, grace: Duration) {
        self.functions.stop();
        self.node.stop.cancel();
        self.node.tasks.close();
        if time::timeout(grace, self.drained()).await.is_err() {
            tracing::warn!(sandboxes = ?self.sandboxes(), "Ending what still runs");
            self.node.launcher.abort.cancel();
            for pool in self.node.pools.all() {
                pool.kill_all();
            }
        }
        if time::timeout(KILLED_WAIT, self.drained()).await.is_err() {
            tracing::error!(sandboxes = ?self.sandboxes(), "Some sandboxes could not be removed");
        }
        self.functions.clear();
    }

    /// Waits until no sandbox and no task is left.
    async fn drained(&self) {
        const CHECK_AGAIN: Duration = Duration::from_millis(20);
        loop {
            // Repeated: a caller that came just before the stop may have made a new pool.
            for pool in self.node.pools.all() {
                pool.shut_down();
            }
            if self.sandboxes() == SandboxCounts::default() && self.node.prewarm.is_empty() {
                break;
            }
            time::sleep(CHECK_AGAIN).await;
        }
        self.node.tasks.ended().await;
    }
}
