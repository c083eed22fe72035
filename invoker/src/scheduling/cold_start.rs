//! A cold start, from the wish to the sandbox: a task of its own that nobody drops half-way.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Revision, Verdict};
use tokio::time::{self, Instant};

use crate::sandbox::launch::{LaunchedSandbox, SpecializeError, StartFailure};
use crate::scheduling::admission::{self, StartBasis};
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::state::SandboxKey;
use crate::scheduling::pool::{FunctionPool, SandboxStarter, unavailable};

/// So long a start counts as one of those that the node may run at once: the time that costs
/// processor. A function that takes longer to load does not keep others from starting.
const HEAVY_PART: Duration = Duration::from_secs(2);

/// Starts sandboxes for all pools of a node.
#[derive(Debug)]
pub(crate) struct ColdStarter(Arc<NodeContext>);

/// One start. It ends in the pool's books, whatever becomes of its task.
struct StartTask {
    node: Arc<NodeContext>,
    pool: Arc<FunctionPool>,
    key: SandboxKey,
    begun: Instant,
    told: bool,
}

impl ColdStarter {
    pub(crate) fn new(node: Arc<NodeContext>) -> Self {
        Self(node)
    }
}

impl SandboxStarter for ColdStarter {
    fn start(&self, pool: Arc<FunctionPool>, key: SandboxKey, revision: Arc<Revision>) {
        let node = Arc::clone(&self.0);
        let start = StartTask { node, pool, key, begun: Instant::now(), told: false };
        self.0.tasks.spawn(start.run(revision));
    }
}

impl StartTask {
    async fn run(mut self, revision: Arc<Revision>) {
        let under_way = self.node.prewarm.start_begins();
        let still_wanted = || !self.pool.start_blocked(self.key);
        let basis = match admission::admit(&self.node, &revision, still_wanted).await {
            Ok(Some(basis)) => basis,
            Ok(None) => {
                self.told = true;
                return;
            }
            Err(verdict) => return self.fail(verdict),
        };
        self.pool.start_unblocked(self.key);
        let launched = self.launch(&revision, basis).await;
        drop(under_way);
        self.told = true;
        match launched {
            Ok(launched) => self.came_up(launched),
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
        let place = match basis {
            StartBasis::Capacity(place) => place,
            // So little work that it needs no turn.
            StartBasis::PrewarmedSandbox(prewarmed) => {
                self.pool.start_loading(self.key);
                match launcher.specialise(*prewarmed, revision).await {
                    Ok(launched) => return Ok(launched),
                    Err(SpecializeError::Failed(failure)) => return Err(failure),
                    Err(SpecializeError::Lost(place)) => place,
                }
            }
        };
        self.pool.watch_start(self.key, place.watch());
        // Never closed.
        let permit = self.node.start_slots.acquire().await.ok();
        let mut launch = std::pin::pin!(launcher.launch(revision, place));
        match time::timeout(HEAVY_PART, &mut launch).await {
            Ok(launched) => launched,
            Err(_) => {
                drop(permit);
                launch.await
            }
        }
    }

    fn came_up(&self, launched: LaunchedSandbox) {
        let LaunchedSandbox { instance, conn, mut control } = launched;
        let instance = Arc::new(instance);
        self.node.deadlines.add(&instance.watch);
        self.node.metrics.started(&instance.cold_start);
        self.pool.started(self.key, Arc::clone(&instance), conn);
        let (pool, key) = (Arc::clone(&self.pool), self.key);
        self.node.tasks.spawn(async move {
            let end = control.end().await;
            instance.leash.ended(end);
            pool.died(key);
        });
    }

    fn fail(mut self, verdict: Verdict) {
        self.told = true;
        self.report(verdict);
    }

    fn report(&self, verdict: Verdict) {
        let failure = StartFailure { verdict, log: None, took: self.begun.elapsed() };
        self.pool.start_failed(self.key, failure);
    }
}

impl Drop for StartTask {
    fn drop(&mut self) {
        if !self.told {
            self.report(unavailable("the start of the sandbox was broken off"));
        }
    }
}
