//! One revision's part of a pool: its line, and when it is worth another sandbox.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::autoscale::{Autoscaler, LoadSample};
use super::messages::{PoolRules, SandboxKey, WaiterId};

/// A line that moves, but stands for so many times a cold start, is worth a try with one more
/// sandbox: what the start costs is won back if the line stays.
const STOOD_STARTS: u32 = 2;
/// Longer than so many cold starts nobody waits for a step's gain to be seen.
const LOOK_STARTS: u32 = 4;
/// A line does not move when nobody was granted a sandbox for so many times an event's time, and
/// for a cold start's.
const STUCK_EVENTS: u32 = 4;
/// The machine itself may stand still for as long: with a prewarmed sandbox, a cold start takes less.
const STUCK_MIN: Duration = Duration::from_millis(200);
/// The same for a function that has as many sandboxes as its events can use.
const STUCK_ENOUGH: Duration = Duration::from_secs(1);

/// A moment without a line takes so many times its length off how long the line has stood: callers
/// who are answered together are back together, but a line that is there for less than nine tenths
/// of the time does not stand.
const GAP: u32 = 9;

#[derive(Debug, Default)]
pub(super) struct PoolLane {
    /// Oldest first; the last is the hottest.
    pub(super) idle: Vec<(SandboxKey, Instant)>,
    /// Oldest first, so in order of the ids, too.
    waiters: VecDeque<(WaiterId, Instant)>,
    /// Since when there has been a line, but for moments, each of which counts as [`GAP`] says.
    line_since: Option<Instant>,
    /// When somebody last left the line.
    line_over: Option<Instant>,
    pub(super) starting: usize,
    pub(super) blocked: usize,
    /// Of those that start, so many are up and load the user's code.
    pub(super) loading: usize,
    pub(super) busy: usize,
    /// What a cold start took, on average.
    pub(super) cold_start: Option<Duration>,
    /// Waits count from here: a sandbox that came up is given a chance to work off the line.
    pub(super) last_start: Option<Instant>,
    /// How long an event keeps its sandbox, on average.
    pub(super) service: Option<Duration>,
    pub(super) last_grant: Option<Instant>,
    pub(super) climb: Autoscaler,
    pub(super) retired: bool,
}

impl PoolLane {
    /// Callers in line.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Since when the one has waited who has waited longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiters.front().map(|(_, since)| *since)
    }

    /// Puts a caller at the end of the line. Ids only grow.
    pub(super) fn join(&mut self, waiter: WaiterId, now: Instant) {
        if self.waiters.is_empty() {
            let gap = self.line_over.map(|over| now.saturating_duration_since(over) * GAP);
            let since = self.line_since.zip(gap).map(|(since, gap)| since + gap);
            self.line_since = Some(since.map_or(now, |since| since.min(now)));
        }
        self.waiters.push_back((waiter, now));
    }

    /// Takes the one out of the line who has waited longest.
    pub(super) fn next(&mut self, now: Instant) -> Option<WaiterId> {
        let (waiter, _) = self.waiters.pop_front()?;
        self.line_over = Some(now);
        Some(waiter)
    }

    /// How many are before the caller, who is in line.
    pub(super) fn place(&self, waiter: WaiterId) -> Option<usize> {
        self.waiters.binary_search_by_key(&waiter, |(other, _)| *other).ok()
    }

    /// Takes a caller out of the line; `false` if it was not there.
    pub(super) fn leave(&mut self, now: Instant, waiter: WaiterId) -> bool {
        let Some(place) = self.place(waiter) else { return false };
        self.waiters.remove(place);
        self.line_over = Some(now);
        true
    }

    /// How many starts its waiters justify, of which the rules say how many may be under way.
    pub(super) fn needed(&mut self, now: Instant, rules: &PoolRules) -> usize {
        let PoolRules { target_wait, starts_max: most, cores, .. } = *rules;
        if self.busy == 0 && self.idle.is_empty() {
            // Nobody will ever come back: one at once; how many more, the first one will show.
            return self.waiters.len().min(1);
        }
        let cold_start = self.cold_start.unwrap_or(target_wait);
        let waited = |since: &Instant| {
            let since = self.last_start.map_or(*since, |start| start.max(*since));
            now.saturating_duration_since(since)
        };
        let long = |(_, since): &&(WaiterId, Instant)| cold_start.min(target_wait) <= waited(since);
        // The line is in order of arrival.
        let long = self.waiters.iter().take(most).take_while(long).count();
        let Some(service) = self.service else { return long };
        let stood =
            self.line_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let stuck = self.last_grant.map_or(Duration::ZERO, |last| waited(&last));
        let up = self.busy + self.idle.len();
        let (still, room) = match self.climb.of_use(up, cores) {
            0 => (STUCK_ENOUGH, most),
            more => (STUCK_MIN, more),
        };
        let long = long.min(room);
        if 0 < long && cold_start.max(service * STUCK_EVENTS).max(still) <= stuck {
            // The line does not move: its events take longer than those before.
            return long;
        }
        let more = if 0 < long && cold_start <= self.line(service) {
            long
        } else if cold_start * STOOD_STARTS <= stood {
            self.climb.step(most).min(self.waiters.len()).min(room)
        } else {
            return 0;
        };
        // One step at a time, so that each can be measured.
        let Some(line_since) = self.line_since.filter(|_| self.starting == 0) else { return 0 };
        let patience = cold_start * LOOK_STARTS;
        let look = LoadSample { now, up, cores, line_since, patience };
        if self.climb.goes_on(look) { more } else { 0 }
    }

    /// How long the line would take without another sandbox. Waits alone do not tell: on a machine
    /// that is short of processor, starts make them longer.
    fn line(&self, service: Duration) -> Duration {
        let sandboxes = u32::try_from(self.busy + self.starting).unwrap_or(u32::MAX).max(1);
        service.saturating_mul(u32::try_from(self.waiters.len()).unwrap_or(u32::MAX)) / sandboxes
    }
}

/// The average with one more value, of which the last few count most.
pub(super) fn average(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| (old * 3 + new) / 4))
}
