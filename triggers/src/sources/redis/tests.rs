//! Against a real Redis: `TEST_REDIS_URL` names one. In CI it must.

use std::sync::{Arc, Mutex};

use hanshu_core::{NodeId, Secret, StatusCode, SystemClock};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::*;
use crate::retry::RetryPolicy;
use crate::test_support::{EchoInvoker, FakeCatalog, FakeQueue, revision, trigger_id};
use crate::trigger_watch::TriggersFeed;

/// One stream of its own on the test's Redis, and nodes that read it.
struct RedisStreamTest {
    url: String,
    stream: String,
    connection: MultiplexedConnection,
    echo: Arc<EchoInvoker>,
    feed: TriggersFeed,
    view: TriggersView,
    states: StreamStatusMap,
    tasks: JoinSet<()>,
}

/// `None` where there is no Redis, which CI does not accept.
async fn test(echo: EchoInvoker) -> Option<RedisStreamTest> {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        let ci = std::env::var("CI").is_ok();
        assert!(!ci, "CI tests Redis: set TEST_REDIS_URL");
        return None;
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let (feed, view) = TriggersFeed::new();
    Some(RedisStreamTest {
        url,
        stream: format!("orders-{}", RequestId::new()),
        connection,
        echo: Arc::new(echo),
        feed,
        view,
        states: StreamStatusMap::default(),
        tasks: JoinSet::new(),
    })
}

impl RedisStreamTest {
    fn trigger(&self, batch: u32) -> Trigger {
        let (url, stream) = (Secret::new(self.url.as_str()), self.stream.clone());
        let spec = TriggerSpec::Redis { url, stream, batch };
        Trigger { id: trigger_id("orders"), spec, enabled: true }
    }

    fn start(&mut self, node: &NodeId) -> StopSignals {
        let mut function = revision("hello", None);
        function.config.async_policy.retry_delay = Duration::from_millis(20);
        let stop = StopSignals::default();
        let context = DispatchContext {
            queue: FakeQueue::new(Arc::new(SystemClock)),
            catalog: FakeCatalog::of([function]),
            invoke: self.echo.clone(),
            clock: Arc::new(SystemClock),
            node: node.clone(),
            data: Handle::current(),
            policy: RetryPolicy::default(),
        };
        let sources = StreamSources::new(context, self.states.clone());
        self.tasks.spawn(sources.run(self.view.clone(), stop.clone()));
        stop
    }

    async fn add(&mut self, values: impl IntoIterator<Item = u32>) {
        for value in values {
            let fields = [("n", value.to_string())];
            let _: String = self.connection.xadd(&self.stream, "*", &fields).await.unwrap();
        }
    }

    /// The batches that ran, as their entries' values and the attempt.
    fn ran(&self) -> Vec<(Vec<u32>, u32)> {
        let seen = self.echo.seen.lock().unwrap();
        seen.iter().map(|invocation| (values(invocation), attempt(invocation))).collect()
    }

    /// Waits until so many entries ran (repeats included), at most ten seconds.
    async fn until_ran(&self, entries: usize) {
        self.until("entries ran", || {
            let ran: usize = self.ran().iter().map(|(values, _)| values.len()).sum();
            entries <= ran
        })
        .await;
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let wait = async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let over = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(over.is_ok(), "{what}: {:?}", self.ran());
    }

    /// Waits until the group has exactly so many entries that are not acknowledged.
    async fn until_pending(&mut self, number: usize) {
        let group = format!("hanshu:{}", trigger_id("orders"));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let pending: RedisResult<redis::Value> = redis::cmd("XPENDING")
                .arg(&self.stream)
                .arg(&group)
                .query_async(&mut self.connection)
                .await;
            // An error: the group is not made yet.
            let expected = redis::Value::Int(i64::try_from(number).unwrap());
            if let Ok(redis::Value::Array(context)) = &pending
                && context[0] == expected
            {
                return;
            }
            assert!(Instant::now() < deadline, "pending: {pending:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self, stops: &[StopSignals]) {
        for stop in stops {
            stop.intake.cancel();
            stop.work.cancel();
        }
        let over = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), over).await.unwrap();
        let dead = format!("{}:hanshu-dead", self.stream);
        let _: () = self.connection.del(&[self.stream, dead]).await.unwrap();
    }
}

fn values(invocation: &Invocation) -> Vec<u32> {
    let event: Value = serde_json::from_slice(&invocation.event.payload).unwrap();
    let records = event["Records"].as_array().unwrap().iter();
    records.map(|r| r["Redis"]["fields"]["n"].as_str().unwrap().parse().unwrap()).collect()
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

#[tokio::test]
async fn entries_run_in_batches_in_order_and_are_acknowledged() {
    let Some(mut test) = test(EchoInvoker::new()).await else { return };
    test.add(0..25).await;
    test.feed.replace(vec![test.trigger(10)]);
    let stop = test.start(&NodeId::new());
    test.until_ran(25).await;
    test.add(25..27).await;
    test.until_ran(27).await;
    test.until_pending(0).await;
    let ran = test.ran();
    assert_eq!(ran.iter().flat_map(|(v, _)| v.clone()).collect::<Vec<_>>(), Vec::from_iter(0..27));
    assert_eq!(ran[0].0, Vec::from_iter(0..10));
    assert!(ran.iter().all(|(values, attempt)| values.len() <= 10 && *attempt == 1));
    assert_eq!(test.echo.most(), 1, "one batch at a time");
    let event: Value =
        serde_json::from_slice(&test.echo.seen.lock().unwrap()[0].event.payload).unwrap();
    assert_eq!(event["Records"][0]["Redis"]["stream"], json!(test.stream));
    let state = test.states.of(&trigger_id("orders")).unwrap();
    assert_eq!((state.unavailable, state.dead_lettered), (None, 0));
    test.end(&[stop]).await;
}

#[tokio::test]
async fn a_poison_batch_is_dead_lettered_after_its_attempts_and_the_next_one_runs() {
    let poison = |invocation: &Invocation| {
        if values(invocation).contains(&1) { failed() } else { Verdict::Returned("1".into()) }
    };
    let Some(mut test) = test(EchoInvoker::returning(poison)).await else { return };
    test.add([0, 1, 2]).await;
    test.feed.replace(vec![test.trigger(1)]);
    let stop = test.start(&NodeId::new());
    test.until_ran(5).await;
    test.until_pending(0).await;
    let expected = [(vec![0], 1), (vec![1], 1), (vec![1], 2), (vec![1], 3), (vec![2], 1)];
    assert_eq!(test.ran(), expected);
    let dead = format!("{}:hanshu-dead", test.stream);
    let dead_lettered: Vec<(String, Vec<(String, String)>)> = test
        .connection
        .xrange_all::<_, redis::streams::StreamRangeReply>(&dead)
        .await
        .unwrap()
        .ids
        .into_iter()
        .map(|entry| {
            let text = |key: &str| (key.to_owned(), entry.get::<String>(key).unwrap());
            (entry.id.clone(), ["n", "hanshu-reason", "hanshu-group"].map(text).to_vec())
        })
        .collect();
    let fields: Vec<&str> = dead_lettered[0].1.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(
        (dead_lettered.len(), fields),
        (1, vec!["1", "boom", "hanshu:default/hello/orders"])
    );
    let states = test.states.clone();
    test.until("dead_lettered", || states.of(&trigger_id("orders")).unwrap().dead_lettered == 1)
        .await;
    test.end(&[stop]).await;
}

#[tokio::test]
async fn a_poison_entry_does_not_dead_letter_the_rest_of_its_batch() {
    let poison = |invocation: &Invocation| {
        if values(invocation).contains(&1) { failed() } else { Verdict::Returned("1".into()) }
    };
    let Some(mut test) = test(EchoInvoker::returning(poison)).await else { return };
    test.add([0, 1, 2]).await;
    test.feed.replace(vec![test.trigger(10)]);
    let stop = test.start(&NodeId::new());
    test.until_ran(12).await;
    test.until_pending(0).await;
    let all = vec![0, 1, 2];
    let expected =
        [(all.clone(), 1), (all.clone(), 2), (all, 3), (vec![0], 4), (vec![1], 4), (vec![2], 4)];
    assert_eq!(test.ran(), expected);
    let dead = format!("{}:hanshu-dead", test.stream);
    let dead_lettered: u32 = test.connection.xlen(&dead).await.unwrap();
    assert_eq!(dead_lettered, 1);
    test.end(&[stop]).await;
}

#[tokio::test]
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
    let Some(mut test) = test(EchoInvoker::returning(refusing)).await else { return };
    test.add([7]).await;
    test.feed.replace(vec![test.trigger(1)]);
    let stop = test.start(&NodeId::new());
    test.until_ran(4).await;
    test.until_pending(0).await;
    assert_eq!(test.ran(), vec![(vec![7], 1); 4]);
    test.end(&[stop]).await;
}

#[tokio::test]
async fn a_batch_that_was_cut_off_runs_again_at_the_next_start_as_the_same_attempt() {
    let Some(mut test) = test(EchoInvoker::new().taking(Duration::from_secs(600))).await else {
        return;
    };
    let node = NodeId::new();
    test.add([1, 2]).await;
    test.feed.replace(vec![test.trigger(10)]);
    let stop = test.start(&node);
    test.until_pending(2).await;
    let echo = test.echo.clone();
    test.until("it runs", || echo.running.lock().unwrap().0 == 1).await;
    stop.intake.cancel();
    stop.work.cancel();
    test.tasks.join_next().await.unwrap().unwrap();
    test.until_pending(2).await;
    test.add([3]).await;
    *test.echo.takes.lock().unwrap() = Duration::ZERO;
    let stop = test.start(&node);
    test.until_ran(3).await;
    test.until_pending(0).await;
    assert_eq!(test.ran(), [(vec![1, 2], 1), (vec![3], 1)]);
    test.end(&[stop]).await;
}

#[tokio::test]
async fn entries_of_a_dead_consumer_are_taken_over() {
    let Some(mut test) = test(EchoInvoker::new()).await else { return };
    test.add([1, 2]).await;
    let group = |consumer: &str| ConsumerGroupOptions {
        stream: test.stream.clone(),
        group: "hanshu:default/hello/orders".into(),
        consumer: consumer.into(),
        batch: 10,
    };
    let mut dead = ConsumerGroup::connect(&test.url, group("dead")).await.unwrap();
    let mut heir = ConsumerGroup::connect(&test.url, group("heir")).await.unwrap();
    let batch = dead.read().await.unwrap();
    let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id.clone()).collect();
    dead.set_attempt(&ids, 2).await.unwrap();
    assert_eq!(heir.reclaim(Duration::from_secs(60)).await.unwrap(), 0, "it may be alive");
    assert_eq!(heir.own().await.unwrap(), None);
    sleep(Duration::from_millis(60)).await;
    assert_eq!(heir.reclaim(Duration::from_millis(50)).await.unwrap(), 2);
    let taken = heir.own().await.unwrap().unwrap();
    assert_eq!((taken.entries, taken.attempt), (batch.entries, 2));
    assert!(!dead.renew(&ids).await.unwrap(), "the dead one learns of it");
    assert!(heir.renew(&ids).await.unwrap());
    test.end(&[]).await;
}

#[tokio::test]
async fn a_deleted_entry_blocks_nothing() {
    let Some(mut test) = test(EchoInvoker::new()).await else { return };
    test.add([1, 2]).await;
    let options = ConsumerGroupOptions {
        stream: test.stream.clone(),
        group: "hanshu:default/hello/orders".into(),
        consumer: "node".into(),
        batch: 10,
    };
    let mut group = ConsumerGroup::connect(&test.url, options).await.unwrap();
    let ids: Vec<_> = group.read().await.unwrap().entries.into_iter().map(|e| e.id).collect();
    let _: u32 = test.connection.xdel(&test.stream, &ids[..1]).await.unwrap();
    let own = group.own().await.unwrap().unwrap();
    assert_eq!(own.entries.iter().map(|e| &e.id).collect::<Vec<_>>(), [&ids[1]]);
    test.until_pending(1).await;
    test.end(&[]).await;
}

#[tokio::test]
async fn a_trigger_that_is_switched_off_reads_no_more_and_goes_on_where_it_was() {
    let Some(mut test) = test(EchoInvoker::new()).await else { return };
    test.add([1]).await;
    test.feed.replace(vec![test.trigger(1)]);
    let stop = test.start(&NodeId::new());
    test.until_ran(1).await;
    let mut off = test.trigger(1);
    off.enabled = false;
    test.feed.replace(vec![off]);
    let states = test.states.clone();
    test.until("forgotten", || states.all().is_empty()).await;
    // A read that was under way may end first.
    sleep(Duration::from_millis(1_200)).await;
    test.add([2]).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(test.ran().len(), 1);
    test.feed.replace(vec![test.trigger(5)]);
    test.until_ran(2).await;
    test.until_pending(0).await;
    test.end(&[stop]).await;
}

#[tokio::test]
async fn an_unavailable_stream_is_listed_with_the_reason() {
    let Some(mut test) = test(EchoInvoker::new()).await else { return };
    test.add([1]).await;
    let good = test.trigger(1);
    let mut unreachable = good.clone();
    unreachable.spec = TriggerSpec::Redis {
        url: Secret::new("redis://:topsecret@127.0.0.1:1"),
        stream: test.stream.clone(),
        batch: 1,
    };
    test.feed.replace(vec![unreachable]);
    let stop = test.start(&NodeId::new());
    let (states, id) = (test.states.clone(), trigger_id("orders"));
    test.until("unavailable", || states.of(&id).is_some_and(|state| state.unavailable.is_some()))
        .await;
    let reason = states.of(&id).unwrap().unavailable.unwrap();
    assert!(reason.starts_with("Redis cannot be reached"), "{reason}");
    assert!(!reason.contains("topsecret"), "{reason}");
    test.feed.replace(vec![good]);
    test.until_ran(1).await;
    assert_eq!(states.of(&id).unwrap().unavailable, None);
    test.end(&[stop]).await;
}
