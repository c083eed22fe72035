//! Running an invocation: look up its lane, lease a sandbox, exchange, settle, record.

mod execution;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{InvocationJournal, Invoke, PackageStore};
use hanshu_core::{
    Clock, Digest, FunctionId, Invocation, InvocationMode, NodeId, Outcome, Revision,
};
use tokio::runtime::Handle;
use tokio::time;
use tokio_util::task::AbortOnDropHandle;

use crate::backend::port::{SandboxBackend, StartError};
use crate::config::InvokerOptions;
use crate::metrics::SandboxCounts;
use crate::sandbox::deadlines;
use crate::sandbox::launch::SandboxLauncher;
use crate::sandbox::logs::JournalSink;
use crate::sandbox::run_dir;
use crate::sandbox::shape::SandboxShape;
use crate::sandbox::uids::UserIdPool;
use crate::scheduling::maintenance;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::{AcquireError, Lease, unavailable};
use crate::scheduling::pools::PoolDirectory;
use crate::scheduling::prewarm::keeper;
use crate::tasks::BackgroundTasks;
use execution::{Execution, ExecutionResult, InvocationTarget, turned_away};

/// Between the end of the grace and the end of waiting: what is left has been killed by then.
const CUT_OFF_WAIT: Duration = Duration::from_secs(15);

/// So often an event is handed to another sandbox because one ended before it had read it.
const LOST_MAX: u32 = 3;

/// Runs invocations in sandboxes of this machine.
#[derive(Debug)]
pub struct Invoker {
    node: Arc<NodeContext>,
    pools: PoolDirectory,
    stopping: AtomicBool,
    _watch: AbortOnDropHandle<()>,
}

/// What an invoker works with.
#[derive(Clone)]
pub struct InvokerPorts {
    /// Starts sandboxes.
    pub backend: Arc<dyn SandboxBackend>,
    /// Has the functions' code.
    pub packages: Arc<dyn PackageStore>,
    /// Takes records and logs.
    pub journal: Arc<dyn InvocationJournal>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for InvokerPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Invoker {
    /// An invoker for the node whose data folder is `node`. Starts, stops, late output and what
    /// callers left behind are worked on in `general`; the invocations themselves run wherever
    /// `invoke` is called. Call [`Invoker::recover`] before the first invocation.
    pub fn new(
        options: InvokerOptions,
        ports: InvokerPorts,
        node: NodeId,
        general: Handle,
    ) -> Arc<Self> {
        let InvokerPorts { backend, packages, journal, clock } = ports;
        let uids = UserIdPool::new(options.uid_first, options.sandboxes_max);
        let prewarming = backend.prewarming();
        if 0 < options.prewarmed_min
            && let Err(reason) = &prewarming
        {
            tracing::debug!(reason, "There will be no prewarmed sandboxes");
        }
        let launcher = SandboxLauncher {
            options: Arc::new(options),
            backend,
            packages,
            outlet: JournalSink { journal, clock },
            node,
            uids,
            cut: tokio_util::sync::CancellationToken::new(),
        };
        let tasks = BackgroundTasks::new(general);
        let node = NodeContext::new(launcher, prewarming.is_ok(), tasks.clone());
        tasks.spawn(maintenance::run(Arc::clone(&node)));
        tasks.spawn(keeper::run(Arc::clone(&node)));
        let watching = deadlines::run(Arc::clone(&node.deadlines), tasks.clone());
        let watch = tasks.spawn_uncounted(watching);
        let pools = PoolDirectory::new(Arc::clone(&node));
        let stopping = AtomicBool::new(false);
        Arc::new(Self { node, pools, stopping, _watch: AbortOnDropHandle::new(watch) })
    }

    /// Removes what an earlier process of this node left behind: sandboxes and run folders;
    /// returns how many sandboxes.
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

    /// Revisions of the function other than these are not current any more: running events finish
    /// on them, idle sandboxes go.
    pub fn retire(&self, function: &FunctionId, keep: &[Digest]) {
        self.pools.retire(function, keep);
    }

    /// These are the revisions that may be called: prewarmed sandboxes of their kinds are worth having.
    pub fn expect<'a>(&self, revisions: impl Iterator<Item = &'a Arc<Revision>>) {
        let launcher = &self.node.launcher;
        let suited = revisions.filter(|revision| SandboxShape::suits(&revision.config));
        self.node.prewarm.expect(suited.map(|revision| launcher.kind(revision)));
    }

    /// How many sandboxes are in which state.
    pub fn sandboxes(&self) -> SandboxCounts {
        self.node.pools.sandboxes()
    }

    /// Stops: no new events, running ones get `grace`, then every sandbox is removed. Returns
    /// after `grace` and some seconds at the latest.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Release);
        self.node.stop.cancel();
        self.node.tasks.close();
        if time::timeout(grace, self.drained()).await.is_err() {
            tracing::warn!(sandboxes = ?self.sandboxes(), "Ending what still runs");
            self.node.launcher.cut.cancel();
            for pool in self.node.pools.all() {
                pool.take_all_away();
            }
        }
        if time::timeout(CUT_OFF_WAIT, self.drained()).await.is_err() {
            tracing::error!(sandboxes = ?self.sandboxes(), "Some sandboxes could not be removed");
        }
        self.pools.clear();
    }

    /// Waits until no sandbox and no task is left.
    async fn drained(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        loop {
            // Again and again: a caller who came just before the end may have made a new pool.
            for pool in self.node.pools.all() {
                pool.shut();
            }
            if self.sandboxes() == SandboxCounts::default() && self.node.prewarm.is_empty() {
                break;
            }
            time::sleep(LOOK_AGAIN).await;
        }
        self.node.tasks.ended().await;
    }

    /// A sandbox that is awake, for one event.
    async fn lease(&self, subject: &InvocationTarget) -> Result<Lease, AcquireError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(AcquireError::of(unavailable("this node is stopping")));
        }
        let wait = match subject.mode {
            InvocationMode::Sync { wait_timeout, .. } => wait_timeout,
            InvocationMode::Async { .. } => self.node.launcher.options.async_wait(),
        };
        let revision = &subject.revision;
        loop {
            let mut lease = self.pools.of(revision).acquire(revision, wait).await?;
            if lease.instance().thaw().await && lease.is_fresh() {
                return Ok(lease);
            }
            // What happened to an idle sandbox is not the event's fault. Each turn takes one away.
            tracing::warn!(instance = %lease.instance().id, "An idle sandbox was lost");
            lease.taint();
        }
    }
}

#[async_trait]
impl Invoke for Invoker {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        let (subject, event) = InvocationTarget::of(invocation);
        let mut lost = 0;
        loop {
            let lease = match self.lease(&subject).await {
                Ok(lease) => lease,
                Err(turned) => return turned_away(&self.node, &subject, turned),
            };
            let running = match Execution::begin(&self.node, lease, subject.clone(), &event) {
                Ok(running) => running,
                Err(refused) => {
                    let (subject, verdict) = *refused;
                    return turned_away(&self.node, &subject, AcquireError::of(verdict));
                }
            };
            match running.outcome(lost < LOST_MAX).await {
                Some(ExecutionResult::Ended(outcome)) => return *outcome,
                Some(ExecutionResult::NotBegun) => lost += 1,
                None => {
                    let verdict = unavailable("the event was lost");
                    return turned_away(&self.node, &subject, AcquireError::of(verdict));
                }
            }
        }
    }
}
