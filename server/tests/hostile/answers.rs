//! Too much of what is allowed: output, long answers, and a custom runtime that misuses its API.

use std::time::Instant;

use reqwest::Method;

use crate::arena::fault;
use crate::world::send;
use crate::{Arena, Column};

const TALK: &str = include_str!("functions/talk.py");
const BOOTSTRAP: &str = include_str!("functions/bootstrap.sh");
/// Seconds of output at full speed, and how many lines it must be, however long they take.
const PRINT_S: u32 = 2;
const LINES_MIN: u64 = 2_000_000;
/// The function did not answer in time.
const LATE: (u16, i64) = (504, 433);

#[tokio::test]
async fn a_million_lines_a_second_are_cut_and_cost_no_neighbour_its_record() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("talk", "timeout_s = 20", TALK);
        let event = format!(r#"{{"do": "print", "s": {PRINT_S}, "lines": {LINES_MIN}}}"#);
        let begun = Instant::now();
        let answer = arena.attack("lines", arena.invoke("talk", event)).await;
        assert_eq!(fault(&answer), (200, 0), "{column:?}: {answer:?}");
        let lines = answer.json().as_u64().unwrap();
        eprintln!("{:28} {column:?} {lines} lines in {:?}", "", begun.elapsed());
        assert!(LINES_MIN <= lines, "{column:?}: only {lines} lines");
        let log = arena.world().log_of(&arena.name("talk"), |text| text.contains(" bytes cut …]"));
        assert!(log.len() < 16_000_000, "{column:?}: {} bytes are kept", log.len());
        let metrics = send(arena.world().api(Method::GET, "/metrics")).await;
        let text = String::from_utf8(metrics.body).unwrap();
        let dropped = text.lines().find(|line| line.starts_with("hanshu_journal_dropped_records"));
        assert!(dropped.is_none_or(|line| line.ends_with(" 0")), "{column:?}: {dropped:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn an_answer_of_6_mb_is_passed_on_and_one_byte_more_is_too_long() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("talk", "timeout_s = 20\nmemory_mb = 256", TALK);
        let attack = async {
            for _ in 0..5 {
                let answer = arena.invoke("talk", r#"{"do": "return", "over": 0}"#).await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 6_291_456));
                let answer = arena.invoke("talk", r#"{"do": "return", "over": 1}"#).await;
                assert_eq!(fault(&answer), (500, 407), "{column:?}: {answer:?}");
            }
        };
        arena.attack("6 MB + 1", attack).await;
        arena.end().await;
    }
}

#[tokio::test]
async fn a_custom_runtime_that_misuses_its_api_harms_itself_only() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        let custom = "runtime = \"custom\"\nhandler = \"bootstrap\"\nmemory_mb = 256\n";
        let files = [("bootstrap", BOOTSTRAP)];
        for (name, settings) in [
            ("custom", "timeout_s = 20"),
            ("late", "timeout_s = 1"),
            ("never", "init_timeout_s = 3\nenv.LOAD = \"never\""),
        ] {
            arena.deploy(name, &format!("{custom}{settings}\n"), &files);
        }
        let order = async |order: &str, expected: (u16, i64), body: Option<&str>| {
            let event = format!(r#"{{"do": "{order}"}}"#);
            let function = if expected == LATE { "late" } else { "custom" };
            let answer = arena.invoke(function, event).await;
            assert_eq!(fault(&answer), expected, "{column:?}, {order}: {answer:?}");
            let text = String::from_utf8_lossy(&answer.body);
            assert!(body.is_none_or(|body| body == text), "{column:?}, {order}: {text}");
        };
        let attack = async {
            order("twice", (200, 0), Some("\"first\"")).await;
            order("honest", (200, 0), Some("\"honest\"")).await;
            order("too-large", (500, 407), None).await;
            order("no-http", (200, 0), Some("\"survived\"")).await;
            order("shim", (200, 0), Some("0")).await;
            order("slowly", LATE, None).await;
            order("connections", LATE, None).await;
            order("honest", (200, 0), Some("\"honest\"")).await;
            let never = arena.invoke("never", "{}").await;
            assert_eq!(fault(&never), (500, 446), "{column:?}: {never:?}");
        };
        arena.attack("custom runtime", attack).await;
        arena.end().await;
    }
}
