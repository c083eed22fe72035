//! A cold start, from the wish to the sandbox: a task of its own that nobody drops half-way.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Revision, Verdict};
use tokio::time::{self, Instant};

use crate::sandbox::launch::{Launched, StartFailure, Unfit};
use crate::scheduling::admission::{self, Basis};
use crate::scheduling::node::Node;
use crate::scheduling::pool::state::SandboxKey;
use crate::scheduling::pool::{Pool, StartSandbox, unavailable};

/// So long a start counts as one of those that the node may run at once: the time that costs
/// processor. A function that takes longer to load does not keep others from starting.
const HEAVY_PART: Duration = Duration::from_secs(2);

/// Starts sandboxes for all pools of a node.
#[derive(Debug)]
pub(crate) struct ColdStarts(Arc<Node>);

/// One start. It ends in the pool's books, whatever becomes of its task.
struct ColdStart {
    node: Arc<Node>,
    pool: Arc<Pool>,
    key: SandboxKey,
    begun: Instant,
    told: bool,
}

impl ColdStarts {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }
}

impl StartSandbox for ColdStarts {
    fn start(&self, pool: Arc<Pool>, key: SandboxKey, revision: Arc<Revision>) {
        let node = Arc::clone(&self.0);
        let start = ColdStart { node, pool, key, begun: Instant::now(), told: false };
        self.0.tasks.spawn(start.run(revision));
    }
}

impl ColdStart {
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
        basis: Basis,
    ) -> Result<Launched, StartFailure> {
        let launcher = &self.node.launcher;
        let place = match basis {
            Basis::Place(place) => place,
            // So little work that it needs no turn.
            Basis::PrewarmedSandbox(prewarmed) => {
                self.pool.start_loading(self.key);
                match launcher.specialise(*prewarmed, revision).await {
                    Ok(launched) => return Ok(launched),
                    Err(Unfit::Failed(failure)) => return Err(failure),
                    Err(Unfit::Lost(place)) => place,
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

    fn came_up(&self, launched: Launched) {
        let Launched { instance, conn, mut control } = launched;
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

impl Drop for ColdStart {
    fn drop(&mut self) {
        if !self.told {
            self.report(unavailable("the start of the sandbox was broken off"));
        }
    }
}
