//! The history of ended invocations, and running one of them again.

use bytes::Bytes;
use hanshu_core::ports::{CancelReach, HistoryEntry};
use hanshu_core::{
    AsyncState, Failure, FunctionId, InvocationState, Namespace, Origin, Qualifier, RequestId,
    StatusCode, TimerTrigger, TriggerConfig as _,
};
use insta::assert_snapshot;
use serde_json::json;

use crate::test_support::start;
use crate::world::World;

/// An event of a trigger that failed.
fn failed(id: RequestId) -> HistoryEntry {
    let function = FunctionId { namespace: Namespace::default(), name: "hello".parse().unwrap() };
    let state = AsyncState {
        request_id: id,
        function,
        version: Qualifier::Latest,
        trigger: Some("nightly".parse().unwrap()),
        called_by: None,
        state: InvocationState::Failed,
        attempts: vec![],
        accepted_at: start(),
        ended_at: Some(start()),
        result: None,
        error: Some(Failure::seen(StatusCode::TimeLimitReached, "out of time")),
        rerun_of: None,
    };
    HistoryEntry {
        state,
        origin: Origin::trigger_of(TimerTrigger::KIND, "nightly".parse().unwrap()),
    }
}

#[tokio::test]
async fn a_page_is_shown_as_it_was_asked_for() {
    let world = World::with(&["hello"]).await;
    world.history.entries.lock().unwrap().push((failed(RequestId::new()), None));
    let cursor = format!("1000000.{}", RequestId::new());
    let query = format!(
        "function=hello&trigger=nightly&state=failed,expired&from=1h&to=2026-01-31T12:00:00Z\
         &q=time&limit=7&cursor={cursor}"
    );
    let mut shown = world.get(&format!("/v1/invocations?{query}")).await.json();
    shown["invocations"][0]["requestId"] = "…".into();
    assert_eq!(shown["next"], json!(cursor));
    shown["next"] = "…".into();
    assert_snapshot!(shown.to_string(), @r#"{"invocations":[{"acceptedAt":"2026-01-31T12:00:00Z","attempts":[],"calledBy":null,"endedAt":"2026-01-31T12:00:00Z","error":{"errorCode":-1,"errorMessage":"out of time","statusCode":433},"function":"hello","namespace":"default","requestId":"…","rerunOf":null,"result":null,"state":"failed","trigger":{"kind":null,"name":"nightly"},"version":"$LATEST"}],"next":"…","searchedTo":null}"#);
    let asked = world.history.asked.lock().unwrap().clone().unwrap();
    assert_eq!(asked.states, [InvocationState::Failed, InvocationState::Expired]);
    assert_eq!(asked.from.unwrap().to_string(), "2026-01-31T11:00:00Z");
    assert_eq!(asked.to, Some(start()));
    assert_eq!((asked.text.as_deref(), asked.limit), (Some("time"), 7));
    assert_eq!(asked.after.unwrap().to_string(), cursor);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_by_name() {
    let world = World::new().await;
    let long = format!("q={}", "x".repeat(201));
    for (query, field) in [
        ("state=running", "state"),
        ("trigger=nightly", "trigger"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=here", "cursor"),
        ("from=soon", "from"),
        ("to=10y", "to"),
        (&long, "q"),
        ("function=a", "function name"),
    ] {
        let refused = world.get(&format!("/v1/invocations?{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(field), "{query}: {detail}");
    }
}

#[tokio::test]
async fn an_ended_event_is_known_to_the_history_when_the_queue_has_forgotten_it() {
    let world = World::with(&["hello"]).await;
    let id = RequestId::new();
    world.history.entries.lock().unwrap().push((failed(id), None));
    let shown = world.get(&format!("/v1/invocations/{id}")).await.json();
    assert_eq!((&shown["state"], &shown["trigger"]["name"]), (&json!("failed"), &json!("nightly")));
}

#[tokio::test]
async fn an_ended_event_runs_again_with_its_input_or_another() {
    let world = World::with(&["hello"]).await;
    let (kept, gone) = (RequestId::new(), RequestId::new());
    let input = Bytes::from_static(b"{\"n\": 1}");
    {
        let mut entries = world.history.entries.lock().unwrap();
        entries.push((failed(kept), Some(input.clone())));
        entries.push((failed(gone), None));
    }
    let path = |id: RequestId| format!("/v1/invocations/{id}/rerun");
    let again = world.send("POST", &path(kept), &[], "").await;
    assert_eq!(again.status, 202);
    let new_id = again.json()["requestId"].as_str().unwrap().to_owned();
    assert_eq!(again.header("x-request-id"), new_id);
    let shown = world.get(&format!("/v1/invocations/{new_id}")).await.json();
    assert_eq!(shown["rerunOf"], json!(kept));
    assert_eq!(shown["trigger"]["name"], json!("nightly"));

    let without = world.send("POST", &path(gone), &[], "").await;
    assert_eq!((without.status, &without.json()["code"]), (409, &json!("input_not_kept")));
    assert_eq!(world.send("POST", &path(gone), &[], "{}").await.status, 202);
    assert_eq!(world.send("POST", &path(gone), &[], "no json").await.status, 400);
    assert_eq!(world.send("POST", &path(RequestId::new()), &[], "{}").await.status, 404);
    let large = format!("\"{}\"", "x".repeat(131_072));
    assert_eq!(world.send("POST", &path(kept), &[], large).await.status, 413);
    let cancel = format!("/v1/invocations/{new_id}/cancel");
    let running = world.send("POST", &format!("/v1/invocations/{new_id}/rerun"), &[], "").await;
    assert_eq!((running.status, &running.json()["code"]), (409, &json!("not_ended")));

    let cancelled = world.send("POST", &cancel, &[], "").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let ended = world.send("POST", &cancel, &[], "").await;
    assert_eq!((ended.status, &ended.json()["code"]), (409, &json!("already_ended")));
    let path = format!("/v1/invocations/{kept}/cancel");
    assert_eq!(world.send("POST", &path, &[], "").await.json()["code"], json!("already_ended"));
    let path = format!("/v1/invocations/{}/cancel", RequestId::new());
    assert_eq!(world.send("POST", &path, &[], "").await.status, 404);
}

#[tokio::test]
async fn a_running_invocation_is_told_to_end_and_its_caller_gets_the_failure() {
    let world = World::with(&["stopped"]).await;
    let id = RequestId::new();
    let path = format!("/v1/invocations/{id}/cancel");
    for (reach, status) in
        [(CancelReach::Reached, 202), (CancelReach::NotFound, 404), (CancelReach::Unknown, 503)]
    {
        *world.echo.reach.lock().unwrap() = Some(reach);
        let answer = world.send("POST", &path, &[], "").await;
        assert_eq!(answer.status, status, "{reach:?}");
        if reach == CancelReach::Reached {
            assert_eq!(answer.json(), json!({ "requestId": id }));
        }
    }
    let path = "/v1/functions/stopped/invocations";
    let stopped = world.send("POST", path, &[], "{}").await;
    assert_eq!((stopped.status, &stopped.json()["statusCode"]), (409, &json!(499)));
    assert_eq!(stopped.header("x-fault"), "function");
}
