//! Calls that return a request id at once, and events that survive.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::world::{BACKENDS, PYTHON, World, send};

#[tokio::test]
async fn an_accepted_call_can_be_asked_for_until_its_end() {
    for backend in BACKENDS {
        let world = World::start(backend);
        let code = "def main_handler(event, context):\n    return {'got': event}\n";
        world.deploy("work", PYTHON, &[("index.py", code)]);
        let path = "/v1/functions/work/invocations";
        let request = world.api(Method::POST, path).header("prefer", "respond-async").body("[1]");
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 202);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let id = header("x-request-id");
        assert_eq!(header("location"), format!("/v1/invocations/{id}"));
        assert_eq!(header("preference-applied"), "respond-async");
        let end = world.end_of(&id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("succeeded"), &json!({"got": [1]})));
        assert_eq!(end["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(end["attempts"][0]["statusCode"], 200);
        assert_eq!(end["function"], "work");
        let ran = world.hanshu(&["status", &id]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[tokio::test]
async fn a_failing_event_is_tried_again_and_then_failed() {
    let world = World::start("process");
    let settings = format!("{PYTHON}async = {{ max_attempts = 3, retry_delay_s = 0 }}\n");
    let code = "def main_handler(event, context):\n    raise RuntimeError('no')\n";
    world.deploy("fails", &settings, &[("index.py", code)]);
    let id = world.accept("fails", "{}").await;
    let end = world.end_of(&id).await;
    assert_eq!(end["state"], "failed");
    assert_eq!(end["attempts"].as_array().unwrap().len(), 3, "{end}");
    assert_eq!(end["error"]["statusCode"], 430);
    assert_eq!(world.hanshu(&["status", &id]).code, 1);
    let queues = world.ok(&["queues", "--output", "json"]);
    let queues: serde_json::Value = serde_json::from_str(&queues).unwrap();
    assert_eq!(queues["queues"][0]["deadLettered"], 1, "{queues}");
}

#[tokio::test]
async fn an_event_runs_the_code_it_was_accepted_for() {
    let world = World::start("process");
    let slow =
        "import time\ndef main_handler(event, context):\n    time.sleep(1)\n    return 'old'\n";
    let settings = format!("{PYTHON}concurrency = 1\n");
    world.deploy("pinned", &settings, &[("index.py", slow)]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.accept("pinned", "{}").await);
    }
    let new = "def main_handler(event, context):\n    return 'new'\n";
    world.deploy("pinned", &settings, &[("index.py", new)]);
    for id in ids {
        assert_eq!(world.end_of(&id).await["result"], "old");
    }
    assert_eq!(world.invoke("pinned", "{}").await.json(), "new");
}

#[tokio::test]
async fn no_accepted_event_is_lost_when_the_server_is_killed() {
    let mut world = World::start("process");
    let code = "import time\ndef main_handler(event, context):\n    time.sleep(0.02)\n    return event['n']\n";
    world.deploy("counted", PYTHON, &[("index.py", code)]);
    let mut ids = Vec::new();
    for round in 0..3 {
        for n in 0..100 {
            ids.push(world.accept("counted", format!("{{\"n\": {n}}}")).await);
        }
        tokio::time::sleep(Duration::from_millis(200 * (1 + round))).await;
        world.kill();
        world.start_server();
    }
    let mut seen = HashSet::new();
    for id in &ids {
        assert_eq!(world.end_of(id).await["state"], "succeeded");
        seen.insert(id.clone());
    }
    assert_eq!(seen.len(), 300, "every event has an id of its own");
}

#[tokio::test]
async fn a_full_queue_says_so_and_keeps_what_it_has() {
    let world = World::start("process");
    let settings =
        format!("{PYTHON}concurrency = 1\ntimeout_s = 30\nasync = {{ max_waiting = 2 }}\n");
    let code = "import time\ndef main_handler(event, context):\n    time.sleep(1)\n    return 1\n";
    world.deploy("narrow", &settings, &[("index.py", code)]);
    let path = "/v1/functions/narrow/invocations";
    let mut kept = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        let answer = send(world.api(Method::POST, path).header("prefer", "respond-async")).await;
        match answer.status.as_u16() {
            202 => kept.push(answer.request_id),
            429 => refused += 1,
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert!(0 < refused && 2 <= kept.len(), "{refused} refused, {} kept", kept.len());
    for id in kept {
        assert_eq!(world.end_of(&id).await["state"], "succeeded");
    }
}
