//! A cold start, from the wish to the sandbox: a task of its own that nobody drops half-way.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Refusal, Revision, Verdict};
use tokio::time::{self, Instant};

use super::state::{Input, SandboxKey};
use super::{Pool, unavailable};
use crate::admission::{Place, Shortage};
use crate::launch::{Launched, StartFailure};

/// A start that waits for room looks again after this, whether or not it was woken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So long a start counts as one of those that the node may run at once: the time that costs
/// processor. A function that takes longer to load does not keep others from starting.
const HEAVY_PART: Duration = Duration::from_secs(2);

/// Sees to it that a start ends in the pool's books, whatever becomes of its task.
struct Unfinished {
    pool: Arc<Pool>,
    key: SandboxKey,
    begun: Instant,
    told: bool,
}

impl Pool {
    pub(super) async fn start(self: Arc<Self>, key: SandboxKey, revision: Arc<Revision>) {
        let mut start =
            Unfinished { pool: Arc::clone(&self), key, begun: Instant::now(), told: false };
        let place = match self.room(key, &revision).await {
            Ok(Some(place)) => place,
            Ok(None) => {
                start.told = true;
                return;
            }
            Err(verdict) => return start.fail(verdict),
        };
        match self.launch(&revision, place).await {
            Ok(Launched { instance, conn, mut control }) => {
                start.told = true;
                let instance = Arc::new(instance);
                self.node.metrics.started(instance.init);
                self.feed_started(key, Arc::clone(&instance), conn);
                let pool = self;
                let node = Arc::clone(&pool.node);
                node.spawn(async move {
                    let end = control.end().await;
                    instance.leash.ended(end);
                    pool.feed(Input::Died { key });
                });
            }
            Err(failure) => {
                start.told = true;
                self.node.metrics.start_failed();
                self.feed_failure(key, failure);
            }
        }
    }

    async fn launch(
        &self,
        revision: &Arc<Revision>,
        place: Place,
    ) -> Result<Launched, StartFailure> {
        // Never closed.
        let permit = self.node.starts.acquire().await.ok();
        let mut launch = std::pin::pin!(self.node.launcher.launch(revision, place));
        match time::timeout(HEAVY_PART, &mut launch).await {
            Ok(launched) => launched,
            Err(_) => {
                drop(permit);
                launch.await
            }
        }
    }

    /// Waits for room on the node, making idle sandboxes of any function go; `None` when the
    /// start is not wanted any more.
    async fn room(
        self: &Arc<Self>,
        key: SandboxKey,
        revision: &Revision,
    ) -> Result<Option<Place>, Verdict> {
        let mb = u64::from(revision.config.memory_mb);
        loop {
            match self.node.admission.enter(mb) {
                Ok(place) => {
                    self.feed(Input::Unblocked { key });
                    return Ok(Some(place));
                }
                Err(Shortage::TooLarge { memory_mb }) => {
                    return Err(Verdict::Refused(Refusal::Capacity {
                        reason: format!(
                            "the function needs {mb} MB and the node has {memory_mb} MB for all"
                        ),
                    }));
                }
                Err(Shortage::Leaving) => {}
                Err(Shortage::Full { memory_mb, sandboxes }) => {
                    if !self.node.evict_least_recently_used() {
                        tracing::debug!(memory_mb, sandboxes, "A start waits for room");
                    }
                }
            }
            if self.feed(Input::Blocked { key }).cancelled {
                return Ok(None);
            }
            let _ = time::timeout(LOOK_AGAIN, self.node.admission.freed()).await;
        }
    }
}

impl Unfinished {
    fn fail(mut self, verdict: Verdict) {
        self.told = true;
        let failure = StartFailure { verdict, log: None, took: self.begun.elapsed() };
        self.pool.feed_failure(self.key, failure);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.told {
            let verdict = unavailable("the start of the sandbox was broken off");
            let failure = StartFailure { verdict, log: None, took: self.begun.elapsed() };
            self.pool.feed_failure(self.key, failure);
        }
    }
}
