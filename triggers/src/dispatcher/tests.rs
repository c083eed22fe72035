//! The dispatcher under virtual time.

use hanshu_core::ports::{CancelOutcome, CancelReach, EventEnd, EventQueue as _, Invoke as _};
use hanshu_core::{Failure, NodeId, Refusal, StatusCode, Verdict};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::test_support::{EchoInvoker, FakeCatalog, FakeQueue, TokioClock, context, revision};

struct DispatcherTest {
    queue: Arc<FakeQueue>,
    catalog: Arc<FakeCatalog>,
    echo: Arc<EchoInvoker>,
    clock: Arc<TokioClock>,
    stop: StopSignals,
    tasks: JoinSet<()>,
}

impl DispatcherTest {
    /// Functions `hello` and `other`; `other` runs one event at a time.
    fn new(echo: EchoInvoker) -> Self {
        let clock = TokioClock::new();
        Self {
            queue: FakeQueue::new(clock.clone()),
            catalog: FakeCatalog::of([revision("hello", None), revision("other", Some(1))]),
            echo: Arc::new(echo),
            clock,
            stop: StopSignals::default(),
            tasks: JoinSet::new(),
        }
    }

    fn start(&mut self, options: DispatcherOptions) {
        let (queue, catalog) = (self.queue.clone(), self.catalog.clone());
        let context = context(queue, catalog, self.echo.clone(), self.clock.clone());
        self.tasks.spawn(QueueDispatcher::new(context, options).run(self.stop.clone()));
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

fn failing() -> EchoInvoker {
    EchoInvoker::returning(|_| Verdict::Failed(Failure::seen(StatusCode::UserException, "boom")))
}

#[tokio::test(start_paused = true)]
async fn an_event_runs_and_its_answer_is_kept() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(1)));
    test.start(DispatcherOptions::default());
    test.pass(0.1).await;
    test.queue.add("hello", "[1]").await;
    test.pass(1.1).await;
    assert_eq!(test.ended(), [EventEnd::Succeeded("[1]".into())]);
    let kept = test.queue.kept.lock().unwrap();
    let attempt = &kept[0].attempts[0];
    assert_eq!((attempt.number, attempt.status), (1, Some(StatusCode::Success)));
    assert!(attempt.node.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failing_event_is_tried_three_times_a_minute_apart() {
    let mut test = DispatcherTest::new(failing());
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(119.0).await;
    assert_eq!((test.seen(), test.ended().len()), (2, 0));
    test.pass(3.0).await;
    assert_eq!(test.seen(), 3);
    let EventEnd::Failed(failure) = &test.ended()[0] else { panic!("{:?}", test.ended()) };
    assert_eq!(failure.error_message, "boom");
    let kept = test.queue.kept.lock().unwrap();
    let numbers: Vec<_> = kept[0].attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_running_event_that_is_cancelled_ends_so_at_once() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(100)));
    let id = test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    assert_eq!(test.queue.cancel(id).await.unwrap(), CancelOutcome::Requested);
    assert_eq!(test.echo.cancel(id).await, CancelReach::Reached);
    test.pass(0.1).await;
    assert_eq!(test.ended(), [EventEnd::Cancelled]);
    let kept = test.queue.kept.lock().unwrap();
    assert_eq!(kept[0].attempts[0].status, Some(StatusCode::RequestCanceled));
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_that_nobody_reached_learns_of_a_cancellation_when_it_renews_its_hold() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(100)));
    let id = test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    test.queue.cancel(id).await.unwrap();
    test.pass(8.0).await;
    assert_eq!(test.ended(), []);
    test.pass(2.0).await;
    assert_eq!(test.ended(), [EventEnd::Cancelled]);
    assert_eq!(test.seen(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_event_whose_node_was_lost_is_not_run_again() {
    let mut test = DispatcherTest::new(EchoInvoker::new());
    let id = test.queue.add("hello", "1").await;
    let source = test.queue.source(&test.queue.ready(1).await.unwrap().queues[0]);
    let lost = source.claim(1, Duration::from_secs(30), &NodeId::new()).await.unwrap();
    test.queue.cancel(id).await.unwrap();
    test.start(DispatcherOptions::default());
    test.pass(29.0).await;
    assert_eq!((test.ended(), lost.len()), (vec![], 1));
    test.pass(2.0).await;
    assert_eq!((test.ended(), test.seen()), (vec![EventEnd::Cancelled], 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_event_whose_attempt_fails_is_not_tried_again() {
    let mut test = DispatcherTest::new(failing().taking(Duration::from_secs(5)));
    let id = test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    test.queue.cancel(id).await.unwrap();
    test.pass(200.0).await;
    assert_eq!((test.ended(), test.seen()), (vec![EventEnd::Cancelled], 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_there_are_places() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(1)));
    for _ in 0..20 {
        test.queue.add("hello", "1").await;
    }
    test.start(small(4));
    test.pass(0.5).await;
    let held = test.queue.kept.lock().unwrap().iter().filter(|k| k.held_until.is_some()).count();
    assert_eq!(held, 4, "only events with a slot are claimed");
    test.pass(5.0).await;
    assert_eq!((test.ended().len(), test.echo.most()), (20, 4));
}

#[tokio::test(start_paused = true)]
async fn a_saturated_function_does_not_stand_in_anothers_way() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(1)));
    for _ in 0..10 {
        test.queue.add("other", "\"slow\"").await;
    }
    for _ in 0..4 {
        test.queue.add("hello", "\"fast\"").await;
    }
    test.start(small(5));
    test.pass(1.5).await;
    let fast = test.queue.ended().iter().filter(|(payload, _)| payload == "\"fast\"").count();
    assert_eq!((fast, test.ended().len()), (4, 5));
    assert_eq!(test.echo.running.lock().unwrap().0, 1, "`other` runs one at a time");
    test.pass(10.0).await;
    assert_eq!(test.ended().len(), 14);
}

#[tokio::test(start_paused = true)]
async fn refusals_for_want_of_a_place_cost_no_attempt_and_little_churn() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let says = full.clone();
    let mut test = DispatcherTest::new(EchoInvoker::returning(move |invocation| {
        if says.load(std::sync::atomic::Ordering::Relaxed) {
            Verdict::Refused(Refusal::Concurrency { limit: 1 })
        } else {
            Verdict::Returned(invocation.event.payload.clone())
        }
    }));
    for _ in 0..50 {
        test.queue.add("hello", "1").await;
    }
    test.start(small(8));
    test.pass(30.0).await;
    let tries = test.seen();
    assert!((8..100).contains(&tries), "{tries} tries in half a minute");
    full.store(false, std::sync::atomic::Ordering::Relaxed);
    test.pass(130.0).await;
    assert_eq!(test.ended().len(), 50);
    let kept = test.queue.kept.lock().unwrap();
    assert!(kept.iter().all(|kept| kept.attempts.len() == 1 && kept.attempts[0].number == 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_run_keeps_its_hold() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(200)));
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.start(DispatcherOptions::default());
    test.pass(201.0).await;
    assert_eq!((test.seen(), test.ended().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_dead_node_runs_when_its_hold_is_over() {
    let mut test = DispatcherTest::new(EchoInvoker::new());
    test.queue.add("hello", "1").await;
    let ready = test.queue.ready(1).await.unwrap();
    let dead = test.queue.source(&ready.queues[0]);
    dead.claim(1, Duration::from_secs(30), &NodeId::new()).await.unwrap();
    test.start(DispatcherOptions::default());
    test.pass(29.0).await;
    assert_eq!(test.ended(), []);
    test.pass(2.0).await;
    assert_eq!(test.ended(), [EventEnd::Succeeded("1".into())]);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_gone_function_ends_with_435_and_without_a_run() {
    let mut test = DispatcherTest::new(EchoInvoker::new());
    test.queue.add("hello", "1").await;
    test.catalog.0.lock().unwrap().clear();
    test.start(DispatcherOptions::default());
    test.pass(0.1).await;
    let EventEnd::Failed(failure) = &test.ended()[0] else { panic!("{:?}", test.ended()) };
    assert_eq!(failure.status_code, StatusCode::FunctionNotFound);
    assert_eq!(failure.error_message, "function `default/hello` does not exist");
    assert_eq!(test.seen(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_event_ends_without_a_run() {
    let mut test = DispatcherTest::new(EchoInvoker::new());
    test.queue.add("hello", "1").await;
    test.pass(21_601.0).await;
    test.start(DispatcherOptions::default());
    test.pass(0.1).await;
    assert_eq!((test.ended(), test.seen()), (vec![EventEnd::Expired(None)], 0));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_kept_although_the_queue_is_unavailable_for_a_while() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(5)));
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    *test.queue.unavailable.lock().unwrap() = true;
    test.pass(20.0).await;
    *test.queue.unavailable.lock().unwrap() = false;
    test.pass(3.0).await;
    assert_eq!((test.seen(), test.ended()), (1, vec![EventEnd::Succeeded("1".into())]));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_kept_means_one_more_run() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(5)));
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    *test.queue.unavailable.lock().unwrap() = true;
    test.pass(60.0).await;
    *test.queue.unavailable.lock().unwrap() = false;
    test.pass(8.0).await;
    assert_eq!((test.seen(), test.ended().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_claims_nothing_more_and_lets_what_runs_end() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(5)));
    test.queue.add("hello", "1").await;
    test.start(small(1));
    test.pass(1.0).await;
    test.stop.intake.cancel();
    test.queue.add("hello", "2").await;
    test.pass(1.0).await;
    assert!(test.tasks.try_join_next().is_none());
    test.pass(4.0).await;
    assert!(test.tasks.try_join_next().is_some());
    assert_eq!(test.ended(), [EventEnd::Succeeded("1".into())]);
}

#[tokio::test(start_paused = true)]
async fn what_the_grace_cuts_off_is_due_again_at_once() {
    let mut test = DispatcherTest::new(EchoInvoker::new().taking(Duration::from_secs(500)));
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(1.0).await;
    test.stop.intake.cancel();
    test.stop.work.cancel();
    test.pass(0.1).await;
    assert!(test.tasks.try_join_next().is_some());
    let kept = test.queue.kept.lock().unwrap();
    assert_eq!((kept[0].held_until, kept[0].attempts.len()), (None, 0));
    assert!(kept[0].ended.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_panics_is_the_platforms_fault() {
    let mut test = DispatcherTest::new(EchoInvoker::returning(|invocation| {
        assert!(
            !matches!(invocation.mode, hanshu_core::InvocationMode::Async { .. }),
            "on purpose"
        );
        Verdict::Returned("1".into())
    }));
    test.queue.add("hello", "1").await;
    test.start(DispatcherOptions::default());
    test.pass(0.5).await;
    let kept = test.queue.kept.lock().unwrap();
    let delay = kept[0].due.duration_since(kept[0].event.accepted_at);
    assert_eq!((kept[0].attempts.len(), delay.as_secs()), (0, 1));
}
