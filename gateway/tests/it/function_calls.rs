//! The API as functions have it: what they may do, and what they may not.

use bytes::Bytes;
use hanshu_core::ports::FunctionCalls as _;
use hanshu_core::{CALL_DEPTH_MAX, FunctionCaller, FunctionId, RequestId};
use http::{Request, Response};
use serde_json::{Value, json};

use crate::world::{CODE, World};

const HELLO: &str = "/v1/functions/hello/invocations";

/// A function of `default`, as its own invocation.
fn caller(name: &str, depth: u8) -> FunctionCaller {
    let function =
        FunctionId { namespace: "default".parse().unwrap(), name: name.parse().unwrap() };
    FunctionCaller { function, request_id: RequestId::new(), depth }
}

async fn ask(
    world: &World,
    caller: Option<&FunctionCaller>,
    (method, path): (&str, &str),
    prefer: &str,
    body: impl Into<Bytes>,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("prefer", prefer);
    let request = request.header("x-hanshu-log", "tail");
    let request = request.body(body.into()).unwrap();
    let response: Response<Bytes> = world.functions.respond(caller.cloned(), request).await;
    // Functions read no logs.
    assert!(!response.headers().contains_key("x-hanshu-log-result"), "{method} {path}");
    let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
    (response.status().as_u16(), body)
}

#[tokio::test]
async fn a_function_calls_another_and_sees_only_what_it_started() {
    let world = World::with(&["hello"]).await;
    let caller_one = caller("one", 0);
    let (status, body) = ask(&world, Some(&caller_one), ("POST", HELLO), "", "[1]").await;
    assert_eq!((status, body), (200, json!([1])));

    let queued = ask(&world, Some(&caller_one), ("POST", HELLO), "respond-async", "[1]").await;
    assert_eq!(queued.0, 202, "{queued:?}");
    let path = format!("/v1/invocations/{}", queued.1["requestId"].as_str().unwrap());
    let (status, shown) = ask(&world, Some(&caller_one), ("GET", &path), "", "").await;
    let called_by = json!({
        "namespace": "default", "function": "one", "requestId": caller_one.request_id,
    });
    assert_eq!((status, &shown["calledBy"]), (200, &called_by));
    assert_eq!(world.get(&path).await.json()["calledBy"], called_by);

    // Another function sees it no more than one that does not exist.
    let (status, hidden) = ask(&world, Some(&caller("two", 0)), ("GET", &path), "", "").await;
    let missing = format!("/v1/invocations/{}", RequestId::new());
    let unknown = ask(&world, Some(&caller_one), ("GET", &missing), "", "").await;
    assert_eq!((status, unknown.0), (404, 404));
    assert_eq!(hidden["code"], unknown.1["code"]);
}

#[tokio::test]
async fn everything_else_is_refused() {
    let world = World::with(&["hello"]).await;
    let queued = world.send("POST", HELLO, &[("prefer", "respond-async")], "[1]").await;
    let id = queued.header("x-request-id").to_owned();
    let forbidden = [
        ("GET", "/v1/functions".to_owned()),
        ("GET", "/v1/functions/hello".into()),
        ("PUT", "/v1/functions/hello".into()),
        ("DELETE", "/v1/functions/hello".into()),
        ("GET", "/v1/functions/hello/versions".into()),
        ("POST", "/v1/functions/hello/versions".into()),
        ("GET", "/v1/functions/hello/triggers".into()),
        ("PATCH", "/v1/functions/hello/triggers/a".into()),
        ("POST", "/v1/functions/hello/triggers/a/fire".into()),
        ("GET", "/v1/functions/hello/logs".into()),
        ("GET", "/v1/invocations".into()),
        ("POST", format!("/v1/invocations/{id}/cancel")),
        ("POST", format!("/v1/invocations/{id}/rerun")),
        ("HEAD", format!("/v1/packages/{CODE}")),
        ("PUT", format!("/v1/packages/{CODE}")),
        ("GET", "/v1/queues".into()),
        ("GET", "/metrics".into()),
        ("POST", format!("{HELLO}?namespace=other")),
    ];
    for (method, path) in &forbidden {
        let (status, body) = ask(&world, Some(&caller("one", 0)), (method, path), "", "{}").await;
        assert_eq!(status, 403, "{method} {path}: {body}");
        if *method != "HEAD" {
            assert_eq!(body["code"], "forbidden", "{method} {path}: {body}");
            assert!(body["requestId"].is_string(), "{method} {path}: {body}");
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(ask(&world, Some(&caller("one", 0)), ("GET", path), "", "").await.0, 200);
    }
    assert_eq!(ask(&world, Some(&caller("one", 0)), ("GET", "/nothing"), "", "").await.0, 404);
    // Nothing was changed by any of it.
    assert_eq!(world.get(&format!("/v1/invocations/{id}")).await.json()["state"], "queued");
}

#[tokio::test]
async fn a_chain_ends_at_its_depth_and_a_sandbox_without_an_event_calls_nobody() {
    let world = World::with(&["hello"]).await;
    for prefer in ["", "respond-async"] {
        let allowed = caller("one", CALL_DEPTH_MAX - 1);
        let (status, _) = ask(&world, Some(&allowed), ("POST", HELLO), prefer, "1").await;
        assert!([200, 202].contains(&status), "{status}");
        let refused = caller("one", CALL_DEPTH_MAX);
        let (status, body) = ask(&world, Some(&refused), ("POST", HELLO), prefer, "1").await;
        assert_eq!((status, &body["code"]), (403, &json!("call_too_deep")), "{body}");
    }
    let (status, body) = ask(&world, None, ("POST", HELLO), "", "1").await;
    assert_eq!((status, &body["code"]), (409, &json!("no_event")), "{body}");
}
