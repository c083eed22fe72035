//! Queues worked off under virtual time.

#[path = "faults_tests.rs"]
mod faults;

use hanshu_core::ports::{EventEnd, EventQueue as _};
use hanshu_core::{Failure, NodeId, Refusal, StatusCode, Verdict};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::doubles::{Echo, FakeCatalog, FakeQueue, TokioClock, revision};
use crate::retry::RetryPolicy;

struct World {
    queue: Arc<FakeQueue>,
    catalog: Arc<FakeCatalog>,
    echo: Arc<Echo>,
    clock: Arc<TokioClock>,
    stop: Stop,
    tasks: JoinSet<()>,
}

impl World {
    /// Functions `hello` and `other`; `other` runs one event at a time.
    fn new(echo: Echo) -> Self {
        let clock = TokioClock::new();
        Self {
            queue: FakeQueue::new(clock.clone()),
            catalog: FakeCatalog::of([revision("hello", None), revision("other", Some(1))]),
            echo: Arc::new(echo),
            clock,
            stop: Stop::default(),
            tasks: JoinSet::new(),
        }
    }

    fn start(&mut self, options: DispatcherOptions) {
        let parts = Parts {
            queue: self.queue.clone(),
            catalog: self.catalog.clone(),
            invoke: self.echo.clone(),
            clock: self.clock.clone(),
            node: NodeId::new(),
            data: Handle::current(),
            policy: RetryPolicy::default(),
        };
        self.tasks.spawn(Dispatchers::new(parts, options).run(self.stop.clone()));
    }

    async fn pass(&self, seconds: f64) {
        sleep(Duration::from_secs_f64(seconds)).await;
    }

    fn ended(&self) -> Vec<EventEnd> {
        self.queue.ended().into_iter().map(|(_, ended)| ended).collect()
    }

    fn seen(&self) -> usize {
        self.echo.seen.lock().unwrap().len()
    }
}

fn small(in_flight_max: usize) -> DispatcherOptions {
    DispatcherOptions {
        in_flight_max,
        per_function_max: in_flight_max,
        ..DispatcherOptions::default()
    }
}

fn failing() -> Echo {
    Echo::saying(|_| Verdict::Failed(Failure::seen(StatusCode::UserException, "boom")))
}

#[tokio::test(start_paused = true)]
async fn an_event_runs_and_its_answer_is_kept() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(1)));
    world.start(DispatcherOptions::default());
    world.pass(0.1).await;
    world.queue.add("hello", "[1]").await;
    world.pass(1.1).await;
    assert_eq!(world.ended(), [EventEnd::Succeeded("[1]".into())]);
    let kept = world.queue.kept.lock().unwrap();
    let attempt = &kept[0].attempts[0];
    assert_eq!((attempt.number, attempt.status), (1, Some(StatusCode::Success)));
    assert!(attempt.node.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failing_event_is_tried_three_times_a_minute_apart() {
    let mut world = World::new(failing());
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.pass(119.0).await;
    assert_eq!((world.seen(), world.ended().len()), (2, 0));
    world.pass(3.0).await;
    assert_eq!(world.seen(), 3);
    let EventEnd::Failed(failure) = &world.ended()[0] else { panic!("{:?}", world.ended()) };
    assert_eq!(failure.error_message, "boom");
    let kept = world.queue.kept.lock().unwrap();
    let numbers: Vec<_> = kept[0].attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_there_are_places() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(1)));
    for _ in 0..20 {
        world.queue.add("hello", "1").await;
    }
    world.start(small(4));
    world.pass(0.5).await;
    let held = world.queue.kept.lock().unwrap().iter().filter(|k| k.held_until.is_some()).count();
    assert_eq!(held, 4, "only what has a place is claimed");
    world.pass(5.0).await;
    assert_eq!((world.ended().len(), world.echo.most()), (20, 4));
}

#[tokio::test(start_paused = true)]
async fn a_saturated_function_does_not_stand_in_anothers_way() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(1)));
    for _ in 0..10 {
        world.queue.add("other", "\"slow\"").await;
    }
    for _ in 0..4 {
        world.queue.add("hello", "\"fast\"").await;
    }
    world.start(small(5));
    world.pass(1.5).await;
    let fast = world.queue.ended().iter().filter(|(payload, _)| payload == "\"fast\"").count();
    assert_eq!((fast, world.ended().len()), (4, 5));
    assert_eq!(world.echo.running.lock().unwrap().0, 1, "`other` runs one at a time");
    world.pass(10.0).await;
    assert_eq!(world.ended().len(), 14);
}

#[tokio::test(start_paused = true)]
async fn refusals_for_want_of_a_place_cost_no_attempt_and_little_churn() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let says = full.clone();
    let mut world = World::new(Echo::saying(move |invocation| {
        if says.load(std::sync::atomic::Ordering::Relaxed) {
            Verdict::Refused(Refusal::Concurrency { limit: 1 })
        } else {
            Verdict::Returned(invocation.event.payload.clone())
        }
    }));
    for _ in 0..50 {
        world.queue.add("hello", "1").await;
    }
    world.start(small(8));
    world.pass(30.0).await;
    let tries = world.seen();
    assert!((8..100).contains(&tries), "{tries} tries in half a minute");
    full.store(false, std::sync::atomic::Ordering::Relaxed);
    world.pass(130.0).await;
    assert_eq!(world.ended().len(), 50);
    let kept = world.queue.kept.lock().unwrap();
    assert!(kept.iter().all(|kept| kept.attempts.len() == 1 && kept.attempts[0].number == 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_run_keeps_its_hold() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(200)));
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.start(DispatcherOptions::default());
    world.pass(201.0).await;
    assert_eq!((world.seen(), world.ended().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_dead_node_runs_when_its_hold_is_over() {
    let mut world = World::new(Echo::new());
    world.queue.add("hello", "1").await;
    let ready = world.queue.ready(1).await.unwrap();
    let dead = world.queue.source(&ready.queues[0]);
    dead.claim(1, Duration::from_secs(30), &NodeId::new()).await.unwrap();
    world.start(DispatcherOptions::default());
    world.pass(29.0).await;
    assert_eq!(world.ended(), []);
    world.pass(2.0).await;
    assert_eq!(world.ended(), [EventEnd::Succeeded("1".into())]);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_gone_function_ends_with_435_and_without_a_run() {
    let mut world = World::new(Echo::new());
    world.queue.add("hello", "1").await;
    world.catalog.0.lock().unwrap().clear();
    world.start(DispatcherOptions::default());
    world.pass(0.1).await;
    let EventEnd::Failed(failure) = &world.ended()[0] else { panic!("{:?}", world.ended()) };
    assert_eq!(failure.status_code, StatusCode::FunctionNotFound);
    assert_eq!(failure.error_message, "function `default/hello` does not exist");
    assert_eq!(world.seen(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_event_ends_without_a_run() {
    let mut world = World::new(Echo::new());
    world.queue.add("hello", "1").await;
    world.pass(21_601.0).await;
    world.start(DispatcherOptions::default());
    world.pass(0.1).await;
    assert_eq!((world.ended(), world.seen()), (vec![EventEnd::Expired(None)], 0));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_kept_although_the_queue_is_away_for_a_while() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(5)));
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.pass(1.0).await;
    *world.queue.away.lock().unwrap() = true;
    world.pass(20.0).await;
    *world.queue.away.lock().unwrap() = false;
    world.pass(3.0).await;
    assert_eq!((world.seen(), world.ended()), (1, vec![EventEnd::Succeeded("1".into())]));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_kept_means_one_more_run() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(5)));
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.pass(1.0).await;
    *world.queue.away.lock().unwrap() = true;
    world.pass(60.0).await;
    *world.queue.away.lock().unwrap() = false;
    world.pass(8.0).await;
    assert_eq!((world.seen(), world.ended().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_claims_nothing_more_and_lets_what_runs_end() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(5)));
    world.queue.add("hello", "1").await;
    world.start(small(1));
    world.pass(1.0).await;
    world.stop.intake.cancel();
    world.queue.add("hello", "2").await;
    world.pass(1.0).await;
    assert!(world.tasks.try_join_next().is_none());
    world.pass(4.0).await;
    assert!(world.tasks.try_join_next().is_some());
    assert_eq!(world.ended(), [EventEnd::Succeeded("1".into())]);
}

#[tokio::test(start_paused = true)]
async fn what_the_grace_cuts_off_is_due_again_at_once() {
    let mut world = World::new(Echo::new().taking(Duration::from_secs(500)));
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.pass(1.0).await;
    world.stop.intake.cancel();
    world.stop.work.cancel();
    world.pass(0.1).await;
    assert!(world.tasks.try_join_next().is_some());
    let kept = world.queue.kept.lock().unwrap();
    assert_eq!((kept[0].held_until, kept[0].attempts.len()), (None, 0));
    assert!(kept[0].ended.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_panics_is_the_platforms_fault() {
    let mut world = World::new(Echo::saying(|invocation| {
        assert!(
            !matches!(invocation.mode, hanshu_core::InvocationMode::Async { .. }),
            "on purpose"
        );
        Verdict::Returned("1".into())
    }));
    world.queue.add("hello", "1").await;
    world.start(DispatcherOptions::default());
    world.pass(0.5).await;
    let kept = world.queue.kept.lock().unwrap();
    let delay = kept[0].due.duration_since(kept[0].event.accepted_at);
    assert_eq!((kept[0].attempts.len(), delay.as_secs()), (0, 1));
}
