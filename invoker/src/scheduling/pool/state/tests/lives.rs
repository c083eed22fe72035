//! Thousands of random lives of a pool in a simulated world.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::RULES;

/// Something that happens in the simulated world.
#[derive(Clone, Debug)]
enum PoolStep {
    Request(u32),
    Abandon(usize),
    Expire(usize),
    StartEnds(usize, bool),
    Block(usize),
    Unblock(usize),
    Load(usize),
    Release(usize, bool),
    Borrow(usize),
    Return(usize),
    Die(usize),
    Evict(usize),
    StopEnds(usize),
    Retire(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = PoolStep> {
    let index = || 0..1_000usize;
    prop_oneof![
        6 => (0..3u32).prop_map(PoolStep::Request),
        2 => index().prop_map(PoolStep::Abandon),
        2 => index().prop_map(PoolStep::Expire),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| PoolStep::StartEnds(i, ok)),
        1 => index().prop_map(PoolStep::Block),
        1 => index().prop_map(PoolStep::Unblock),
        2 => index().prop_map(PoolStep::Load),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| PoolStep::Release(i, ok)),
        2 => index().prop_map(PoolStep::Borrow),
        2 => index().prop_map(PoolStep::Return),
        1 => index().prop_map(PoolStep::Die),
        1 => index().prop_map(PoolStep::Evict),
        2 => index().prop_map(PoolStep::StopEnds),
        1 => (0..3u32).prop_map(PoolStep::Retire),
        3 => (0..400_000u64).prop_map(PoolStep::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SimPhase {
    Starting,
    Blocked,
    Loading,
    Idle,
    /// Returned, and not to be used again.
    Tainted,
    Busy,
    Lent,
    Stopping,
}

/// The state outside the state machine.
struct PoolWorld {
    state: PoolState,
    now: Instant,
    next_waiter: u64,
    waiting: BTreeMap<WaiterId, LaneId>,
    sandboxes: BTreeMap<SandboxKey, (LaneId, SimPhase)>,
    shut: bool,
}

impl PoolWorld {
    fn new(rules: PoolRules) -> Self {
        Self {
            state: PoolState::new(rules),
            now: Instant::now(),
            next_waiter: 0,
            waiting: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            shut: false,
        }
    }

    /// Picks a sandbox in one of these phases.
    fn pick(&self, index: usize, phases: &[SimPhase]) -> Option<SandboxKey> {
        let fit = self.sandboxes.iter().filter(|(_, (_, life))| phases.contains(life));
        let fit: Vec<_> = fit.map(|(key, _)| *key).collect();
        (!fit.is_empty()).then(|| fit[index % fit.len()])
    }

    fn set(&mut self, key: SandboxKey, life: SimPhase) {
        self.sandboxes.get_mut(&key).unwrap().1 = life;
    }

    fn pick_waiter(&self, index: usize) -> Option<(WaiterId, LaneId)> {
        let waiting: Vec<_> = self.waiting.iter().map(|(waiter, lane)| (*waiter, *lane)).collect();
        (!waiting.is_empty()).then(|| waiting[index % waiting.len()])
    }

    /// The pool's input for a step; `None` where the step is impossible.
    fn input_of(&mut self, step: PoolStep) -> Option<PoolInput> {
        let starting = [SimPhase::Starting, SimPhase::Blocked];
        let under_way = [SimPhase::Starting, SimPhase::Blocked, SimPhase::Loading];
        match step {
            PoolStep::Request(lane) => {
                let (waiter, lane) = (WaiterId(self.next_waiter), LaneId(lane));
                self.next_waiter += 1;
                self.waiting.insert(waiter, lane);
                Some(PoolInput::Requested { lane, waiter })
            }
            PoolStep::Abandon(index) => self.pick_waiter(index).map(|(waiter, lane)| {
                self.waiting.remove(&waiter);
                PoolInput::Abandoned { lane, waiter }
            }),
            PoolStep::Expire(index) => {
                self.pick_waiter(index).map(|(waiter, lane)| PoolInput::Expired { lane, waiter })
            }
            PoolStep::StartEnds(index, good) => self.pick(index, &under_way).map(|key| {
                if good {
                    self.set(key, SimPhase::Idle);
                    return PoolInput::Started { key, took: Duration::from_millis(50) };
                }
                self.sandboxes.remove(&key);
                PoolInput::StartFailed { key }
            }),
            PoolStep::Block(index) => self.pick(index, &starting).map(|key| {
                self.set(key, SimPhase::Blocked);
                PoolInput::Blocked { key }
            }),
            PoolStep::Unblock(index) => self.pick(index, &[SimPhase::Blocked]).map(|key| {
                self.set(key, SimPhase::Starting);
                PoolInput::Unblocked { key }
            }),
            PoolStep::Load(index) => {
                self.pick(index, &[SimPhase::Starting, SimPhase::Loading]).map(|key| {
                    self.set(key, SimPhase::Loading);
                    PoolInput::Loading { key }
                })
            }
            PoolStep::Release(index, healthy) => self.pick(index, &[SimPhase::Busy]).map(|key| {
                self.set(key, if healthy { SimPhase::Idle } else { SimPhase::Tainted });
                PoolInput::Released { key, healthy }
            }),
            PoolStep::Borrow(index) => self
                .pick(index, &[SimPhase::Idle, SimPhase::Busy, SimPhase::Lent])
                .map(|key| PoolInput::Borrowed { key }),
            PoolStep::Return(index) => self.pick(index, &[SimPhase::Lent]).map(|key| {
                self.set(key, SimPhase::Idle);
                PoolInput::Returned { key, idle_since: self.now }
            }),
            PoolStep::Die(index) => self
                .pick(index, &[SimPhase::Idle, SimPhase::Busy, SimPhase::Stopping])
                .map(|key| PoolInput::Died { key }),
            PoolStep::Evict(index) => self
                .pick(index, &[SimPhase::Idle, SimPhase::Busy, SimPhase::Lent])
                .map(|key| PoolInput::Evicted { key }),
            PoolStep::StopEnds(index) => self.pick(index, &[SimPhase::Stopping]).map(|key| {
                self.sandboxes.remove(&key);
                PoolInput::Stopped { key }
            }),
            PoolStep::Retire(lane) => Some(PoolInput::Retired { lane: LaneId(lane) }),
            PoolStep::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                Some(PoolInput::Tick)
            }
        }
    }

    fn play(&mut self, step: PoolStep) {
        let Some(input) = self.input_of(step) else { return };
        let waiting = self.waiting.len();
        let key_and_lane = match input {
            PoolInput::Blocked { key } => Some((key, self.sandboxes[&key].0)),
            _ => None,
        };
        let failed = match input {
            PoolInput::StartFailed { key } => self.state.sandboxes.get(&key).map(|its| its.lane),
            _ => None,
        };
        let waited = failed.is_some_and(|lane| self.waiting.values().any(|its| *its == lane));
        self.feed(input);
        assert!(!waited || self.waiting.len() < waiting, "a failed start refused no caller");
        if let Some((key, lane)) = key_and_lane
            && self.sandboxes.contains_key(&key)
        {
            let need = self.waiting.values().filter(|its| **its == lane).count();
            let starts =
                self.count(lane, &[SimPhase::Starting, SimPhase::Blocked, SimPhase::Loading]);
            assert!(starts <= need, "a start waits for room that no caller needs");
        }
    }

    fn feed(&mut self, input: PoolInput) {
        for action in self.state.on(self.now, input) {
            match action {
                PoolAction::Start { key, lane } => {
                    let old = self.sandboxes.insert(key, (lane, SimPhase::Starting));
                    assert_eq!(old, None, "a key was used twice");
                    let need = self.waiting.values().filter(|its| **its == lane).count();
                    assert!(
                        self.count(
                            lane,
                            &[SimPhase::Starting, SimPhase::Blocked, SimPhase::Loading]
                        ) <= need
                    );
                    assert!(!self.shut, "started while stopping");
                }
                PoolAction::Cancel { key } => {
                    assert_eq!(self.sandboxes.remove(&key).unwrap().1, SimPhase::Blocked);
                }
                PoolAction::Grant { waiter, key } => {
                    let lane = self.waiting.remove(&waiter).expect("answered twice");
                    assert_eq!(self.sandboxes[&key], (lane, SimPhase::Idle), "granted in use");
                    self.set(key, SimPhase::Busy);
                }
                PoolAction::Lend { key } => {
                    assert_eq!(self.sandboxes[&key].1, SimPhase::Idle);
                    self.set(key, SimPhase::Lent);
                }
                PoolAction::Refuse { waiter, .. } => {
                    self.waiting.remove(&waiter).expect("answered twice");
                }
                PoolAction::Stop { key } => {
                    let life = self.sandboxes[&key].1;
                    assert!(
                        matches!(life, SimPhase::Idle | SimPhase::Tainted),
                        "stopped while {life:?}"
                    );
                    self.set(key, SimPhase::Stopping);
                }
            }
        }
        self.check();
    }

    fn count(&self, lane: LaneId, phases: &[SimPhase]) -> usize {
        let its =
            self.sandboxes.values().filter(|(its, life)| *its == lane && phases.contains(life));
        its.count()
    }

    /// The properties that hold after every step.
    fn check(&self) {
        let lives = |life| self.sandboxes.values().filter(|(_, its)| *its == life).count();
        let rules = self.state.rules;
        let limit = rules.concurrency.map_or(usize::MAX, |limit| limit as usize);
        let busy = lives(SimPhase::Busy);
        assert!(busy <= limit, "{busy} busy");
        let starting =
            lives(SimPhase::Starting) + lives(SimPhase::Blocked) + lives(SimPhase::Loading);
        assert!(starting <= rules.starts_max);
        assert!(self.waiting.len() <= rules.waiting_max);
        for lane in self.waiting.values() {
            let beside_idle = busy < limit && 0 < self.count(*lane, &[SimPhase::Idle]);
            assert!(!beside_idle, "waits beside an idle sandbox");
        }
        let counts = self.state.counts();
        assert_eq!(counts.waiting as usize, self.waiting.len());
        assert_eq!(lives(SimPhase::Tainted), 0, "a tainted sandbox was kept");
        assert_eq!(counts.idle as usize, lives(SimPhase::Idle));
        assert_eq!(counts.busy as usize, busy + lives(SimPhase::Lent));
        assert_eq!(counts.stopping as usize, lives(SimPhase::Stopping));
        assert_eq!(counts.starting as usize, starting);
    }

    /// Lets everything in progress end.
    fn come_to_rest(&mut self) {
        let first = 0;
        for _ in 0..10_000 {
            let anything = self.sandboxes.values().any(|(_, life)| *life != SimPhase::Idle);
            if self.waiting.is_empty() && !anything {
                return;
            }
            self.play(PoolStep::Unblock(first));
            self.play(PoolStep::StartEnds(first, true));
            self.play(PoolStep::Return(first));
            self.play(PoolStep::Release(first, true));
            self.play(PoolStep::StopEnds(first));
            self.play(PoolStep::Wait(10));
        }
        panic!("never at rest: {:?} {:?}", self.waiting, self.sandboxes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// No caller is answered twice, no sandbox in use is granted or stopped, limits hold, no caller waits
    /// beside an idle sandbox, each start has a caller that waits for it, and every caller is served in
    /// the end.
    #[test]
    fn every_life_of_a_pool_keeps_the_rules(
        steps in prop::collection::vec(step(), 1..150),
        concurrency in prop::option::of(1..4u32),
    ) {
        let mut world = PoolWorld::new(PoolRules { concurrency, ..RULES });
        for step in steps {
            world.play(step);
        }
        world.come_to_rest();
        world.shut = true;
        world.feed(PoolInput::Shutdown);
        world.come_to_rest();
        prop_assert!(world.state.is_empty());
    }

    /// Whenever the node stops, every waiting caller is refused and nothing is left.
    #[test]
    fn shutting_down_answers_every_caller(
        steps in prop::collection::vec(step(), 1..100),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut world = PoolWorld::new(RULES);
        for step in steps {
            world.play(step);
        }
        world.shut = true;
        world.feed(PoolInput::Shutdown);
        prop_assert!(world.waiting.is_empty());
        for step in after {
            world.play(step);
        }
        world.come_to_rest();
        prop_assert!(world.state.is_empty());
    }
}
