//! Thousands of random lives of a pool in a simulated world.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::RULES;

/// Something that happens in the simulated world.
#[derive(Clone, Debug)]
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..1_000usize;
    prop_oneof![
        6 => (0..3u32).prop_map(Step::Request),
        2 => index().prop_map(Step::Abandon),
        2 => index().prop_map(Step::Expire),
        6 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Step::StartEnds(i, ok)),
        1 => index().prop_map(Step::Block),
        1 => index().prop_map(Step::Unblock),
        2 => index().prop_map(Step::Load),
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
    Loading,
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

    fn pick_waiter(&self, index: usize) -> Option<(WaiterId, LaneId)> {
        let line: Vec<_> = self.line.iter().map(|(waiter, lane)| (*waiter, *lane)).collect();
        (!line.is_empty()).then(|| line[index % line.len()])
    }

    /// What the step is to the pool; `None` where there is nothing to do it with.
    fn input_of(&mut self, step: Step) -> Option<Input> {
        let starting = [Life::Starting, Life::Blocked];
        let under_way = [Life::Starting, Life::Blocked, Life::Loading];
        match step {
            Step::Request(lane) => {
                let (waiter, lane) = (WaiterId(self.next_waiter), LaneId(lane));
                self.next_waiter += 1;
                self.line.insert(waiter, lane);
                Some(Input::Requested { lane, waiter })
            }
            Step::Abandon(index) => self.pick_waiter(index).map(|(waiter, lane)| {
                self.line.remove(&waiter);
                Input::Abandoned { lane, waiter }
            }),
            Step::Expire(index) => {
                self.pick_waiter(index).map(|(waiter, lane)| Input::Expired { lane, waiter })
            }
            Step::StartEnds(index, good) => self.pick(index, &under_way).map(|key| {
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
            Step::Load(index) => self.pick(index, &[Life::Starting, Life::Loading]).map(|key| {
                self.set(key, Life::Loading);
                Input::Loading { key }
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
        }
    }

    fn play(&mut self, step: Step) {
        let Some(input) = self.input_of(step) else { return };
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
            let starts = self.count(lane, &[Life::Starting, Life::Blocked, Life::Loading]);
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
                    assert!(
                        self.count(lane, &[Life::Starting, Life::Blocked, Life::Loading]) <= need
                    );
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
        let starting = lives(Life::Starting) + lives(Life::Blocked) + lives(Life::Loading);
        assert!(starting <= rules.starts_max);
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
        assert_eq!(counts.starting as usize, starting);
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
