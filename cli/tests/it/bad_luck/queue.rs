//! A Redis that is unavailable, slow, or may lose events.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::services::Redis;
use crate::world::{PYTHON, World, send};

const SLOW: &str = "import time\ndef main_handler(event, context):\n    time.sleep(0.1)\n    return event.get('n')\n";
/// The longest that anything may take while Redis is unavailable.
const DEADLINE: Duration = Duration::from_secs(8);

/// A server on that Redis with a function, and events of it that wait and run.
async fn busy(redis: &Redis) -> (World, Vec<String>) {
    let flags = ["--sandbox", "process", "--queue", &redis.url()];
    let world = World::start_with(&flags, &[]);
    let settings = format!("{PYTHON}concurrency = 2\n");
    world.deploy("known", &settings, &[("index.py", SLOW)]);
    let mut accepted = Vec::new();
    for n in 0..20 {
        accepted.push(world.accept("known", format!("{{\"n\": {n}}}")).await);
    }
    (world, accepted)
}

async fn check_refusal(world: &World) {
    let begun = Instant::now();
    let path = "/v1/functions/known/invocations";
    let queued = send(world.api(Method::POST, path).header("prefer", "respond-async")).await;
    assert_eq!(queued.status.as_u16(), 503, "{queued:?}");
    let problem = queued.json();
    assert_eq!(problem["code"], "queue_unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("Redis"), "{problem}");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(world.invoke("known", r#"{"n": 3}"#).await.json(), 3);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

async fn check_ends(world: &World, accepted: &[String]) {
    for (n, id) in accepted.iter().enumerate() {
        let end = world.end_of(id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("succeeded"), &json!(n)), "{end}");
    }
    let id = world.accept("known", r#"{"n": 7}"#).await;
    assert_eq!(world.end_of(&id).await["result"], 7);
}

#[tokio::test]
async fn a_queue_that_is_killed_and_comes_back_has_lost_nothing() {
    let mut redis = Redis::start();
    let (world, accepted) = busy(&redis).await;
    redis.kill();
    check_refusal(&world).await;
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");
    redis.start_again();
    check_ends(&world, &accepted).await;
    assert_eq!(send(world.api(Method::GET, "/readyz")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_queue_that_stands_still_keeps_nobody_waiting_for_ever() {
    let redis = Redis::start();
    let (world, accepted) = busy(&redis).await;
    redis.pause();
    check_refusal(&world).await;
    redis.resume();
    check_ends(&world, &accepted).await;
}

#[tokio::test]
async fn a_queue_that_may_lose_events_is_not_ready_unless_that_is_wanted() {
    let redis = Redis::start_with(&["--appendonly", "no"]);
    let flags = ["--sandbox", "process", "--queue", &redis.url()];
    let world = World::start_with(&flags, &[]);
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");
    assert!(String::from_utf8_lossy(&ready.body).contains("append"), "{ready:?}");
    drop(world);
    let world = World::start_with(&flags, &[("HANSHU_ALLOW_UNSAFE_QUEUE", "true")]);
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 200, "{ready:?}");
}

#[tokio::test]
async fn a_queue_that_comes_late_is_waited_for() {
    let mut redis = Redis::start();
    let url = redis.url();
    redis.kill();
    let world = World::start_before(&["--sandbox", "process", "--queue", &url], || {
        redis.start_again();
    });
    assert_eq!(send(world.api(Method::GET, "/readyz")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_and_keeps_what_it_has() {
    let redis = Redis::start();
    let (world, accepted) = busy(&redis).await;
    redis.ask(&["config", "set", "maxmemory", "1"]);
    let path = "/v1/functions/known/invocations";
    let queued = send(world.api(Method::POST, path).header("prefer", "respond-async")).await;
    assert_eq!(queued.status.as_u16(), 503, "{queued:?}");
    assert!(queued.json()["detail"].as_str().unwrap().contains("memory"), "{queued:?}");
    redis.ask(&["config", "set", "maxmemory", "0"]);
    check_ends(&world, &accepted).await;
}
