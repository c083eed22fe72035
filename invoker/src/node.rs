//! What all pools of a node share. Nothing of it is touched by a warm invocation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hanshu_core::FunctionId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Sandboxes;
use crate::admission::Admission;
use crate::launch::{Launcher, PrewarmedSandbox};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::pool::state::Counts;
use crate::watch::Rounds;

/// What all pools of a node share.
pub(crate) struct Node {
    pub(crate) launcher: Launcher,
    pub(crate) admission: Arc<Admission>,
    /// Starts that may use the processor at once.
    pub(crate) starts: Semaphore,
    pub(crate) metrics: Metrics,
    /// Where everything slow runs.
    pub(crate) general: Handle,
    pub(crate) tasks: TaskTracker,
    /// The sandboxes whose events are watched.
    pub(crate) rounds: Rounds,
    /// Cancelled when the maintenance is to end.
    pub(crate) stop: CancellationToken,
    /// By function, for what concerns all of them. Emptied at the end, which breaks the circle.
    pools: Mutex<HashMap<FunctionId, Arc<Pool>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.launcher.node).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(launcher: Launcher, admission: Arc<Admission>, general: Handle) -> Arc<Self> {
        let starts = Semaphore::new(launcher.options.starts_max());
        Arc::new(Self {
            launcher,
            admission,
            starts,
            metrics: Metrics::new(),
            general,
            tasks: TaskTracker::new(),
            rounds: Rounds::default(),
            stop: CancellationToken::new(),
            pools: Mutex::default(),
        })
    }

    /// Runs a task on the general runtime; stopping waits for it.
    pub(crate) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn_on(task, &self.general)
    }

    /// The function's pool, made where there is none.
    pub(crate) fn pool(self: &Arc<Self>, function: &FunctionId) -> Arc<Pool> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(function) {
            return Arc::clone(pool);
        }
        let pool = Pool::new(Arc::clone(self));
        pools.insert(function.clone(), Arc::clone(&pool));
        pool
    }

    /// All pools.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().values().cloned().collect()
    }

    /// Lets go of a function's pool if nothing is left in it.
    pub(crate) fn forget_if_empty(&self, function: &FunctionId) {
        let mut pools = self.lock();
        if pools.get(function).is_some_and(|pool| pool.is_empty()) {
            pools.remove(function);
        }
    }

    /// Lets go of all pools.
    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    /// How many sandboxes are in which state.
    pub(crate) fn sandboxes(&self) -> Sandboxes {
        let mut all = Sandboxes::default();
        for pool in self.pools() {
            let Counts { starting, idle, busy, stopping, waiting } = pool.counts();
            all.starting += starting;
            all.idle += idle;
            all.busy += busy;
            all.stopping += stopping;
            all.waiting += waiting;
            let frozen = pool.idle().iter().filter(|(_, _, instance)| instance.is_frozen()).count();
            all.frozen += u32::try_from(frozen).unwrap_or(u32::MAX);
        }
        all
    }

    /// Stops the sandbox that has been idle longest, of whatever function; `false` if none is.
    pub(crate) fn evict_least_recently_used(&self) -> bool {
        self.evict_idle_since(Instant::now())
    }

    /// The same, if that one has been idle since `before` or earlier.
    pub(crate) fn evict_idle_since(&self, before: Instant) -> bool {
        let pools = self.pools();
        let idle = pools.iter().flat_map(|pool| {
            pool.idle().into_iter().map(move |(key, since, _)| (since, key, pool))
        });
        let oldest = idle.min_by_key(|(since, key, _)| (*since, *key));
        let Some((_, key, pool)) = oldest.filter(|(since, ..)| *since <= before) else {
            return false;
        };
        pool.evict(key);
        true
    }

    /// Takes back a prewarmed sandbox that a start has no use for.
    pub(crate) fn put_back(&self, prewarmed: Option<PrewarmedSandbox>) {
        if let Some(late) =
            prewarmed.and_then(|prewarmed| self.launcher.prewarm.put_back(prewarmed))
        {
            self.spawn(late.discard());
        }
    }

    /// Makes room for a start that lacks `missing_mb` MiB: prewarmed sandboxes go if that is enough (those
    /// that are being made are waited for), else the sandbox that has been idle longest, else whatever prewarmed sandboxes there are. `false`: nothing
    /// can go.
    pub(crate) fn make_room(&self, missing_mb: u64) -> bool {
        let prewarm = &self.launcher.prewarm;
        let mut given = prewarm.give_way(missing_mb).unwrap_or_default();
        if given.is_empty() && prewarm.will_give(missing_mb) {
            return true;
        }
        if given.is_empty() && !self.evict_least_recently_used() {
            given = prewarm.give_up();
            if given.is_empty() {
                return false;
            }
        }
        for prewarmed in given {
            self.spawn(prewarmed.discard());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FunctionId, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
