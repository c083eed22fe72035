//! Every folder of `examples/` is deployed and called, and answers as its `call.json` says.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;

use crate::world::{Answer, BACKENDS, World, root, send, service};

#[tokio::test]
async fn every_example_answers_as_it_says() {
    let redis = service("TEST_REDIS_URL").unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    for backend in BACKENDS {
        let world = World::start(backend);
        let mut names = folders(&root().join("examples"));
        names.sort();
        assert!(12 <= names.len(), "{names:?}");
        for example in names {
            let name = example.file_name().unwrap().to_str().unwrap().to_owned();
            let deployed = world.hanshu_with(
                &["deploy", example.to_str().unwrap(), "--output", "json"],
                &[("REDIS_URL", &redis)],
            );
            assert_eq!(deployed.code, 0, "{backend} {name}: {deployed:?}");
            let deployed: Value = serde_json::from_str(&deployed.stdout).unwrap();
            let key = deployed[0]["triggers"][0]["key"].as_str().unwrap_or_default().to_owned();
            let calls = std::fs::read_to_string(example.join("call.json")).unwrap();
            let calls: Vec<Value> = serde_json::from_str(&calls).unwrap();
            assert!(!calls.is_empty(), "{name}");
            for call in calls {
                run(&world, &name, &key, &call).await;
            }
        }
    }
}

async fn run(world: &World, name: &str, key: &str, call: &Value) {
    if let Some(event) = call.get("event") {
        let answer = world.invoke(name, event.to_string()).await;
        assert_eq!(answer.json(), call["answer"], "{name} {call}");
    } else if let Some(timer) = call.get("fire") {
        let id = world.ok(&["trigger", "fire", name, timer.as_str().unwrap()]);
        assert_eq!(world.end_of(id.trim()).await["result"], call["answer"], "{name} {call}");
    } else {
        let method = call["method"].as_str().unwrap_or("GET").parse::<Method>().unwrap();
        let body = call["send"].as_str().unwrap_or_default().to_owned();
        let request = world.web(method, call["http"].as_str().unwrap()).body(body);
        let Answer { status, body, .. } = send(request.header("x-hanshu-key", key)).await;
        assert_eq!(Value::from(status.as_u16()), call["status"], "{name} {call}");
        if let Some(expected) = call.get("body") {
            assert_eq!(String::from_utf8_lossy(&body), expected.as_str().unwrap(), "{name} {call}");
        }
    }
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn the_go_examples_have_the_library_that_init_gives() {
    for example in ["hello-go", "call-go"] {
        let path = root().join("examples").join(example).join("scf/scf.go");
        assert_eq!(std::fs::read_to_string(path).unwrap(), hanshu_runtimes::GO_LIBRARY);
    }
}
