//! Looking at what there is.

use std::time::Duration;

use hanshu_api::wire::NotReady;
use hanshu_core::ports::InvocationJournal as _;
use hanshu_core::ports::{LogCursor, LogPage};
use hanshu_core::{
    Failure, FunctionId, InvocationRecord, LogLine, LogSource, Qualifier, RequestId, StatusCode,
};
use insta::assert_snapshot;
use serde_json::json;

use crate::test_support::start;
use crate::world::World;

fn hello() -> FunctionId {
    FunctionId { namespace: "default".parse().unwrap(), name: "hello".parse().unwrap() }
}

#[tokio::test]
async fn functions_are_listed_and_shown() {
    let world = World::with(&["hello", "aa"]).await;
    let listed = world.get("/v1/functions").await.json();
    let names: Vec<_> =
        listed["functions"].as_array().unwrap().iter().map(|f| &f["name"]).collect();
    assert_eq!(names, ["aa", "hello"]);
    assert_eq!(world.get("/v1/functions?namespace=x").await.json(), json!({"functions": []}));

    let mut shown = world.get("/v1/functions/hello").await.json();
    shown["digest"] = "…".into();
    shown["code"] = "…".into();
    assert_snapshot!(serde_json::to_string(&shown).unwrap(), @r#"{"async":{"maxAgeS":21600,"maxAttempts":3,"maxWaiting":100000,"retryDelayS":60},"code":"…","concurrency":null,"createdAt":"2026-01-31T12:00:00Z","digest":"…","env":{},"handler":"index.main_handler","initTimeoutS":65,"memoryMb":128,"name":"hello","namespace":"default","network":null,"runtime":"python","timeoutS":3,"triggers":[],"updatedAt":"2026-01-31T12:00:00Z","versions":[]}"#);
}

#[tokio::test]
async fn a_trigger_is_switched_off_and_on() {
    let world = World::new().await;
    world.deploy("hello", json!([{"type": "timer", "cron": "0 9 * * *"}])).await;
    let path = "/v1/functions/hello/triggers/timer";
    let off = world.send("PATCH", path, &[], r#"{"enabled":false}"#).await;
    assert_eq!((off.status, &off.json()["enabled"]), (200, &json!(false)));
    assert_eq!(off.json().get("nextTicks"), None, "a timer that is off has no next tick");
    let listed = world.get("/v1/functions/hello/triggers").await.json();
    assert_eq!(listed["triggers"][0], off.json());
    let on = world.send("PATCH", path, &[], r#"{"enabled":true}"#).await;
    assert_eq!(on.json()["nextTicks"].as_array().unwrap().len(), 3);
    let missing = "/v1/functions/hello/triggers/other";
    assert_eq!(world.send("PATCH", missing, &[], r#"{"enabled":true}"#).await.status, 404);
}

#[tokio::test]
async fn a_timer_is_fired_through_its_queue() {
    let world = World::new().await;
    let triggers = json!([
        {"type": "timer", "cron": "0 9 * * *"},
        {"type": "http", "path": "/x"},
    ]);
    world.deploy("hello", triggers).await;
    let fired = world.send("POST", "/v1/functions/hello/triggers/timer/fire", &[], "").await;
    assert_eq!(fired.status, 202);
    let id = fired.json()["requestId"].as_str().unwrap().to_owned();
    assert_eq!(fired.header("x-request-id"), id);
    let shown = world.get(&format!("/v1/invocations/{id}")).await.json();
    assert_eq!(shown["trigger"], json!({"kind": "timer", "name": "timer"}));
    let web = world.send("POST", "/v1/functions/hello/triggers/http/fire", &[], "").await;
    assert_eq!((web.status, &web.json()["code"]), (400, &json!("not_a_timer")));

    let queues = world.get("/v1/queues").await.text();
    assert_snapshot!(queues, @r#"{"queues":[{"namespace":"default","function":"hello","trigger":"timer","waiting":1,"running":0,"oldestAt":"2026-01-31T11:58:30Z","oldestAgeS":90,"deadLettered":0}]}"#);
}

#[tokio::test]
async fn a_synchronous_call_is_found_in_the_journal_at_once() {
    let world = World::with(&["hello"]).await;
    let id = RequestId::new();
    world.journal.record(InvocationRecord {
        request_id: id,
        function: hello(),
        version: Qualifier::Version(2),
        trigger: Some("web".parse().unwrap()),
        called_by: None,
        attempt: 1,
        started_at: start(),
        duration: Duration::from_secs(3),
        status: StatusCode::TimeLimitReached,
        error: Some(Failure::seen(StatusCode::TimeLimitReached, "out of time")),
        cold: false,
        init: None,
        cold_start: None,
        memory_mb: 128,
        memory_bytes: 0,
        node: Some("n1".parse().unwrap()),
        first: true,
    });
    let mut shown = world.get(&format!("/v1/invocations/{id}?wait=5")).await.json();
    shown["requestId"] = "…".into();
    shown["acceptedAt"] = "…".into();
    assert_snapshot!(shown.to_string(), @r#"{"acceptedAt":"…","attempts":[{"cold":false,"endedAt":"2026-01-31T12:00:03Z","node":"n1","number":1,"startedAt":"2026-01-31T12:00:00Z","statusCode":433}],"calledBy":null,"endedAt":"2026-01-31T12:00:03Z","error":{"errorCode":-1,"errorMessage":"out of time","statusCode":433},"function":"hello","namespace":"default","requestId":"…","rerunOf":null,"result":null,"state":"failed","trigger":{"kind":null,"name":"web"},"version":"2"}"#);
}

#[tokio::test]
async fn an_unknown_invocation_is_404() {
    let world = World::new().await;
    let answered = world.get(&format!("/v1/invocations/{}", RequestId::new())).await;
    assert_eq!((answered.status, &answered.json()["code"]), (404, &json!("invocation_not_found")));
    assert_eq!(world.get("/v1/invocations/x").await.status, 400);
    assert_eq!(world.get("/v1/invocations/x?wiat=1").await.status, 400);
}

#[tokio::test]
async fn a_log_is_read_page_by_page() {
    let world = World::with(&["hello"]).await;
    let id: RequestId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    let line = LogLine {
        time: start(),
        request_id: Some(id),
        from: LogSource::Function,
        text: "hi".into(),
    };
    let page = LogPage { lines: vec![line], next: LogCursor("7".into()) };
    *world.journal.page.lock().unwrap() = Some(page);
    let path =
        format!("/v1/functions/hello/logs?since=10m&requestId={id}&after=3&limit=99999&wait=100");
    assert_snapshot!(world.get(&path).await.text(), @r#"{"lines":[{"time":"2026-01-31T12:00:00Z","requestId":"01890a5d-ac96-774b-bcce-b302099a8057","from":"function","text":"hi"}],"next":"7"}"#);
    let asked = world.journal.asked.lock().unwrap().remove(0);
    assert_eq!(asked.function, hello());
    assert_eq!(asked.request_id, Some(id));
    assert_eq!(asked.since, Some(start() - Duration::from_secs(600)));
    assert_eq!(asked.after, Some(LogCursor("3".into())));
    assert_eq!((asked.limit, asked.wait), (10_000, Duration::from_secs(60)));
}

#[tokio::test]
async fn readiness_gives_its_reasons() {
    let world = World::new().await;
    assert_eq!(world.get("/readyz").await.text(), r#"{"ready":true,"reasons":[]}"#);
    let reason = "redis keeps nothing: set `appendonly yes`".to_owned();
    world.not_ready.0.lock().unwrap().push(NotReady { part: "queue".into(), reason });
    let answered = world.get("/readyz").await;
    assert_eq!(answered.status, 503);
    assert_snapshot!(answered.text(), @r#"{"ready":false,"reasons":[{"part":"queue","reason":"redis keeps nothing: set `appendonly yes`"}]}"#);
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let world = World::new().await;
    let answered = world.send("POST", "/v1/functions/hello", &[], "").await;
    assert_eq!((answered.status, answered.header("allow")), (405, "GET,HEAD,PUT,DELETE"));
    assert_eq!(answered.json()["code"], "method_not_allowed");
    let answered = world.get("/v1/functions/hello/invocations").await;
    assert_eq!((answered.status, answered.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn the_log_of_a_function_that_never_was_is_a_404() {
    let world = World::with(&["hello"]).await;
    let gone = world.get("/v1/functions/nobody/logs?wait=60").await;
    assert_eq!((gone.status, &gone.json()["code"]), (404, &json!("function_not_found")));
    let id = world.get("/v1/functions/hello/logs?requestId=zz").await;
    assert_eq!(id.status, 400);
    assert!(id.json()["detail"].as_str().unwrap().contains("requestId"), "{}", id.text());
}

#[tokio::test]
async fn what_is_missing_has_one_code_whoever_asks() {
    let world = World::with(&["hello"]).await;
    for (method, path, code) in [
        ("GET", "/v1/functions/nobody", "function_not_found"),
        ("DELETE", "/v1/functions/nobody", "function_not_found"),
        ("POST", "/v1/functions/nobody/versions", "function_not_found"),
        ("POST", "/v1/functions/hello/triggers/x/fire", "trigger_not_found"),
    ] {
        let said = world.send(method, path, &[], "").await;
        assert_eq!((said.status, &said.json()["code"]), (404, &json!(code)), "{method} {path}");
        assert_eq!(said.header("x-fault"), "platform");
    }
    let path = "/v1/functions/hello/triggers/x";
    let said = world.send("PATCH", path, &[], r#"{"enabled":true}"#).await;
    assert_eq!(said.json()["code"], "trigger_not_found");
}
