//! Who may join a pool's line, and how one leaves it without a sandbox.

use std::time::Duration;

use tokio::time::Instant;

use super::PoolState;
use super::messages::{LaneId, PoolAction, PoolActions, RefusalReason, WaiterId};

/// A line that has stood for so long because the function is at its concurrency is a standing one:
/// to be long would make it slow and serve nobody more.
const STANDING: Duration = Duration::from_secs(1);
/// A standing line is no longer than what is served in this time, or than two events for each that
/// runs, if that is more.
const STANDING_WORTH: Duration = Duration::from_millis(500);
const STANDING_EVENTS: u32 = 2;

impl PoolState {
    /// Whether one more would be too many, for a lane whose events take `service` on average.
    pub(super) fn line_is_full(&self, now: Instant, service: Option<Duration>) -> bool {
        if self.rules.waiting_max <= self.waiting {
            return true;
        }
        let stood = self.line_since.map(|since| now.saturating_duration_since(since));
        let (Some(service), Some(stood)) = (service, stood) else { return false };
        if stood < STANDING || self.has_free_run() {
            return false;
        }
        let worth = STANDING_WORTH.max(service * STANDING_EVENTS) * self.busy.max(1);
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        worth <= service.saturating_mul(waiting)
    }

    pub(super) fn expired(
        &mut self,
        now: Instant,
        id: LaneId,
        waiter: WaiterId,
        todo: &mut PoolActions,
    ) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let Some(place) = lane.place(waiter) else { return };
        // Code that is being loaded has a time limit of its own; a backend that does not even get
        // that far is not waited for any longer.
        if place < lane.loading && self.has_free_run() {
            return;
        }
        let why = if !self.has_free_run() {
            RefusalReason::Concurrency { limit: self.rules.concurrency.unwrap_or(u32::MAX) }
        } else if 0 < lane.blocked {
            RefusalReason::NoRoom
        } else if place < lane.starting {
            RefusalReason::StartSlow
        } else {
            RefusalReason::TooSlow { busy: self.busy }
        };
        todo.push(PoolAction::Refuse { waiter, why });
        self.leave_line(now, id, waiter);
    }

    pub(super) fn leave_line(&mut self, now: Instant, id: LaneId, waiter: WaiterId) {
        if self.lanes.get_mut(&id).is_some_and(|lane| lane.leave(now, waiter)) {
            self.left_line(1);
            self.forget_if_empty(id);
        }
    }

    pub(super) fn left_line(&mut self, count: usize) {
        self.waiting -= count;
        if self.waiting == 0 {
            self.line_since = None;
        }
    }
}
