//! One revision's part of a pool: its waiting callers, and when they justify another sandbox.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::autoscale::{Autoscaler, LoadSample};
use super::messages::{PoolRules, SandboxKey, WaiterId};

/// A backlog that lasts for this many cold starts justifies a try with one more sandbox: its cost is
/// won back if the backlog stays.
const BACKLOG_STARTS: u32 = 2;
/// Limit of measuring a step's gain, in cold starts.
const MEASURE_STARTS: u32 = 4;
/// The wait queue is stuck when no caller was granted a sandbox for this many times an event's time,
/// and for a cold start's.
const STUCK_EVENTS: u32 = 4;
/// The same at least: the machine itself may pause as long, and with a prewarmed sandbox a cold start
/// takes less.
const STUCK_MIN: Duration = Duration::from_millis(200);
/// The same for a function that has as many sandboxes as its events can use.
const STUCK_ENOUGH: Duration = Duration::from_secs(1);

/// A moment without waiting callers reduces the backlog's age by this many times its length: callers
/// that are answered together come back together, but a queue that is empty for more than a tenth of
/// the time is no backlog.
const GAP_FACTOR: u32 = 9;

/// One revision's part of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolLane {
    /// Oldest first; the last one is granted first.
    pub(super) idle: Vec<(SandboxKey, Instant)>,
    /// Oldest first, and so in the order of their ids.
    waiters: VecDeque<(WaiterId, Instant)>,
    /// Since when callers have been waiting, with interruptions as [`GAP_FACTOR`] allows.
    backlog_since: Option<Instant>,
    /// When a caller last left the wait queue.
    last_left: Option<Instant>,
    pub(super) starting: usize,
    pub(super) blocked: usize,
    /// Of the starting ones: those that load the user's code.
    pub(super) loading: usize,
    pub(super) busy: usize,
    /// How long a cold start takes, on average.
    pub(super) cold_start: Option<Duration>,
    /// Waits count from here: a new sandbox is given the time to serve who waits.
    pub(super) last_start: Option<Instant>,
    /// How long an event keeps its sandbox, on average.
    pub(super) service: Option<Duration>,
    pub(super) last_grant: Option<Instant>,
    pub(super) autoscaler: Autoscaler,
    pub(super) retired: bool,
}

impl PoolLane {
    /// Callers that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Since when the first caller has been waiting.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiters.front().map(|(_, since)| *since)
    }

    /// Adds a caller. Ids only grow.
    pub(super) fn join(&mut self, waiter: WaiterId, now: Instant) {
        if self.waiters.is_empty() {
            let gap = self.last_left.map(|left| now.saturating_duration_since(left) * GAP_FACTOR);
            let since = self.backlog_since.zip(gap).map(|(since, gap)| since + gap);
            self.backlog_since = Some(since.map_or(now, |since| since.min(now)));
        }
        self.waiters.push_back((waiter, now));
    }

    /// Removes the caller that has waited longest.
    pub(super) fn next(&mut self, now: Instant) -> Option<WaiterId> {
        let (waiter, _) = self.waiters.pop_front()?;
        self.last_left = Some(now);
        Some(waiter)
    }

    /// How many callers are before this one.
    pub(super) fn position(&self, waiter: WaiterId) -> Option<usize> {
        self.waiters.binary_search_by_key(&waiter, |(other, _)| *other).ok()
    }

    /// Removes a caller; `false` if it did not wait.
    pub(super) fn leave(&mut self, now: Instant, waiter: WaiterId) -> bool {
        let Some(position) = self.position(waiter) else { return false };
        self.waiters.remove(position);
        self.last_left = Some(now);
        true
    }

    /// How many starts the waiting callers justify; how many may be in progress is the pool's decision.
    pub(super) fn needed(&mut self, now: Instant, rules: &PoolRules) -> usize {
        let PoolRules { target_wait, starts_max: most, cores, .. } = *rules;
        if self.busy == 0 && self.idle.is_empty() {
            // No sandbox will be returned: start one; how many more, the first one will show.
            return self.waiters.len().min(1);
        }
        let cold_start = self.cold_start.unwrap_or(target_wait);
        let waited = |since: &Instant| {
            let since = self.last_start.map_or(*since, |start| start.max(*since));
            now.saturating_duration_since(since)
        };
        let long = |(_, since): &&(WaiterId, Instant)| cold_start.min(target_wait) <= waited(since);
        // Callers are in the order of their arrival.
        let long = self.waiters.iter().take(most).take_while(long).count();
        let Some(service) = self.service else { return long };
        let backlog_age =
            self.backlog_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let stuck = self.last_grant.map_or(Duration::ZERO, |last| waited(&last));
        let up = self.busy + self.idle.len();
        let (stuck_min, room) = match self.autoscaler.useful_sandboxes(up, cores) {
            0 => (STUCK_ENOUGH, most),
            more => (STUCK_MIN, more),
        };
        let long = long.min(room);
        if 0 < long && cold_start.max(service * STUCK_EVENTS).max(stuck_min) <= stuck {
            // Nothing moves: these events take longer than earlier ones.
            return long;
        }
        let more = if 0 < long && cold_start <= self.work_off_time(service) {
            long
        } else if cold_start * BACKLOG_STARTS <= backlog_age {
            self.autoscaler.step_size(most).min(self.waiters.len()).min(room)
        } else {
            return 0;
        };
        // One step at a time, so that each can be measured.
        let Some(backlog_since) = self.backlog_since.filter(|_| self.starting == 0) else {
            return 0;
        };
        let patience = cold_start * MEASURE_STARTS;
        let sample = LoadSample { now, up, cores, backlog_since, patience };
        if self.autoscaler.may_step(sample) { more } else { 0 }
    }

    /// How long serving all waiting callers would take without another sandbox. Waits alone mislead: on a
    /// machine that is short of processor, starts make them longer.
    fn work_off_time(&self, service: Duration) -> Duration {
        let sandboxes = u32::try_from(self.busy + self.starting).unwrap_or(u32::MAX).max(1);
        service.saturating_mul(u32::try_from(self.waiters.len()).unwrap_or(u32::MAX)) / sandboxes
    }
}

/// The average with one more value, in which the last few count most.
pub(super) fn average(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| (old * 3 + new) / 4))
}
