//! Rules one by one, and thousands of random lives of a pool in a simulated world.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LANE: LaneId = LaneId(0);
const RULES: Rules = Rules {
    concurrency: None,
    waiting_max: 5,
    starts_max: 2,
    target_wait: Duration::from_millis(20),
    keep_alive: Duration::from_secs(300),
};

fn request(state: &mut State, now: Instant, waiter: u64) -> Actions {
    state.on(now, Input::Requested { lane: LANE, waiter: WaiterId(waiter) })
}

fn started(state: &mut State, now: Instant, key: u64) -> Actions {
    state.on(now, Input::Started { key: SandboxKey(key), took: Duration::from_millis(100) })
}

fn released(state: &mut State, now: Instant, key: u64) -> Actions {
    state.on(now, Input::Released { key: SandboxKey(key), healthy: true })
}

fn start(key: u64) -> Action {
    Action::Start { key: SandboxKey(key), lane: LANE }
}

fn grant(waiter: u64, key: u64) -> Action {
    Action::Grant { waiter: WaiterId(waiter), key: SandboxKey(key) }
}

fn refuse(waiter: u64, why: Why) -> Action {
    Action::Refuse { waiter: WaiterId(waiter), why }
}

fn stop(key: u64) -> Action {
    Action::Stop { key: SandboxKey(key) }
}

fn no_actions() -> Actions {
    Actions::new()
}

/// A state with so many idle sandboxes, `0..count`, the last the hottest.
fn warm(rules: Rules, now: Instant, count: u64) -> State {
    let eager = Rules { target_wait: Duration::ZERO, concurrency: None, ..rules };
    let mut state = State::new(eager);
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
    let mut state = State::new(RULES);
    assert_eq!(request(&mut state, now, 0).as_slice(), [start(0)]);
    for waiter in 1..4 {
        assert_eq!(request(&mut state, now, waiter), no_actions());
    }
    let later = now + Duration::from_millis(100);
    assert_eq!(state.on(later, Input::Tick), no_actions());
    // It is given a chance to work off the line before it gets company.
    assert_eq!(started(&mut state, later, 0).as_slice(), [grant(0, 0)]);
    assert_eq!(state.on(later + Duration::from_millis(19), Input::Tick), no_actions());
    let ticked = state.on(later + Duration::from_millis(20), Input::Tick);
    assert_eq!(ticked.as_slice(), [start(1), start(2)], "three wait, two may start at once");
}

#[test]
fn a_short_wait_for_a_busy_sandbox_starts_nothing() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    request(&mut state, now, 10);
    assert_eq!(request(&mut state, now, 11), no_actions());
    let soon = now + Duration::from_millis(19);
    assert_eq!(state.on(soon, Input::Tick), no_actions());
    assert_eq!(released(&mut state, soon, 0).as_slice(), [grant(11, 0)]);
}

#[test]
fn a_full_line_refuses_at_once() {
    let now = Instant::now();
    let mut state = State::new(RULES);
    for waiter in 0..5 {
        request(&mut state, now, waiter);
    }
    let refused = request(&mut state, now, 5);
    assert_eq!(refused.as_slice(), [refuse(5, Why::LineFull { waiting: 5 })]);
}

#[test]
fn concurrency_is_one_for_all_lanes_and_the_longest_wait_goes_first() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    state.rules.concurrency = Some(1);
    let other = LaneId(1);
    request(&mut state, now, 10);
    let waiting = Input::Requested { lane: other, waiter: WaiterId(11) };
    assert_eq!(state.on(now, waiting), no_actions(), "a start would be of no use");
    let expired = state.on(now, Input::Expired { waiter: WaiterId(11) });
    assert_eq!(expired.as_slice(), [refuse(11, Why::Concurrency { limit: 1 })]);
}

#[test]
fn who_waits_for_a_start_under_way_is_not_sent_away() {
    let now = Instant::now();
    let mut state = State::new(RULES);
    request(&mut state, now, 0);
    request(&mut state, now, 1);
    assert_eq!(state.on(now, Input::Expired { waiter: WaiterId(0) }), no_actions());
    let second = state.on(now, Input::Expired { waiter: WaiterId(1) });
    assert_eq!(second.as_slice(), [refuse(1, Why::TooSlow { busy: 0 })]);
    state.on(now, Input::Blocked { key: SandboxKey(0) });
    let blocked = state.on(now, Input::Expired { waiter: WaiterId(0) });
    assert_eq!(blocked.as_slice(), [refuse(0, Why::NoRoom)]);
    let unwanted = state.on(now, Input::Blocked { key: SandboxKey(0) });
    assert_eq!(unwanted.as_slice(), [Action::Cancel { key: SandboxKey(0) }]);
}

#[test]
fn a_failed_start_is_told_to_everybody_whom_nothing_else_can_serve() {
    let now = Instant::now();
    let mut state = State::new(RULES);
    request(&mut state, now, 0);
    request(&mut state, now, 1);
    let failed = state.on(now, Input::StartFailed { key: SandboxKey(0) });
    assert_eq!(failed.as_slice(), [refuse(0, Why::StartFailed), refuse(1, Why::StartFailed)]);
    assert_eq!(request(&mut state, now, 2).as_slice(), [start(1)], "the next call tries again");
}

#[test]
fn a_cancelled_waiter_gets_nothing_and_its_sandbox_stays_warm() {
    let now = Instant::now();
    let mut state = State::new(RULES);
    request(&mut state, now, 0);
    state.on(now, Input::Abandoned { waiter: WaiterId(0) });
    assert_eq!(started(&mut state, now, 0), no_actions());
    assert_eq!(request(&mut state, now, 1).as_slice(), [grant(1, 0)]);
}

#[test]
fn idle_sandboxes_are_given_up_after_their_keep_alive() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 2);
    let later = now + Duration::from_secs(200);
    request(&mut state, later, 10);
    released(&mut state, later, 1);
    let end = now + Duration::from_secs(300);
    assert_eq!(state.on(end, Input::Tick).as_slice(), [stop(0)]);
    // Being frozen is no use: the time of idleness goes on.
    let lent = state.on(end, Input::Borrowed { key: SandboxKey(1) });
    assert_eq!(lent.as_slice(), [Action::Lend { key: SandboxKey(1) }]);
    let back = Input::Returned { key: SandboxKey(1), idle_since: later };
    assert_eq!(state.on(end, back), no_actions());
    assert_eq!(state.on(later + RULES.keep_alive, Input::Tick).as_slice(), [stop(1)]);
}

#[test]
fn a_retired_lane_ends_with_its_last_event() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 2);
    request(&mut state, now, 10);
    assert_eq!(state.on(now, Input::Retired { lane: LANE }).as_slice(), [stop(0)]);
    // Somebody whose event was accepted for the old code is still served by it.
    assert_eq!(request(&mut state, now, 11), no_actions());
    assert_eq!(released(&mut state, now, 1).as_slice(), [grant(11, 1)]);
    assert_eq!(released(&mut state, now, 1).as_slice(), [stop(1)]);
    for key in [0, 1] {
        state.on(now, Input::Stopped { key: SandboxKey(key) });
    }
    assert!(state.is_empty() && !state.has_lane(LANE));
}

#[test]
fn after_a_fault_the_sandbox_goes_and_the_line_gets_a_fresh_one() {
    let now = Instant::now();
    let mut state = warm(RULES, now, 1);
    request(&mut state, now, 10);
    request(&mut state, now, 11);
    let tainted = Input::Released { key: SandboxKey(0), healthy: false };
    assert_eq!(state.on(now, tainted).as_slice(), [stop(0), start(1)]);
}

/// Something that happens in the simulated world.
#[derive(Clone, Debug)]
enum Step {
    Request(u32),
    Abandon(usize),
    Expire(usize),
    StartEnds(usize, bool),
    Block(usize),
    Unblock(usize),
    Release(usize, bool),
    Borrow(usize),
    Return(usize),
    Die(usize),
    Evict(usize),
    StopEnds(usize),
    Retire(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..1_000usize;
    prop_oneof![
        6 => (0..3u32).prop_map(Step::Request),
        2 => index().prop_map(Step::Abandon),
        2 => index().prop_map(Step::Expire),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Step::StartEnds(i, ok)),
        1 => index().prop_map(Step::Block),
        1 => index().prop_map(Step::Unblock),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Step::Release(i, ok)),
        2 => index().prop_map(Step::Borrow),
        2 => index().prop_map(Step::Return),
        1 => index().prop_map(Step::Die),
        1 => index().prop_map(Step::Evict),
        2 => index().prop_map(Step::StopEnds),
        1 => (0..3u32).prop_map(Step::Retire),
        3 => (0..400_000u64).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Starting,
    Blocked,
    Idle,
    /// Given back, and not to be used again.
    Tainted,
    Busy,
    Lent,
    Stopping,
}

/// What is true outside the state machine.
struct World {
    state: State,
    now: Instant,
    next_waiter: u64,
    line: BTreeMap<WaiterId, LaneId>,
    sandboxes: BTreeMap<SandboxKey, (LaneId, Life)>,
    shut: bool,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            state: State::new(rules),
            now: Instant::now(),
            next_waiter: 0,
            line: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            shut: false,
        }
    }

    /// Picks a sandbox in one of these phases.
    fn pick(&self, index: usize, phases: &[Life]) -> Option<SandboxKey> {
        let fit = self.sandboxes.iter().filter(|(_, (_, life))| phases.contains(life));
        let fit: Vec<_> = fit.map(|(key, _)| *key).collect();
        (!fit.is_empty()).then(|| fit[index % fit.len()])
    }

    fn set(&mut self, key: SandboxKey, life: Life) {
        self.sandboxes.get_mut(&key).unwrap().1 = life;
    }

    fn pick_waiter(&self, index: usize) -> Option<WaiterId> {
        let line: Vec<_> = self.line.keys().copied().collect();
        (!line.is_empty()).then(|| line[index % line.len()])
    }

    fn play(&mut self, step: Step) {
        let starting = [Life::Starting, Life::Blocked];
        let input = match step {
            Step::Request(lane) => {
                let (waiter, lane) = (WaiterId(self.next_waiter), LaneId(lane));
                self.next_waiter += 1;
                self.line.insert(waiter, lane);
                Some(Input::Requested { lane, waiter })
            }
            Step::Abandon(index) => self.pick_waiter(index).map(|waiter| {
                self.line.remove(&waiter);
                Input::Abandoned { waiter }
            }),
            Step::Expire(index) => self.pick_waiter(index).map(|waiter| Input::Expired { waiter }),
            Step::StartEnds(index, good) => self.pick(index, &starting).map(|key| {
                if good {
                    self.set(key, Life::Idle);
                    return Input::Started { key, took: Duration::from_millis(50) };
                }
                self.sandboxes.remove(&key);
                Input::StartFailed { key }
            }),
            Step::Block(index) => self.pick(index, &starting).map(|key| {
                self.set(key, Life::Blocked);
                Input::Blocked { key }
            }),
            Step::Unblock(index) => self.pick(index, &[Life::Blocked]).map(|key| {
                self.set(key, Life::Starting);
                Input::Unblocked { key }
            }),
            Step::Release(index, healthy) => self.pick(index, &[Life::Busy]).map(|key| {
                self.set(key, if healthy { Life::Idle } else { Life::Tainted });
                Input::Released { key, healthy }
            }),
            Step::Borrow(index) => self
                .pick(index, &[Life::Idle, Life::Busy, Life::Lent])
                .map(|key| Input::Borrowed { key }),
            Step::Return(index) => self.pick(index, &[Life::Lent]).map(|key| {
                self.set(key, Life::Idle);
                Input::Returned { key, idle_since: self.now }
            }),
            Step::Die(index) => self
                .pick(index, &[Life::Idle, Life::Busy, Life::Stopping])
                .map(|key| Input::Died { key }),
            Step::Evict(index) => self
                .pick(index, &[Life::Idle, Life::Busy, Life::Lent])
                .map(|key| Input::Evicted { key }),
            Step::StopEnds(index) => self.pick(index, &[Life::Stopping]).map(|key| {
                self.sandboxes.remove(&key);
                Input::Stopped { key }
            }),
            Step::Retire(lane) => Some(Input::Retired { lane: LaneId(lane) }),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                Some(Input::Tick)
            }
        };
        let Some(input) = input else { return };
        let line = self.line.len();
        let key_and_lane = match input {
            Input::Blocked { key } => Some((key, self.sandboxes[&key].0)),
            _ => None,
        };
        let failed = match input {
            Input::StartFailed { key } => self.state.sandboxes.get(&key).map(|its| its.lane),
            _ => None,
        };
        let waited = failed.is_some_and(|lane| self.line.values().any(|its| *its == lane));
        self.feed(input);
        assert!(!waited || self.line.len() < line, "nobody was told of a failed start");
        if let Some((key, lane)) = key_and_lane
            && self.sandboxes.contains_key(&key)
        {
            let need = self.line.values().filter(|its| **its == lane).count();
            let starts = self.count(lane, &[Life::Starting, Life::Blocked]);
            assert!(starts <= need, "a start waits for room that nobody needs");
        }
    }

    fn feed(&mut self, input: Input) {
        for action in self.state.on(self.now, input) {
            match action {
                Action::Start { key, lane } => {
                    let old = self.sandboxes.insert(key, (lane, Life::Starting));
                    assert_eq!(old, None, "a key was used twice");
                    let need = self.line.values().filter(|its| **its == lane).count();
                    assert!(self.count(lane, &[Life::Starting, Life::Blocked]) <= need);
                    assert!(!self.shut, "started while stopping");
                }
                Action::Cancel { key } => {
                    assert_eq!(self.sandboxes.remove(&key).unwrap().1, Life::Blocked);
                }
                Action::Grant { waiter, key } => {
                    let lane = self.line.remove(&waiter).expect("answered twice");
                    assert_eq!(self.sandboxes[&key], (lane, Life::Idle), "granted in use");
                    self.set(key, Life::Busy);
                }
                Action::Lend { key } => {
                    assert_eq!(self.sandboxes[&key].1, Life::Idle);
                    self.set(key, Life::Lent);
                }
                Action::Refuse { waiter, .. } => {
                    self.line.remove(&waiter).expect("answered twice");
                }
                Action::Stop { key } => {
                    let life = self.sandboxes[&key].1;
                    assert!(matches!(life, Life::Idle | Life::Tainted), "stopped while {life:?}");
                    self.set(key, Life::Stopping);
                }
            }
        }
        self.check();
    }

    fn count(&self, lane: LaneId, phases: &[Life]) -> usize {
        let its =
            self.sandboxes.values().filter(|(its, life)| *its == lane && phases.contains(life));
        its.count()
    }

    /// What holds after every step.
    fn check(&self) {
        let lives = |life| self.sandboxes.values().filter(|(_, its)| *its == life).count();
        let rules = self.state.rules;
        let limit = rules.concurrency.map_or(usize::MAX, |limit| limit as usize);
        let busy = lives(Life::Busy);
        assert!(busy <= limit, "{busy} busy");
        assert!(lives(Life::Starting) + lives(Life::Blocked) <= rules.starts_max);
        assert!(self.line.len() <= rules.waiting_max);
        for lane in self.line.values() {
            let beside_idle = busy < limit && 0 < self.count(*lane, &[Life::Idle]);
            assert!(!beside_idle, "waits beside an idle sandbox");
        }
        let counts = self.state.counts();
        assert_eq!(counts.waiting as usize, self.line.len());
        assert_eq!(lives(Life::Tainted), 0, "a tainted sandbox was kept");
        assert_eq!(counts.idle as usize, lives(Life::Idle));
        assert_eq!(counts.busy as usize, busy + lives(Life::Lent));
        assert_eq!(counts.stopping as usize, lives(Life::Stopping));
        assert_eq!(counts.starting as usize, lives(Life::Starting) + lives(Life::Blocked));
    }

    /// Lets everything that is under way end.
    fn come_to_rest(&mut self) {
        let first = 0;
        for _ in 0..10_000 {
            let anything = self.sandboxes.values().any(|(_, life)| *life != Life::Idle);
            if self.line.is_empty() && !anything {
                return;
            }
            self.play(Step::Unblock(first));
            self.play(Step::StartEnds(first, true));
            self.play(Step::Return(first));
            self.play(Step::Release(first, true));
            self.play(Step::StopEnds(first));
            self.play(Step::Wait(10));
        }
        panic!("never at rest: {:?} {:?}", self.line, self.sandboxes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Nobody is answered twice, nothing in use is granted or stopped, limits hold, nobody waits
    /// beside an idle sandbox, starts have somebody who waits for them, and everybody is served
    /// in the end.
    #[test]
    fn every_life_of_a_pool_keeps_the_rules(
        steps in prop::collection::vec(step(), 1..150),
        concurrency in prop::option::of(1..4u32),
    ) {
        let mut world = World::new(Rules { concurrency, ..RULES });
        for step in steps {
            world.play(step);
        }
        world.come_to_rest();
        world.shut = true;
        world.feed(Input::Shutdown);
        world.come_to_rest();
        prop_assert!(world.state.is_empty());
    }

    /// However the node is stopped, everybody in line is told so and nothing is left.
    #[test]
    fn shutting_down_answers_everybody(
        steps in prop::collection::vec(step(), 1..100),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut world = World::new(RULES);
        for step in steps {
            world.play(step);
        }
        world.shut = true;
        world.feed(Input::Shutdown);
        prop_assert!(world.line.is_empty());
        for step in after {
            world.play(step);
        }
        world.come_to_rest();
        prop_assert!(world.state.is_empty());
    }
}
