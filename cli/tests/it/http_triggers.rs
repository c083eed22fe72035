//! HTTP triggers: on their own origin, by path, with keys.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::world::{PYTHON, World, folder, send};

const CODE: &str = r#"
def main_handler(event, context):
    if event["queryString"].get("bad"):
        return {"statusCode": 9999}
    if event["queryString"].get("boom"):
        raise ValueError("secret detail")
    if event["queryString"].get("plain"):
        return {"just": "json"}
    return {"statusCode": 201, "headers": {"x-own": "yes", "connection": "close"},
            "body": event["httpMethod"] + " " + event["pathParameters"]["name"] + " " + event["body"]}
"#;

fn settings(auth: &str) -> String {
    format!(
        "{PYTHON}[[functions.web.triggers]]\ntype = \"http\"\npath = \"/hello/{{name}}\"\nmethods = [\"GET\", \"POST\"]\nauth = \"{auth}\"\n"
    )
}

#[tokio::test]
async fn a_request_becomes_an_event_and_its_answer_a_response() {
    let world = World::start("process");
    world.deploy("web", &settings("none"), &[("index.py", CODE)]);
    let response = world.web(Method::POST, "/hello/a%20b").body("text").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-own"], "yes");
    assert_eq!(response.headers()["x-fault"], "none");
    assert_eq!(response.text().await.unwrap(), "POST a b text");

    let plain = send(world.web(Method::GET, "/hello/x?plain=1")).await;
    assert_eq!((plain.status.as_u16(), plain.json()), (200, serde_json::json!({"just": "json"})));
    assert_eq!(
        send(world.web(Method::GET, "/hello/x?bad=1")).await.status,
        StatusCode::BAD_GATEWAY
    );
    let boom = send(world.web(Method::GET, "/hello/x?boom=1")).await;
    assert_eq!((boom.status, boom.fault.as_str()), (StatusCode::BAD_GATEWAY, "function"));
    assert!(!String::from_utf8_lossy(&boom.body).contains("secret detail"));
    assert_eq!(send(world.web(Method::GET, "/nowhere")).await.status, StatusCode::NOT_FOUND);
    let wrong = world.web(Method::DELETE, "/hello/x").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong.headers().contains_key("allow"));
}

#[tokio::test]
async fn api_and_functions_never_share_an_origin() {
    let world = World::start("process");
    world.deploy("web", &settings("none"), &[("index.py", CODE)]);
    assert_eq!(send(world.api(Method::GET, "/hello/x")).await.status, StatusCode::NOT_FOUND);
    let api = world.web(Method::GET, "/v1/functions").basic_auth(&world.id, Some(&world.key));
    assert_eq!(send(api).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_trigger_s_key_survives_deploys_and_opens_nothing_else() {
    let world = World::start("process");
    let dir = folder("web", &settings("key"), &[("index.py", CODE)]);
    let key = || {
        let out = world.ok(&["deploy", dir.path().to_str().unwrap(), "--output", "json"]);
        let out: Value = serde_json::from_str(&out).unwrap();
        out[0]["triggers"][0]["key"].as_str().unwrap().to_owned()
    };
    let first = key();
    assert_eq!(key(), first);
    assert_eq!(send(world.web(Method::GET, "/hello/x")).await.status, StatusCode::UNAUTHORIZED);
    let with = |key: &str| world.web(Method::GET, "/hello/x").header("x-hanshu-key", key);
    assert_eq!(send(with("wrong")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(send(with(&first)).await.status, StatusCode::CREATED);
    let url = format!("{}/v1/functions", world.endpoint);
    let api = reqwest::Client::new().get(url).basic_auth("web", Some(&first));
    assert_eq!(send(api).await.status, StatusCode::UNAUTHORIZED);
}
