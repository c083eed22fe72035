//! Calls of functions through the API.

use std::sync::atomic::Ordering;

use hanshu_core::{Attempt, InvocationState, RequestId, StatusCode};
use insta::assert_snapshot;

use crate::test_support::start;
use crate::world::{Answered, World, basic};

const HELLO: &str = "/v1/functions/hello/invocations";

async fn call(function: &str) -> Answered {
    let world = World::with(&[function]).await;
    world.send("POST", &format!("/v1/functions/{function}/invocations"), &[], "{}").await
}

#[tokio::test]
async fn a_call_answers_the_functions_bytes_as_they_are() {
    let world = World::with(&["hello"]).await;
    for event in [r#"{"a" : 1.50, "b":"\ud800"}"#, "null", "\"你\\u0000\"", " [1,2] "] {
        let answered = world.send("POST", HELLO, &[], event).await;
        assert_eq!((answered.status, answered.text().as_str()), (200, event));
        assert_eq!(answered.header("content-type"), "application/json");
        assert_eq!(answered.header("x-fault"), "none");
        assert!(answered.header("x-request-id").parse::<RequestId>().is_ok());
        assert_eq!(answered.header("x-hanshu-duration-ms"), "1.234");
    }
}

#[tokio::test]
async fn no_body_is_an_empty_object() {
    let world = World::with(&["hello"]).await;
    assert_eq!(world.send("POST", HELLO, &[], "").await.text(), "{}");
}

#[tokio::test]
async fn an_event_of_6_mb_passes_and_one_byte_more_is_told_apart() {
    let world = World::with(&["hello"]).await;
    let event = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let answered = world.send("POST", HELLO, &[], event(6_291_456)).await;
    assert_eq!((answered.status, answered.body.len()), (200, 6_291_456));
    let answered = world.send("POST", HELLO, &[], event(6_291_457)).await;
    assert_eq!(answered.status, 413);
    assert_eq!(answered.json()["code"], "event_too_large");

    let queued = [("prefer", "respond-async")];
    assert_eq!(world.send("POST", HELLO, &queued, event(131_072)).await.status, 202);
    assert_eq!(world.send("POST", HELLO, &queued, event(131_073)).await.status, 413);
}

#[tokio::test]
async fn an_event_that_is_not_json_is_refused_before_it_runs() {
    let world = World::with(&["hello"]).await;
    for event in ["{", "{} x", "nan", "'a'"] {
        let answered = world.send("POST", HELLO, &[], event).await;
        assert_eq!(answered.status, 400, "{event}");
        assert_eq!(answered.json()["code"], "invalid_json");
        assert_eq!(answered.header("x-fault"), "platform");
    }
    assert_eq!(world.send("POST", HELLO, &[], &b"\"\xff\""[..]).await.status, 400);
    assert_eq!(world.echo.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_function_that_raised_answers_500_with_its_own_error() {
    let answered = call("raises").await;
    assert_eq!((answered.status, answered.header("x-fault")), (500, "function"));
    assert_snapshot!(answered.masked(), @r#"
    {
      "errorCode": 1,
      "errorMessage": "a secret reason",
      "requestId": "…",
      "stackTrace": "index.py, line 3",
      "statusCode": 430
    }
    "#);
}

#[tokio::test]
async fn out_of_time_is_504() {
    let answered = call("late").await;
    assert_eq!((answered.status, answered.header("x-fault")), (504, "function"));
    assert_eq!(answered.json()["statusCode"], 433);
}

#[tokio::test]
async fn a_throttled_call_says_when_to_try_again() {
    let answered = call("throttled").await;
    assert_eq!((answered.status, answered.header("retry-after")), (429, "1"));
    assert_eq!(answered.header("x-fault"), "platform");
    assert_eq!(answered.header("content-type"), "application/problem+json");
    assert_snapshot!(answered.masked(), @r#"
    {
      "code": "concurrency_exceeded",
      "detail": "the function already runs 3 invocations at once, its limit",
      "hint": "try again later, call it async, or raise the function's `concurrency`",
      "requestId": "…",
      "status": 429,
      "title": "Too Many Requests",
      "type": "about:blank"
    }
    "#);
}

#[tokio::test]
async fn a_sandbox_that_failed_is_503() {
    let answered = call("broken").await;
    assert_eq!((answered.status, answered.header("retry-after")), (503, "5"));
    assert_eq!(answered.json()["code"], "sandbox_failed");
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let world = World::with(&["hello"]).await;
    let code = async |path: &str| {
        let answered = world.send("POST", path, &[], "").await;
        (answered.status, answered.json()["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(code("/v1/functions/other/invocations").await, (404, "function_not_found".into()));
    assert_eq!(code(&format!("{HELLO}?namespace=b")).await, (404, "function_not_found".into()));
    assert_eq!(code(&format!("{HELLO}?qualifier=1")).await, (404, "version_not_found".into()));
    assert_eq!(code(&format!("{HELLO}?qualifier=x")).await, (400, "invalid_value".into()));
    assert_eq!(code("/v1/nothing").await, (404, "no_route".into()));
}

#[tokio::test]
async fn the_tail_of_the_log_comes_along_where_asked_for() {
    let world = World::with(&["hello"]).await;
    let answered = world.send("POST", HELLO, &[("x-hanshu-log", "tail")], "").await;
    assert_eq!(answered.header("x-hanshu-log-result"), "dGhlIGxvZydzIGVuZA==");
    let answered = world.send("POST", HELLO, &[], "").await;
    assert_eq!(answered.header("x-hanshu-log-result"), "");
}

#[tokio::test]
async fn only_the_right_key_gets_in_and_no_browser_is_asked_for_one() {
    let world = World::with(&["hello"]).await;
    let wrong = [
        "".to_owned(),
        "Basic".into(),
        "Basic !!".into(),
        basic("AKID", "x"),
        basic(&"x".repeat(500), "y"),
        world.authorization().replace("Basic", "Bearer"),
        format!("{}x", world.authorization()),
    ];
    for path in [HELLO, "/v1/functions", "/metrics", "/nothing"] {
        for authorization in &wrong {
            let answered = world.send("POST", path, &[("authorization", authorization)], "").await;
            assert_eq!(answered.status, 401, "{path} {authorization}");
            assert_eq!(answered.json()["code"], "unauthenticated");
            assert_eq!(answered.header("www-authenticate"), "");
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        let answered = world.send("GET", path, &[("authorization", "Basic x")], "").await;
        assert_eq!(answered.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_queued_call_can_be_asked_for_until_it_has_ended() {
    let world = World::with(&["hello"]).await;
    let queued = world.send("POST", HELLO, &[("prefer", "respond-async")], "[1]").await;
    let id = queued.header("x-request-id").to_owned();
    assert_eq!((queued.status, queued.json()["requestId"] == id), (202, true));
    assert_eq!(queued.header("preference-applied"), "respond-async");
    assert_eq!(queued.header("location"), format!("/v1/invocations/{id}"));

    let path = queued.header("location").to_owned();
    let shown = world.get(&path).await;
    assert_snapshot!(shown.text().replace(&id, "…"), @r#"{"requestId":"…","namespace":"default","function":"hello","version":"$LATEST","trigger":null,"calledBy":null,"state":"queued","attempts":[],"acceptedAt":"2026-01-31T12:00:00Z","endedAt":null,"result":null,"error":null,"rerunOf":null}"#);

    let request_id: RequestId = id.parse().unwrap();
    let waiting = format!("{path}?wait=30");
    let (shown, ()) = tokio::join!(world.get(&waiting), async {
        tokio::task::yield_now().await;
        let mut states = world.queue.states.lock().unwrap();
        let state = states.get_mut(&request_id).unwrap();
        state.state = InvocationState::Succeeded;
        state.ended_at = Some(start());
        state.result = Some("{\"b\":1,  \"a\":1.0}".into());
        state.attempts.push(Attempt {
            number: 1,
            started_at: start(),
            ended_at: Some(start()),
            status: Some(StatusCode::Success),
            node: Some("n1".parse().unwrap()),
            cold: true,
        });
    });
    assert_snapshot!(shown.text().replace(&id, "…"), @r#"{"requestId":"…","namespace":"default","function":"hello","version":"$LATEST","trigger":null,"calledBy":null,"state":"succeeded","attempts":[{"number":1,"startedAt":"2026-01-31T12:00:00Z","endedAt":"2026-01-31T12:00:00Z","statusCode":200,"node":"n1","cold":true}],"acceptedAt":"2026-01-31T12:00:00Z","endedAt":"2026-01-31T12:00:00Z","result":{"b":1,  "a":1.0},"error":null,"rerunOf":null}"#);
}

#[tokio::test]
async fn a_queue_that_is_unavailable_or_full_accepts_nothing() {
    let world = World::with(&["hello"]).await;
    world.queue.away.store(true, Ordering::Relaxed);
    let answered = world.send("POST", HELLO, &[("prefer", "respond-async")], "").await;
    assert_eq!((answered.status, answered.header("retry-after")), (503, "5"));
    assert_eq!(answered.json()["code"], "queue_unavailable");
}
