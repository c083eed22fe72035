//! Golden files (`store/tests/golden/README.md`): users' streams as an earlier program left them,
//! on the Redis that `TEST_REDIS_URL` names. In CI it must.

use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use hanshu_core::{RedisTrigger, RequestId, Secret};
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use super::consumer::{ConsumerIdentity, StreamConsumer, StreamSource as _};

/// Longer than any test: nothing is taken from another consumer.
const DEAD_AFTER: Duration = Duration::from_secs(3_600);

fn dumps() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/golden");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_version = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('v');
    entries.filter(is_version).map(|path| path.join("redis/dump.jsonl")).collect()
}

fn stream<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    &lines.iter().find(|line| line["key"] == *name).unwrap()["value"]
}

/// `None` where there is no Redis, which CI does not accept.
async fn redis() -> Option<(String, MultiplexedConnection)> {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        let ci = std::env::var("CI").is_ok();
        assert!(!ci, "CI tests Redis: set TEST_REDIS_URL");
        return None;
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    Some((url, client.get_multiplexed_async_connection().await.unwrap()))
}

/// Writes a stream of a dump, its groups and what is pending in them.
async fn restore(connection: &mut MultiplexedConnection, name: &str, stream: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for entry in stream["entries"].as_array().unwrap() {
        let mut add = redis::cmd("XADD");
        add.arg(name).arg(text(&entry["id"]));
        add.arg(entry["fields"].as_array().unwrap().iter().map(text).collect::<Vec<_>>());
        let _: String = add.query_async(connection).await.unwrap();
    }
    for group in stream["groups"].as_array().unwrap() {
        let group_name = text(&group["name"]);
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(name).arg(&group_name).arg(text(&group["lastDelivered"]));
        let () = create.query_async(connection).await.unwrap();
        for each in group["pending"].as_array().unwrap() {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(name).arg(&group_name).arg(text(&each["consumer"])).arg(0);
            claim
                .arg(text(&each["id"]))
                .arg("RETRYCOUNT")
                .arg(each["deliveries"].as_u64().unwrap());
            let _: redis::Value =
                claim.arg("FORCE").arg("JUSTID").query_async(connection).await.unwrap();
        }
    }
}

/// The consumer that the trigger of that group has on this node.
async fn consumer(url: &str, stream: &str, group: &Value) -> Box<dyn StreamConsumer> {
    let (group, consumer) = (group["name"].as_str().unwrap().to_owned(), "golden-node".to_owned());
    let trigger = RedisTrigger { url: Secret::new(url), stream: stream.to_owned(), batch: 5 };
    trigger.connect(&ConsumerIdentity { group, consumer }).await.unwrap()
}

#[tokio::test]
async fn what_a_consumer_had_not_finished_is_its_own_at_the_attempt_that_was_next() {
    let Some((url, mut connection)) = redis().await else { return };
    for dump in dumps() {
        let text = fs::read_to_string(dump).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let (orders, name) = (stream(&lines, "orders"), format!("golden-{}", RequestId::new()));
        restore(&mut connection, &name, orders).await;
        let group = &orders["groups"][0];
        assert_eq!(group["name"], "hanshu:default/worker/orders", "as triggers are named");
        let mut reader = consumer(&url, &name, group).await;
        let batch = reader.read(DEAD_AFTER).await.unwrap();
        assert_eq!(batch.attempt, 2);
        let [entry] = &batch.entries[..] else { panic!("{batch:?}") };
        assert_eq!(entry.id, group["pending"][0]["id"].as_str().unwrap());
        assert_eq!(entry.fields, [(b"raise".to_vec(), b"pending".to_vec())]);
        reader.ack(std::slice::from_ref(&entry.id)).await.unwrap();
        let rest = reader.read(DEAD_AFTER).await.unwrap();
        assert_eq!(rest.entries, [], "the others were done");
        let () = redis::cmd("DEL").arg(&name).query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_given_up_is_counted_and_says_whose_it_was() {
    let Some((url, mut connection)) = redis().await else { return };
    for dump in dumps() {
        let text = fs::read_to_string(dump).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let (refunds, name) = (stream(&lines, "refunds"), format!("golden-{}", RequestId::new()));
        let dead = stream(&lines, "refunds:hanshu-dead");
        let dead_name = format!("{name}:hanshu-dead");
        restore(&mut connection, &name, refunds).await;
        restore(&mut connection, &dead_name, dead).await;
        let group = &refunds["groups"][0];
        let mut reader = consumer(&url, &name, group).await;
        assert_eq!(reader.dead_lettered().await.unwrap(), 1);
        let fields = dead["entries"][0]["fields"].as_array().unwrap();
        let names: Vec<_> = fields.iter().step_by(2).map(|it| it.as_str().unwrap()).collect();
        assert_eq!(names, ["raise", "hanshu-id", "hanshu-group", "hanshu-reason"]);
        let () = redis::cmd("DEL")
            .arg(&name)
            .arg(&dead_name)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
}
