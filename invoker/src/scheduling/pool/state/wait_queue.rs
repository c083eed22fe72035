//! Who may wait for a sandbox, and who leaves the wait queue without one.
//!
//! A fixed length was not enough: where a function is at its concurrency limit, a long queue makes every
//! answer later and serves no more callers. With 2,000 calls a second to a function that can do 396, the
//! limit here keeps half a second's work waiting, and the queue is empty a second after the load ends
//! (docs/adr/0014).

use std::time::Duration;

use tokio::time::Instant;

use super::PoolState;
use super::messages::{LaneId, PoolAction, PoolActions, RefusalReason, WaiterId};

/// A wait queue that has not been empty for this long while the function is at its concurrency is a
/// backlog.
const BACKLOG_AGE: Duration = Duration::from_secs(1);
/// A backlog holds what is served in this time, or two events for each that runs, if that is more.
const BACKLOG_TIME: Duration = Duration::from_millis(500);
const BACKLOG_EVENTS: u32 = 2;

impl PoolState {
    /// Whether another caller would be too many, for a lane whose events take `service` on average.
    pub(super) fn wait_queue_is_full(&self, now: Instant, service: Option<Duration>) -> bool {
        if self.rules.waiting_max <= self.waiting {
            return true;
        }
        let age = self.backlog_since.map(|since| now.saturating_duration_since(since));
        let (Some(service), Some(age)) = (service, age) else { return false };
        if age < BACKLOG_AGE || self.has_free_concurrency() {
            return false;
        }
        let limit = BACKLOG_TIME.max(service * BACKLOG_EVENTS) * self.busy.max(1);
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        limit <= service.saturating_mul(waiting)
    }

    pub(super) fn expired(
        &mut self,
        now: Instant,
        id: LaneId,
        waiter: WaiterId,
        todo: &mut PoolActions,
    ) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let Some(position) = lane.position(waiter) else { return };
        // Loading code has a time limit of its own; a backend that has not started the sandbox is not
        // waited for any longer.
        if position < lane.loading && self.has_free_concurrency() {
            return;
        }
        let reason = if !self.has_free_concurrency() {
            RefusalReason::Concurrency { limit: self.rules.concurrency.unwrap_or(u32::MAX) }
        } else if 0 < lane.blocked {
            RefusalReason::NoRoom
        } else if position < lane.starting {
            RefusalReason::StartSlow
        } else {
            RefusalReason::TooSlow { busy: self.busy }
        };
        todo.push(PoolAction::Refuse { waiter, reason });
        self.leave_wait_queue(now, id, waiter);
    }

    pub(super) fn leave_wait_queue(&mut self, now: Instant, id: LaneId, waiter: WaiterId) {
        if self.lanes.get_mut(&id).is_some_and(|lane| lane.leave(now, waiter)) {
            self.left_wait_queue(1);
            self.forget_if_empty(id);
        }
    }

    pub(super) fn left_wait_queue(&mut self, count: usize) {
        self.waiting -= count;
        if self.waiting == 0 {
            self.backlog_since = None;
        }
    }
}
