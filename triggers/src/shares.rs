//! Who holds how many places, and which claimed events wait for one. Decides, and waits for
//! nothing: its lock is held for a few reads and writes.
//!
//! Events are claimed ahead of places, as many as a function is about to begin: a claim and an end
//! each wait for a sync to disk, and a function that takes a fifth of a millisecond would stand
//! still most of the time if each place waited for its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hanshu_core::FunctionId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dispatcher::Ran;

/// What a function is expected to begin within this long is claimed ahead. At least two claims
/// and a sync to a slow disk fit in it.
const AHEAD: Duration = Duration::from_millis(50);
/// Refusals in a row are forgotten so long after the last pause.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// The newest run's part in the average: one in so many.
const PACE_WEIGHT: u32 = 4;

/// How many of what there may be on this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Events that run at once.
    pub(crate) running: usize,
    /// Events that are claimed: that wait for a place, run, or are being settled.
    pub(crate) claimed: usize,
    /// Of one function's events, so many may wait for a place.
    pub(crate) ahead: usize,
}

/// The places, and the stock of events that wait for one. `T` is such an event.
#[derive(Debug)]
pub(crate) struct Shares<T> {
    bounds: Bounds,
    state: Mutex<State<T>>,
    /// Told when more may be claimed.
    pub(crate) wanting: Notify,
}

#[derive(Debug)]
struct State<T> {
    functions: HashMap<FunctionId, Share<T>>,
    /// Functions with a stock: whose turn it is first.
    turns: VecDeque<FunctionId>,
    running: usize,
    claimed: usize,
}

#[derive(Debug)]
struct Share<T> {
    /// It may run so many at once.
    limit: usize,
    /// So many of it may wait for a place.
    ahead_max: usize,
    running: usize,
    /// Claimed, oldest first, and since when.
    stock: VecDeque<(Instant, T)>,
    /// Refusals in a row for want of a place.
    strikes: u32,
    /// No runs before: the function was saturated a moment ago.
    paused_until: Option<Instant>,
    /// How long a run takes, on average; nothing before the first.
    pace: Option<Duration>,
}

impl<T> Shares<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (functions, turns) = (HashMap::new(), VecDeque::new());
        let state = State { functions, turns, running: 0, claimed: 0 };
        Self { bounds, state: Mutex::new(state), wanting: Notify::new() }
    }

    fn with<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.with(|state| state.running)
    }

    /// How many more may be claimed, of all functions together.
    pub(crate) fn free(&self) -> usize {
        self.with(|state| self.bounds.claimed.saturating_sub(state.claimed))
    }

    /// How many more of a function's events are wanted; at most `limit` of them run at once.
    pub(crate) fn wanted(&self, function: &FunctionId, limit: usize) -> usize {
        let limit = limit.min(self.bounds.running);
        self.with(|state| {
            // Places of all functions: what has none to come to is left for other nodes.
            let places = self.bounds.running.saturating_sub(state.running);
            let Some(share) = state.functions.get_mut(function) else { return limit.min(places) };
            share.limit = limit;
            if share.is_paused() {
                return 0;
            }
            if share.is_stocked() {
                return 0;
            }
            let room = share.limit_now().saturating_sub(share.running).min(places);
            (room + share.ahead()).saturating_sub(share.stock.len())
        })
    }

    /// Takes events in that were claimed at `since`.
    pub(crate) fn add(&self, function: &FunctionId, limit: usize, since: Instant, events: Vec<T>) {
        if events.is_empty() {
            return;
        }
        self.with(|state| {
            state.claimed += events.len();
            let share = state.functions.entry(function.clone());
            let share = share.or_insert_with(|| Share::new(limit, self.bounds.ahead));
            if share.stock.is_empty() {
                state.turns.push_back(function.clone());
            }
            share.stock.extend(events.into_iter().map(|event| (since, event)));
        });
    }

    /// The next event to run, which takes a place, and its function's refusals in a row. Functions
    /// take turns.
    pub(crate) fn next(&self) -> Option<(T, u32)> {
        self.with(|state| {
            if self.bounds.running <= state.running {
                return None;
            }
            for _ in 0..state.turns.len() {
                let function = state.turns.pop_front()?;
                let Some(share) = state.functions.get_mut(&function) else { continue };
                let next = if share.has_room() { share.stock.pop_front() } else { None };
                if !share.stock.is_empty() {
                    state.turns.push_back(function);
                }
                if let Some((_, event)) = next {
                    share.running += 1;
                    state.running += 1;
                    return Some((event, share.strikes));
                }
            }
            None
        })
    }

    /// A place is free again; its event is still to be settled.
    pub(crate) fn ran(&self, function: &FunctionId, ran: Ran) {
        let wanting = self.with(|state| {
            state.running = state.running.saturating_sub(1);
            let Some(share) = state.functions.get_mut(function) else { return true };
            share.running = share.running.saturating_sub(1);
            share.learn(ran);
            let wanting = !share.is_stocked();
            if share.running == 0 && share.stock.is_empty() && share.paused_until.is_none() {
                state.functions.remove(function);
            }
            wanting
        });
        if wanting {
            self.wanting.notify_one();
        }
    }

    /// An event is settled.
    pub(crate) fn settled(&self) {
        let low = self.bounds.claimed - self.bounds.claimed / 8;
        let claimed = self.with(|state| {
            state.claimed = state.claimed.saturating_sub(1);
            state.claimed
        });
        // Where the bound was in the way, some go before more are claimed.
        if claimed == low {
            self.wanting.notify_one();
        }
    }

    /// Takes out what was claimed so long ago and has no place yet. It is to be put back.
    pub(crate) fn stale(&self, age: Duration) -> Vec<T> {
        self.with(|state| {
            let mut stale = Vec::new();
            for share in state.functions.values_mut() {
                while share.stock.front().is_some_and(|(since, _)| age <= since.elapsed()) {
                    stale.extend(share.stock.pop_front().map(|(_, event)| event));
                }
            }
            let functions = &state.functions;
            state.turns.retain(|id| functions.get(id).is_some_and(|share| !share.stock.is_empty()));
            state.functions.retain(|_, share| !share.is_idle());
            stale
        })
    }

    /// Until a function that was paused may run again.
    pub(crate) fn until_resumed(&self) -> Option<Duration> {
        let now = Instant::now();
        self.with(|state| {
            let pauses = state.functions.values().filter_map(|share| share.paused_until);
            pauses.filter(|until| now < *until).map(|until| until - now).min()
        })
    }
}

impl<T> Share<T> {
    fn new(limit: usize, ahead_max: usize) -> Self {
        let stock = VecDeque::new();
        Self { limit, ahead_max, running: 0, stock, strikes: 0, paused_until: None, pace: None }
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether nothing need be remembered of it: a pause counts its strikes for a while longer.
    fn is_idle(&self) -> bool {
        let forgets = |until: Instant| until + FORGET_AFTER < Instant::now();
        self.running == 0 && self.stock.is_empty() && self.paused_until.is_none_or(forgets)
    }

    /// After a pause one event tries first.
    fn limit_now(&self) -> usize {
        if 0 < self.strikes { self.limit.min(1) } else { self.limit }
    }

    fn has_room(&self) -> bool {
        !self.is_paused() && self.running < self.limit_now()
    }

    /// How many are begun within [`AHEAD`], if all that may run do.
    fn ahead(&self) -> usize {
        let Some(pace) = self.pace.filter(|_| self.strikes == 0) else { return 0 };
        let rounds = AHEAD.as_nanos() / pace.as_nanos().max(1);
        let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
        rounds.saturating_mul(self.limit).min(self.ahead_max)
    }

    /// Whether all places are taken and more than half of what is wanted ahead is there: claims
    /// are worth their while when they are large.
    fn is_stocked(&self) -> bool {
        self.limit_now() <= self.running && self.ahead() <= 2 * self.stock.len()
    }

    fn learn(&mut self, ran: Ran) {
        match ran {
            Ran::For(time) => {
                self.strikes = 0;
                self.paused_until = None;
                let weighed = |pace: Duration| (pace * (PACE_WEIGHT - 1) + time) / PACE_WEIGHT;
                self.pace = Some(self.pace.map_or(time, weighed));
            }
            Ran::No => {
                self.strikes = 0;
                self.paused_until = None;
            }
            Ran::Throttled(pause) => {
                self.strikes = self.strikes.saturating_add(1);
                self.paused_until = Some(Instant::now() + pause);
            }
        }
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
