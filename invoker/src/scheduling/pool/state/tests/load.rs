//! The rule for starts under load: clients, sandboxes and starts share a machine's processors in a
//! simulation.

use super::super::*;
use super::RULES;

const LANE: LaneId = LaneId(0);
/// Between two ticks of the pool while a caller waits.
const TICK: f64 = 0.010;

/// The machine and the function. Seconds.
#[derive(Clone, Copy)]
struct SimulatedMachine {
    cores: f64,
    /// Processor that a start takes, and time that it only waits.
    start: (f64, f64),
    /// The same for an event.
    event: (f64, f64),
    /// Processor that the client and the front take for a call.
    front: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum SimulatedJob {
    Start(SandboxKey),
    Event(SandboxKey),
    Front,
}

struct RunningJob {
    job: SimulatedJob,
    processor: f64,
    pause: f64,
}

struct SimulatedLoad {
    machine: SimulatedMachine,
    state: PoolState,
    begun: Instant,
    now: f64,
    next_tick: f64,
    next_waiter: u64,
    running: Vec<RunningJob>,
    /// Calls that are still to be made by clients who have just been answered.
    calls_left: u64,
    started: u64,
    served: u64,
    refused: u64,
    last_answer: f64,
}

impl SimulatedLoad {
    fn new(machine: SimulatedMachine, rules: PoolRules) -> Self {
        Self {
            machine,
            state: PoolState::new(rules),
            begun: Instant::now(),
            now: 0.0,
            next_tick: TICK,
            next_waiter: 0,
            running: Vec::new(),
            calls_left: u64::MAX,
            started: 0,
            served: 0,
            refused: 0,
            last_answer: 0.0,
        }
    }

    fn at(&self) -> Instant {
        self.begun + Duration::from_secs_f64(self.now)
    }

    fn call(&mut self) {
        let waiter = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        self.feed(PoolInput::Requested { lane: LANE, waiter });
    }

    fn feed(&mut self, input: PoolInput) {
        let now = self.at();
        for action in self.state.on(now, input) {
            let ((processor, pause), job) = match action {
                PoolAction::Start { key, .. } => {
                    self.started += 1;
                    (self.machine.start, SimulatedJob::Start(key))
                }
                PoolAction::Grant { key, .. } => (self.machine.event, SimulatedJob::Event(key)),
                PoolAction::Refuse { .. } => {
                    self.refused += 1;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            self.running.push(RunningJob { job, processor, pause });
        }
    }

    /// Lets time pass until `end`, or until nothing runs.
    fn run(&mut self, end: f64) {
        while self.now < end && !self.running.is_empty() {
            let busy = self.running.iter().filter(|job| 0.0 < job.processor).count() as f64;
            let speed = (self.machine.cores / busy.max(1.0)).min(1.0);
            let ends = self
                .running
                .iter()
                .map(|job| if 0.0 < job.processor { job.processor / speed } else { job.pause });
            let until_tick = self.next_tick - self.now;
            let step = ends.fold(until_tick.min(end - self.now), f64::min).max(1e-9);
            self.now += step;
            for job in &mut self.running {
                if 0.0 < job.processor {
                    job.processor = (job.processor - step * speed).max(0.0);
                    // A rounding error is no work.
                    job.processor = if job.processor < 1e-9 { 0.0 } else { job.processor };
                } else {
                    job.pause -= step;
                }
            }
            let over = |job: &RunningJob| job.processor == 0.0 && job.pause < 1e-9;
            let (ended, rest) = std::mem::take(&mut self.running).into_iter().partition(over);
            self.running = rest;
            let ended: Vec<RunningJob> = ended;
            for job in ended {
                self.end(job.job);
            }
            if self.next_tick <= self.now + 1e-9 {
                self.next_tick += TICK;
                if 0 < self.state.waiting() {
                    self.feed(PoolInput::Tick);
                }
            }
        }
    }

    fn end(&mut self, job: SimulatedJob) {
        match job {
            SimulatedJob::Start(key) => {
                let (processor, pause) = self.machine.start;
                let took = Duration::from_secs_f64(processor + pause);
                self.feed(PoolInput::Started { key, took });
            }
            SimulatedJob::Event(key) => {
                self.served += 1;
                self.last_answer = self.now;
                self.feed(PoolInput::Released { key, healthy: true });
                if 0 < self.calls_left {
                    self.calls_left -= 1;
                    let front = RunningJob {
                        job: SimulatedJob::Front,
                        processor: self.machine.front,
                        pause: 0.0,
                    };
                    self.running.push(front);
                }
            }
            SimulatedJob::Front => self.call(),
        }
    }
}

/// Two cores, a container whose start takes a quarter of a second.
const MACHINE: SimulatedMachine =
    SimulatedMachine { cores: 2.0, start: (0.15, 0.1), event: (0.0, 0.0), front: 0.000_1 };
const LONG_QUEUE: PoolRules = PoolRules { waiting_max: 1000, ..RULES };

/// Simulates clients with one call at a time each: the sandboxes started and the calls served in the
/// last second.
fn closed(machine: SimulatedMachine, rules: PoolRules, clients: usize, seconds: f64) -> (u64, u64) {
    let mut load = SimulatedLoad::new(machine, rules);
    for _ in 0..clients {
        load.call();
    }
    load.run(seconds - 1.0);
    let before = load.served;
    load.run(seconds);
    (load.started, load.served - before)
}

#[test]
fn a_trivial_function_gets_as_many_sandboxes_as_serve_best_and_few_more() {
    for event in [0.000_1, 0.000_3, 0.002] {
        let machine = SimulatedMachine { event: (event, 0.0), ..MACHINE };
        let best = machine.cores / (event + machine.front);
        for clients in [16, 64] {
            let (started, served) = closed(machine, LONG_QUEUE, clients, 12.0);
            assert!(started <= 4, "{event} s, {clients} clients: {started} started");
            let part = served as f64 / best;
            assert!(0.9 <= part, "{event} s, {clients} clients: {part} of the best");
        }
    }
}

/// Where a cold start takes no time, a machine that pauses for a moment looks like a stuck queue, and its
/// events like long ones.
#[test]
fn a_machine_that_pauses_for_moments_gets_no_sandbox_for_each_pause() {
    for event in [0.000_1, 0.000_3] {
        let machine = SimulatedMachine { start: (0.002, 0.003), event: (event, 0.0), ..MACHINE };
        let mut load = SimulatedLoad::new(machine, LONG_QUEUE);
        for _ in 0..64 {
            load.call();
        }
        for moment in [0.008, 0.03, 0.1, 0.18].into_iter().cycle().take(60) {
            load.run(load.now + 0.25);
            load.now += moment;
        }
        assert!(load.started <= 4, "{event} s: {} started", load.started);
    }
}

/// Clients and machines hesitate: a queue that is empty for a moment now and then is still a backlog, one
/// that comes and goes is not.
#[test]
fn a_queue_with_small_gaps_is_a_backlog() {
    let machine = SimulatedMachine { event: (0.000_3, 0.0), ..MACHINE };
    for (every, gap, starts) in [(0.1, 0.002, 2..=4), (0.1, 0.05, 1..=1)] {
        let mut load = SimulatedLoad::new(machine, LONG_QUEUE);
        while load.now < 6.0 {
            load.calls_left = u64::MAX;
            for _ in 0..16 {
                load.call();
            }
            load.run(load.now + every);
            load.calls_left = 0;
            load.run(f64::INFINITY);
            load.now += gap;
            load.next_tick = load.next_tick.max(load.now);
        }
        assert!(starts.contains(&load.started), "gaps of {gap} s: {} started", load.started);
    }
}

#[test]
fn a_function_that_sleeps_gets_a_sandbox_for_each_client() {
    for (pause, seconds) in [(0.005, 20.0), (0.020, 10.0), (0.1, 6.0)] {
        let machine = SimulatedMachine { event: (0.000_2, pause), ..MACHINE };
        let (started, served) = closed(machine, LONG_QUEUE, 16, seconds);
        assert!(started <= 16, "{started} started");
        let part = served as f64 / (16.0 / (pause + 0.000_3));
        assert!(0.9 <= part, "{pause} s: {part} of the best, {started} started");
    }
}

#[test]
fn a_function_that_computes_is_not_given_a_sandbox_for_each_client() {
    let machine = SimulatedMachine { event: (0.02, 0.0), ..MACHINE };
    let (started, served) = closed(machine, LONG_QUEUE, 64, 20.0);
    assert!(started <= 8, "{started} started");
    assert!(90 <= served, "{served} of 100 a second");
}

#[test]
fn a_burst_on_a_cold_function_is_over_soon_after_its_sandboxes_are_up() {
    for start in [(0.01, 0.01), (0.15, 0.1), (0.4, 0.1)] {
        let machine = SimulatedMachine { start, event: (0.000_5, 0.1), ..MACHINE };
        let mut load =
            SimulatedLoad::new(machine, PoolRules { concurrency: Some(20), ..LONG_QUEUE });
        load.calls_left = 0;
        for _ in 0..200 {
            load.call();
        }
        load.run(60.0);
        assert_eq!((load.served, load.refused), (200, 0));
        assert!(load.started <= 20, "{} started", load.started);
        // Two at once share two cores with what else runs.
        let starts = 20.0 / 2.0 * (start.0 + start.1);
        let allowed = 1.3 * (starts + 1.0);
        assert!(load.last_answer <= allowed, "{} s of {allowed}", load.last_answer);
    }
}

#[test]
fn an_overload_is_served_at_full_rate_and_leaves_a_short_queue() {
    let machine = SimulatedMachine { event: (0.000_2, 0.02), ..MACHINE };
    let rules = PoolRules { concurrency: Some(8), ..LONG_QUEUE };
    let mut load = SimulatedLoad::new(machine, rules);
    load.calls_left = 0;
    // 2,000 a second for 20 s.
    let mut next = 0.0;
    let mut early = 0;
    while next < 20.0 {
        load.call();
        next += 0.000_5;
        while load.now < next && !load.running.is_empty() {
            load.run(next);
        }
        load.now = load.now.max(next);
        if next <= 5.0 {
            early = load.served;
        }
    }
    let rate = (load.served - early) as f64 / 15.0;
    assert!(0.95 * 8.0 / 0.0202 <= rate, "{rate} a second");
    assert_eq!(load.started, 8);
    assert!(load.state.waiting() <= 210, "{} wait", load.state.waiting());
    load.run(21.0);
    assert_eq!(load.state.waiting(), 0);
    assert_eq!(load.state.counts().busy, 0);
    assert_eq!(load.served + load.refused, load.next_waiter);
}
