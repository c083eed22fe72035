//! Databases that are newer, or away.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::server_start::serve;
use crate::services::{Postgres, free_port, run, until};
use crate::world::{PATIENCE, PYTHON, World, send};

const SLOW: &str = "import time\ndef main_handler(event, context):\n    time.sleep(0.1)\n    return event.get('n')\n";
/// The longest that anything may take while the database is unavailable.
const DEADLINE: Duration = Duration::from_secs(32);

#[tokio::test]
async fn a_database_of_a_newer_version_is_said() {
    let mut world = World::start("process");
    assert_eq!(world.stop(), 0);
    let data = world.data.path().to_str().unwrap();
    let file = format!("{data}/hanshu.db");
    let newer = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as db:\n    db.execute(\"INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99990101, 'later', 1, x'00', 0)\")\n";
    run("/usr/bin/python3", &["-c", newer, &file]);
    let ports = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let ran = serve(&["--data", data, ports[0], ports[1], ports[2], ports[3]]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("start the newer hanshu"), "{ran:?}");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "{ran:?}");
}

#[tokio::test]
async fn a_database_that_goes_away_is_survived() {
    let postgres = Postgres::start();
    let flags = ["--sandbox", "process", "--database", &postgres.url()];
    let world = World::start_with(&flags, &[]);
    let settings = format!("{PYTHON}concurrency = 2\n");
    world.deploy("known", &settings, &[("index.py", SLOW)]);
    let mut accepted = Vec::new();
    for n in 0..20 {
        accepted.push(world.accept("known", format!("{{\"n\": {n}}}")).await);
    }
    postgres.stop();

    let begun = Instant::now();
    let path = "/v1/functions/known/invocations";
    let queued = send(world.api(Method::POST, path).header("prefer", "respond-async")).await;
    assert_eq!(queued.status.as_u16(), 503, "{queued:?}");
    let problem = queued.json();
    assert_eq!(problem["code"], "queue_unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("database"), "{problem}");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    for n in 0..3 {
        let begun = Instant::now();
        let answer = world.invoke("known", format!("{{\"n\": {n}}}")).await;
        assert_eq!(answer.json(), n, "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let ready = send(world.api(Method::GET, "/readyz")).await;
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");
    assert!(String::from_utf8_lossy(&ready.body).contains("database"), "{ready:?}");
    assert_eq!(send(world.api(Method::GET, "/healthz")).await.status.as_u16(), 200);

    postgres.start_again();
    for (n, id) in accepted.iter().enumerate() {
        let end = world.end_of(id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("succeeded"), &json!(n)), "{end}");
    }
    let id = world.accept("known", r#"{"n": 7}"#).await;
    assert_eq!(world.end_of(&id).await["result"], 7);
    world.ok(&["list"]);
    assert_eq!(send(world.api(Method::GET, "/readyz")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for() {
    let postgres = Postgres::start();
    let url = postgres.url();
    postgres.stop();
    let _world = World::start_before(&["--sandbox", "process", "--database", &url], || {
        postgres.start_again();
    });
    until("the late database is used", || {
        postgres.ask("SELECT count(*) FROM access_keys").trim() == "1"
    });
}

/// A process with these roles; the controller listens on that port.
fn role(roles: &str, database: &str, controller: u16, port: u16) -> World {
    let (master, token) = ("cd".repeat(32), "shared by all of the cluster, and long");
    let at = |port: u16| format!("127.0.0.1:{port}");
    World::start_with(
        &["--sandbox", "process", "--roles", roles, "--database", database],
        &[
            ("HANSHU_CLUSTER__MASTER_KEY", &master),
            ("HANSHU_CLUSTER__TOKEN", token),
            ("HANSHU_CLUSTER__CONTROLLER", &format!("http://{}", at(controller))),
            ("HANSHU_CLUSTER__LISTEN", &at(port)),
            ("HANSHU_CLUSTER__ADVERTISE", &format!("http://{}", at(port))),
        ],
    )
}

#[tokio::test]
async fn a_cluster_runs_calls_without_its_database_and_after_its_return() {
    let postgres = Postgres::start();
    let (url, controller, port) = (postgres.url(), free_port(), free_port());
    let world = role("gateway,controller,triggers", &url, controller, controller);
    let invoker = role("invoker", &url, controller, port);
    let end = Instant::now() + PATIENCE;
    while !send(world.api(Method::GET, "/readyz")).await.status.is_success() {
        assert!(Instant::now() < end, "{}\n{}", world.log(), invoker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.deploy("known", PYTHON, &[("index.py", SLOW)]);
    assert_eq!(world.invoke("known", r#"{"n": 1}"#).await.json(), 1);
    postgres.stop();
    // Longer than an invoker's lease of 6 s.
    let lapsed = Instant::now() + Duration::from_secs(7);
    while Instant::now() < lapsed {
        assert_eq!(world.invoke("known", r#"{"n": 2}"#).await.json(), 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    postgres.start_again();
    let end = Instant::now() + PATIENCE;
    loop {
        assert_eq!(world.invoke("known", r#"{"n": 3}"#).await.json(), 3);
        if send(world.api(Method::GET, "/readyz")).await.status.is_success() {
            break;
        }
        assert!(Instant::now() < end, "{}", world.log());
    }
    let id = world.accept("known", r#"{"n": 4}"#).await;
    assert_eq!(world.end_of(&id).await["result"], 4);
}
