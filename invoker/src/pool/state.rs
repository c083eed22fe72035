//! The decisions of one function's pool: who gets which sandbox, who waits, what is started and
//! stopped. Pure: it never waits, reads a clock, spawns or logs.
//!
//! A pool serves all revisions of one function, each in a *lane* of its own, because their
//! concurrency is one. Whatever races the real world has, they reach this file as some order of
//! [`Input`]s; `tests.rs` plays thousands of orders.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

/// One revision's part of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u32);

/// A sandbox, or the start of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SandboxKey(pub(crate) u64);

/// A caller in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId(pub(crate) u64);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Input {
    /// Somebody wants a sandbox.
    Requested { lane: LaneId, waiter: WaiterId },
    /// Somebody in line went away.
    Abandoned { waiter: WaiterId },
    /// Somebody's time in line is over. May be said again while a start is under way for them.
    Expired { waiter: WaiterId },
    /// A sandbox came up; how long that took.
    Started { key: SandboxKey, took: Duration },
    /// A sandbox did not come up.
    StartFailed { key: SandboxKey },
    /// A start waits for room on the node. Said again and again while it does.
    Blocked { key: SandboxKey },
    /// A start found room.
    Unblocked { key: SandboxKey },
    /// A sandbox was given back.
    Released { key: SandboxKey, healthy: bool },
    /// A sandbox was given back that only the platform used: it counts as idle since then.
    Returned { key: SandboxKey, idle_since: Instant },
    /// The platform itself wants this sandbox, to freeze it.
    Borrowed { key: SandboxKey },
    /// A sandbox ended by itself.
    Died { key: SandboxKey },
    /// Another function needs the room.
    Evicted { key: SandboxKey },
    /// A sandbox is gone.
    Stopped { key: SandboxKey },
    /// No new events are to be expected for the lane.
    Retired { lane: LaneId },
    /// The node stops.
    Shutdown,
    /// Time has passed.
    Tick,
}

/// What is to be done. Nothing of it may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Start a sandbox for the lane.
    Start { key: SandboxKey, lane: LaneId },
    /// Do not go on with a start that still waits for room.
    Cancel { key: SandboxKey },
    /// The sandbox is the waiter's until it is released.
    Grant { waiter: WaiterId, key: SandboxKey },
    /// The sandbox is the platform's until it is returned.
    Lend { key: SandboxKey },
    /// The waiter gets none.
    Refuse { waiter: WaiterId, why: Why },
    /// Stop the sandbox and say when it is gone.
    Stop { key: SandboxKey },
}

/// Why a waiter gets no sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// So many stand in line already.
    LineFull { waiting: u32 },
    /// So many events of the function run already.
    Concurrency { limit: u32 },
    /// A start waits for room on the node.
    NoRoom,
    /// None became free or came up in time.
    TooSlow { busy: u32 },
    /// The start that it waited for failed.
    StartFailed,
    /// The node stops.
    Stopping,
}

/// What the operator and the function's author have set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Events of the function at once.
    pub(crate) concurrency: Option<u32>,
    /// Callers in line.
    pub(crate) waiting_max: usize,
    /// Starts under way at once.
    pub(crate) starts_max: usize,
    /// A wait that is worth another sandbox, unless a cold start takes less.
    pub(crate) target_wait: Duration,
    /// How long idle sandboxes are kept.
    pub(crate) keep_alive: Duration,
}

/// How many sandboxes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) starting: u32,
    pub(crate) idle: u32,
    pub(crate) busy: u32,
    pub(crate) stopping: u32,
    pub(crate) waiting: u32,
}

/// At most a handful: on the warm path one, without an allocation.
pub(crate) type Actions = SmallVec<[Action; 2]>;

/// One function's pool.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rules: Rules,
    lanes: BTreeMap<LaneId, Lane>,
    sandboxes: BTreeMap<SandboxKey, Sandbox>,
    next_key: u64,
    busy: u32,
    waiting: usize,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// Oldest first; the last is the hottest.
    idle: Vec<(SandboxKey, Instant)>,
    /// Oldest first.
    waiters: VecDeque<(WaiterId, Instant)>,
    starting: usize,
    blocked: usize,
    busy: usize,
    /// What a cold start took, on average.
    cold_start: Option<Duration>,
    /// Waits count from here: a sandbox that came up is given a chance to work off the line.
    last_start: Option<Instant>,
    retired: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sandbox {
    lane: LaneId,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Blocked,
    Idle,
    Busy,
    Lent,
    Stopping,
}

impl State {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            lanes: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            next_key: 0,
            busy: 0,
            waiting: 0,
            stopping: false,
        }
    }

    /// The one entry: what happened, and what is to be done about it.
    pub(crate) fn on(&mut self, now: Instant, input: Input) -> Actions {
        let mut todo = Actions::new();
        match input {
            Input::Requested { lane, waiter } => self.requested(now, lane, waiter, &mut todo),
            Input::Abandoned { waiter } => {
                if let Some(lane) = self.leave_line(waiter) {
                    self.forget_if_empty(lane);
                }
            }
            Input::Expired { waiter } => self.expired(waiter, &mut todo),
            Input::Started { key, took } => self.started(now, key, took, &mut todo),
            Input::StartFailed { key } => self.start_failed(now, key, &mut todo),
            Input::Blocked { key } => self.blocked(key, &mut todo),
            Input::Unblocked { key } => self.unblocked(key),
            Input::Released { key, healthy } => self.released(now, key, healthy, &mut todo),
            Input::Returned { key, idle_since } => self.returned(now, key, idle_since, &mut todo),
            Input::Borrowed { key } => self.borrowed(key, &mut todo),
            Input::Died { key } | Input::Evicted { key } => self.stop_idle(key, &mut todo),
            Input::Stopped { key } => self.stopped(key),
            Input::Retired { lane } => self.retired(lane, &mut todo),
            Input::Shutdown => self.shutdown(&mut todo),
            Input::Tick => self.tick(now, &mut todo),
        }
        todo
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            waiting: u32::try_from(self.waiting).unwrap_or(u32::MAX),
            ..Counts::default()
        };
        for sandbox in self.sandboxes.values() {
            match sandbox.phase {
                Phase::Starting | Phase::Blocked => counts.starting += 1,
                Phase::Idle => counts.idle += 1,
                Phase::Busy | Phase::Lent => counts.busy += 1,
                Phase::Stopping => counts.stopping += 1,
            }
        }
        counts
    }

    /// Whether nobody waits and no sandbox is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.waiting == 0
    }

    /// Whether the lane was used and is not yet forgotten.
    pub(crate) fn has_lane(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Callers in line.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Idle sandboxes and since when, in no order.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (SandboxKey, Instant)> + '_ {
        self.lanes.values().flat_map(|lane| lane.idle.iter().copied())
    }

    fn requested(&mut self, now: Instant, id: LaneId, waiter: WaiterId, todo: &mut Actions) {
        if self.stopping {
            todo.push(Action::Refuse { waiter, why: Why::Stopping });
            return;
        }
        let free = self.has_free_run();
        let lane = self.lanes.entry(id).or_default();
        if free
            && lane.waiters.is_empty()
            && let Some((key, _)) = lane.idle.pop()
        {
            self.grant(id, key, waiter, todo);
            return;
        }
        if self.rules.waiting_max <= self.waiting {
            let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
            todo.push(Action::Refuse { waiter, why: Why::LineFull { waiting } });
            self.forget_if_empty(id);
            return;
        }
        lane.waiters.push_back((waiter, now));
        self.waiting += 1;
        self.start_where_needed(now, id, todo);
    }

    fn expired(&mut self, waiter: WaiterId, todo: &mut Actions) {
        let Some((id, place)) = self.place_in_line(waiter) else { return };
        let Some(lane) = self.lanes.get(&id) else { return };
        let under_way = lane.starting.saturating_sub(lane.blocked);
        if place < under_way && self.has_free_run() {
            return;
        }
        let why = if !self.has_free_run() {
            Why::Concurrency { limit: self.rules.concurrency.unwrap_or(u32::MAX) }
        } else if 0 < lane.blocked {
            Why::NoRoom
        } else {
            Why::TooSlow { busy: self.busy }
        };
        self.leave_line(waiter);
        todo.push(Action::Refuse { waiter, why });
        self.forget_if_empty(id);
    }

    fn started(&mut self, now: Instant, key: SandboxKey, took: Duration, todo: &mut Actions) {
        let Some(id) = self.start_over(key) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.cold_start = Some(lane.cold_start.map_or(took, |old| (old * 3 + took) / 4));
        lane.last_start = Some(now);
        self.settle(now, key, now, todo);
    }

    fn start_failed(&mut self, now: Instant, key: SandboxKey, todo: &mut Actions) {
        let Some(id) = self.start_over(key) else { return };
        self.sandboxes.remove(&key);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        // Nobody else can serve them: the next start would most likely fail alike.
        let hopeless = lane.starting == 0 && lane.busy == 0 && lane.idle.is_empty();
        let answered = if hopeless { lane.waiters.len() } else { 1 };
        for _ in 0..answered {
            if let Some((waiter, _)) = lane.waiters.pop_front() {
                self.waiting -= 1;
                todo.push(Action::Refuse { waiter, why: Why::StartFailed });
            }
        }
        self.start_where_needed(now, id, todo);
        self.forget_if_empty(id);
    }

    fn blocked(&mut self, key: SandboxKey, todo: &mut Actions) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else { return };
        let id = sandbox.lane;
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        match sandbox.phase {
            Phase::Starting => {
                sandbox.phase = Phase::Blocked;
                lane.blocked += 1;
            }
            Phase::Blocked => {}
            Phase::Idle | Phase::Busy | Phase::Lent | Phase::Stopping => return,
        }
        if lane.waiters.len() < lane.starting {
            self.start_over(key);
            self.sandboxes.remove(&key);
            todo.push(Action::Cancel { key });
            self.forget_if_empty(id);
        }
    }

    fn unblocked(&mut self, key: SandboxKey) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key)
            && sandbox.phase == Phase::Blocked
            && let Some(lane) = self.lanes.get_mut(&sandbox.lane)
        {
            sandbox.phase = Phase::Starting;
            lane.blocked -= 1;
        }
    }

    fn released(&mut self, now: Instant, key: SandboxKey, healthy: bool, todo: &mut Actions) {
        let Some(id) = self.no_longer_used(key) else { return };
        if healthy {
            self.settle(now, key, now, todo);
        } else {
            self.stop(key, todo);
            self.serve(todo);
            self.start_where_needed(now, id, todo);
            self.forget_if_empty(id);
        }
    }

    fn returned(&mut self, now: Instant, key: SandboxKey, since: Instant, todo: &mut Actions) {
        if self.no_longer_used(key).is_some() {
            self.settle(now, key, since, todo);
        }
    }

    fn borrowed(&mut self, key: SandboxKey, todo: &mut Actions) {
        let Some(sandbox) = self.sandboxes.get_mut(&key) else { return };
        if sandbox.phase != Phase::Idle {
            return;
        }
        sandbox.phase = Phase::Lent;
        if let Some(lane) = self.lanes.get_mut(&sandbox.lane) {
            lane.idle.retain(|(idle, _)| *idle != key);
            lane.busy += 1;
        }
        todo.push(Action::Lend { key });
    }

    fn stop_idle(&mut self, key: SandboxKey, todo: &mut Actions) {
        let Some(sandbox) = self.sandboxes.get(&key) else { return };
        let (id, phase) = (sandbox.lane, sandbox.phase);
        // A busy one is its user's: that it died is seen there.
        if phase == Phase::Idle {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.idle.retain(|(idle, _)| *idle != key);
            }
            self.stop(key, todo);
            self.forget_if_empty(id);
        }
    }

    fn stopped(&mut self, key: SandboxKey) {
        if self.sandboxes.get(&key).is_some_and(|sandbox| sandbox.phase == Phase::Stopping) {
            self.sandboxes.remove(&key);
        }
    }

    fn retired(&mut self, id: LaneId, todo: &mut Actions) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.retired = true;
        for (key, _) in std::mem::take(&mut lane.idle) {
            self.stop(key, todo);
        }
        self.forget_if_empty(id);
    }

    fn shutdown(&mut self, todo: &mut Actions) {
        self.stopping = true;
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for id in lanes {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            self.waiting -= lane.waiters.len();
            for (waiter, _) in lane.waiters.drain(..) {
                todo.push(Action::Refuse { waiter, why: Why::Stopping });
            }
            for (key, _) in std::mem::take(&mut lane.idle) {
                self.stop(key, todo);
            }
            self.forget_if_empty(id);
        }
    }

    fn tick(&mut self, now: Instant, todo: &mut Actions) {
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

    /// Puts a healthy sandbox to its next use.
    fn settle(&mut self, now: Instant, key: SandboxKey, since: Instant, todo: &mut Actions) {
        let Some(id) = self.sandboxes.get(&key).map(|sandbox| sandbox.lane) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let unwanted = self.stopping || (lane.retired && lane.waiters.is_empty());
        if unwanted {
            self.stop(key, todo);
        } else {
            let place = lane.idle.partition_point(|(_, other)| *other <= since);
            lane.idle.insert(place, (key, since));
            if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                sandbox.phase = Phase::Idle;
            }
        }
        self.serve(todo);
        self.start_where_needed(now, id, todo);
        self.forget_if_empty(id);
    }

    /// Grants idle sandboxes to waiters, the longest wait first, as long as both are there.
    fn serve(&mut self, todo: &mut Actions) {
        while 0 < self.waiting && self.has_free_run() {
            let servable = self.lanes.iter().filter(|(_, lane)| !lane.idle.is_empty());
            let oldest = servable
                .filter_map(|(id, lane)| lane.waiters.front().map(|(_, since)| (*since, *id)))
                .min();
            let Some((_, id)) = oldest else { return };
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            let (Some((waiter, _)), Some((key, _))) = (lane.waiters.pop_front(), lane.idle.pop())
            else {
                return;
            };
            self.waiting -= 1;
            self.grant(id, key, waiter, todo);
        }
    }

    fn grant(&mut self, id: LaneId, key: SandboxKey, waiter: WaiterId, todo: &mut Actions) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.busy += 1;
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&key) {
            sandbox.phase = Phase::Busy;
        }
        self.busy += 1;
        todo.push(Action::Grant { waiter, key });
    }

    /// Starts sandboxes for those who have waited long enough, one for each at most.
    fn start_where_needed(&mut self, now: Instant, id: LaneId, todo: &mut Actions) {
        loop {
            let all_starting: usize = self.lanes.values().map(|lane| lane.starting).sum();
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            let sandboxes = lane.starting + lane.busy + lane.idle.len();
            let limit = self.rules.concurrency.map_or(usize::MAX, |limit| limit as usize);
            let enough = lane.needed(now, self.rules.target_wait) <= lane.starting
                || self.rules.starts_max <= all_starting
                || limit <= sandboxes;
            // Without a free run, another sandbox would only stand beside the others.
            if enough || self.stopping || !self.has_free_run() {
                return;
            }
            let key = SandboxKey(self.next_key);
            self.next_key += 1;
            self.sandboxes.insert(key, Sandbox { lane: id, phase: Phase::Starting });
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.starting += 1;
            }
            todo.push(Action::Start { key, lane: id });
        }
    }

    fn stop(&mut self, key: SandboxKey, todo: &mut Actions) {
        if let Some(sandbox) = self.sandboxes.get_mut(&key) {
            sandbox.phase = Phase::Stopping;
            todo.push(Action::Stop { key });
        }
    }

    /// Takes a sandbox out of the starting ones; its phase is the caller's to set.
    fn start_over(&mut self, key: SandboxKey) -> Option<LaneId> {
        let sandbox = self.sandboxes.get(&key)?;
        let lane = self.lanes.get_mut(&sandbox.lane)?;
        match sandbox.phase {
            Phase::Starting => {}
            Phase::Blocked => lane.blocked -= 1,
            Phase::Idle | Phase::Busy | Phase::Lent | Phase::Stopping => return None,
        }
        lane.starting -= 1;
        Some(sandbox.lane)
    }

    /// Takes a sandbox out of the used ones; its phase is the caller's to set.
    fn no_longer_used(&mut self, key: SandboxKey) -> Option<LaneId> {
        let sandbox = self.sandboxes.get(&key)?;
        match sandbox.phase {
            Phase::Busy => self.busy -= 1,
            Phase::Lent => {}
            Phase::Starting | Phase::Blocked | Phase::Idle | Phase::Stopping => return None,
        }
        if let Some(lane) = self.lanes.get_mut(&sandbox.lane) {
            lane.busy -= 1;
        }
        Some(sandbox.lane)
    }

    fn has_free_run(&self) -> bool {
        self.rules.concurrency.is_none_or(|limit| self.busy < limit)
    }

    fn place_in_line(&self, waiter: WaiterId) -> Option<(LaneId, usize)> {
        self.lanes.iter().find_map(|(id, lane)| {
            Some((*id, lane.waiters.iter().position(|(other, _)| *other == waiter)?))
        })
    }

    fn leave_line(&mut self, waiter: WaiterId) -> Option<LaneId> {
        let (id, place) = self.place_in_line(waiter)?;
        self.lanes.get_mut(&id)?.waiters.remove(place);
        self.waiting -= 1;
        Some(id)
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get(&id)
            && lane.retired | self.stopping
            && lane.waiters.is_empty()
            && lane.idle.is_empty()
            && lane.starting + lane.busy == 0
        {
            self.lanes.remove(&id);
        }
    }
}

impl Lane {
    /// How many starts its waiters justify.
    fn needed(&self, now: Instant, target_wait: Duration) -> usize {
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
        self.waiters.iter().take_while(long).count()
    }
}

#[cfg(test)]
mod tests;
