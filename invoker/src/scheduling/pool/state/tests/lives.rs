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
enum SimulatedPhase {
    Starting,
    Blocked,
    Loading,
    Idle,
    /// Given back, and not to be used again.
    Tainted,
    Busy,
    Lent,
    Stopping,
}

/// What is true outside the state machine.
struct PoolWorld {
    state: PoolState,
    now: Instant,
    next_waiter: u64,
    line: BTreeMap<WaiterId, LaneId>,
    sandboxes: BTreeMap<SandboxKey, (LaneId, SimulatedPhase)>,
    shut: bool,
}

impl PoolWorld {
    fn new(rules: PoolRules) -> Self {
        Self {
            state: PoolState::new(rules),
            now: Instant::now(),
            next_waiter: 0,
            line: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            shut: false,
        }
    }

    /// Picks a sandbox in one of these phases.
    fn pick(&self, index: usize, phases: &[SimulatedPhase]) -> Option<SandboxKey> {
        let fit = self.sandboxes.iter().filter(|(_, (_, life))| phases.contains(life));
        let fit: Vec<_> = fit.map(|(key, _)| *key).collect();
        (!fit.is_empty()).then(|| fit[index % fit.len()])
    }

    fn set(&mut self, key: SandboxKey, life: SimulatedPhase) {
        self.sandboxes.get_mut(&key).unwrap().1 = life;
    }

    fn pick_waiter(&self, index: usize) -> Option<(WaiterId, LaneId)> {
        let line: Vec<_> = self.line.iter().map(|(waiter, lane)| (*waiter, *lane)).collect();
        (!line.is_empty()).then(|| line[index % line.len()])
    }

    /// What the step is to the pool; `None` where there is nothing to do it with.
    fn input_of(&mut self, step: PoolStep) -> Option<PoolInput> {
        let starting = [SimulatedPhase::Starting, SimulatedPhase::Blocked];
        let under_way =
            [SimulatedPhase::Starting, SimulatedPhase::Blocked, SimulatedPhase::Loading];
        match step {
            PoolStep::Request(lane) => {
                let (waiter, lane) = (WaiterId(self.next_waiter), LaneId(lane));
                self.next_waiter += 1;
                self.line.insert(waiter, lane);
                Some(PoolInput::Requested { lane, waiter })
            }
            PoolStep::Abandon(index) => self.pick_waiter(index).map(|(waiter, lane)| {
                self.line.remove(&waiter);
                PoolInput::Abandoned { lane, waiter }
            }),
            PoolStep::Expire(index) => {
                self.pick_waiter(index).map(|(waiter, lane)| PoolInput::Expired { lane, waiter })
            }
            PoolStep::StartEnds(index, good) => self.pick(index, &under_way).map(|key| {
                if good {
                    self.set(key, SimulatedPhase::Idle);
                    return PoolInput::Started { key, took: Duration::from_millis(50) };
                }
                self.sandboxes.remove(&key);
                PoolInput::StartFailed { key }
            }),
            PoolStep::Block(index) => self.pick(index, &starting).map(|key| {
                self.set(key, SimulatedPhase::Blocked);
                PoolInput::Blocked { key }
            }),
            PoolStep::Unblock(index) => self.pick(index, &[SimulatedPhase::Blocked]).map(|key| {
                self.set(key, SimulatedPhase::Starting);
                PoolInput::Unblocked { key }
            }),
            PoolStep::Load(index) => {
                self.pick(index, &[SimulatedPhase::Starting, SimulatedPhase::Loading]).map(|key| {
                    self.set(key, SimulatedPhase::Loading);
                    PoolInput::Loading { key }
                })
            }
            PoolStep::Release(index, healthy) => {
                self.pick(index, &[SimulatedPhase::Busy]).map(|key| {
                    self.set(
                        key,
                        if healthy { SimulatedPhase::Idle } else { SimulatedPhase::Tainted },
                    );
                    PoolInput::Released { key, healthy }
                })
            }
            PoolStep::Borrow(index) => self
                .pick(index, &[SimulatedPhase::Idle, SimulatedPhase::Busy, SimulatedPhase::Lent])
                .map(|key| PoolInput::Borrowed { key }),
            PoolStep::Return(index) => self.pick(index, &[SimulatedPhase::Lent]).map(|key| {
                self.set(key, SimulatedPhase::Idle);
                PoolInput::Returned { key, idle_since: self.now }
            }),
            PoolStep::Die(index) => self
                .pick(
                    index,
                    &[SimulatedPhase::Idle, SimulatedPhase::Busy, SimulatedPhase::Stopping],
                )
                .map(|key| PoolInput::Died { key }),
            PoolStep::Evict(index) => self
                .pick(index, &[SimulatedPhase::Idle, SimulatedPhase::Busy, SimulatedPhase::Lent])
                .map(|key| PoolInput::Evicted { key }),
            PoolStep::StopEnds(index) => self.pick(index, &[SimulatedPhase::Stopping]).map(|key| {
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
        let line = self.line.len();
        let key_and_lane = match input {
            PoolInput::Blocked { key } => Some((key, self.sandboxes[&key].0)),
            _ => None,
        };
        let failed = match input {
            PoolInput::StartFailed { key } => self.state.sandboxes.get(&key).map(|its| its.lane),
            _ => None,
        };
        let waited = failed.is_some_and(|lane| self.line.values().any(|its| *its == lane));
        self.feed(input);
        assert!(!waited || self.line.len() < line, "nobody was told of a failed start");
        if let Some((key, lane)) = key_and_lane
            && self.sandboxes.contains_key(&key)
        {
            let need = self.line.values().filter(|its| **its == lane).count();
            let starts = self.count(
                lane,
                &[SimulatedPhase::Starting, SimulatedPhase::Blocked, SimulatedPhase::Loading],
            );
            assert!(starts <= need, "a start waits for room that nobody needs");
        }
    }

    fn feed(&mut self, input: PoolInput) {
        for action in self.state.on(self.now, input) {
            match action {
                PoolAction::Start { key, lane } => {
                    let old = self.sandboxes.insert(key, (lane, SimulatedPhase::Starting));
                    assert_eq!(old, None, "a key was used twice");
                    let need = self.line.values().filter(|its| **its == lane).count();
                    assert!(
                        self.count(
                            lane,
                            &[
                                SimulatedPhase::Starting,
                                SimulatedPhase::Blocked,
                                SimulatedPhase::Loading
                            ]
                        ) <= need
                    );
                    assert!(!self.shut, "started while stopping");
                }
                PoolAction::Cancel { key } => {
                    assert_eq!(self.sandboxes.remove(&key).unwrap().1, SimulatedPhase::Blocked);
                }
                PoolAction::Grant { waiter, key } => {
                    let lane = self.line.remove(&waiter).expect("answered twice");
                    assert_eq!(
                        self.sandboxes[&key],
                        (lane, SimulatedPhase::Idle),
                        "granted in use"
                    );
                    self.set(key, SimulatedPhase::Busy);
                }
                PoolAction::Lend { key } => {
                    assert_eq!(self.sandboxes[&key].1, SimulatedPhase::Idle);
                    self.set(key, SimulatedPhase::Lent);
                }
                PoolAction::Refuse { waiter, .. } => {
                    self.line.remove(&waiter).expect("answered twice");
                }
                PoolAction::Stop { key } => {
                    let life = self.sandboxes[&key].1;
                    assert!(
                        matches!(life, SimulatedPhase::Idle | SimulatedPhase::Tainted),
                        "stopped while {life:?}"
                    );
                    self.set(key, SimulatedPhase::Stopping);
                }
            }
        }
        self.check();
    }

    fn count(&self, lane: LaneId, phases: &[SimulatedPhase]) -> usize {
        let its =
            self.sandboxes.values().filter(|(its, life)| *its == lane && phases.contains(life));
        its.count()
    }

    /// What holds after every step.
    fn check(&self) {
        let lives = |life| self.sandboxes.values().filter(|(_, its)| *its == life).count();
        let rules = self.state.rules;
        let limit = rules.concurrency.map_or(usize::MAX, |limit| limit as usize);
        let busy = lives(SimulatedPhase::Busy);
        assert!(busy <= limit, "{busy} busy");
        let starting = lives(SimulatedPhase::Starting)
            + lives(SimulatedPhase::Blocked)
            + lives(SimulatedPhase::Loading);
        assert!(starting <= rules.starts_max);
        assert!(self.line.len() <= rules.waiting_max);
        for lane in self.line.values() {
            let beside_idle = busy < limit && 0 < self.count(*lane, &[SimulatedPhase::Idle]);
            assert!(!beside_idle, "waits beside an idle sandbox");
        }
        let counts = self.state.counts();
        assert_eq!(counts.waiting as usize, self.line.len());
        assert_eq!(lives(SimulatedPhase::Tainted), 0, "a tainted sandbox was kept");
        assert_eq!(counts.idle as usize, lives(SimulatedPhase::Idle));
        assert_eq!(counts.busy as usize, busy + lives(SimulatedPhase::Lent));
        assert_eq!(counts.stopping as usize, lives(SimulatedPhase::Stopping));
        assert_eq!(counts.starting as usize, starting);
    }

    /// Lets everything that is under way end.
    fn come_to_rest(&mut self) {
        let first = 0;
        for _ in 0..10_000 {
            let anything = self.sandboxes.values().any(|(_, life)| *life != SimulatedPhase::Idle);
            if self.line.is_empty() && !anything {
                return;
            }
            self.play(PoolStep::Unblock(first));
            self.play(PoolStep::StartEnds(first, true));
            self.play(PoolStep::Return(first));
            self.play(PoolStep::Release(first, true));
            self.play(PoolStep::StopEnds(first));
            self.play(PoolStep::Wait(10));
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

    /// However the node is stopped, everybody in line is told so and nothing is left.
    #[test]
    fn shutting_down_answers_everybody(
        steps in prop::collection::vec(step(), 1..100),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut world = PoolWorld::new(RULES);
        for step in steps {
            world.play(step);
        }
        world.shut = true;
        world.feed(PoolInput::Shutdown);
        prop_assert!(world.line.is_empty());
        for step in after {
            world.play(step);
        }
        world.come_to_rest();
        prop_assert!(world.state.is_empty());
    }
}
