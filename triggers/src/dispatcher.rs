//! Works off all event queues: claims as many events as have a run slot or are about to have one
//! ([`crate::fair_queue`]), runs them and settles them. One function never has more than its part
//! of the slots, so that a saturated one does not hold up another.
//!
//! A settle is a task of its own beside the next run, so that a slot does not wait for a sync to
//! disk; claims of one round are asked for side by side, so that the store can serve them in one
//! transaction (docs/adr/0012-claims-ahead-of-places.md). While everything is saturated the queues
//! are asked at intervals, not at every push: see [`DispatcherState::rest`].

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

use crate::claimed_event::{ClaimedEvent, PreparedInvocation, Settlement};
use crate::dispatch_context::DispatchContext;
use crate::fair_queue::{FairQueue, FairQueueLimits, NextRun, RunFeedback};
use crate::metrics;
use crate::stop_signals::StopSignals;

/// Settings of the dispatcher.
#[derive(Clone, Debug)]
pub struct DispatcherOptions {
    /// Queued events that run at once through this node.
    pub in_flight_max: usize,
    /// Of these, how many may be of one function; its own concurrency may be lower.
    pub per_function_max: usize,
    /// Events that are claimed beside those that run: before they have a slot, and while they are
    /// being settled.
    pub ahead_max: usize,
    /// How long a claim holds; renewed at a third of it while the event runs. After a crash an
    /// event is due again when its hold is over.
    pub hold: Duration,
    /// The longest time between two looks at the queues; pushes on this node wake at once.
    pub poll_interval: Duration,
    /// Most queues that one request for ready queues returns.
    pub queues_max: usize,
}

/// Claims and runs the events of all queues.
#[derive(Debug)]
pub struct QueueDispatcher {
    context: DispatchContext,
    options: DispatcherOptions,
}

/// What the tasks of the dispatcher share while it runs.
struct DispatcherState {
    context: DispatchContext,
    options: DispatcherOptions,
    fair_queue: FairQueue<PreparedInvocation>,
    tasks: TaskTracker,
    /// The general runtime: claims, preparation and settling happen there.
    general: Handle,
    /// Cancelled when the grace is over.
    cut_off: CancellationToken,
}

/// What one look at the queues led to.
enum ClaimRound {
    /// Something was claimed: ask again at once.
    Claimed,
    /// Nothing can be claimed for this long, unless the queues change.
    Idle(Duration),
    /// Something is due, but no more of it can be run or is wanted: for this long a change of the
    /// queues makes no difference.
    Saturated(Duration),
}

/// Deadline of one look at the queues, or one claim.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the queue failed to answer.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

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

impl QueueDispatcher {
    /// Does nothing until [`Self::run`].
    pub fn new(context: DispatchContext, options: DispatcherOptions) -> Self {
        Self { context, options }
    }

    /// Claims and runs until `stop.intake`; then waits for what runs. What still runs at
    /// `stop.work` is put back into its queue, due at once. To be called on the general runtime.
    pub async fn run(self, stop: StopSignals) {
        let Self { context, options } = self;
        let limits = FairQueueLimits {
            running_max: options.in_flight_max,
            claimed_max: options.in_flight_max + options.ahead_max,
            waiting_max: options.ahead_max - options.ahead_max / 4,
        };
        let state = Arc::new(DispatcherState {
            context,
            options,
            fair_queue: FairQueue::new(limits),
            tasks: TaskTracker::new(),
            general: Handle::current(),
            cut_off: stop.work.clone(),
        });
        while !stop.intake.is_cancelled() {
            let began = Instant::now();
            // Not raced against the stop: events of a claim that is dropped half way would wait
            // until their hold is over.
            let round = state.claim_round().await;
            stop.intake.run_until_cancelled(state.rest(round, began.elapsed())).await;
            state.put_back_stale(DispatcherState::WAITING_AGE_MAX.min(state.options.hold / 4));
            state.start_runs();
        }
        state.put_back_stale(Duration::ZERO);
        state.tasks.close();
        state.tasks.wait().await;
    }
}

impl DispatcherState {
    /// What was claimed this long ago and still has no slot is left to another node.
    const WAITING_AGE_MAX: Duration = Duration::from_secs(5);
    /// After a look that found everything saturated; longer where a look takes long.
    const SATURATED_PAUSE: Duration = Duration::from_millis(10);
    /// Claims that are asked for at once.
    const CLAIMS_MAX: usize = 64;

    /// Waits until another look may find something. `took` is how long the last one took.
    ///
    /// While everything is saturated a push changes nothing, so that changes of the queues are
    /// ignored for four times as long as a look takes: otherwise a node under load would spend a
    /// look on every push.
    async fn rest(&self, round: ClaimRound, took: Duration) {
        let queue = &self.context.queue;
        match round {
            ClaimRound::Claimed => {}
            ClaimRound::Idle(idle) => queue.changed(idle).await,
            ClaimRound::Saturated(idle) => {
                let pause = Self::SATURATED_PAUSE.max(took * 4).min(idle);
                let changed = async {
                    sleep(pause).await;
                    queue.changed(idle - pause).await;
                };
                tokio::select! {
                    () = changed => {}
                    () = self.fair_queue.claim_wanted.notified() => {}
                }
            }
        }
    }

    /// Looks at the queues once and claims what is wanted.
    async fn claim_round(self: &Arc<Self>) -> ClaimRound {
        let poll = self.options.poll_interval;
        metrics::events_running(self.fair_queue.running());
        let claimable = self.fair_queue.claimable();
        if claimable == 0 {
            return ClaimRound::Saturated(poll);
        }
        let ready = self.context.queue.ready(self.options.queues_max);
        let ready = match timeout(STORE_TIMEOUT, ready).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                warn!(%error, "The queues cannot be read");
                sleep(UNAVAILABLE_PAUSE).await;
                return ClaimRound::Idle(UNAVAILABLE_PAUSE);
            }
            Err(_) => {
                warn!("The queues did not answer in time");
                sleep(UNAVAILABLE_PAUSE).await;
                return ClaimRound::Idle(UNAVAILABLE_PAUSE);
            }
        };
        if self.claim_all(&ready.queues, claimable).await {
            return ClaimRound::Claimed;
        }
        let until_due = ready.next_due.map(|due| due.duration_since(self.context.clock.now()));
        let until_due = until_due.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(poll);
        let until_resumed = self.fair_queue.until_resumed().unwrap_or(poll);
        let idle = poll.min(until_due).min(until_resumed).max(Duration::from_millis(1));
        match ready.queues.is_empty() {
            true => ClaimRound::Idle(idle),
            false => ClaimRound::Saturated(idle),
        }
    }

    /// Claims from all these queues, at most `claimable` events; returns whether there were any.
    /// Each queue gets an equal part of what is claimable, and at least one event.
    async fn claim_all(self: &Arc<Self>, queues: &[QueueName], mut claimable: usize) -> bool {
        let mut asked: HashMap<&FunctionId, usize> = HashMap::new();
        let mut claims = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            let part = claimable.div_ceil(queues.len() - index).min(claimable);
            let running_max = self.running_max(&queue.function);
            // A function has one queue for each of its triggers.
            let asked = asked.entry(&queue.function).or_default();
            let wanted = self.fair_queue.wanted(&queue.function, running_max);
            let max = wanted.saturating_sub(*asked).min(part);
            if 0 < max {
                *asked += max;
                claimable -= max;
                claims.push(self.claim(queue, running_max, max));
            }
        }
        let claimed = stream::iter(claims).buffer_unordered(Self::CLAIMS_MAX);
        claimed.fold(false, |any, got| async move { any || got }).await
    }

    /// How many of a function's events may run on this node at once.
    fn running_max(&self, function: &FunctionId) -> usize {
        let (namespace, name) = (&function.namespace, &function.name);
        let concurrency = match self.context.catalog.resolve(namespace, name, Qualifier::Latest) {
            Ok(latest) => latest.config.concurrency.map_or(usize::MAX, |n| {
                // A function whose concurrency is 0 runs nothing; its events expire in time.
                usize::try_from(n).unwrap_or(usize::MAX).max(1)
            }),
            // Most likely the function was deleted: its events end without a run.
            Err(_) => usize::MAX,
        };
        concurrency.min(self.options.per_function_max)
    }

    /// Claims from one queue; returns whether there was anything.
    async fn claim(self: &Arc<Self>, queue: &QueueName, running_max: usize, max: usize) -> bool {
        let source = self.context.queue.source(queue);
        let claimed_at = Instant::now();
        let claims = source.claim(max, self.options.hold, &self.context.node);
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
            let claimed = ClaimedEvent {
                context: self.context.clone(),
                source: source.clone(),
                claim,
                hold: self.options.hold,
                claimed_at,
                cut_off: self.cut_off.clone(),
            };
            match claimed.prepare().await {
                Ok(prepared) => events.push(prepared),
                Err(settlement) => self.spawn_settle(settlement, None),
            }
        }
        self.fair_queue.add(&queue.function, running_max, claimed_at, events);
        self.start_runs();
        true
    }

    /// Gives the free slots to events that wait for one.
    fn start_runs(self: &Arc<Self>) {
        while let Some(next) = self.fair_queue.next() {
            let state = self.clone();
            let run = async move { state.run_slot(next).await };
            self.tasks.spawn_on(run, &self.context.data);
        }
    }

    /// Runs an event in a slot, then others for as long as one waits for the slot.
    async fn run_slot(self: Arc<Self>, first: NextRun<PreparedInvocation>) {
        let mut next = Some(first);
        while let Some(NextRun { event, throttled_runs }) = next.take() {
            let claim = ClaimGuard(self.clone());
            let function = event.function().clone();
            let feedback = RunFeedback::NotRun;
            let mut slot = SlotGuard { state: self.clone(), function, feedback };
            let (feedback, settlement) = event.run(throttled_runs).await;
            slot.feedback = feedback;
            drop(slot);
            self.spawn_settle(settlement, Some(claim));
            next = self.fair_queue.next();
        }
    }

    /// Settles an event in a task of its own, so that neither a slot nor a claim waits for it.
    fn spawn_settle(self: &Arc<Self>, settlement: Settlement, claim: Option<ClaimGuard>) {
        let settle = async move {
            settlement.settle().await;
            drop(claim);
        };
        self.tasks.spawn_on(settle, &self.general);
    }

    /// Puts back what was claimed at least `age` ago and has no slot yet.
    fn put_back_stale(self: &Arc<Self>, age: Duration) {
        for prepared in self.fair_queue.take_stale(age) {
            self.spawn_settle(prepared.put_back(), Some(ClaimGuard(self.clone())));
        }
    }
}

/// One run slot; dropping it frees the slot, after a panic too.
struct SlotGuard {
    state: Arc<DispatcherState>,
    function: FunctionId,
    feedback: RunFeedback,
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.state.fair_queue.run_ended(&self.function, self.feedback);
    }
}

/// One of the events that count as claimed; dropping it counts one less.
struct ClaimGuard(Arc<DispatcherState>);

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        self.0.fair_queue.settled();
    }
}

#[cfg(test)]
mod queue_faults;
#[cfg(test)]
mod tests;
