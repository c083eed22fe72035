//! One revision's part of a pool, and when it is worth another sandbox.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::words::{SandboxKey, WaiterId};

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Oldest first; the last is the hottest.
    pub(super) idle: Vec<(SandboxKey, Instant)>,
    /// Oldest first.
    pub(super) waiters: VecDeque<(WaiterId, Instant)>,
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
    pub(super) retired: bool,
}

impl Lane {
    /// How many starts its waiters justify.
    pub(super) fn needed(&self, now: Instant, target_wait: Duration) -> usize {
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
        let long = self.waiters.iter().take_while(long).count();
        if 0 < long && self.another_would_help(now, target_wait) { long } else { 0 }
    }

    /// Whether the line would take longer without another sandbox than one takes to start. Waits
    /// alone do not tell: on a machine that is short of processor, starts make them longer.
    fn another_would_help(&self, now: Instant, target_wait: Duration) -> bool {
        let Some(service) = self.service else { return true };
        let sandboxes = u32::try_from(self.busy + self.starting).unwrap_or(u32::MAX).max(1);
        let waiters = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let line = service.saturating_mul(waiters) / sandboxes;
        let stuck =
            self.last_grant.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.cold_start.unwrap_or(target_wait) <= line.max(stuck)
    }
}

/// The average with one more value, of which the last few count most.
pub(super) fn average(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| (old * 3 + new) / 4))
}
