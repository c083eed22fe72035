//! Works off all queues: free places first, then a claim of that many. A function never has more
//! than its share of the places, so that a saturated one does not stand in another's way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use hanshu_core::ports::QueueName;
use hanshu_core::{FunctionId, Qualifier};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::dispatcher::{Dispatch, Parts, Ran};
use crate::metrics;
use crate::stop::Stop;

/// Settings of the dispatchers.
#[derive(Clone, Debug)]
pub struct DispatcherOptions {
    /// Queued events that run at once through this node.
    pub in_flight_max: usize,
    /// Of these, at most so many of one function; its own concurrency may be lower.
    pub per_function_max: usize,
    /// A claim's hold, renewed at a third of it while the event runs. After a crash an event is
    /// due again when it is over.
    pub hold: Duration,
    /// Queues are looked at so often at least; pushes on this node wake at once.
    pub poll_interval: Duration,
    /// Queues looked at in one round.
    pub queues_max: usize,
}

/// Works off all queues.
#[derive(Debug)]
pub struct Dispatchers {
    parts: Parts,
    options: DispatcherOptions,
    shares: Arc<Shares>,
    running: TaskTracker,
}

/// Who holds how many places. Locked for a few reads and writes, never across a wait.
#[derive(Debug, Default)]
struct Shares {
    functions: Mutex<HashMap<FunctionId, Share>>,
    /// Told when a place is free again.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Share {
    running: usize,
    /// Refusals in a row for want of a place.
    strikes: u32,
    /// No claims before: the function was saturated a moment ago.
    paused_until: Option<Instant>,
}

/// What one look at the queues led to.
enum Round {
    /// Something was claimed: look again.
    Claimed,
    /// Nothing can be claimed for so long, unless something changes.
    Idle(Duration),
}

/// A look at the queues, or a claim.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed look.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 128,
            per_function_max: 96,
            hold: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            queues_max: 256,
        }
    }
}

impl Dispatchers {
    /// Nothing runs yet.
    pub fn new(parts: Parts, options: DispatcherOptions) -> Self {
        Self { parts, options, shares: Arc::default(), running: TaskTracker::new() }
    }

    /// Claims and runs until `stop.intake`; then lets what runs end. What still runs at
    /// `stop.work` is put back into its queue, due at once.
    pub async fn run(self, stop: Stop) {
        while !stop.intake.is_cancelled() {
            // Not raced against the stop: a claim that is dropped on the way waits out its hold.
            let idle = match self.round(&stop).await {
                Round::Claimed => continue,
                Round::Idle(idle) => idle,
            };
            let change = async {
                tokio::select! {
                    () = self.parts.queue.changed(idle) => {}
                    () = self.shares.freed.notified() => {}
                }
            };
            stop.intake.run_until_cancelled(change).await;
        }
        self.running.close();
        self.running.wait().await;
    }

    async fn round(&self, stop: &Stop) -> Round {
        let poll = self.options.poll_interval;
        let free = self.options.in_flight_max.saturating_sub(self.shares.running());
        metrics::events_running(self.options.in_flight_max - free);
        if free == 0 {
            return Round::Idle(poll);
        }
        let ready = self.parts.queue.ready(self.options.queues_max);
        let ready = match timeout(STORE_TIMEOUT, ready).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                warn!(%error, "The queues cannot be read");
                return Round::Idle(AWAY_PAUSE);
            }
            Err(_) => {
                warn!("The queues did not answer in time");
                return Round::Idle(AWAY_PAUSE);
            }
        };
        let mut left = ready.queues.len();
        let (mut claimed, mut free) = (0, free);
        for queue in &ready.queues {
            // Each gets an equal part of what is free, and at least one place.
            let part = free.div_ceil(left.max(1)).min(free);
            left -= 1;
            let room = self.room(&queue.function).min(part);
            if room == 0 {
                continue;
            }
            let got = self.claim(queue, room, stop).await;
            claimed += got;
            free -= got.min(free);
        }
        if 0 < claimed {
            return Round::Claimed;
        }
        let until_due = ready.next_due.map(|due| due.duration_since(self.parts.clock.now()));
        let until_due = until_due.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(poll);
        let until_resumed = self.shares.until_resumed().unwrap_or(poll);
        Round::Idle(poll.min(until_due).min(until_resumed).max(Duration::from_millis(1)))
    }

    /// How many more of a function's events may run here.
    fn room(&self, function: &FunctionId) -> usize {
        let (namespace, name) = (&function.namespace, &function.name);
        let limit = match self.parts.catalog.resolve(namespace, name, Qualifier::Latest) {
            Ok(latest) => latest.config.concurrency.map_or(usize::MAX, |n| {
                // A function whose concurrency is 0 runs nothing; its events expire in time.
                usize::try_from(n).unwrap_or(usize::MAX).max(1)
            }),
            // Gone, most likely: its events end without a run.
            Err(_) => usize::MAX,
        };
        self.shares.room(function, limit.min(self.options.per_function_max))
    }

    async fn claim(&self, queue: &QueueName, room: usize, stop: &Stop) -> usize {
        let source = self.parts.queue.source(queue);
        let claimed_at = Instant::now();
        let claims = source.claim(room, self.options.hold, &self.parts.node);
        let claims = match timeout(STORE_TIMEOUT, claims).await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                warn!(%error, %queue, "A queue cannot be claimed from");
                return 0;
            }
            Err(_) => {
                warn!(%queue, "A queue did not answer in time");
                return 0;
            }
        };
        let got = claims.len();
        for claim in claims {
            let function = queue.function.clone();
            let strikes = self.shares.enter(&function);
            let dispatch = Dispatch {
                parts: self.parts.clone(),
                source: source.clone(),
                claim,
                hold: self.options.hold,
                claimed_at,
                strikes,
                work: stop.work.clone(),
            };
            let place = Place { shares: self.shares.clone(), function };
            self.running.spawn(async move {
                let ran = dispatch.run().await;
                place.shares.ran(&place.function, ran);
            });
        }
        got
    }
}

/// One place, given back when dropped: after a panic too.
struct Place {
    shares: Arc<Shares>,
    function: FunctionId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.leave(&self.function);
    }
}

impl Shares {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<FunctionId, Share>) -> T) -> T {
        act(&mut self.functions.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn running(&self) -> usize {
        self.with(|functions| functions.values().map(|share| share.running).sum())
    }

    fn room(&self, function: &FunctionId, limit: usize) -> usize {
        self.with(|functions| {
            let Some(share) = functions.get(function) else { return limit };
            if share.paused_until.is_some_and(|until| Instant::now() < until) {
                return 0;
            }
            // After a pause one event tries first.
            let limit = if 0 < share.strikes { 1 } else { limit };
            limit.saturating_sub(share.running)
        })
    }

    /// Takes a place; returns the function's refusals in a row so far.
    fn enter(&self, function: &FunctionId) -> u32 {
        self.with(|functions| {
            let share = functions.entry(function.clone()).or_default();
            share.running += 1;
            share.strikes
        })
    }

    fn ran(&self, function: &FunctionId, ran: Ran) {
        self.with(|functions| {
            let Some(share) = functions.get_mut(function) else { return };
            match ran {
                Ran::Yes => {
                    share.strikes = 0;
                    share.paused_until = None;
                }
                Ran::Throttled(pause) => {
                    share.strikes = share.strikes.saturating_add(1);
                    share.paused_until = Some(Instant::now() + pause);
                }
            }
        });
    }

    fn leave(&self, function: &FunctionId) {
        self.with(|functions| {
            let Some(share) = functions.get_mut(function) else { return };
            share.running = share.running.saturating_sub(1);
            if share.running == 0 && share.paused_until.is_none() {
                functions.remove(function);
            }
        });
        self.freed.notify_one();
    }

    fn until_resumed(&self) -> Option<Duration> {
        let now = Instant::now();
        self.with(|functions| {
            let pauses = functions.values().filter_map(|share| share.paused_until);
            pauses.filter(|until| now < *until).map(|until| until - now).min()
        })
    }
}

#[cfg(test)]
#[path = "dispatchers_tests.rs"]
mod tests;
