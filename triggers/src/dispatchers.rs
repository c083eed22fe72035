//! Works off all queues: claims as many events as have a place, or are about to have one
//! ([`crate::shares`]). A function never has more than its share of the places, so that a
//! saturated one does not stand in another's way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use hanshu_core::ports::QueueName;
use hanshu_core::{FunctionId, Qualifier};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::dispatcher::{After, Dispatch, Held, Parts, Ran};
use crate::metrics;
use crate::shares::{Bounds, Shares};
use crate::stop::Stop;

/// Settings of the dispatchers.
#[derive(Clone, Debug)]
pub struct DispatcherOptions {
    /// Queued events that run at once through this node.
    pub in_flight_max: usize,
    /// Of these, at most so many of one function; its own concurrency may be lower.
    pub per_function_max: usize,
    /// Events that are claimed beside those: before they have a place, and while their end is on
    /// its way to the queue.
    pub ahead_max: usize,
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
}

/// What the tasks of the dispatchers share while they run.
struct Work {
    parts: Parts,
    options: DispatcherOptions,
    shares: Shares<Dispatch>,
    tasks: TaskTracker,
    /// The general runtime: queues are asked and told there.
    general: Handle,
    /// Cancelled when the grace is over.
    cut_off: CancellationToken,
}

/// What one look at the queues led to.
enum Round {
    /// Something was claimed: look again.
    Claimed,
    /// Nothing can be claimed for so long, unless something changes.
    Idle(Duration),
    /// Something is due, but no more of it can be run or is wanted: for so long a change of the
    /// queues makes no difference.
    Full(Duration),
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
            ahead_max: 256,
            hold: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            queues_max: 256,
        }
    }
}

impl Dispatchers {
    /// Nothing runs yet.
    pub fn new(parts: Parts, options: DispatcherOptions) -> Self {
        Self { parts, options }
    }

    /// Claims and runs until `stop.intake`; then lets what runs end. What still runs at
    /// `stop.work` is put back into its queue, due at once. To be called on the general runtime.
    pub async fn run(self, stop: Stop) {
        let Self { parts, options } = self;
        let bounds = Bounds {
            running: options.in_flight_max,
            claimed: options.in_flight_max + options.ahead_max,
            ahead: options.ahead_max - options.ahead_max / 4,
        };
        let (tasks, general) = (TaskTracker::new(), Handle::current());
        let shares = Shares::new(bounds);
        let work = Work { parts, options, shares, tasks, general, cut_off: stop.work.clone() };
        let work = Arc::new(work);
        while !stop.intake.is_cancelled() {
            let began = Instant::now();
            // Not raced against the stop: a claim that is dropped on the way waits out its hold.
            let round = work.round().await;
            stop.intake.run_until_cancelled(work.rest(round, began.elapsed())).await;
            work.put_back(Work::STOCK_AGE_MAX.min(work.options.hold / 4));
            work.start();
        }
        work.put_back(Duration::ZERO);
        work.tasks.close();
        work.tasks.wait().await;
    }
}

impl Work {
    /// What has been claimed for so long and still has no place is another node's to run.
    const STOCK_AGE_MAX: Duration = Duration::from_secs(5);
    /// After a look that found everything saturated; longer where a look takes long.
    const FULL_PAUSE: Duration = Duration::from_millis(10);

    /// Waits for something to do; the last look took so long.
    async fn rest(&self, round: Round, took: Duration) {
        let queue = &self.parts.queue;
        match round {
            Round::Claimed => {}
            Round::Idle(idle) => queue.changed(idle).await,
            Round::Full(idle) => {
                let pause = Self::FULL_PAUSE.max(took * 4).min(idle);
                let changed = async {
                    sleep(pause).await;
                    queue.changed(idle - pause).await;
                };
                tokio::select! {
                    () = changed => {}
                    () = self.shares.wanting.notified() => {}
                }
            }
        }
    }

    async fn round(self: &Arc<Self>) -> Round {
        let poll = self.options.poll_interval;
        metrics::events_running(self.shares.running());
        let free = self.shares.free();
        if free == 0 {
            return Round::Full(poll);
        }
        let ready = self.parts.queue.ready(self.options.queues_max);
        let ready = match timeout(STORE_TIMEOUT, ready).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                warn!(%error, "The queues cannot be read");
                sleep(AWAY_PAUSE).await;
                return Round::Idle(AWAY_PAUSE);
            }
            Err(_) => {
                warn!("The queues did not answer in time");
                sleep(AWAY_PAUSE).await;
                return Round::Idle(AWAY_PAUSE);
            }
        };
        if self.claim_all(&ready.queues, free).await {
            return Round::Claimed;
        }
        let until_due = ready.next_due.map(|due| due.duration_since(self.parts.clock.now()));
        let until_due = until_due.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(poll);
        let until_resumed = self.shares.until_resumed().unwrap_or(poll);
        let idle = poll.min(until_due).min(until_resumed).max(Duration::from_millis(1));
        match ready.queues.is_empty() {
            true => Round::Idle(idle),
            false => Round::Full(idle),
        }
    }

    /// Claims from all these queues, at most `free` events; whether there were any. Each gets an
    /// equal part of what is free, and at least one.
    async fn claim_all(self: &Arc<Self>, queues: &[QueueName], mut free: usize) -> bool {
        let mut asked: HashMap<&FunctionId, usize> = HashMap::new();
        let mut claims = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            let part = free.div_ceil(queues.len() - index).min(free);
            let limit = self.limit(&queue.function);
            // A function has a queue for each of its triggers.
            let asked = asked.entry(&queue.function).or_default();
            let wanted = self.shares.wanted(&queue.function, limit).saturating_sub(*asked);
            let max = wanted.min(part);
            if 0 < max {
                *asked += max;
                free -= max;
                claims.push(self.claim(queue, limit, max));
            }
        }
        // Side by side, so that one transaction may serve them all.
        let claimed = stream::iter(claims).buffer_unordered(Self::CLAIMS_MAX);
        claimed.fold(false, |any, got| async move { any || got }).await
    }

    /// Claims on their way at once.
    const CLAIMS_MAX: usize = 64;

    /// How many of a function's events may run here at once.
    fn limit(&self, function: &FunctionId) -> usize {
        let (namespace, name) = (&function.namespace, &function.name);
        let limit = match self.parts.catalog.resolve(namespace, name, Qualifier::Latest) {
            Ok(latest) => latest.config.concurrency.map_or(usize::MAX, |n| {
                // A function whose concurrency is 0 runs nothing; its events expire in time.
                usize::try_from(n).unwrap_or(usize::MAX).max(1)
            }),
            // Gone, most likely: its events end without a run.
            Err(_) => usize::MAX,
        };
        limit.min(self.options.per_function_max)
    }

    /// Claims from one queue; whether there was anything.
    async fn claim(self: &Arc<Self>, queue: &QueueName, limit: usize, max: usize) -> bool {
        let source = self.parts.queue.source(queue);
        let claimed_at = Instant::now();
        let claims = source.claim(max, self.options.hold, &self.parts.node);
        let claims = match timeout(STORE_TIMEOUT, claims).await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                warn!(%error, %queue, "A queue cannot be claimed from");
                return false;
            }
            Err(_) => {
                warn!(%queue, "A queue did not answer in time");
                return false;
            }
        };
        if claims.is_empty() {
            return false;
        }
        let mut events = Vec::with_capacity(claims.len());
        for claim in claims {
            let held = Held {
                parts: self.parts.clone(),
                source: source.clone(),
                claim,
                hold: self.options.hold,
                claimed_at,
                work: self.cut_off.clone(),
            };
            match held.prepare().await {
                Ok(dispatch) => events.push(dispatch),
                Err(after) => self.settle(after, None),
            }
        }
        self.shares.add(&queue.function, limit, claimed_at, events);
        self.start();
        true
    }

    /// Gives the free places to events that wait for one.
    fn start(self: &Arc<Self>) {
        while let Some((dispatch, strikes)) = self.shares.next() {
            let work = self.clone();
            let run = async move { work.work_off(dispatch, strikes).await };
            self.tasks.spawn_on(run, &self.parts.data);
        }
    }

    /// Runs an event, then others for as long as one waits for the place.
    async fn work_off(self: Arc<Self>, dispatch: Dispatch, strikes: u32) {
        let mut next = Some((dispatch, strikes));
        while let Some((dispatch, strikes)) = next.take() {
            let claimed = Claimed(self.clone());
            let function = dispatch.function().clone();
            let mut place = Place { work: self.clone(), function, ran: Ran::No };
            let (ran, after) = dispatch.run(strikes).await;
            place.ran = ran;
            drop(place);
            self.settle(after, Some(claimed));
            next = self.shares.next();
        }
    }

    /// Tells its queue what became of an event, in a task of its own: nobody waits for it.
    fn settle(self: &Arc<Self>, after: After, claimed: Option<Claimed>) {
        let keep = async move {
            after.keep().await;
            drop(claimed);
        };
        self.tasks.spawn_on(keep, &self.general);
    }

    /// Puts back what was claimed so long ago and has no place yet.
    fn put_back(self: &Arc<Self>, age: Duration) {
        for dispatch in self.shares.stale(age) {
            self.settle(dispatch.give_back(), Some(Claimed(self.clone())));
        }
    }
}

/// One place, given back when dropped: after a panic too.
struct Place {
    work: Arc<Work>,
    function: FunctionId,
    ran: Ran,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.work.shares.ran(&self.function, self.ran);
    }
}

/// One of the events that may be claimed at once; given back when dropped.
struct Claimed(Arc<Work>);

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.shares.settled();
    }
}

#[cfg(test)]
#[path = "dispatchers_tests.rs"]
mod tests;
