//! Readers of a stream in memory, under virtual time.

use std::collections::HashSet;
use std::sync::Mutex;

use hanshu_core::{Failure, NodeId, StatusCode, Trigger, TriggerSpec};
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::sources::memory::{MemoryStream, MemoryTrigger};
use crate::sources::reader_set::StreamReaderSet;
use crate::test_support::{
    EchoInvoker, FakeCatalog, FakeQueue, TokioClock, context, revision, trigger_id,
};
use crate::trigger_watch::{TriggersFeed, TriggersView};

/// One stream, and nodes that read it.
struct StreamTest {
    name: String,
    stream: Arc<MemoryStream>,
    echo: Arc<EchoInvoker>,
    catalog: Arc<FakeCatalog>,
    clock: Arc<TokioClock>,
    feed: TriggersFeed,
    view: TriggersView,
    statuses: StreamStatusMap,
    tasks: JoinSet<()>,
}

impl StreamTest {
    fn new(echo: EchoInvoker) -> Self {
        let name = RequestId::new().to_string();
        let (feed, view) = TriggersFeed::new();
        Self {
            stream: MemoryStream::named(&name),
            name,
            echo: Arc::new(echo),
            catalog: FakeCatalog::of([revision("hello", None)]),
            clock: TokioClock::new(),
            feed,
            view,
            statuses: StreamStatusMap::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Switches the trigger on, with batches of this size.
    fn enable(&self, batch: usize) {
        self.feed.replace(vec![self.trigger(batch, true)]);
    }

    fn trigger(&self, batch: usize, enabled: bool) -> Trigger {
        let spec = TriggerSpec::new(MemoryTrigger { stream: self.name.clone(), batch });
        Trigger { id: trigger_id("orders"), spec, enabled }
    }

    /// Starts a node.
    fn start(&mut self, node: &NodeId) -> StopSignals {
        let stop = StopSignals::default();
        let queue = FakeQueue::new(self.clock.clone());
        let (catalog, echo) = (self.catalog.clone(), self.echo.clone());
        let mut context = context(queue, catalog, echo, self.clock.clone());
        context.node = node.clone();
        let readers = StreamReaderSet::new(context, self.statuses.clone());
        self.tasks.spawn(readers.run(self.view.clone(), stop.clone()));
        stop
    }

    fn add(&self, number: usize) {
        for _ in 0..number {
            self.stream.add(vec![]);
        }
    }

    /// The batches that ran, as their entries' numbers and the attempt.
    fn runs(&self) -> Vec<(Vec<u32>, u32)> {
        let seen = self.echo.seen.lock().unwrap();
        seen.iter().map(|invocation| (numbers(invocation), attempt(invocation))).collect()
    }

    fn status(&self) -> Option<crate::sources::stream_status::StreamStatus> {
        self.statuses.of(&trigger_id("orders"))
    }

    async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    async fn stop(&mut self, stop: &StopSignals) {
        stop.intake.cancel();
        stop.work.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn numbers(invocation: &Invocation) -> Vec<u32> {
    let event: serde_json::Value = serde_json::from_slice(&invocation.event.payload).unwrap();
    serde_json::from_value(event["Records"].clone()).unwrap()
}

fn attempt(invocation: &Invocation) -> u32 {
    match invocation.mode {
        InvocationMode::Async { attempt } => attempt,
        InvocationMode::Sync { .. } => 0,
    }
}

fn failed() -> Verdict {
    Verdict::Failed(Failure::seen(StatusCode::UserException, "boom"))
}

/// Fails batches that contain entry 1.
fn poisoned(invocation: &Invocation) -> Verdict {
    if numbers(invocation).contains(&1) { failed() } else { Verdict::Returned("1".into()) }
}

#[tokio::test(start_paused = true)]
async fn entries_run_in_batches_in_order_and_are_acknowledged() {
    let mut test = StreamTest::new(EchoInvoker::new());
    test.add(25);
    test.enable(10);
    test.start(&NodeId::new());
    test.pass(1).await;
    test.add(2);
    test.pass(1).await;
    let runs = test.runs();
    let numbers: Vec<_> = runs.iter().flat_map(|(numbers, _)| numbers.clone()).collect();
    assert_eq!(numbers, Vec::from_iter(0..27));
    assert_eq!(runs[0].0, Vec::from_iter(0..10));
    assert!(runs.iter().all(|(numbers, attempt)| numbers.len() <= 10 && *attempt == 1));
    assert_eq!(test.echo.most(), 1, "one batch at a time");
    let origin = test.echo.seen.lock().unwrap()[0].event.origin.clone();
    assert_eq!((origin.kind(), origin.trigger().unwrap().as_str()), ("memory", "orders"));
    assert_eq!((test.stream.held(), test.stream.acknowledged().len()), (0, 27));
    let status = test.status().unwrap();
    assert_eq!((status.unavailable, status.dead_lettered), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_poison_entry_is_dead_lettered_after_its_attempts_and_the_next_one_runs() {
    let mut test = StreamTest::new(EchoInvoker::returning(poisoned));
    test.add(3);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(150).await;
    let expected = [(vec![0], 1), (vec![1], 1), (vec![1], 2), (vec![1], 3), (vec![2], 1)];
    assert_eq!(test.runs(), expected);
    assert_eq!(test.stream.dead_letters(), [("000001".to_owned(), "boom".to_owned())]);
    assert_eq!((test.stream.held(), test.status().unwrap().dead_lettered), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_poison_entry_does_not_dead_letter_the_rest_of_its_batch() {
    let mut test = StreamTest::new(EchoInvoker::returning(poisoned));
    test.add(3);
    test.enable(10);
    test.start(&NodeId::new());
    test.pass(150).await;
    let all = vec![0, 1, 2];
    let expected =
        [(all.clone(), 1), (all.clone(), 2), (all, 3), (vec![0], 4), (vec![1], 4), (vec![2], 4)];
    assert_eq!(test.runs(), expected);
    assert_eq!((test.stream.dead_letters().len(), test.stream.held()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn refusals_cost_no_attempt() {
    let left = Mutex::new(3);
    let refusing = move |_: &Invocation| {
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return Verdict::Returned("1".into());
        }
        *left -= 1;
        Verdict::Refused(Refusal::Concurrency { limit: 1 })
    };
    let mut test = StreamTest::new(EchoInvoker::returning(refusing));
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(1).await;
    assert_eq!((test.runs(), test.stream.held()), (vec![(vec![0], 1); 4], 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_cut_off_runs_again_at_the_next_start_as_the_same_attempt() {
    let mut test = StreamTest::new(EchoInvoker::new().taking(Duration::from_secs(600)));
    let node = NodeId::new();
    test.add(2);
    test.enable(10);
    let stop = test.start(&node);
    test.pass(1).await;
    assert_eq!(test.echo.running.lock().unwrap().0, 1);
    test.stop(&stop).await;
    assert_eq!((test.runs().len(), test.stream.held()), (0, 2));
    test.add(1);
    *test.echo.takes.lock().unwrap() = Duration::ZERO;
    test.start(&node);
    test.pass(1).await;
    assert_eq!(test.runs(), [(vec![0, 1], 1), (vec![2], 1)]);
    assert_eq!(test.stream.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_batch_that_runs() {
    let mut test = StreamTest::new(EchoInvoker::new().taking(Duration::from_secs(20)));
    test.add(2);
    test.enable(1);
    let stop = test.start(&NodeId::new());
    test.pass(1).await;
    stop.intake.cancel();
    test.pass(10).await;
    assert!(test.tasks.try_join_next().is_none());
    test.pass(10).await;
    assert!(test.tasks.try_join_next().is_some());
    assert_eq!((test.runs(), test.stream.held()), (vec![(vec![0], 1)], 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_runs_for_long_is_kept_from_other_nodes() {
    let mut test = StreamTest::new(EchoInvoker::new().taking(Duration::from_secs(300)));
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.start(&NodeId::new());
    test.pass(301).await;
    assert_eq!((test.runs(), test.stream.held()), (vec![(vec![0], 1)], 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_node_that_died_runs_on_another() {
    let mut test = StreamTest::new(EchoInvoker::new());
    test.add(1);
    let identity = ConsumerIdentity { group: "hanshu:a/b/c".into(), consumer: "dead".into() };
    let source = MemoryTrigger { stream: test.name.clone(), batch: 1 };
    let mut dead = source.connect(&identity).await.unwrap();
    assert_eq!(dead.read(DEAD_AFTER).await.unwrap().entries.len(), 1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(30).await;
    assert_eq!(test.runs(), [], "the other node may be alive");
    test.pass(5).await;
    assert_eq!((test.runs(), test.stream.held()), (vec![(vec![0], 1)], 0));
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_is_switched_off_reads_no_more_and_goes_on_where_it_was() {
    let mut test = StreamTest::new(EchoInvoker::new());
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(1).await;
    test.feed.replace(vec![test.trigger(1, false)]);
    test.pass(3).await;
    assert_eq!(test.status(), None);
    test.add(1);
    test.pass(60).await;
    assert_eq!(test.runs().len(), 1);
    test.enable(5);
    test.pass(1).await;
    assert_eq!((test.runs().len(), test.stream.held()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_ends_after_its_trigger_was_removed_leaves_no_status_behind() {
    let mut test = StreamTest::new(EchoInvoker::new().taking(Duration::from_secs(20)));
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(1).await;
    test.feed.replace(Vec::new());
    test.pass(30).await;
    assert_eq!((test.runs().len(), test.stream.held(), test.status()), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_stream_is_listed_with_the_reason_until_it_is_back() {
    let mut test = StreamTest::new(EchoInvoker::new());
    test.stream.set_unavailable(Some("no route to the broker"));
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(120).await;
    let status = test.status().unwrap();
    assert_eq!(status.unavailable.as_deref(), Some("no route to the broker"));
    test.stream.set_unavailable(None);
    test.pass(31).await;
    assert_eq!((test.runs().len(), test.status().unwrap().unavailable), (1, None));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_stored_although_the_broker_is_unavailable_for_a_while() {
    let mut test = StreamTest::new(EchoInvoker::new().taking(Duration::from_secs(5)));
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(1).await;
    test.stream.set_unavailable(Some("down"));
    test.pass(60).await;
    assert_eq!((test.runs().len(), test.stream.held()), (1, 1));
    test.stream.set_unavailable(None);
    test.pass(31).await;
    assert_eq!((test.runs().len(), test.stream.held()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_a_function_that_is_not_known() {
    let mut test = StreamTest::new(EchoInvoker::new());
    let function = test.catalog.0.lock().unwrap().drain().next().unwrap();
    test.add(1);
    test.enable(1);
    test.start(&NodeId::new());
    test.pass(60).await;
    assert_eq!((test.runs().len(), test.stream.held()), (0, 1));
    test.catalog.0.lock().unwrap().extend([function]);
    test.pass(300).await;
    assert_eq!((test.runs(), test.stream.held()), (vec![(vec![0], 1)], 0));
}

/// Two nodes, twenty entries of which some fail, faults of the broker for five minutes, then none.
async fn entries_under_faults(seed: u64, percent: u64, batch: usize, bad: HashSet<u32>) {
    let is_bad = bad.clone();
    let verdict = move |invocation: &Invocation| {
        let poisoned = numbers(invocation).iter().any(|number| is_bad.contains(number));
        if poisoned { failed() } else { Verdict::Returned("1".into()) }
    };
    let echo = EchoInvoker::returning(verdict).taking(Duration::from_millis(700));
    let mut test = StreamTest::new(echo);
    test.stream.set_faults(seed, percent);
    test.enable(batch);
    let stops = [test.start(&NodeId::new()), test.start(&NodeId::new())];
    for _ in 0..20 {
        test.add(1);
        test.pass(1).await;
    }
    test.pass(280).await;
    test.stream.set_faults(seed, 0);
    // Retries are a minute apart, and each failing entry has up to four.
    for _ in 0..120 {
        if test.stream.acknowledged().len() == 20 {
            break;
        }
        test.pass(30).await;
    }
    assert_eq!(test.stream.held(), 0, "every entry comes to an end");
    let acknowledged = test.stream.acknowledged();
    let all: HashSet<_> = acknowledged.iter().cloned().collect();
    assert_eq!((acknowledged.len(), all.len()), (20, 20), "and to one only");
    let dead: HashSet<u32> =
        test.stream.dead_letters().iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert_eq!(dead, bad.into_iter().filter(|number| *number < 20).collect::<HashSet<_>>());
    let ran: HashSet<u32> = test.runs().into_iter().flat_map(|(numbers, _)| numbers).collect();
    assert_eq!(ran, (0..20).collect::<HashSet<_>>(), "none ends without a run");
    for stop in &stops {
        stop.intake.cancel();
    }
    while test.tasks.join_next().await.is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the broker does: every entry runs, none is lost, exactly the failing ones are
    /// dead-lettered, and the nodes stop when they are asked to.
    #[test]
    fn every_entry_ends_under_every_fault_of_its_broker(
        seed: u64, percent in 0..50u64, batch in 1usize..6,
        bad in prop::collection::hash_set(0u32..40, 0..6),
    ) {
        let life = entries_under_faults(seed, percent, batch, bad);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(life);
    }
}
