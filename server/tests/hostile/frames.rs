//! A function that took the connection from its bootstrap and speaks for itself: frames that are
//! wrong, too many, too slow, or another event's.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::arena::fault;
use crate::world::PATIENCE;
use crate::{Arena, Column};

const WIRE: &str = include_str!("functions/wire.py");
/// The runtime broke the protocol.
const BROKEN: (u16, i64) = (500, 443);
/// The runtime ended without an answer.
const GONE: (u16, i64) = (500, 439);
/// The function did not answer in time.
const LATE: (u16, i64) = (504, 433);
const FINE: (u16, i64) = (200, 0);
/// Before an order: waits until the sandbox has been ended for what it sent late.
const ENDED: &str = "";

/// Waits until no process is left in a sandbox, of which this is the name of the process ids' space.
async fn until_ended(space: &str) {
    assert!(space.starts_with("pid:["), "{space}");
    let is_in_it = |process: &std::path::Path| {
        std::fs::read_link(process.join("ns/pid")).is_ok_and(|it| it.as_os_str() == space)
    };
    let end = Instant::now() + PATIENCE;
    while std::fs::read_dir("/proc").unwrap().flatten().any(|entry| is_in_it(&entry.path())) {
        assert!(Instant::now() < end, "the sandbox {space} is not ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Deploys the function and sends it these orders, one after the other.
async fn check(title: &str, orders: &[(&str, (u16, i64))]) {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "timeout_s = 1\nmemory_mb = 256", WIRE);
        arena
            .attack(title, async {
                let mut space = String::new();
                for (order, expected) in orders {
                    if *order == ENDED {
                        until_ended(&space).await;
                        continue;
                    }
                    let answer = arena.invoke("wire", json!({"do": order}).to_string()).await;
                    assert_eq!(fault(&answer), *expected, "{column:?}, {order}: {answer:?}");
                    if order.starts_with("twice-") {
                        space = answer.json().as_str().unwrap().to_owned();
                    }
                }
            })
            .await;
        let answer = arena.invoke("wire", r#"{"do": "honest"}"#).await;
        assert_eq!(answer.json(), "honest", "{column:?}: the next one is well");
        arena.end().await;
    }
}

#[tokio::test]
async fn a_frame_of_a_wrong_length_or_kind_ends_its_sandbox() {
    let orders = [
        ("endless-length", BROKEN),
        ("one-byte-over", BROKEN),
        ("a-head", BROKEN),
        ("unknown-kind", BROKEN),
        ("kind-kill", BROKEN),
        ("kind-invoke", BROKEN),
        ("ready-again", BROKEN),
        ("noise", BROKEN),
        ("failure-unreadable", BROKEN),
        ("hang-up", GONE),
        ("half-a-frame", GONE),
    ];
    check("wrong frames", &orders).await;
}

#[tokio::test]
async fn an_answer_for_another_request_is_nobody_s_answer() {
    check("another's answer", &[("honest", FINE), ("earlier", BROKEN), ("foreign", BROKEN)]).await;
}

/// Where both come at once, neither is accepted. A second one that comes during the next event is
/// not taken for its answer; one that comes while no event runs is dropped.
#[tokio::test]
async fn an_answer_sent_twice_is_never_another_event_s() {
    let orders = [
        ("twice", BROKEN),
        ("twice-during", FINE),
        ("honest", BROKEN),
        ("twice-alone", FINE),
        (ENDED, FINE),
        ("honest", FINE),
        ("flood", BROKEN),
    ];
    check("two answers", &orders).await;
}

#[tokio::test]
async fn who_writes_or_reads_slowly_ends_at_the_deadline() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "timeout_s = 1\nmemory_mb = 256", WIRE);
        let large = json!({"do": "honest", "ballast": "x".repeat(6_000_000)}).to_string();
        arena
            .attack("slow frames", async {
                let answer = arena.invoke("wire", r#"{"do": "write-slowly"}"#).await;
                assert_eq!(fault(&answer), LATE, "{column:?}: {answer:?}");
                let answer = arena.invoke("wire", r#"{"do": "read-no-more"}"#).await;
                assert_eq!(fault(&answer), FINE, "{column:?}: {answer:?}");
                let answer = arena.invoke("wire", large).await;
                assert_eq!(fault(&answer), LATE, "{column:?}: {answer:?}");
            })
            .await;
        arena.end().await;
    }
}

#[tokio::test]
async fn a_bootstrap_that_is_never_ready_ends_at_the_limit_of_loading() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "init_timeout_s = 3\nenv.LOAD = \"slowly\"", WIRE);
        let attack = arena.invoke("wire", r#"{"do": "honest"}"#);
        let answer = arena.attack("slow loading", attack).await;
        assert_eq!(fault(&answer), (500, 446), "{column:?}: {answer:?}");
        arena.end().await;
    }
}

/// Files that are sent along with an answer never arrive: the server's own would run out.
#[tokio::test]
async fn descriptors_cannot_be_pushed_into_the_server() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "", WIRE);
        let files =
            || std::fs::read_dir(format!("/proc/{}/fd", arena.world().pid())).unwrap().count();
        let attack = async {
            let mut before = 0;
            for round in 0..20 {
                let answer = arena.invoke("wire", r#"{"do": "descriptors"}"#).await;
                assert_eq!(fault(&answer), FINE, "{column:?}: {answer:?}");
                if round == 0 {
                    before = files();
                }
            }
            (before, files())
        };
        let (before, after) = arena.attack("pushed descriptors", attack).await;
        assert!(after < before + 100, "{column:?}: {before} became {after}");
        arena.end().await;
    }
}

/// A failure's code is the function's word about itself: neither a success nor the platform's word.
#[tokio::test]
async fn a_forged_failure_is_the_function_s_own() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "memory_mb = 256", WIRE);
        arena
            .attack("forged failures", async {
                for code in [200, 432, 433, 435, 445, 449, 500, 65_535] {
                    let event = json!({"do": "failure-code", "code": code}).to_string();
                    let answer = arena.invoke("wire", event).await;
                    assert_eq!(fault(&answer), (500, 430), "{column:?}, {code}: {answer:?}");
                }
                for _ in 0..20 {
                    let answer = arena.invoke("wire", r#"{"do": "failure-huge"}"#).await;
                    assert_eq!(fault(&answer), (500, 430), "{column:?}");
                    assert!(answer.body.len() < 1_000_000, "{}", answer.body.len());
                }
            })
            .await;
        arena.end().await;
    }
}

/// What is not JSON is returned to the caller as it is; a queued event ends all the same.
#[tokio::test]
async fn an_answer_that_is_no_json_ends_its_event() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("wire", "", WIRE);
        let attack = async {
            let answer = arena.invoke("wire", r#"{"do": "not-json"}"#).await;
            (answer, arena.end_of_queued("wire", r#"{"do": "not-json"}"#).await)
        };
        let (answer, ended) = arena.attack("no JSON", attack).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &b"\0\xff{"[..]),
            "{column:?}"
        );
        assert_eq!(ended["state"], "succeeded", "{column:?}: {ended}");
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 1, "{column:?}: {ended}");
        arena.end().await;
    }
}
