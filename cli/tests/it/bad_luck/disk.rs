//! Full and read-only disks.

use std::fs;

use reqwest::Method;
use serde_json::json;

use crate::server_start::serve;
use crate::services::{Disk, is_root};
use crate::world::{Answer, PYTHON, World, folder, send};

const CODE: &str = "def main_handler(event, context):\n    return event.get('n')\n";
const OTHER: &str = "def main_handler(event, context):\n    return 'other'\n";

/// Asks for an event to be queued, whatever comes of it.
async fn offer(world: &World, name: &str, event: String) -> Answer {
    let path = format!("/v1/functions/{name}/invocations");
    send(world.api(Method::POST, &path).header("prefer", "respond-async").body(event)).await
}

/// Names of what lies in the packages' folder.
fn packages(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![world.data.path().join("packages")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    if !is_root() {
        return;
    }
    let disk = Disk::new(64);
    let world = World::start_in(disk.folder(), &["--sandbox", "process"], &[]);
    world.deploy("kept", PYTHON, &[("index.py", CODE)]);
    world.deploy("cold", PYTHON, &[("index.py", CODE)]);
    assert_eq!(world.invoke("kept", r#"{"n": 1}"#).await.json(), 1);
    let before = packages(&world);
    disk.fill(1024);

    let mut accepted = Vec::new();
    let filler = "x".repeat(100_000);
    let refused = loop {
        assert!(accepted.len() < 1_000, "the disk never gets full");
        let n = accepted.len();
        let answer = offer(&world, "kept", json!({"n": n, "filler": filler}).to_string()).await;
        match answer.status.as_u16() {
            202 => accepted.push(answer.request_id),
            _ => break answer,
        }
    };
    assert_eq!(refused.status.as_u16(), 503, "{refused:?}");
    assert_eq!(refused.fault, "platform");
    let problem = refused.json();
    assert_eq!(problem["code"], "queue_unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("disk"), "{problem}");
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");
    assert!(String::from_utf8_lossy(&ready.body).contains("make room"), "{ready:?}");
    // Calls of a warm function need no disk. Others may, and say so.
    assert_eq!(world.invoke("kept", r#"{"n": 2}"#).await.json(), 2);
    let cold = world.invoke("cold", r#"{"n": 3}"#).await;
    match cold.status.as_u16() {
        200 => assert_eq!(cold.json(), 3),
        503 => assert_eq!(cold.fault, "platform", "{cold:?}"),
        _ => panic!("{cold:?}"),
    }

    // Nothing half is left of a deploy. It cannot be compressed, so that it has no room.
    let mix = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9;
    let noise: String = (0..200_000).map(|n| format!("{:x}", mix(n))).collect();
    let other = folder("other", PYTHON, &[("index.py", OTHER), ("noise.txt", &noise)]);
    let deploy = ["deploy", other.path().to_str().unwrap()];
    let ran = world.hanshu(&deploy);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("free some space"), "{ran:?}");
    assert_eq!(packages(&world), before);
    assert_eq!(world.hanshu(&["show", "other"]).code, 3);

    disk.free();
    for (n, id) in accepted.iter().enumerate() {
        let end = world.end_of(id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("succeeded"), &json!(n)), "{end}");
    }
    world.ok(&deploy);
    assert_eq!(world.invoke("other", "{}").await.json(), "other");
    assert_eq!(world.invoke("cold", r#"{"n": 4}"#).await.json(), 4);
    // Records and logs are kept again.
    let last = world.invoke("kept", r#"{"n": 5}"#).await.request_id;
    world.log_of("kept", |log| log.contains(&last));
    assert_eq!(send(world.api(Method::GET, "/readyz")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_refuses_and_loses_nothing() {
    if !is_root() {
        return;
    }
    let disk = Disk::new(64);
    let mut world = World::start_in(disk.folder(), &["--sandbox", "process"], &[]);
    let slow = "import time\ndef main_handler(event, context):\n    time.sleep(0.2)\n    return event['n']\n";
    let settings = format!("{PYTHON}concurrency = 1\n");
    world.deploy("kept", &settings, &[("index.py", slow)]);
    let mut accepted = Vec::new();
    for n in 0..10 {
        accepted.push(world.accept("kept", format!("{{\"n\": {n}}}")).await);
    }
    disk.fail();
    let refused = offer(&world, "kept", r#"{"n": 99}"#.into()).await;
    assert_eq!(refused.status.as_u16(), 503, "{refused:?}");
    let problem = refused.json();
    assert_eq!(problem["code"], "queue_unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("written"), "{problem}");
    // Calls of a warm function need no disk.
    let answer = world.invoke("kept", r#"{"n": 5}"#).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let other = folder("other", PYTHON, &[("index.py", OTHER)]);
    let ran = world.hanshu(&["deploy", other.path().to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("written") || ran.stderr.contains("ead-only"), "{ran:?}");
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");

    world.stop();
    disk.repair();
    world.start_server();
    for (n, id) in accepted.iter().enumerate() {
        let end = world.end_of(id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("succeeded"), &json!(n)), "{end}");
    }
}

#[tokio::test]
async fn a_read_only_data_folder_is_said_at_the_start() {
    if !is_root() {
        return;
    }
    let disk = Disk::new(64);
    let mut world = World::start_in(disk.folder(), &["--sandbox", "process"], &[]);
    assert_eq!(world.stop(), 0);
    disk.make_read_only();
    let data = world.data.path().to_str().unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let args = ["--data", data, ports[0], ports[1], ports[2], ports[3]];
    let ran = serve(&args);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains(data), "{ran:?}");
    assert!(ran.stderr.contains("ead-only"), "{ran:?}");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "{ran:?}");
}

#[tokio::test]
async fn a_full_disk_is_said_at_the_start() {
    if !is_root() {
        return;
    }
    let disk = Disk::new(16);
    let folder = disk.folder();
    disk.fill(0);
    let data = folder.path().to_str().unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let args = ["--data", data, ports[0], ports[1], ports[2], ports[3]];
    let ran = serve(&args);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("full"), "{ran:?}");
}
