//! One revision's part of a pool: its line, and when it is worth another sandbox.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::climb::Climb;
use super::words::{SandboxKey, WaiterId};

/// A line that has been there so long, and moves, is worth a try with one more sandbox, in times
/// of a cold start: what the start costs is won back if the line stays.
const STOOD_STARTS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Oldest first; the last is the hottest.
    pub(super) idle: Vec<(SandboxKey, Instant)>,
    /// Oldest first, so in order of the ids, too.
    waiters: VecDeque<(WaiterId, Instant)>,
    /// Since when somebody has been in line without a break.
    line_since: Option<Instant>,
    pub(super) starting: usize,
    pub(super) blocked: usize,
    pub(super) busy: usize,
    /// What a cold start took, on average.
    pub(super) cold_start: Option<Duration>,
    /// Waits count from here: a sandbox that came up is given a chance to work off the line.
    pub(super) last_start: Option<Instant>,
    /// How long an event keeps its sandbox, on average.
    pub(super) service: Option<Duration>,
    pub(super) last_grant: Option<Instant>,
    pub(super) climb: Climb,
    pub(super) retired: bool,
}

impl Lane {
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
        self.line_since.get_or_insert(now);
        self.waiters.push_back((waiter, now));
    }

    /// Takes the one out of the line who has waited longest.
    pub(super) fn next(&mut self) -> Option<WaiterId> {
        let (waiter, _) = self.waiters.pop_front()?;
        self.line_moved();
        Some(waiter)
    }

    /// How many are before the caller, who is in line.
    pub(super) fn place(&self, waiter: WaiterId) -> Option<usize> {
        self.waiters.binary_search_by_key(&waiter, |(other, _)| *other).ok()
    }

    /// Takes a caller out of the line; `false` if it was not there.
    pub(super) fn leave(&mut self, waiter: WaiterId) -> bool {
        let Some(place) = self.place(waiter) else { return false };
        self.waiters.remove(place);
        self.line_moved();
        true
    }

    fn line_moved(&mut self) {
        if self.waiters.is_empty() {
            self.line_since = None;
        }
    }

    /// How many starts its waiters justify, of which `most` may be under way.
    pub(super) fn needed(&mut self, now: Instant, target_wait: Duration, most: usize) -> usize {
        if self.busy == 0 && self.idle.is_empty() {
            // Nobody will ever come back: one at once; how many more, the first one will show.
            return self.waiters.len().min(1);
        }
        let patience = self.cold_start.map_or(target_wait, |cold| cold.min(target_wait));
        let served = |since: &Instant| self.last_start.map_or(*since, |start| start.max(*since));
        let long = |(_, since): &&(WaiterId, Instant)| {
            patience <= now.saturating_duration_since(served(since))
        };
        // The line is in order of arrival.
        let long = self.waiters.iter().take(most).take_while(long).count();
        if long == 0 { 0 } else { long.min(self.helpful(now, target_wait)) }
    }

    /// How many more sandboxes would help the line. Waits alone do not tell: on a machine that is
    /// short of processor, starts make them longer.
    fn helpful(&mut self, now: Instant, target_wait: Duration) -> usize {
        let Some(service) = self.service else { return usize::MAX };
        let cold_start = self.cold_start.unwrap_or(target_wait);
        let since =
            |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if cold_start <= since(self.last_grant) {
            // The line does not move: its events take longer than those before.
            return usize::MAX;
        }
        let sandboxes = u32::try_from(self.busy + self.starting).unwrap_or(u32::MAX).max(1);
        let waiters = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let line = service.saturating_mul(waiters) / sandboxes;
        let some = if cold_start <= line {
            usize::MAX
        } else if cold_start * STOOD_STARTS <= since(self.line_since.max(self.last_start)) {
            1
        } else {
            return 0;
        };
        if !Climb::measures(service) {
            return if some == 1 { 0 } else { some };
        }
        // One step at a time, so that each can be measured.
        let up = self.busy + self.idle.len();
        let on = self.starting == 0 && self.climb.goes_on(now, up, self.line_since, service);
        if on { some } else { 0 }
    }
}

/// The average with one more value, of which the last few count most.
pub(super) fn average(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| (old * 3 + new) / 4))
}
