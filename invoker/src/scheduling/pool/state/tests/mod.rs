//! Rules one by one.

mod lives;
mod load;

use super::*;

const LANE: LaneId = LaneId(0);
const RULES: PoolRules = PoolRules {
    concurrency: None,
    waiting_max: 5,
    starts_max: 2,
    cores: 2,
    target_wait: Duration::from_millis(20),
    keep_alive: Duration::from_secs(300),
};

fn request(state: &mut PoolState, now: Instant, waiter: u64) -> PoolActions {
    state.on(now, PoolInput::Requested { lane: LANE, waiter: WaiterId(waiter) })
}

fn started(state: &mut PoolState, now: Instant, key: u64) -> PoolActions {
    state.on(now, PoolInput::Started { key: SandboxKey(key), took: Duration::from_millis(100) })
}

fn released(state: &mut PoolState, now: Instant, key: u64) -> PoolActions {
    state.on(now, PoolInput::Released { key: SandboxKey(key), healthy: true })
}

fn start(key: u64) -> PoolAction {
    PoolAction::Start { key: SandboxKey(key), lane: LANE }
}

fn grant(waiter: u64, key: u64) -> PoolAction {
    PoolAction::Grant { waiter: WaiterId(waiter), key: SandboxKey(key) }
}

fn refuse(waiter: u64, reason: RefusalReason) -> PoolAction {
    PoolAction::Refuse { waiter: WaiterId(waiter), reason }
}

fn stop(key: u64) -> PoolAction {
    PoolAction::Stop { key: SandboxKey(key) }
}

fn no_actions() -> PoolActions {
    PoolActions::new()
}

/// A state with idle sandboxes `0..count`, of which the last one is granted first.
fn warm(rules: PoolRules, now: Instant, count: u64) -> PoolState {
    let eager = PoolRules { target_wait: Duration::ZERO, concurrency: None, ..rules };
    let mut state = PoolState::new(eager);
    for key in 0..count {
        assert_eq!(request(&mut state, now, key).as_slice(), [start(key)]);
        assert_eq!(started(&mut state, now, key).as_slice(), [grant(key, key)]);
    }
    for key in 0..count {
        assert_eq!(released(&mut state, now, key), no_actions());
    }
    state.rules = rules;
    state
}

#[test]
fn the_sandbox_used_last_is_granted_first() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 3);
    assert_eq!(request(&mut state, now, 10).as_slice(), [grant(10, 2)]);
    assert_eq!(request(&mut state, now, 11).as_slice(), [grant(11, 1)]);
}

#[test]
fn a_burst_on_a_cold_function_starts_one_sandbox() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    assert_eq!(request(&mut state, now, 0).as_slice(), [start(0)]);
    for waiter in 1..4 {
        assert_eq!(request(&mut state, now, waiter), no_actions());
    }
    let later = now + Duration::from_millis(100);
    assert_eq!(state.on(later, PoolInput::Tick), no_actions());
    // It is given the time to serve the others before more are started.
    assert_eq!(started(&mut state, later, 0).as_slice(), [grant(0, 0)]);
    assert_eq!(state.on(later + Duration::from_millis(19), PoolInput::Tick), no_actions());
    let ticked = state.on(later + Duration::from_millis(20), PoolInput::Tick);
    assert_eq!(ticked.as_slice(), [start(1), start(2)], "three wait, two may start at once");
}

#[test]
fn a_short_wait_for_a_busy_sandbox_starts_nothing() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    request(&mut state, now, 10);
    assert_eq!(request(&mut state, now, 11), no_actions());
    let soon = now + Duration::from_millis(19);
    assert_eq!(state.on(soon, PoolInput::Tick), no_actions());
    assert_eq!(released(&mut state, soon, 0).as_slice(), [grant(11, 0)]);
}

#[test]
fn a_queue_that_moves_gets_no_further_sandbox_until_it_is_stuck() {
    let mut now = Instant::now();
    let mut state = warm(RULES, now, 1);
    request(&mut state, now, 10);
    for waiter in 11..15 {
        request(&mut state, now, waiter);
    }
    // Ten milliseconds each: four of them take less than a start of 100.
    for waiter in 11..13 {
        now += Duration::from_millis(10);
        assert_eq!(released(&mut state, now, 0).as_slice(), [grant(waiter, 0)]);
    }
    // A machine may pause for a fifth of a second.
    assert_eq!(state.on(now + Duration::from_millis(199), PoolInput::Tick), no_actions());
    let ticked = state.on(now + Duration::from_millis(200), PoolInput::Tick);
    assert_eq!(ticked.as_slice(), [start(1), start(2)]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    for waiter in 0..5 {
        request(&mut state, now, waiter);
    }
    let refused = request(&mut state, now, 5);
    assert_eq!(refused.as_slice(), [refuse(5, RefusalReason::WaitQueueFull { waiting: 5 })]);
}

#[test]
fn a_backlog_at_the_functions_concurrency_is_kept_short() {
    let mut now = Instant::now();
    let mut state = warm(PoolRules { waiting_max: 1000, ..RULES }, now, 1);
    state.rules.concurrency = Some(1);
    request(&mut state, now, 10);
    // Ten milliseconds each: half a second's worth is fifty.
    for waiter in 11..111 {
        assert_eq!(request(&mut state, now, waiter), no_actions(), "a burst is let in");
    }
    for waiter in 11..111 {
        now += Duration::from_millis(10);
        assert_eq!(released(&mut state, now, 0).as_slice(), [grant(waiter, 0)]);
        let next = request(&mut state, now, waiter + 100);
        let full = 100 <= waiter - 10;
        assert_eq!(next.len(), usize::from(full), "{waiter}");
    }
    for waiter in 111..161 {
        now += Duration::from_millis(10);
        assert_eq!(released(&mut state, now, 0).as_slice(), [grant(waiter, 0)]);
    }
    // Fifty-one of a hair under ten milliseconds fit.
    assert_eq!(request(&mut state, now, 300), no_actions(), "a short queue takes more");
    assert_eq!(request(&mut state, now, 301), no_actions());
    let full = request(&mut state, now, 302);
    assert_eq!(full.as_slice(), [refuse(302, RefusalReason::WaitQueueFull { waiting: 51 })]);
}

#[test]
fn concurrency_is_one_for_all_lanes_and_the_longest_wait_goes_first() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    state.rules.concurrency = Some(1);
    let other = LaneId(1);
    request(&mut state, now, 10);
    let waiting = PoolInput::Requested { lane: other, waiter: WaiterId(11) };
    assert_eq!(state.on(now, waiting), no_actions(), "a start would be of no use");
    let expired = state.on(now, PoolInput::Expired { lane: other, waiter: WaiterId(11) });
    assert_eq!(expired.as_slice(), [refuse(11, RefusalReason::Concurrency { limit: 1 })]);
}

#[test]
fn who_waits_for_code_that_is_being_loaded_is_not_refused() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    request(&mut state, now, 0);
    request(&mut state, now, 1);
    state.on(now, PoolInput::Loading { key: SandboxKey(0) });
    let first = PoolInput::Expired { lane: LANE, waiter: WaiterId(0) };
    assert_eq!(state.on(now, first), no_actions());
    let second = state.on(now, PoolInput::Expired { lane: LANE, waiter: WaiterId(1) });
    assert_eq!(second.as_slice(), [refuse(1, RefusalReason::TooSlow { busy: 0 })]);
    assert_eq!(started(&mut state, now, 0).as_slice(), [grant(0, 0)]);
}

#[test]
fn who_waits_for_a_backend_that_starts_nothing_is_refused_in_time() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    request(&mut state, now, 0);
    let first = state.on(now, PoolInput::Expired { lane: LANE, waiter: WaiterId(0) });
    assert_eq!(first.as_slice(), [refuse(0, RefusalReason::StartSlow)]);
    request(&mut state, now, 1);
    state.on(now, PoolInput::Blocked { key: SandboxKey(0) });
    let blocked = state.on(now, PoolInput::Expired { lane: LANE, waiter: WaiterId(1) });
    assert_eq!(blocked.as_slice(), [refuse(1, RefusalReason::NoRoom)]);
    let unwanted = state.on(now, PoolInput::Blocked { key: SandboxKey(0) });
    assert_eq!(unwanted.as_slice(), [PoolAction::Cancel { key: SandboxKey(0) }]);
}

#[test]
fn a_failed_start_refuses_every_caller_that_no_other_sandbox_can_serve() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    request(&mut state, now, 0);
    request(&mut state, now, 1);
    let failed = state.on(now, PoolInput::StartFailed { key: SandboxKey(0) });
    assert_eq!(
        failed.as_slice(),
        [refuse(0, RefusalReason::StartFailed), refuse(1, RefusalReason::StartFailed)]
    );
    assert_eq!(request(&mut state, now, 2).as_slice(), [start(1)], "the next call tries again");
}

#[test]
fn a_cancelled_waiter_gets_nothing_and_its_sandbox_stays_warm() {
    let now = Instant::now();
    let mut state = PoolState::new(RULES);
    request(&mut state, now, 0);
    state.on(now, PoolInput::Abandoned { lane: LANE, waiter: WaiterId(0) });
    assert_eq!(started(&mut state, now, 0), no_actions());
    assert_eq!(request(&mut state, now, 1).as_slice(), [grant(1, 0)]);
}

#[test]
fn idle_sandboxes_are_stopped_after_their_keep_alive() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 2);
    let later = now + Duration::from_secs(200);
    request(&mut state, later, 10);
    released(&mut state, later, 1);
    let end = now + Duration::from_secs(300);
    assert_eq!(state.on(end, PoolInput::Tick).as_slice(), [stop(0)]);
    // Freezing it is no use of it: its idle time goes on.
    let lent = state.on(end, PoolInput::Borrowed { key: SandboxKey(1) });
    assert_eq!(lent.as_slice(), [PoolAction::Lend { key: SandboxKey(1) }]);
    let back = PoolInput::Returned { key: SandboxKey(1), idle_since: later };
    assert_eq!(state.on(end, back), no_actions());
    assert_eq!(state.on(later + RULES.keep_alive, PoolInput::Tick).as_slice(), [stop(1)]);
}

#[test]
fn a_retired_lane_ends_with_its_last_event() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 2);
    request(&mut state, now, 10);
    assert_eq!(state.on(now, PoolInput::Retired { lane: LANE }).as_slice(), [stop(0)]);
    // An event that was accepted for the old code is still served by it.
    assert_eq!(request(&mut state, now, 11), no_actions());
    assert_eq!(released(&mut state, now, 1).as_slice(), [grant(11, 1)]);
    assert_eq!(released(&mut state, now, 1).as_slice(), [stop(1)]);
    for key in [0, 1] {
        state.on(now, PoolInput::Stopped { key: SandboxKey(key) });
    }
    assert!(state.is_empty() && !state.has_lane(LANE));
}

#[test]
fn after_a_fault_the_sandbox_is_stopped_and_who_waits_gets_a_new_one() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    request(&mut state, now, 10);
    request(&mut state, now, 11);
    let tainted = PoolInput::Released { key: SandboxKey(0), healthy: false };
    assert_eq!(state.on(now, tainted).as_slice(), [stop(0), start(1)]);
}
