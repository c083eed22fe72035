//! What a node's pools, cold starts and executions share. A warm invocation uses the deadlines and the
//! counters of it, nothing else.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::InvokerMetrics;
use crate::sandbox::capacity::{CapacityLedger, NodeCapacity};
use crate::sandbox::deadlines::DeadlineWatcher;
use crate::sandbox::launch::SandboxLauncher;
use crate::scheduling::pool_registry::PoolRegistry;
use crate::scheduling::prewarm::PrewarmPool;
use crate::tasks::BackgroundTasks;

/// What a node's pools, cold starts and executions share.
pub(crate) struct NodeContext {
    pub(crate) launcher: SandboxLauncher,
    pub(crate) capacity: Arc<NodeCapacity>,
    /// Starts that may use the processor at once.
    pub(crate) start_slots: Semaphore,
    pub(crate) metrics: InvokerMetrics,
    pub(crate) tasks: BackgroundTasks,
    pub(crate) deadlines: Arc<DeadlineWatcher>,
    /// Sandboxes that wait for a function.
    pub(crate) prewarm: Arc<PrewarmPool>,
    pub(crate) pools: PoolRegistry,
    /// Cancelled when the maintenance is to end.
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeContext").field("node", &self.launcher.node).finish_non_exhaustive()
    }
}

impl NodeContext {
    /// `prewarming`: whether the backend can start sandboxes without a function.
    pub(crate) fn new(
        launcher: SandboxLauncher,
        prewarming: bool,
        tasks: BackgroundTasks,
    ) -> Arc<Self> {
        let options = &launcher.options;
        let ledger = CapacityLedger::new(options.memory_mb(), options.sandboxes_max);
        Arc::new(Self {
            capacity: NodeCapacity::new(ledger),
            start_slots: Semaphore::new(options.starts_max()),
            metrics: InvokerMetrics::new(),
            tasks,
            deadlines: Arc::default(),
            prewarm: Arc::new(PrewarmPool::new(options, prewarming)),
            pools: PoolRegistry::default(),
            stop: CancellationToken::new(),
            launcher,
        })
    }
}
