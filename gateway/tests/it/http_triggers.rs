//! Requests to HTTP triggers.

use serde_json::{Value, json};

use crate::world::{Answered, World};

/// `function` behind `/x/{name}`, for GET and POST, open to anybody.
async fn behind(function: &str) -> World {
    let world = World::new().await;
    let trigger = json!([
        {"type": "http", "path": "/x/{name}", "methods": ["GET", "POST"], "auth": "none"}
    ]);
    world.deploy(function, trigger).await;
    world
}

async fn get(function: &str) -> Answered {
    behind(function).await.web("GET", "/x/a", &[], "").await
}

#[tokio::test]
async fn a_function_sees_the_request_as_an_event() {
    let world = behind("hello").await;
    let headers = [("x-a", "1"), ("host", "example.com")];
    let answered = world.web("POST", "/x/a%20b?q=1&q=2", &headers, "body").await;
    assert_eq!((answered.status, answered.header("x-fault")), (200, "none"));
    assert_eq!(answered.header("content-type"), "application/json");
    let event = answered.json();
    assert_eq!(event["httpMethod"], "POST");
    assert_eq!(event["path"], "/x/a%20b");
    assert_eq!(event["pathParameters"], json!({"name": "a b"}));
    assert_eq!(event["queryString"], json!({"q": ["1", "2"]}));
    assert_eq!(event["body"], "body");
    assert_eq!(event["headers"]["x-a"], "1");
    assert_eq!(event["requestContext"]["sourceIp"], "10.0.0.7");
    assert_eq!(event["requestContext"]["requestId"], answered.header("x-request-id"));
}

#[tokio::test]
async fn a_large_body_takes_the_same_way() {
    let world = behind("hello").await;
    let answered = world.web("POST", "/x/a", &[], vec![b'x'; 1_000_000]).await;
    assert_eq!(answered.json()["body"].as_str().unwrap().len(), 1_000_000);
    let answered = world.web("POST", "/x/a", &[], vec![b'x'; 6_291_457]).await;
    assert_eq!((answered.status, &answered.json()["code"]), (413, &json!("event_too_large")));
    // Smaller than the limit, but its event is not: base64 adds a third.
    let answered = world.web("POST", "/x/a", &[], vec![0xff; 5_000_000]).await;
    assert_eq!((answered.status, &answered.json()["code"]), (413, &json!("event_too_large")));
}

#[tokio::test]
async fn an_answer_with_a_status_code_is_the_response() {
    let answered = get("page").await;
    assert_eq!((answered.status, answered.text().as_str()), (201, "<p>hi"));
    assert_eq!(answered.header("content-type"), "text/html");
    assert_eq!(answered.header("x-hanshu-duration-ms"), "1.234");
}

#[tokio::test]
async fn a_client_never_learns_why_a_function_failed() {
    for (function, status, fault) in [
        ("raises", 502, "function"),
        ("late", 504, "function"),
        ("wrong-page", 502, "function"),
        ("throttled", 429, "platform"),
        ("broken", 503, "platform"),
    ] {
        let answered = get(function).await;
        assert_eq!((answered.status, answered.header("x-fault")), (status, fault), "{function}");
        assert_eq!(answered.header("content-type"), "application/problem+json");
        assert!(!answered.text().contains("secret") && !answered.text().contains("index.py"));
        assert_eq!(answered.header("retry-after") == "1", matches!(status, 429 | 503));
        assert_eq!(answered.json()["requestId"], answered.header("x-request-id"));
    }
}

#[tokio::test]
async fn a_missing_path_and_a_wrong_method_are_told_apart() {
    let world = behind("hello").await;
    let answered = world.web("GET", "/y", &[], "").await;
    assert_eq!((answered.status, &answered.json()["code"]), (404, &json!("no_route")));
    let answered = world.web("PUT", "/x/a", &[], "").await;
    assert_eq!((answered.status, answered.header("allow")), (405, "GET, POST"));
    let answered = world.web("GET", "/x/%ff", &[], "").await;
    assert_eq!(answered.status, 400);
    assert_eq!(world.web("GET", "/healthz", &[], "").await.status, 200);
    assert_eq!(world.web("GET", "/v1/functions", &[], "").await.status, 404);
}

#[tokio::test]
async fn head_goes_where_get_goes() {
    let world = behind("hello").await;
    let answered = world.web("HEAD", "/x/a", &[], "").await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.json()["httpMethod"], "HEAD");
}

#[tokio::test]
async fn a_trigger_with_a_key_asks_for_its_own() {
    let world = World::new().await;
    let done = world.deploy("hello", json!([{"type": "http", "path": "/x"}])).await;
    let other = world.deploy("other", json!([{"type": "http", "path": "/y"}])).await;
    let key = |done: &Value| done["triggers"][0]["key"].as_str().unwrap().to_owned();
    let (key, other) = (key(&done), key(&other));
    for wrong in ["", &other, &key[1..], world.authorization()] {
        let answered = world.web("GET", "/x", &[("x-hanshu-key", wrong)], "").await;
        assert_eq!((answered.status, answered.header("www-authenticate")), (401, ""));
    }
    assert_eq!(world.web("GET", "/x", &[], "").await.status, 401);
    let answered = world.web("GET", "/x", &[("x-hanshu-key", &key)], "").await;
    assert_eq!(answered.status, 200);
    assert!(!answered.text().contains(&key), "the function does not see the key");
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_function() {
    let world = behind("hello").await;
    let headers = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    let answered = world.web("OPTIONS", "/x/a", &headers, "").await;
    assert_eq!((answered.status, answered.body.len()), (204, 0));
    assert_eq!(answered.header("access-control-allow-methods"), "GET, POST");
    assert_eq!(world.echo.calls.load(std::sync::atomic::Ordering::Relaxed), 0);
    let answered = world.web("GET", "/x/a", &headers[..1], "").await;
    assert_eq!(answered.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn a_trigger_that_is_off_is_not_there() {
    let world = World::new().await;
    world.deploy("hello", json!([{"type": "http", "path": "/x", "enabled": false}])).await;
    assert_eq!(world.web("GET", "/x", &[], "").await.status, 404);
}
