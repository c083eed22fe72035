//! Against a real Redis: `TEST_REDIS_URL` names one. In CI it must.

use std::sync::{Arc, Mutex};

use hanshu_core::{NodeId, Secret, StatusCode, SystemClock};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::*;
use crate::doubles::{Echo, FakeCatalog, FakeQueue, revision, trigger_id};
use crate::retry::RetryPolicy;
use crate::watched::TriggersFeed;

/// One stream of its own on the test's Redis, and nodes that read it.
struct World {
    url: String,
    stream: String,
    connection: MultiplexedConnection,
    echo: Arc<Echo>,
    feed: TriggersFeed,
    view: TriggersView,
    states: SourceStates,
    tasks: JoinSet<()>,
}

/// `None` where there is no Redis, which CI does not accept.
async fn world(echo: Echo) -> Option<World> {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        let ci = std::env::var("CI").is_ok();
        assert!(!ci, "CI tests Redis: set TEST_REDIS_URL");
        return None;
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let (feed, view) = TriggersFeed::new();
    Some(World {
        url,
        stream: format!("orders-{}", RequestId::new()),
        connection,
        echo: Arc::new(echo),
        feed,
        view,
        states: SourceStates::default(),
        tasks: JoinSet::new(),
    })
}

impl World {
    fn trigger(&self, batch: u32) -> Trigger {
        let (url, stream) = (Secret::new(self.url.as_str()), self.stream.clone());
        let spec = TriggerSpec::Redis { url, stream, batch };
        Trigger { id: trigger_id("orders"), spec, enabled: true }
    }

    fn start(&mut self, node: &NodeId) -> Stop {
        let mut function = revision("hello", None);
        function.config.async_policy.retry_delay = Duration::from_millis(20);
        let stop = Stop::default();
        let parts = Parts {
            queue: FakeQueue::new(Arc::new(SystemClock)),
            catalog: FakeCatalog::of([function]),
            invoke: self.echo.clone(),
            clock: Arc::new(SystemClock),
            node: node.clone(),
            data: Handle::current(),
            policy: RetryPolicy::default(),
        };
        let sources = RedisSources::new(parts, self.states.clone());
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
            if let Ok(redis::Value::Array(parts)) = &pending
                && parts[0] == expected
            {
                return;
            }
            assert!(Instant::now() < deadline, "pending: {pending:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self, stops: &[Stop]) {
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
    let Some(mut world) = world(Echo::new()).await else { return };
    world.add(0..25).await;
    world.feed.replace(vec![world.trigger(10)]);
    let stop = world.start(&NodeId::new());
    world.until_ran(25).await;
    world.add(25..27).await;
    world.until_ran(27).await;
    world.until_pending(0).await;
    let ran = world.ran();
    assert_eq!(ran.iter().flat_map(|(v, _)| v.clone()).collect::<Vec<_>>(), Vec::from_iter(0..27));
    assert_eq!(ran[0].0, Vec::from_iter(0..10));
    assert!(ran.iter().all(|(values, attempt)| values.len() <= 10 && *attempt == 1));
    assert_eq!(world.echo.most(), 1, "one batch at a time");
    let event: Value =
        serde_json::from_slice(&world.echo.seen.lock().unwrap()[0].event.payload).unwrap();
    assert_eq!(event["Records"][0]["Redis"]["stream"], json!(world.stream));
    let state = world.states.of(&trigger_id("orders")).unwrap();
    assert_eq!((state.away, state.dead_lettered), (None, 0));
    world.end(&[stop]).await;
}

#[tokio::test]
async fn a_poison_batch_is_buried_after_its_attempts_and_the_next_one_runs() {
    let poison = |invocation: &Invocation| {
        if values(invocation).contains(&1) { failed() } else { Verdict::Returned("1".into()) }
    };
    let Some(mut world) = world(Echo::saying(poison)).await else { return };
    world.add([0, 1, 2]).await;
    world.feed.replace(vec![world.trigger(1)]);
    let stop = world.start(&NodeId::new());
    world.until_ran(5).await;
    world.until_pending(0).await;
    let expected = [(vec![0], 1), (vec![1], 1), (vec![1], 2), (vec![1], 3), (vec![2], 1)];
    assert_eq!(world.ran(), expected);
    let dead = format!("{}:hanshu-dead", world.stream);
    let dead_lettered: Vec<(String, Vec<(String, String)>)> = world
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
    let states = world.states.clone();
    world
        .until("dead_lettered", || states.of(&trigger_id("orders")).unwrap().dead_lettered == 1)
        .await;
    world.end(&[stop]).await;
}

#[tokio::test]
async fn a_poison_entry_does_not_take_its_neighbours_with_it() {
    let poison = |invocation: &Invocation| {
        if values(invocation).contains(&1) { failed() } else { Verdict::Returned("1".into()) }
    };
    let Some(mut world) = world(Echo::saying(poison)).await else { return };
    world.add([0, 1, 2]).await;
    world.feed.replace(vec![world.trigger(10)]);
    let stop = world.start(&NodeId::new());
    world.until_ran(12).await;
    world.until_pending(0).await;
    let all = vec![0, 1, 2];
    let expected =
        [(all.clone(), 1), (all.clone(), 2), (all, 3), (vec![0], 4), (vec![1], 4), (vec![2], 4)];
    assert_eq!(world.ran(), expected);
    let dead = format!("{}:hanshu-dead", world.stream);
    let dead_lettered: u32 = world.connection.xlen(&dead).await.unwrap();
    assert_eq!(dead_lettered, 1);
    world.end(&[stop]).await;
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
    let Some(mut world) = world(Echo::saying(refusing)).await else { return };
    world.add([7]).await;
    world.feed.replace(vec![world.trigger(1)]);
    let stop = world.start(&NodeId::new());
    world.until_ran(4).await;
    world.until_pending(0).await;
    assert_eq!(world.ran(), vec![(vec![7], 1); 4]);
    world.end(&[stop]).await;
}

#[tokio::test]
async fn a_batch_that_was_cut_off_runs_again_at_the_next_start_as_the_same_attempt() {
    let Some(mut world) = world(Echo::new().taking(Duration::from_secs(600))).await else { return };
    let node = NodeId::new();
    world.add([1, 2]).await;
    world.feed.replace(vec![world.trigger(10)]);
    let stop = world.start(&node);
    world.until_pending(2).await;
    let echo = world.echo.clone();
    world.until("it runs", || echo.running.lock().unwrap().0 == 1).await;
    stop.intake.cancel();
    stop.work.cancel();
    world.tasks.join_next().await.unwrap().unwrap();
    world.until_pending(2).await;
    world.add([3]).await;
    *world.echo.takes.lock().unwrap() = Duration::ZERO;
    let stop = world.start(&node);
    world.until_ran(3).await;
    world.until_pending(0).await;
    assert_eq!(world.ran(), [(vec![1, 2], 1), (vec![3], 1)]);
    world.end(&[stop]).await;
}

#[tokio::test]
async fn what_a_dead_consumer_held_is_taken_over() {
    let Some(mut world) = world(Echo::new()).await else { return };
    world.add([1, 2]).await;
    let group = |consumer: &str| GroupOptions {
        stream: world.stream.clone(),
        group: "hanshu:default/hello/orders".into(),
        consumer: consumer.into(),
        batch: 10,
    };
    let mut dead = Group::connect(&world.url, group("dead")).await.unwrap();
    let mut heir = Group::connect(&world.url, group("heir")).await.unwrap();
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
    world.end(&[]).await;
}

#[tokio::test]
async fn an_entry_that_was_deleted_holds_nobody_up() {
    let Some(mut world) = world(Echo::new()).await else { return };
    world.add([1, 2]).await;
    let options = GroupOptions {
        stream: world.stream.clone(),
        group: "hanshu:default/hello/orders".into(),
        consumer: "node".into(),
        batch: 10,
    };
    let mut group = Group::connect(&world.url, options).await.unwrap();
    let ids: Vec<_> = group.read().await.unwrap().entries.into_iter().map(|e| e.id).collect();
    let _: u32 = world.connection.xdel(&world.stream, &ids[..1]).await.unwrap();
    let own = group.own().await.unwrap().unwrap();
    assert_eq!(own.entries.iter().map(|e| &e.id).collect::<Vec<_>>(), [&ids[1]]);
    world.until_pending(1).await;
    world.end(&[]).await;
}

#[tokio::test]
async fn a_trigger_that_is_switched_off_reads_no_more_and_goes_on_where_it_was() {
    let Some(mut world) = world(Echo::new()).await else { return };
    world.add([1]).await;
    world.feed.replace(vec![world.trigger(1)]);
    let stop = world.start(&NodeId::new());
    world.until_ran(1).await;
    let mut off = world.trigger(1);
    off.enabled = false;
    world.feed.replace(vec![off]);
    let states = world.states.clone();
    world.until("forgotten", || states.all().is_empty()).await;
    // A read that was under way may end first.
    sleep(Duration::from_millis(1_200)).await;
    world.add([2]).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(world.ran().len(), 1);
    world.feed.replace(vec![world.trigger(5)]);
    world.until_ran(2).await;
    world.until_pending(0).await;
    world.end(&[stop]).await;
}

#[tokio::test]
async fn a_stream_that_is_away_is_shown_with_the_reason() {
    let Some(mut world) = world(Echo::new()).await else { return };
    world.add([1]).await;
    let good = world.trigger(1);
    let mut away = good.clone();
    away.spec = TriggerSpec::Redis {
        url: Secret::new("redis://:topsecret@127.0.0.1:1"),
        stream: world.stream.clone(),
        batch: 1,
    };
    world.feed.replace(vec![away]);
    let stop = world.start(&NodeId::new());
    let (states, id) = (world.states.clone(), trigger_id("orders"));
    world.until("away", || states.of(&id).is_some_and(|state| state.away.is_some())).await;
    let reason = states.of(&id).unwrap().away.unwrap();
    assert!(reason.starts_with("Redis cannot be reached"), "{reason}");
    assert!(!reason.contains("topsecret"), "{reason}");
    world.feed.replace(vec![good]);
    world.until_ran(1).await;
    assert_eq!(states.of(&id).unwrap().away, None);
    world.end(&[stop]).await;
}
