//! Databases that are newer, or away.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::server_start::serve;
use crate::services::{Postgres, run, until};
use crate::world::{PYTHON, World, send};

const SLOW: &str = "import time\ndef main_handler(event, context):\n    time.sleep(0.1)\n    return event.get('n')\n";
/// The longest that anything may take while the database is away.
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
    let starting = std::thread::spawn(move || {
        World::start_with(&["--sandbox", "process", "--database", &url], &[])
    });
    // It is asked before it is there: half a second is long enough, and more does no harm.
    std::thread::sleep(Duration::from_millis(500));
    postgres.start_again();
    let world = starting.join().unwrap();
    until("the late database is used", || {
        postgres.ask("SELECT count(*) FROM access_keys").trim() == "1"
    });
    assert!(world.log().contains("not there yet"), "{}", world.log());
}
