//! From a revision to its lane, without a lock: what a warm invocation looks up.
//!
//! A map behind a mutex would be shared by the warm calls of all functions; this snapshot is replaced as a
//! whole when a lane is opened or retired, which is rare.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use hanshu_core::{Digest, FunctionId, RequestId, Revision, lock};

use crate::config::{InvokerOptions, cores};
use crate::scheduling::cold_start::ColdStarter;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::state::{LaneId, PoolRules};
use crate::scheduling::pool::{AcquireResult, FunctionPool, PoolContext};

/// The lanes of all revisions. Readers use a snapshot; writers replace it.
#[derive(Debug)]
pub(crate) struct PoolDirectory {
    node: Arc<NodeContext>,
    context: Arc<PoolContext>,
    lanes: ArcSwap<HashMap<RevisionKey, Arc<LaneHandle>>>,
    writing: Mutex<()>,
}

/// A revision's lane in its function's pool.
#[derive(Debug)]
pub(crate) struct LaneHandle {
    pool: Arc<FunctionPool>,
    id: LaneId,
}

/// A revision by what identifies it. Most comparisons end at the pointer.
#[derive(Clone, Debug)]
struct RevisionKey(Arc<Revision>);

impl PartialEq for RevisionKey {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        Arc::ptr_eq(a, b)
            || (a.digest == b.digest && a.version == b.version && a.function == b.function)
    }
}

impl Eq for RevisionKey {}

impl Hash for RevisionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A part of the digest is enough; the name tells functions with equal code apart.
        self.0.digest.short().hash(state);
        self.0.function.name.hash(state);
    }
}

impl PoolDirectory {
    pub(crate) fn new(node: Arc<NodeContext>) -> Self {
        let launcher = &node.launcher;
        let context = Arc::new(PoolContext {
            rules: rules(&launcher.options),
            tasks: node.tasks.clone(),
            starter: Arc::new(ColdStarter::new(Arc::clone(&node))),
            backend: launcher.backend.name(),
            memory_mb: node.capacity.memory_mb,
        });
        Self { context, node, lanes: ArcSwap::default(), writing: Mutex::default() }
    }

    /// The revision's lane, opened where there is none.
    pub(crate) fn lane(&self, revision: &Arc<Revision>) -> Arc<LaneHandle> {
        let key = RevisionKey(Arc::clone(revision));
        if let Some(lane) = self.lanes.load().get(&key) {
            return Arc::clone(lane);
        }
        let _writing = lock(&self.writing);
        let lanes = self.lanes.load_full();
        if let Some(lane) = lanes.get(&key) {
            return Arc::clone(lane);
        }
        let pool = self
            .node
            .pools
            .get_or_make(&revision.function, || FunctionPool::new(Arc::clone(&self.context)));
        let lane = Arc::new(LaneHandle { id: pool.open_lane(revision), pool });
        let mut lanes = HashMap::clone(&lanes);
        lanes.insert(key, Arc::clone(&lane));
        self.lanes.store(Arc::new(lanes));
        lane
    }

    /// Retires every lane of the function whose revision is not one of `keep`. An event that was accepted
    /// for such a revision opens a new lane.
    pub(crate) fn retire(&self, function: &FunctionId, keep: &[Digest]) {
        let _writing = lock(&self.writing);
        let lanes = self.lanes.load_full();
        let goes = |key: &RevisionKey| key.0.function == *function && !keep.contains(&key.0.digest);
        if !lanes.keys().any(goes) {
            return;
        }
        let (gone, kept): (HashMap<_, _>, _) =
            HashMap::clone(&lanes).into_iter().partition(|(key, _)| goes(key));
        self.lanes.store(Arc::new(kept));
        for lane in gone.into_values() {
            lane.pool.retire_lane(lane.id);
        }
        // Still locked: no lane is opened in a pool that is being dropped.
        if !self.lanes.load().keys().any(|key| key.0.function == *function) {
            self.node.pools.forget_if_empty(function);
        }
    }

    /// Drops all lanes and pools.
    pub(crate) fn clear(&self) {
        let _writing = lock(&self.writing);
        self.lanes.store(Arc::default());
        self.node.pools.clear();
    }
}

impl LaneHandle {
    /// A sandbox for one invocation of the revision. Waits for it at most `wait`.
    pub(crate) async fn acquire(
        &self,
        request_id: RequestId,
        revision: &Arc<Revision>,
        wait: Duration,
    ) -> AcquireResult {
        self.pool.acquire(request_id, self.id, revision, wait).await
    }
}

fn rules(options: &InvokerOptions) -> PoolRules {
    PoolRules {
        concurrency: None,
        waiting_max: usize::try_from(options.waiting_max).unwrap_or(usize::MAX),
        starts_max: options.starts_max(),
        cores: cores(),
        target_wait: options.target_wait(),
        keep_alive: options.keep_alive(),
    }
}
