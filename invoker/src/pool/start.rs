//! A cold start, from the wish to the sandbox: a task of its own that nobody drops half-way.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Refusal, Revision, Verdict};
use tokio::time::{self, Instant};

use super::state::{Input, SandboxKey};
use super::{Pool, unavailable};
use crate::admission::{Place, Shortage};
use crate::launch::{Launched, PrewarmedSandbox, StartFailure, Unfit};
use crate::node::Node;
use crate::prewarm::Kind;

/// A start that waits for room looks again after this, whether or not it was woken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So long a start counts as one of those that the node may run at once: the time that costs
/// processor. A function that takes longer to load does not keep others from starting.
const HEAVY_PART: Duration = Duration::from_secs(2);

/// What a start begins with.
enum Basis {
    /// Room, and nothing in it.
    Place(Place),
    /// A prewarmed sandbox, with room for the function.
    PrewarmedSandbox(Box<PrewarmedSandbox>),
}

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
        let under_way = self.node.launcher.prewarm.start_begins();
        let basis = match self.room(key, &revision).await {
            Ok(Some(basis)) => basis,
            Ok(None) => {
                start.told = true;
                return;
            }
            Err(verdict) => return start.fail(verdict),
        };
        let launched = self.launch(key, &revision, basis).await;
        drop(under_way);
        match launched {
            Ok(Launched { instance, conn, mut control }) => {
                start.told = true;
                let instance = Arc::new(instance);
                self.node.rounds.add(&instance);
                self.node.metrics.started(&instance.cold_start);
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
        self: &Arc<Self>,
        key: SandboxKey,
        revision: &Arc<Revision>,
        basis: Basis,
    ) -> Result<Launched, StartFailure> {
        let place = match basis {
            Basis::Place(place) => place,
            // So little work that it needs no turn.
            Basis::PrewarmedSandbox(prewarmed) => {
                self.feed(Input::Loading { key });
                match self.node.launcher.specialise(*prewarmed, revision).await {
                    Ok(launched) => return Ok(launched),
                    Err(Unfit::Failed(failure)) => return Err(failure),
                    Err(Unfit::Lost(place)) => place,
                }
            }
        };
        self.watch_start(key, place.watch());
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
    /// start is not wanted any more. A prewarmed sandbox has some room already.
    async fn room(
        self: &Arc<Self>,
        key: SandboxKey,
        revision: &Revision,
    ) -> Result<Option<Basis>, Verdict> {
        let Node { launcher, admission, .. } = &*self.node;
        let mb = u64::from(revision.config.memory_mb);
        let suits = Kind::suits(&revision.config);
        let kind = launcher.kind(revision);
        let mut prewarmed = suits.then(|| launcher.prewarm.take(kind)).flatten();
        loop {
            prewarmed =
                prewarmed.or_else(|| suits.then(|| launcher.prewarm.take_late(kind)).flatten());
            let tried = match prewarmed.take() {
                None => admission.enter(mb).map(Basis::Place),
                Some(mut its) => match its.place().grow(mb) {
                    Ok(()) => Ok(Basis::PrewarmedSandbox(Box::new(its))),
                    Err(shortage) => {
                        prewarmed = Some(its);
                        Err(shortage)
                    }
                },
            };
            match tried {
                Ok(basis) => {
                    self.feed(Input::Unblocked { key });
                    return Ok(Some(basis));
                }
                Err(Shortage::TooLarge { memory_mb }) => {
                    self.node.put_back(prewarmed);
                    return Err(Verdict::Refused(Refusal::Capacity {
                        reason: format!(
                            "the function needs {mb} MB and the node has {memory_mb} MB for all"
                        ),
                    }));
                }
                Err(Shortage::Leaving) => {}
                Err(Shortage::Full { memory_mb, sandboxes }) => {
                    let has = prewarmed.as_mut().map_or(0, |prewarmed| prewarmed.place().mb());
                    if !self.node.make_room(admission.missing(mb - has.min(mb))) {
                        tracing::debug!(memory_mb, sandboxes, "A start waits for room");
                    }
                }
            }
            if self.feed(Input::Blocked { key }).cancelled {
                self.node.put_back(prewarmed);
                return Ok(None);
            }
            let _ = time::timeout(LOOK_AGAIN, admission.freed()).await;
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
