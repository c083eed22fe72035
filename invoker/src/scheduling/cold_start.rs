//! A cold start, from the decision to the sandbox: a task of its own that is never dropped.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Revision, Verdict};
use tokio::time::{self, Instant};

use crate::sandbox::launch::{LaunchedSandbox, SpecializeError, StartFailure};
use crate::scheduling::admission::{self, StartBasis};
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::state::SandboxKey;
use crate::scheduling::pool::{FunctionPool, SandboxStarter, unavailable};

/// A start has one of the node's start slots for at most this long: the time that takes processor. A
/// function that loads longer does not keep others from starting.
const START_SLOT_TIME: Duration = Duration::from_secs(2);

/// Starts sandboxes for all pools of a node.
#[derive(Debug)]
pub(crate) struct ColdStarter {
    node: Arc<NodeContext>,
}

/// One start. Reports to its pool when dropped, unless it has done so.
struct StartTask {
    node: Arc<NodeContext>,
    pool: Arc<FunctionPool>,
    key: SandboxKey,
    begun: Instant,
    reported: bool,
}

impl ColdStarter {
    pub(crate) fn new(node: Arc<NodeContext>) -> Self {
        Self { node }
    }
}

impl SandboxStarter for ColdStarter {
    fn start(&self, pool: Arc<FunctionPool>, key: SandboxKey, revision: Arc<Revision>) {
        let node = Arc::clone(&self.node);
        let task = StartTask { node, pool, key, begun: Instant::now(), reported: false };
        self.node.tasks.spawn(task.run(revision));
    }
}

impl StartTask {
    async fn run(mut self, revision: Arc<Revision>) {
        let in_progress = self.node.prewarm.begin_start();
        let still_wanted = || !self.pool.start_blocked(self.key);
        let basis = match admission::admit(&self.node, &revision, still_wanted).await {
            Ok(Some(basis)) => basis,
            Ok(None) => {
                self.reported = true;
                return;
            }
            Err(verdict) => return self.fail(verdict),
        };
        self.pool.start_unblocked(self.key);
        let launched = self.launch(&revision, basis).await;
        drop(in_progress);
        self.reported = true;
        match launched {
            Ok(launched) => self.started(launched),
            Err(failure) => {
                self.node.metrics.start_failed();
                self.pool.start_failed(self.key, failure);
            }
        }
    }

    async fn launch(
        &self,
        revision: &Arc<Revision>,
        basis: StartBasis,
    ) -> Result<LaunchedSandbox, StartFailure> {
        let launcher = &self.node.launcher;
        let capacity = match basis {
            StartBasis::Capacity(capacity) => capacity,
            // Takes too little processor to need a start slot.
            StartBasis::Prewarmed(prewarmed) => {
                self.pool.start_loading(self.key);
                match launcher.specialize(*prewarmed, revision).await {
                    Ok(launched) => return Ok(launched),
                    Err(SpecializeError::Failed(failure)) => return Err(failure),
                    Err(SpecializeError::Lost(capacity)) => capacity,
                }
            }
        };
        self.pool.watch_start(self.key, capacity.started_flag());
        // The semaphore is never closed.
        let slot = self.node.start_slots.acquire().await.ok();
        let mut launch = std::pin::pin!(launcher.launch(revision, capacity));
        match time::timeout(START_SLOT_TIME, &mut launch).await {
            Ok(launched) => launched,
            Err(_) => {
                drop(slot);
                launch.await
            }
        }
    }

    /// Hands the sandbox to its pool, and watches for its end.
    fn started(&self, launched: LaunchedSandbox) {
        let LaunchedSandbox { instance, conn, mut shim } = launched;
        let instance = Arc::new(instance);
        self.node.deadlines.add(&instance.watch);
        self.node.metrics.started(&instance.cold_start);
        self.pool.started(self.key, Arc::clone(&instance), conn);
        let (pool, key) = (Arc::clone(&self.pool), self.key);
        self.node.tasks.spawn(async move {
            let end = shim.end().await;
            instance.handle.ended(end);
            pool.died(key);
        });
    }

    fn fail(mut self, verdict: Verdict) {
        self.reported = true;
        self.report_failure(verdict);
    }

    fn report_failure(&self, verdict: Verdict) {
        let failure = StartFailure { verdict, log: None, took: self.begun.elapsed() };
        self.pool.start_failed(self.key, failure);
    }
}

impl Drop for StartTask {
    fn drop(&mut self) {
        if !self.reported {
            self.report_failure(unavailable("the start of the sandbox was aborted"));
        }
    }
}
