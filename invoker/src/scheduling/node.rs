//! What a node's pools, cold starts and executions share. A warm invocation touches the deadlines
//! and the counters of it, nothing else.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::sandbox::capacity::{Admission, Room};
use crate::sandbox::deadlines::Rounds;
use crate::sandbox::launch::Launcher;
use crate::scheduling::pool_registry::PoolRegistry;
use crate::scheduling::prewarm::pool::PrewarmPool;
use crate::tasks::BackgroundTasks;

/// What a node's pools, cold starts and executions share.
pub(crate) struct Node {
    pub(crate) launcher: Launcher,
    pub(crate) capacity: Arc<Admission>,
    /// Starts that may use the processor at once.
    pub(crate) start_slots: Semaphore,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: BackgroundTasks,
    pub(crate) deadlines: Arc<Rounds>,
    /// Sandboxes that wait for a function.
    pub(crate) prewarm: Arc<PrewarmPool>,
    pub(crate) pools: PoolRegistry,
    /// Cancelled when the maintenance is to end.
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.launcher.node).finish_non_exhaustive()
    }
}

impl Node {
    /// `prewarming`: whether the backend can start sandboxes without a function.
    pub(crate) fn new(launcher: Launcher, prewarming: bool, tasks: BackgroundTasks) -> Arc<Self> {
        let options = &launcher.options;
        let room = Room::new(options.memory_mb(), options.sandboxes_max);
        Arc::new(Self {
            capacity: Admission::new(room),
            start_slots: Semaphore::new(options.starts_max()),
            metrics: Metrics::new(),
            tasks,
            deadlines: Arc::default(),
            prewarm: Arc::new(PrewarmPool::new(options, !prewarming)),
            pools: PoolRegistry::default(),
            stop: CancellationToken::new(),
            launcher,
        })
    }
}
