//! Functions that want all of the machine: processes, memory, disk, descriptors.

use crate::arena::fault;
use crate::{Arena, Column};

#[tokio::test]
async fn a_fork_bomb_fills_its_own_sandbox_and_ends_at_its_deadline() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        let code = include_str!("functions/fork_bomb.py");
        arena.python("bomb", "memory_mb = 512\ntimeout_s = 2", code);
        let attack = arena.invoke("bomb", r#"{"bomb": true}"#);
        let answer = arena.attack("fork bomb", attack).await;
        assert_eq!(fault(&answer), (504, 433), "{column:?}: {answer:?}");
        let calm = arena.invoke("bomb", r#"{"bomb": false}"#).await;
        assert_eq!(calm.status.as_u16(), 200, "{column:?}, in a new sandbox: {calm:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn memory_ends_at_the_function_s_limit() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("fill", "timeout_s = 20", include_str!("functions/memory.py"));
        let attack = arena.invoke("fill", r#"{"kind": "private", "mb": 4000}"#);
        let answer = arena.attack("memory", attack).await;
        assert_eq!(fault(&answer), (500, 434), "{column:?}: {answer:?}");
        arena.end().await;
    }
}

/// Without a control group, memory that is mapped as shared is not counted (SECURITY.md).
#[tokio::test]
async fn shared_memory_counts_where_there_are_control_groups() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("share", "timeout_s = 20", include_str!("functions/memory.py"));
        let attack = arena.invoke("share", r#"{"kind": "shared", "mb": 600}"#);
        let answer = arena.attack("shared memory", attack).await;
        let expected = if column.has_groups() { (500, 434) } else { (200, 0) };
        assert_eq!(fault(&answer), expected, "{column:?}: {answer:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn a_full_tmp_is_the_function_s_own_and_nothing_else_can_be_written_to() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        let code = include_str!("functions/disk.py");
        arena.python("disk", "memory_mb = 256\ntimeout_s = 60", code);
        let attack = arena.invoke("disk", r#"{"where": "tmp"}"#);
        let answer = arena.attack("disk: /tmp", attack).await;
        assert_eq!(fault(&answer), (500, 430), "{column:?}: {answer:?}");
        let message = answer.json()["errorMessage"].as_str().unwrap().to_owned();
        assert!(message.contains("No space left on device"), "{column:?}: {message}");
        let attack = arena.invoke("disk", r#"{"where": "elsewhere"}"#);
        let answer = arena.attack("disk: elsewhere", attack).await;
        assert_eq!(fault(&answer), (200, 0), "{column:?}: {answer:?}");
        assert_eq!(answer.json(), serde_json::json!([]), "{column:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn descriptors_end_at_the_limit_of_each_process() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        let code = include_str!("functions/descriptors.py");
        arena.python("files", "memory_mb = 512\ntimeout_s = 20", code);
        let attack = arena.invoke("files", r#"{"children": 50}"#);
        let answer = arena.attack("descriptors", attack).await;
        assert_eq!(fault(&answer), (500, 430), "{column:?}: {answer:?}");
        let message = answer.json()["errorMessage"].as_str().unwrap().to_owned();
        assert!(message.contains("Too many open files"), "{column:?}: {message}");
        arena.end().await;
    }
}
