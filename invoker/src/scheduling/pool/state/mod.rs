//! The decisions of one function's pool: which caller gets which sandbox, who waits, what is started
//! and stopped. Pure: nothing here waits, reads a clock, spawns or logs.
//!
//! A pool serves all revisions of one function, each in a *lane* of its own, because they share one
//! concurrency limit. A semaphore and a list of idle sandboxes were not enough: callers hang up,
//! starts fail or wait for room, sandboxes die, revisions retire, in any order. Every order reaches
//! this file as a sequence of [`PoolInput`]s, and `tests/lives.rs` plays thousands of them.

mod autoscale;
mod lane;
mod messages;
mod wait_queue;

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use lane::{PoolLane, average};
pub(crate) use messages::{
    LaneId, PoolAction, PoolActions, PoolCounts, PoolInput, PoolRules, RefusalReason, SandboxKey,
    WaiterId,
};

/// The state of one function's pool.
#[derive(Debug)]
pub(crate) struct PoolState {
    pub(crate) rules: PoolRules,
    lanes: BTreeMap<LaneId, PoolLane>,
    sandboxes: BTreeMap<SandboxKey, PooledSandbox>,
    next_key: u64,
    busy: u32,
    starting: usize,
    waiting: usize,
    /// Since when callers have been waiting without a break.
    backlog_since: Option<Instant>,
    stopping: bool,
}

#[derive(Clone, Copy, Debug)]
struct PooledSandbox {
    lane: LaneId,
    phase: SandboxPhase,
    /// When it was last granted.
    granted: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SandboxPhase {
    Starting,
    Blocked,
    Loading,
    Idle,
    Busy,
    Lent,
    Stopping,
}

impl PoolState {
    pub(crate) fn new(rules: PoolRules) -> Self {
        Self {
            rules,
            lanes: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            next_key: 0,
            busy: 0,
            starting: 0,
            waiting: 0,
            backlog_since: None,
            stopping: false,
        }
    }

    /// The only entry point: what happened, and what is to be done about it.
    pub(crate) fn on(&mut self, now: Instant, input: PoolInput) -> PoolActions {
        let mut todo = PoolActions::new();
        match input {
            PoolInput::Requested { lane, waiter } => self.requested(now, lane, waiter, &mut todo),
            PoolInput::Abandoned { lane, waiter } => self.leave_wait_queue(now, lane, waiter),
            PoolInput::Expired { lane, waiter } => self.expired(now, lane, waiter, &mut todo),
            PoolInput::Started { key, took } => self.started(now, key, took, &mut todo),
            PoolInput::StartFailed { key } => self.start_failed(now, key, &mut todo),
            PoolInput::Blocked { key } => self.blocked(key, &mut todo),
            PoolInput::Unblocked { key } => self.unblocked(key),
            PoolInput::Loading { key } => self.loading(key),
            PoolInput::Released { key, healthy } => self.released(now, key, healthy, &mut todo),
            PoolInput::Returned { key, idle_since } => {
                self.returned(now, key, idle_since, &mut todo);
            }
            PoolInput::Borrowed { key } => self.borrowed(key, &mut todo),
            PoolInput::Died { key } | PoolInput::Evicted { key } => self.stop_idle(key, &mut todo),
            PoolInput::Stopped { key } => self.stopped(key),
            PoolInput::Retired { lane } => self.retired(lane, &mut todo),
            PoolInput::Shutdown => self.shutdown(now, &mut todo),
            PoolInput::Tick => self.tick(now, &mut todo),
        }
        todo
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> PoolCounts {
        let mut counts = PoolCounts {
            waiting: u32::try_from(self.waiting).unwrap_or(u32::MAX),
            ..PoolCounts::default()
        };
        for sandbox in self.sandboxes.values() {
            match sandbox.phase {
                SandboxPhase::Starting | SandboxPhase::Blocked | SandboxPhase::Loading => {
                    counts.starting += 1;
                }
                SandboxPhase::Idle => counts.idle += 1,
                SandboxPhase::Busy | SandboxPhase::Lent => counts.busy += 1,
                SandboxPhase::Stopping => counts.stopping += 1,
            }
        }
        counts
    }

    /// Whether no caller waits and no sandbox is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.waiting == 0
    }

    /// Whether the lane was used and has not ended.
    pub(crate) fn has_lane(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Callers that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Idle sandboxes and since when, in no order.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (SandboxKey, Instant)> + '_ {
        self.lanes.values().flat_map(|lane| lane.idle.iter().copied())
    }

    fn requested(&mut self, now: Instant, id: LaneId, waiter: WaiterId, todo: &mut PoolActions) {
        if self.stopping {
            todo.push(PoolAction::Refuse { waiter, reason: RefusalReason::Stopping });
            return;
        }
        let free = self.has_free_concurrency();
        let lane = self.lanes.entry(id).or_default();
        if free
            && lane.waiting() == 0
            && let Some((key, _)) = lane.idle.pop()
        {
            self.grant(now, key, waiter, todo);
            return;
        }
        let service = lane.service;
        if self.wait_queue_is_full(now, service) {
            let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
            todo.push(PoolAction::Refuse {
                waiter,
                reason: RefusalReason::WaitQueueFull { waiting },
            });
            self.forget_if_empty(id);
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.join(waiter, now);
        }
        self.waiting += 1;
        self.backlog_since.get_or_insert(now);
        self.start_where_needed(now, id, todo);
    }

    fn started(&mut self, now: Instant, key: SandboxKey, took: Duration, todo: &mut PoolActions) {
        let Some(id) = self.end_start(key) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.cold_start = average(lane.cold_start, took);
        lane.last_start = Some(now);
        self.settle(now, key, now, todo);
    }

    fn start_failed(&mut self, now: Instant, key: SandboxKey, todo: &mut PoolActions) {
        let Some(id) = self.end_start(key) else { return };
        self.sandboxes.remove(&key);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        // No other sandbox can serve them, and the next start would most likely fail alike.
        let hopeless = lane.starting == 0 && lane.busy == 0 && lane.idle.is_empty();
        let answered = if hopeless { lane.waiting() } else { 1 };
        let refused: SmallVec<[_; 2]> = (0..answered).filter_map(|_| lane.next(now)).collect();
        self.left_wait_queue(refused.len());
        for waiter in refused {
            todo.push(PoolAction::Refuse { waiter, reason: RefusalReason::StartFailed });
        }
        self.start_where_needed(now, id, todo);
        self.forget_if_empty(id);
    }

    fn blocked(&mut self, key: SandboxKey, todo: &mut PoolActions) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else { return };
        let id = sandbox.lane;
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        match sandbox.phase {
            SandboxPhase::Starting => {
                sandbox.phase = SandboxPhase::Blocked;
                lane.blocked += 1;
            }
            SandboxPhase::Blocked => {}
            SandboxPhase::Loading
            | SandboxPhase::Idle
            | SandboxPhase::Busy
            | SandboxPhase::Lent
            | SandboxPhase::Stopping => return,
        }
        if lane.waiting() < lane.starting {
            self.end_start(key);
            self.sandboxes.remove(&key);
            todo.push(PoolAction::Cancel { key });
            self.forget_if_empty(id);
        }
    }

    fn unblocked(&mut self, key: SandboxKey) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key)
            && sandbox.phase == SandboxPhase::Blocked
            && let Some(lane) = self.lanes.get_mut(&sandbox.lane)
        {
            sandbox.phase = SandboxPhase::Starting;
            lane.blocked -= 1;
        }
    }

    fn loading(&mut self, key: SandboxKey) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key)
            && sandbox.phase == SandboxPhase::Starting
            && let Some(lane) = self.lanes.get_mut(&sandbox.lane)
        {
            sandbox.phase = SandboxPhase::Loading;
            lane.loading += 1;
        }
    }

    fn released(&mut self, now: Instant, key: SandboxKey, healthy: bool, todo: &mut PoolActions) {
        let granted = self.sandboxes.get(&key).and_then(|sandbox| sandbox.granted);
        let Some(id) = self.end_use(key) else { return };
        if let (Some(granted), Some(lane)) = (granted, self.lanes.get_mut(&id)) {
            let took = now.saturating_duration_since(granted);
            lane.service = average(lane.service, took);
            lane.autoscaler.served(took);
        }
        if healthy {
            self.settle(now, key, now, todo);
        } else {
            self.stop(key, todo);
            self.serve(now, todo);
            self.start_where_needed(now, id, todo);
            self.forget_if_empty(id);
        }
    }

    fn returned(&mut self, now: Instant, key: SandboxKey, since: Instant, todo: &mut PoolActions) {
        if self.end_use(key).is_some() {
            self.settle(now, key, since, todo);
        }
    }

    fn borrowed(&mut self, key: SandboxKey, todo: &mut PoolActions) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else { return };
        if sandbox.phase != SandboxPhase::Idle {
            return;
        }
        sandbox.phase = SandboxPhase::Lent;
        if let Some(lane) = self.lanes.get_mut(&sandbox.lane) {
            lane.idle.retain(|(idle, _)| *idle != key);
            lane.busy += 1;
        }
        todo.push(PoolAction::Lend { key });
    }

    fn stop_idle(&mut self, key: SandboxKey, todo: &mut PoolActions) {
        let Some(sandbox) = self.sandboxes.get(&key) else { return };
        let (id, phase) = (sandbox.lane, sandbox.phase);
        // The user of a busy one notices its death.
        if phase == SandboxPhase::Idle {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.idle.retain(|(idle, _)| *idle != key);
            }
            self.stop(key, todo);
            self.forget_if_empty(id);
        }
    }

    fn stopped(&mut self, key: SandboxKey) {
        if self.sandboxes.get(&key).is_some_and(|sandbox| sandbox.phase == SandboxPhase::Stopping) {
            self.sandboxes.remove(&key);
        }
    }

    fn retired(&mut self, id: LaneId, todo: &mut PoolActions) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.retired = true;
        for (key, _) in std::mem::take(&mut lane.idle) {
            self.stop(key, todo);
        }
        self.forget_if_empty(id);
    }

    fn shutdown(&mut self, now: Instant, todo: &mut PoolActions) {
        self.stopping = true;
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for id in lanes {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let refused: Vec<_> = std::iter::from_fn(|| lane.next(now)).collect();
            let idle = std::mem::take(&mut lane.idle);
            self.left_wait_queue(refused.len());
            for waiter in refused {
                todo.push(PoolAction::Refuse { waiter, reason: RefusalReason::Stopping });
            }
            for (key, _) in idle {
                self.stop(key, todo);
            }
            self.forget_if_empty(id);
        }
    }

    fn tick(&mut self, now: Instant, todo: &mut PoolActions) {
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for id in lanes {
            let keep = self.rules.keep_alive;
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let old = |(_, since): &(SandboxKey, Instant)| keep <= now.duration_since(*since);
            let expired: SmallVec<[_; 4]> = lane.idle.iter().copied().filter(old).collect();
            lane.idle.retain(|idle| !old(idle));
            for (key, _) in expired {
                self.stop(key, todo);
            }
            self.start_where_needed(now, id, todo);
            self.forget_if_empty(id);
        }
    }

    /// Makes a healthy sandbox idle, or stops it where it is not wanted, and serves who waits.
    fn settle(&mut self, now: Instant, key: SandboxKey, since: Instant, todo: &mut PoolActions) {
        let Some(id) = self.sandboxes.get(&key).map(|sandbox| sandbox.lane) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let unwanted = self.stopping || (lane.retired && lane.waiting() == 0);
        if unwanted {
            self.stop(key, todo);
        } else {
            let place = lane.idle.partition_point(|(_, other)| *other <= since);
            lane.idle.insert(place, (key, since));
            if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                sandbox.phase = SandboxPhase::Idle;
            }
        }
        self.serve(now, todo);
        self.start_where_needed(now, id, todo);
        self.forget_if_empty(id);
    }

    /// Grants idle sandboxes to callers, the longest wait first, as long as there are both.
    fn serve(&mut self, now: Instant, todo: &mut PoolActions) {
        while 0 < self.waiting && self.has_free_concurrency() {
            let servable = self.lanes.iter().filter(|(_, lane)| !lane.idle.is_empty());
            let oldest =
                servable.filter_map(|(id, lane)| lane.oldest().map(|since| (since, *id))).min();
            let Some((_, id)) = oldest else { return };
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            let (Some(waiter), Some((key, _))) = (lane.next(now), lane.idle.pop()) else { return };
            self.left_wait_queue(1);
            self.grant(now, key, waiter, todo);
        }
    }

    fn grant(&mut self, now: Instant, key: SandboxKey, waiter: WaiterId, todo: &mut PoolActions) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key)
            && let Some(lane) = self.lanes.get_mut(&sandbox.lane)
        {
            sandbox.phase = SandboxPhase::Busy;
            sandbox.granted = Some(now);
            lane.busy += 1;
            lane.last_grant = Some(now);
        }
        self.busy += 1;
        todo.push(PoolAction::Grant { waiter, key });
    }

    /// Starts sandboxes for callers that have waited long enough, at most one for each. The cost does
    /// not grow with the wait queue.
    fn start_where_needed(&mut self, now: Instant, id: LaneId, todo: &mut PoolActions) {
        // At the concurrency limit another sandbox would only be idle.
        if self.waiting == 0 || self.stopping || !self.has_free_concurrency() {
            return;
        }
        let PoolRules { concurrency, starts_max, .. } = self.rules;
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let sandboxes = lane.starting + lane.busy + lane.idle.len();
        let limit = concurrency.map_or(usize::MAX, |limit| limit as usize);
        let free = limit.saturating_sub(sandboxes).min(starts_max.saturating_sub(self.starting));
        if free == 0 {
            return;
        }
        let needed = lane.needed(now, &self.rules);
        let wanted = free.min(needed.saturating_sub(lane.starting));
        lane.starting += wanted;
        self.starting += wanted;
        for _ in 0..wanted {
            let key = SandboxKey(self.next_key);
            self.next_key += 1;
            self.sandboxes.insert(
                key,
                PooledSandbox { lane: id, phase: SandboxPhase::Starting, granted: None },
            );
            todo.push(PoolAction::Start { key, lane: id });
        }
    }

    fn stop(&mut self, key: SandboxKey, todo: &mut PoolActions) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key) {
            sandbox.phase = SandboxPhase::Stopping;
            todo.push(PoolAction::Stop { key });
        }
    }

    /// Removes a sandbox from the starting ones; the caller sets its phase.
    fn end_start(&mut self, key: SandboxKey) -> Option<LaneId> {
        let sandbox = self.sandboxes.get(&key)?;
        let lane = self.lanes.get_mut(&sandbox.lane)?;
        match sandbox.phase {
            SandboxPhase::Starting => {}
            SandboxPhase::Blocked => lane.blocked -= 1,
            SandboxPhase::Loading => lane.loading -= 1,
            SandboxPhase::Idle
            | SandboxPhase::Busy
            | SandboxPhase::Lent
            | SandboxPhase::Stopping => return None,
        }
        lane.starting -= 1;
        self.starting -= 1;
        Some(sandbox.lane)
    }

    /// Removes a sandbox from the used ones; the caller sets its phase.
    fn end_use(&mut self, key: SandboxKey) -> Option<LaneId> {
        let sandbox = self.sandboxes.get(&key)?;
        match sandbox.phase {
            SandboxPhase::Busy => self.busy -= 1,
            SandboxPhase::Lent => {}
            SandboxPhase::Starting
            | SandboxPhase::Blocked
            | SandboxPhase::Loading
            | SandboxPhase::Idle
            | SandboxPhase::Stopping => {
                return None;
            }
        }
        if let Some(lane) = self.lanes.get_mut(&sandbox.lane) {
            lane.busy -= 1;
        }
        Some(sandbox.lane)
    }

    fn has_free_concurrency(&self) -> bool {
        self.rules.concurrency.is_none_or(|limit| self.busy < limit)
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get(&id)
            && lane.retired | self.stopping
            && lane.waiting() == 0
            && lane.idle.is_empty()
            && lane.starting + lane.busy == 0
        {
            self.lanes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
