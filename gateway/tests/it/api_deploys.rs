//! Deploying through the API.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::world::{CODE, World};

fn wanted(changes: &[(&str, Value)]) -> String {
    let mut wanted = json!({"runtime": "python", "handler": "index.main_handler", "code": CODE});
    for (field, value) in changes {
        wanted[*field] = value.clone();
    }
    wanted.to_string()
}

async fn refused(changes: &[(&str, Value)]) -> Value {
    let world = World::with(&["hello"]).await;
    let before = world.counter();
    let answered = world.send("PUT", "/v1/functions/hello", &[], wanted(changes)).await;
    assert_eq!(answered.status, 400, "{}", answered.text());
    assert_eq!(world.counter(), before, "a refused deploy changes nothing");
    answered.json()
}

#[tokio::test]
async fn a_deploy_tells_urls_keys_and_the_next_ticks() {
    let world = World::new().await;
    let triggers = json!([
        {"type": "timer", "cron": "0 9 * * *", "argument": "x"},
        {"type": "http", "path": "/hello/{name}", "methods": ["GET"]},
        {"type": "redis", "url": "redis://:pw@127.0.0.1", "stream": "orders"},
    ]);
    let mut done = world.deploy("hello", triggers).await;
    let key = done["triggers"][1]["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 40);
    done["triggers"][1]["key"] = "…".into();
    done["digest"] = "…".into();
    assert_snapshot!(serde_json::to_string_pretty(&done).unwrap(), @r#"
    {
      "changed": true,
      "digest": "…",
      "name": "hello",
      "namespace": "default",
      "removed": [],
      "triggers": [
        {
          "argument": "x",
          "cron": "0 9 * * *",
          "enabled": true,
          "name": "timer",
          "nextTicks": [
            {
              "at": "2026-02-01T01:00:00Z",
              "local": "2026-02-01T09:00:00+08:00[Asia/Shanghai]"
            },
            {
              "at": "2026-02-02T01:00:00Z",
              "local": "2026-02-02T09:00:00+08:00[Asia/Shanghai]"
            },
            {
              "at": "2026-02-03T01:00:00Z",
              "local": "2026-02-03T09:00:00+08:00[Asia/Shanghai]"
            }
          ],
          "summary": "0 9 * * * (Asia/Shanghai)",
          "timezone": "Asia/Shanghai",
          "type": "timer"
        },
        {
          "auth": "key",
          "enabled": true,
          "key": "…",
          "methods": [
            "GET"
          ],
          "name": "http",
          "path": "/hello/{name}",
          "summary": "GET http://127.0.0.1:9080/hello/{name}",
          "type": "http",
          "url": "http://127.0.0.1:9080/hello/{name}"
        },
        {
          "batch": 10,
          "enabled": true,
          "healthProblem": "the stream cannot be read",
          "name": "redis",
          "stream": "orders",
          "summary": "orders at redis://:***@127.0.0.1",
          "type": "redis",
          "url": "redis://:***@127.0.0.1"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn a_second_deploy_says_what_changed_and_what_was_removed() {
    let world = World::new().await;
    world.deploy("hello", json!([{"type": "timer", "cron": "0 9 * * *"}])).await;
    let done = world.deploy("hello", json!([])).await;
    assert_eq!((&done["changed"], &done["removed"]), (&json!(false), &json!(["timer"])));
}

#[tokio::test]
async fn a_bad_value_is_named_with_field_value_and_rule() {
    let problem = refused(&[("memoryMb", json!(100))]).await;
    assert_eq!(problem["code"], "invalid_value");
    assert_eq!(problem["field"], "memoryMb");
    assert_eq!(problem["value"], "100");
    assert_eq!(problem["rule"], "64, or a multiple of 128 up to 122880 (MiB)");
    for (field, value, told) in [
        ("runtime", json!("ruby"), "runtime"),
        ("code", json!("abc"), "code"),
        ("timeoutS", json!(901), "timeoutS"),
        ("timeoutS", json!(-1), "timeoutS"),
        ("env", json!({"A": 1}), "env.A"),
        ("async", json!({"maxAttempts": 0}), "async.maxAttempts"),
        ("handler", json!("missing.main"), "handler"),
    ] {
        assert_eq!(refused(&[(field, value)]).await["field"], told);
    }
}

#[tokio::test]
async fn an_unknown_field_is_told_not_ignored() {
    let problem = refused(&[("memory", json!(128))]).await;
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `memory`"), "{problem}");
    let trigger = json!([{"type": "timer", "cron": "* * * * *", "crn": 1}]);
    let problem = refused(&[("triggers", trigger)]).await;
    assert!(problem["detail"].as_str().unwrap().contains("has no `crn`"), "{problem}");
    assert_eq!(problem["field"], "triggers[0].crn");
}

#[tokio::test]
async fn a_bad_trigger_is_named_with_its_place() {
    let triggers = json!([
        {"type": "http", "path": "/x"},
        {"type": "http", "name": "b", "path": "nope"},
    ]);
    let problem = refused(&[("triggers", triggers)]).await;
    assert_eq!(problem["field"], "triggers[1].path");
    let problem = refused(&[("triggers", json!([{"type": "timer", "cron": "61 * * * *"}]))]).await;
    assert!(problem["detail"].as_str().unwrap().starts_with("triggers[0]: "), "{problem}");
    let problem = refused(&[("triggers", json!([{"type": "kafka"}]))]).await;
    assert!(problem["detail"].as_str().unwrap().contains("kafka"), "{problem}");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_told_apart() {
    let world = World::new().await;
    let twice = format!("{} {{}}", wanted(&[]));
    for body in ["{", "", "{'a': 1}"].map(str::to_owned).into_iter().chain([twice]) {
        let answered = world.send("PUT", "/v1/functions/hello", &[], body).await;
        assert_eq!((answered.status, &answered.json()["code"]), (400, &json!("invalid_json")));
    }
    let answered = world.send("PUT", "/v1/functions/h", &[], wanted(&[])).await;
    assert_eq!(answered.json()["field"], "function name");
}

#[tokio::test]
async fn a_deploy_without_its_package_says_what_to_do() {
    let world = World::new().await;
    let answered = world.send("PUT", "/v1/functions/hello", &[], wanted(&[])).await;
    assert_eq!((answered.status, &answered.json()["code"]), (409, &json!("package_not_found")));
    assert!(answered.json()["hint"].as_str().unwrap().contains("/v1/packages/"));
}

#[tokio::test]
async fn progress_is_streamed_to_those_who_read_lines() {
    let world = World::with(&["other"]).await;
    let lines = async |runtime: &str| {
        let accept = [("accept", "application/x-ndjson")];
        let body = wanted(&[("runtime", json!(runtime))]);
        let answered = world.send("PUT", "/v1/functions/hello", &accept, body).await;
        assert_eq!(answered.header("content-type"), "application/x-ndjson");
        let text = answered.text();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    let python = lines("python").await;
    assert_eq!(python[0], json!({"progress": "step 1 of 2"}));
    assert_eq!(python[1], json!({"progress": "step 2 of 2"}));
    assert_eq!(python[2]["deployed"]["name"], "hello");
    assert_eq!(python.len(), 3);
    // `go` looks for a file called like the handler, which the package does not have.
    let go = lines("go").await;
    assert_eq!(go.last().unwrap()["problem"]["status"], 400);
    assert!(go.last().unwrap()["problem"]["requestId"].is_string());
}

#[tokio::test]
async fn packages_are_asked_for_before_they_are_sent() {
    let world = World::new().await;
    let path = format!("/v1/packages/{CODE}");
    assert_eq!(world.send("HEAD", &path, &[], "").await.status, 404);
    assert_eq!(world.send("PUT", &path, &[], "zip").await.status, 204);
    assert_eq!(world.send("HEAD", &path, &[], "").await.status, 200);
    let answered = world.send("PUT", &path, &[], "bad").await;
    assert_eq!((answered.status, &answered.json()["code"]), (400, &json!("bad_package")));
    assert!(answered.json()["detail"].as_str().unwrap().contains("`../x`"));
    assert_eq!(world.send("PUT", "/v1/packages/abc", &[], "zip").await.status, 400);
}

#[tokio::test]
async fn a_version_is_published_listed_and_called() {
    let world = World::with(&["hello"]).await;
    let published = world.send("POST", "/v1/functions/hello/versions", &[], "").await;
    assert_eq!((published.status, &published.json()["version"]), (201, &json!(1)));
    let listed = world.get("/v1/functions/hello/versions").await.json();
    assert_eq!(listed["versions"][0], published.json());
    let call = "/v1/functions/hello/invocations?qualifier=1";
    assert_eq!(world.send("POST", call, &[], "[1]").await.text(), "[1]");
    let missing = world.send("POST", "/v1/functions/other/versions", &[], "").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn a_deleted_function_is_gone() {
    let world = World::with(&["hello"]).await;
    assert_eq!(world.send("DELETE", "/v1/functions/hello", &[], "").await.status, 204);
    assert_eq!(world.get("/v1/functions/hello").await.status, 404);
    assert_eq!(world.send("DELETE", "/v1/functions/hello", &[], "").await.status, 404);
}
