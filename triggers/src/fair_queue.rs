//! Which functions hold how many run slots, and which claimed events wait for one. Pure state
//! behind one short mutex: nothing here awaits.
//!
//! The simple thing (claim an event when a slot is free, free the slot when its end is stored) was
//! not enough: a claim and an end each wait for a sync to disk, so that with four sandboxes and a
//! sync of 4 ms a function of 0.2 ms ran at a twelfth of what its sandboxes can do
//! (docs/adr/0012-claims-ahead-of-places.md). So events are claimed ahead of their slots: as many
//! as a function is expected to begin within [`CLAIM_AHEAD_TIME`]. Functions take turns at free
//! slots, so that a long backlog of one does not delay the events of another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hanshu_core::FunctionId;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a function is expected to begin within this time is claimed ahead. At least two claims
/// and a sync to a slow disk fit in it.
const CLAIM_AHEAD_TIME: Duration = Duration::from_millis(50);
/// How long after a function's last pause its consecutive refusals are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// The newest run counts for one part in so many in the mean run time.
const MEAN_WEIGHT: u32 = 4;

/// Limits of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FairQueueLimits {
    /// Events that run at once.
    pub(crate) running_max: usize,
    /// Events that are claimed: waiting for a slot, running, or being settled.
    pub(crate) claimed_max: usize,
    /// Events of one function that wait for a slot.
    pub(crate) waiting_max: usize,
}

/// How a run ended, as far as its function's next runs depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunFeedback {
    /// It ran for this long.
    Ran(Duration),
    /// It was refused because no capacity was free: run nothing of the function for this long.
    Throttled(Duration),
    /// It was refused for another reason, or cut off.
    NotRun,
}

/// An event that was given a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NextRun<T> {
    pub(crate) event: T,
    /// How often in a row its function was throttled before.
    pub(crate) throttled_runs: u32,
}

/// The run slots, and the claimed events that wait for one. `T` is such an event.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    limits: FairQueueLimits,
    state: Mutex<FairQueueState<T>>,
    /// Notified when more events may be claimed.
    pub(crate) claim_wanted: Notify,
}

#[derive(Debug)]
struct FairQueueState<T> {
    functions: HashMap<FunctionId, FunctionBacklog<T>>,
    /// Functions with waiting events, the next one to get a slot first.
    turns: VecDeque<FunctionId>,
    running: usize,
    claimed: usize,
}

/// One function's claimed events.
#[derive(Debug)]
struct FunctionBacklog<T> {
    /// How many of its events may run at once.
    running_max: usize,
    /// How many of its events may wait for a slot.
    waiting_max: usize,
    running: usize,
    /// Claimed events without a slot, oldest first, each with the time of its claim.
    waiting: VecDeque<(Instant, T)>,
    /// Consecutive runs that were throttled.
    throttled_runs: u32,
    /// No runs until then: the function was throttled a moment ago.
    paused_until: Option<Instant>,
    /// Weighted mean of its run times; `None` before the first run.
    mean_run_time: Option<Duration>,
}

impl<T> FairQueue<T> {
    pub(crate) fn new(limits: FairQueueLimits) -> Self {
        let (functions, turns) = (HashMap::new(), VecDeque::new());
        let state = FairQueueState { functions, turns, running: 0, claimed: 0 };
        Self { limits, state: Mutex::new(state), claim_wanted: Notify::new() }
    }

    fn with<R>(&self, act: impl FnOnce(&mut FairQueueState<T>) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many events run now.
    pub(crate) fn running(&self) -> usize {
        self.with(|state| state.running)
    }

    /// How many more events may be claimed, of all functions together.
    pub(crate) fn claimable(&self) -> usize {
        self.with(|state| self.limits.claimed_max.saturating_sub(state.claimed))
    }

    /// How many more of a function's events should be claimed; at most `running_max` of them run
    /// at once.
    pub(crate) fn wanted(&self, function: &FunctionId, running_max: usize) -> usize {
        let running_max = running_max.min(self.limits.running_max);
        self.with(|state| {
            // Without a free slot on this node an unknown function is left to other nodes.
            let free_slots = self.limits.running_max.saturating_sub(state.running);
            let Some(backlog) = state.functions.get_mut(function) else {
                return running_max.min(free_slots);
            };
            backlog.running_max = running_max;
            if backlog.is_paused() || backlog.has_enough() {
                return 0;
            }
            let room = backlog.running_max_now().saturating_sub(backlog.running).min(free_slots);
            (room + backlog.claim_ahead()).saturating_sub(backlog.waiting.len())
        })
    }

    /// Adds events that were claimed at `claimed_at`.
    pub(crate) fn add(
        &self,
        function: &FunctionId,
        running_max: usize,
        claimed_at: Instant,
        events: Vec<T>,
    ) {
        if events.is_empty() {
            return;
        }
        self.with(|state| {
            state.claimed += events.len();
            let waiting_max = self.limits.waiting_max;
            let backlog = state.functions.entry(function.clone());
            let backlog = backlog.or_insert_with(|| FunctionBacklog::new(running_max, waiting_max));
            if backlog.waiting.is_empty() {
                state.turns.push_back(function.clone());
            }
            backlog.waiting.extend(events.into_iter().map(|event| (claimed_at, event)));
        });
    }

    /// Gives a free slot to the next event; functions take turns. The slot is given back with
    /// [`Self::run_ended`].
    pub(crate) fn next(&self) -> Option<NextRun<T>> {
        self.with(|state| {
            if self.limits.running_max <= state.running {
                return None;
            }
            for _ in 0..state.turns.len() {
                let function = state.turns.pop_front()?;
                let Some(backlog) = state.functions.get_mut(&function) else { continue };
                let next = if backlog.may_run() { backlog.waiting.pop_front() } else { None };
                if !backlog.waiting.is_empty() {
                    state.turns.push_back(function);
                }
                if let Some((_, event)) = next {
                    backlog.running += 1;
                    state.running += 1;
                    return Some(NextRun { event, throttled_runs: backlog.throttled_runs });
                }
            }
            None
        })
    }

    /// Frees the slot of an event, which is still to be settled.
    pub(crate) fn run_ended(&self, function: &FunctionId, feedback: RunFeedback) {
        let claim_wanted = self.with(|state| {
            state.running = state.running.saturating_sub(1);
            let Some(backlog) = state.functions.get_mut(function) else { return true };
            backlog.running = backlog.running.saturating_sub(1);
            backlog.apply(feedback);
            let claim_wanted = !backlog.has_enough();
            let unused = backlog.running == 0 && backlog.waiting.is_empty();
            if unused && backlog.paused_until.is_none() {
                state.functions.remove(function);
            }
            claim_wanted
        });
        if claim_wanted {
            self.claim_wanted.notify_one();
        }
    }

    /// Counts one claimed event less: it is settled.
    pub(crate) fn settled(&self) {
        let low = self.limits.claimed_max - self.limits.claimed_max / 8;
        let claimed = self.with(|state| {
            state.claimed = state.claimed.saturating_sub(1);
            state.claimed
        });
        // Where the limit was reached, an eighth of it is settled before more is claimed.
        if claimed == low {
            self.claim_wanted.notify_one();
        }
    }

    /// Removes the events that were claimed at least `age` ago and still have no slot. The caller
    /// puts them back into their queue.
    pub(crate) fn take_stale(&self, age: Duration) -> Vec<T> {
        self.with(|state| {
            let mut stale = Vec::new();
            for backlog in state.functions.values_mut() {
                while backlog.waiting.front().is_some_and(|(at, _)| age <= at.elapsed()) {
                    stale.extend(backlog.waiting.pop_front().map(|(_, event)| event));
                }
            }
            let functions = &state.functions;
            let has_waiting = |id: &FunctionId| {
                functions.get(id).is_some_and(|backlog| !backlog.waiting.is_empty())
            };
            state.turns.retain(has_waiting);
            state.functions.retain(|_, backlog| !backlog.is_forgettable());
            stale
        })
    }

    /// How long until the first of the paused functions may run again.
    pub(crate) fn until_resumed(&self) -> Option<Duration> {
        let now = Instant::now();
        self.with(|state| {
            let pauses = state.functions.values().filter_map(|backlog| backlog.paused_until);
            pauses.filter(|until| now < *until).map(|until| until - now).min()
        })
    }
}

impl<T> FunctionBacklog<T> {
    fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            running_max,
            waiting_max,
            running: 0,
            waiting: VecDeque::new(),
            throttled_runs: 0,
            paused_until: None,
            mean_run_time: None,
        }
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether nothing of it need be remembered. After a pause its throttled runs still count for
    /// a while.
    fn is_forgettable(&self) -> bool {
        let is_long_ago = |until: Instant| until + FORGET_AFTER < Instant::now();
        let unused = self.running == 0 && self.waiting.is_empty();
        unused && self.paused_until.is_none_or(is_long_ago)
    }

    /// After a pause a single event tries first.
    fn running_max_now(&self) -> usize {
        if 0 < self.throttled_runs { self.running_max.min(1) } else { self.running_max }
    }

    fn may_run(&self) -> bool {
        !self.is_paused() && self.running < self.running_max_now()
    }

    /// How many events are begun within [`CLAIM_AHEAD_TIME`] if all allowed runs are used.
    fn claim_ahead(&self) -> usize {
        let mean = self.mean_run_time.filter(|_| self.throttled_runs == 0);
        let Some(mean) = mean else { return 0 };
        let rounds = CLAIM_AHEAD_TIME.as_nanos() / mean.as_nanos().max(1);
        let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
        rounds.saturating_mul(self.running_max).min(self.waiting_max)
    }

    /// Whether all its slots are taken and at least half of what should be claimed ahead waits:
    /// a claim pays off only when it is large.
    fn has_enough(&self) -> bool {
        self.running_max_now() <= self.running && self.claim_ahead() <= 2 * self.waiting.len()
    }

    fn apply(&mut self, feedback: RunFeedback) {
        match feedback {
            RunFeedback::Ran(time) => {
                self.throttled_runs = 0;
                self.paused_until = None;
                let weighted = |mean: Duration| (mean * (MEAN_WEIGHT - 1) + time) / MEAN_WEIGHT;
                self.mean_run_time = Some(self.mean_run_time.map_or(time, weighted));
            }
            RunFeedback::NotRun => {
                self.throttled_runs = 0;
                self.paused_until = None;
            }
            RunFeedback::Throttled(pause) => {
                self.throttled_runs = self.throttled_runs.saturating_add(1);
                self.paused_until = Some(Instant::now() + pause);
            }
        }
    }
}

#[cfg(test)]
mod tests;
