//! Synchronous calls by the native API.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use crate::world::{BACKENDS, PYTHON, World, send};

const ECHO: &str = "def main_handler(event, context):\n    return event\n";

#[tokio::test]
async fn a_call_is_answered_with_the_function_s_return_value() {
    for backend in BACKENDS {
        let world = World::start(backend);
        world.deploy("echo", PYTHON, &[("index.py", ECHO)]);
        let answer = world.invoke("echo", r#"{"a": [1, "ü", null]}"#).await;
        assert_eq!((answer.status, answer.fault.as_str()), (StatusCode::OK, "none"));
        assert_eq!(answer.json(), serde_json::json!({"a": [1, "ü", null]}));
        assert_eq!(answer.request_id.len(), 36);
        let answer = world.invoke("echo", "").await;
        assert_eq!(answer.json(), serde_json::json!({}), "nothing is {{}}");
    }
}

#[tokio::test]
async fn whose_fault_it_was_is_said() {
    let world = World::start("process");
    let code = "import time\ndef main_handler(event, context):\n    if event.get('sleep'): time.sleep(60)\n    raise ValueError('boom')\n";
    world.deploy("bad", &format!("{PYTHON}timeout_s = 1\n"), &[("index.py", code)]);

    let failed = world.invoke("bad", "{}").await;
    assert_eq!((failed.status.as_u16(), failed.fault.as_str()), (500, "function"));
    let body = failed.json();
    assert_eq!((body["statusCode"].as_i64(), body["errorCode"].as_i64()), (Some(430), Some(1)));
    assert_eq!(body["requestId"], failed.request_id);
    assert!(body["errorMessage"].as_str().unwrap().contains("boom"), "{body}");
    assert!(body["stackTrace"].as_str().unwrap().contains("index.py"), "{body}");

    let begun = Instant::now();
    let late = world.invoke("bad", r#"{"sleep": true}"#).await;
    assert_eq!((late.status.as_u16(), late.fault.as_str()), (504, "function"));
    assert_eq!(late.json()["statusCode"], 433);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let missing = world.invoke("nobody", "{}").await;
    assert_eq!((missing.status.as_u16(), missing.fault.as_str()), (404, "platform"));
    assert!(missing.json()["code"].is_string());
    let garbage = world.invoke("bad", "{\"a\":").await;
    assert_eq!(garbage.status.as_u16(), 400);
    assert_eq!(garbage.json()["code"], "invalid_json");
}

#[tokio::test]
async fn only_who_has_a_key_may_call() {
    let world = World::start("process");
    let url = format!("{}/v1/functions", world.endpoint);
    let nobody = reqwest::get(&url).await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert!(nobody.headers().get("www-authenticate").is_none(), "no browser challenge");
    for (id, secret) in [(world.id.as_str(), "wrong"), ("AKIDnobody", world.key.as_str()), ("", "")]
    {
        let wrong = reqwest::Client::new().get(&url).basic_auth(id, Some(secret));
        assert_eq!(send(wrong).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(send(world.api(Method::GET, "/v1/functions")).await.status, StatusCode::OK);
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        let answer = reqwest::get(format!("{}{open}", world.endpoint)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn concurrency_is_a_limit_and_the_line_is_bounded() {
    // Long enough for two starts on a busy machine; the two run for longer than others wait.
    let wait = ("HANSHU_WAIT_TIMEOUT_MS", "5000");
    let world = World::start_with(&["--sandbox", "process"], &[wait]);
    let code = "import time\ndef main_handler(event, context):\n    time.sleep(12)\n    return 1\n";
    let settings = format!("{PYTHON}concurrency = 2\ntimeout_s = 60\n");
    world.deploy("slow", &settings, &[("index.py", code)]);
    let calls = (0..5).map(|_| world.invoke("slow", "{}"));
    let answers = futures_util::future::join_all(calls).await;
    let count = |status: u16| answers.iter().filter(|a| a.status.as_u16() == status).count();
    assert_eq!((count(200), count(429)), (2, 3), "{answers:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_costs_no_sandbox() {
    let world = World::start("process");
    let code = "import time, uuid\nme = str(uuid.uuid4())\ndef main_handler(event, context):\n    time.sleep(event.get('s', 0))\n    return me\n";
    world.deploy("nap", PYTHON, &[("index.py", code)]);
    let first = world.invoke("nap", "{}").await.json();
    let path = "/v1/functions/nap/invocations";
    let gone =
        world.api(Method::POST, path).body(r#"{"s": 0.5}"#).timeout(Duration::from_millis(100));
    assert!(gone.send().await.unwrap_err().is_timeout());
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(world.invoke("nap", "{}").await.json(), first, "the same sandbox, in health");
}

#[tokio::test]
async fn a_new_deploy_takes_over_and_a_version_stays() {
    let world = World::start("process");
    let code = |n: u32| format!("def main_handler(event, context):\n    return {n}\n");
    world.deploy("ver", PYTHON, &[("index.py", &code(1))]);
    assert_eq!(
        world.ok(&["publish", "ver", "--output", "json"]).parse::<serde_json::Value>().unwrap()["version"],
        1
    );
    world.deploy("ver", PYTHON, &[("index.py", &code(2))]);
    assert_eq!(world.ok(&["invoke", "ver"]), "2\n");
    assert_eq!(world.ok(&["invoke", "ver", "--qualifier", "1"]), "1\n");
    assert_eq!(world.hanshu(&["invoke", "ver", "--qualifier", "7"]).code, 3);
}

#[tokio::test]
async fn payloads_have_a_limit_that_reaches_a_client_that_still_sends() {
    let world = World::start("process");
    world.deploy(
        "echo",
        &format!("{PYTHON}timeout_s = 60\nmemory_mb = 512\n"),
        &[("index.py", ECHO)],
    );
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let most = text(6_291_456);
    let answer = world.invoke("echo", most.clone()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body.len(), most.len());
    for _ in 0..5 {
        let over = world.invoke("echo", text(6_291_457)).await;
        assert_eq!(over.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let path = "/v1/functions/echo/invocations";
    let queued =
        |bytes| world.api(Method::POST, path).header("prefer", "respond-async").body(text(bytes));
    assert_eq!(send(queued(131_072)).await.status, StatusCode::ACCEPTED);
    assert_eq!(send(queued(131_073)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}
