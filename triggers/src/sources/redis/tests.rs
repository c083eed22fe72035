//! Against a real Redis: `TEST_REDIS_URL` names one. In CI it must.

use hanshu_core::{
    Failure, NodeId, RequestId, Secret, StatusCode, SystemClock, Trigger, TriggerSpec, Verdict,
};
use redis::AsyncCommands as _;
use serde_json::Value as Json;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::sources::consumer_contract::{ContractStream, check_consumers};
use crate::sources::reader_set::StreamReaderSet;
use crate::sources::stream_status::StreamStatusMap;
use crate::stop_signals::StopSignals;
use crate::test_support::{EchoInvoker, FakeCatalog, FakeQueue, context, revision, trigger_id};
use crate::trigger_kinds::{check_trigger, view_trigger};
use crate::trigger_watch::TriggersFeed;

/// A stream of its own on the test's Redis.
struct RedisStreamTest {
    trigger: RedisTrigger,
    connection: MultiplexedConnection,
}

impl RedisStreamTest {
    /// `None` where there is no Redis, which CI does not accept.
    async fn new(batch: u32) -> Option<Self> {
        let Ok(url) = std::env::var("TEST_REDIS_URL") else {
            let ci = std::env::var("CI").is_ok();
            assert!(!ci, "CI tests Redis: set TEST_REDIS_URL");
            return None;
        };
        let client = Client::open(url.as_str()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let stream = format!("orders-{}", RequestId::new());
        Some(Self { trigger: RedisTrigger { url: Secret::new(url), stream, batch }, connection })
    }
}

#[async_trait]
impl ContractStream for RedisStreamTest {
    fn source(&self) -> &dyn StreamSource {
        &self.trigger
    }

    async fn add(&self, n: u32) {
        let fields = [("n", n.to_string())];
        let mut connection = self.connection.clone();
        let _: String = connection.xadd(&self.trigger.stream, "*", &fields).await.unwrap();
    }

    async fn remove(&self) {
        let dead = format!("{}:hanshu-dead", self.trigger.stream);
        let keys = [self.trigger.stream.clone(), dead];
        let _: () = self.connection.clone().del(&keys).await.unwrap();
    }
}

fn redis(url: &str, stream: &str, batch: u32) -> RedisTrigger {
    RedisTrigger { url: Secret::new(url), stream: stream.into(), batch }
}

#[tokio::test]
async fn a_redis_consumer_keeps_the_contract() {
    if RedisStreamTest::new(10).await.is_some() {
        check_consumers(async || RedisStreamTest::new(10).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_deleted_entry_blocks_nothing() {
    let Some(test) = RedisStreamTest::new(10).await else { return };
    test.add(1).await;
    test.add(2).await;
    let identity = ConsumerIdentity { group: "hanshu:a/b/c".into(), consumer: "node".into() };
    let mut consumer = test.trigger.connect(&identity).await.unwrap();
    let ids: Vec<_> = consumer.read(Duration::from_secs(60)).await.unwrap().entries;
    let _: u32 = test.connection.clone().xdel(&test.trigger.stream, &[&ids[0].id]).await.unwrap();
    consumer.redeliver();
    let again = consumer.read(Duration::from_secs(60)).await.unwrap();
    assert_eq!(again.entries, ids[1..]);
    consumer.ack(&[ids[1].id.clone()]).await.unwrap();
    consumer.redeliver();
    assert_eq!(consumer.read(Duration::from_secs(60)).await.unwrap().entries, []);
    test.remove().await;
}

#[test]
fn entries_become_records_in_their_order() {
    let source = redis("redis://h", "orders", 1);
    let record = |id: &str, value: &[u8]| {
        let fields = vec![(b"k".to_vec(), value.to_vec())];
        let mut json = Vec::new();
        source.write_record(&StreamEntry { id: id.into(), fields }, &mut json);
        serde_json::from_slice::<Json>(&json).unwrap()
    };
    let text = record("1-0", "v\"你".as_bytes());
    let bytes = record("2-0", b"\xff\x00");
    let redis =
        |id, value| json!({"Redis": {"stream": "orders", "id": id, "fields": {"k": value}}});
    assert_eq!(text, redis("1-0", json!("v\"你")));
    assert_eq!(bytes, redis("2-0", json!({"base64": "/wA="})));
}

#[test]
fn good_triggers_pass_and_bad_ones_are_refused_with_field_value_and_rule() {
    let good = redis("redis://:secret@localhost:6379/2", "orders", 10_000);
    assert_eq!(check_trigger(&TriggerSpec::new(good)), Ok(()));
    for (bad, words) in [
        (redis("http://localhost", "orders", 1), "`url` is `***`: expected `redis://"),
        (redis("rediss://localhost", "orders", 1), "TLS is not supported"),
        (redis("redis://localhost", "", 1), "`stream` is ``: expected"),
        (redis("redis://localhost", "orders", 0), "`batch` is `0`: expected"),
        (redis("redis://localhost", "orders", 10_001), "`batch` is `10001`"),
    ] {
        let message = check_trigger(&TriggerSpec::new(bad)).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_view_has_the_address_without_its_password() {
    for (url, without) in [
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("redis://:secret@host:1/2", "redis://:***@host:1/2"),
        ("redis://me:se@cret@host", "redis://me:***@host"),
        ("redis://secret@host", "redis://:***@host"),
        ("secret", "***"),
    ] {
        assert_eq!(without_password(url), without);
    }
    let context = ViewContext {
        now: hanshu_core::Timestamp::UNIX_EPOCH,
        timezone: "UTC",
        http_url: "",
        enabled: true,
    };
    let spec = TriggerSpec::new(redis("redis://:secret@host", "orders", 10));
    let view = view_trigger(&spec, &context);
    assert_eq!(view.summary, "orders at redis://:***@host");
    let expected = json!({"url": "redis://:***@host", "stream": "orders", "batch": 10});
    assert_eq!(json!(view.fields), expected);
}

/// Fails the entry 1.
fn poisoned(invocation: &hanshu_core::Invocation) -> Verdict {
    let event: Json = serde_json::from_slice(&invocation.event.payload).unwrap();
    match event["Records"][0]["Redis"]["fields"]["n"].as_str() {
        Some("1") => Verdict::Failed(Failure::seen(StatusCode::UserException, "boom")),
        _ => Verdict::Returned("1".into()),
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let over = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(over.is_ok(), "{what}");
}

/// From an address that does not answer to a poison entry in the dead-letter stream.
#[tokio::test]
async fn a_reader_reads_redis_and_dead_letters_with_the_reason() {
    let Some(test) = RedisStreamTest::new(1).await else { return };
    for n in 0..3 {
        test.add(n).await;
    }
    let mut function = revision("hello", None);
    function.config.async_policy.retry_delay = Duration::from_millis(20);
    let clock = Arc::new(SystemClock);
    let echo = Arc::new(EchoInvoker::returning(poisoned));
    let (queue, catalog) = (FakeQueue::new(clock.clone()), FakeCatalog::of([function]));
    let mut context = context(queue, catalog, echo.clone(), clock);
    context.node = NodeId::new();
    let (feed, view) = TriggersFeed::new();
    let (stop, statuses, mut tasks) =
        (StopSignals::default(), StreamStatusMap::default(), JoinSet::new());
    tasks.spawn(StreamReaderSet::new(context, statuses.clone()).run(view, stop.clone()));
    let id = trigger_id("orders");
    let trigger = |trigger: RedisTrigger| Trigger {
        id: id.clone(),
        spec: TriggerSpec::new(trigger),
        enabled: true,
    };

    let unreachable = Secret::new("redis://:topsecret@127.0.0.1:1");
    feed.replace(vec![trigger(RedisTrigger { url: unreachable, ..test.trigger.clone() })]);
    let reason = || statuses.of(&id).and_then(|status| status.unavailable);
    until("unavailable", async || reason().is_some()).await;
    let text = reason().unwrap();
    assert!(text.starts_with("Redis cannot be reached") && !text.contains("topsecret"), "{text}");

    feed.replace(vec![trigger(test.trigger.clone())]);
    until("dead-lettered", async || statuses.of(&id).is_some_and(|s| s.dead_lettered == 1)).await;
    until("entries ran", async || echo.seen.lock().unwrap().len() == 5).await;
    assert_eq!(reason(), None);
    let group = "hanshu:default/hello/orders";
    until("acknowledged", async || {
        let mut pending = cmd("XPENDING");
        pending.arg(&test.trigger.stream).arg(group);
        let pending: Value = pending.query_async(&mut test.connection.clone()).await.unwrap();
        items(pending).first() == Some(&Value::Int(0))
    })
    .await;
    let dead = format!("{}:hanshu-dead", test.trigger.stream);
    let dead: redis::streams::StreamRangeReply =
        test.connection.clone().xrange_all(&dead).await.unwrap();
    let field = |name: &str| dead.ids[0].get::<String>(name).unwrap();
    let fields = ["n", "hanshu-reason", "hanshu-group"].map(field);
    assert_eq!((dead.ids.len(), fields), (1, ["1", "boom", group].map(str::to_owned)));
    stop.intake.cancel();
    while tasks.join_next().await.is_some() {}
    test.remove().await;
}
