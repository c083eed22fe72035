//! What is not the function's: processes, the kernel's knobs, the engine, other people's files.

use std::fs;

use serde_json::json;

use crate::arena::fault;
use crate::{Arena, Column};

const WALLS: &str = include_str!("functions/walls.py");

/// Deploys the function that tries walls; none of these may give way.
async fn check(title: &str, walls: &[&str]) {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("walls", "timeout_s = 60", WALLS);
        arena
            .attack(title, async {
                for wall in walls {
                    let answer = arena.invoke("walls", json!({"do": wall}).to_string()).await;
                    assert_eq!(fault(&answer), (200, 0), "{column:?}, {wall}: {answer:?}");
                    let report = answer.json();
                    assert_eq!(report["allowed"], json!([]), "{column:?}, {wall}");
                    assert!(3 <= report["tried"].as_u64().unwrap(), "{column:?}, {wall}: {report}");
                }
            })
            .await;
        arena.end().await;
    }
}

#[tokio::test]
async fn processes_of_others_can_be_neither_seen_nor_traced_nor_read() {
    check("ptrace and /proc", &["processes"]).await;
}

#[tokio::test]
async fn the_host_s_kernel_devices_and_rights_are_out_of_reach() {
    check("kernel and devices", &["host", "setuid"]).await;
}

#[tokio::test]
async fn no_socket_of_the_engine_or_of_anybody_can_be_connected_to() {
    check("the Docker socket", &["sockets"]).await;
}

/// A refusal of the kernel that the function lets through is the function's own failure.
#[tokio::test]
async fn a_wall_that_holds_is_the_function_s_failure() {
    let mut arena = Arena::start(Column::all()[0]).await;
    arena.python("walls", "timeout_s = 60", WALLS);
    let attack = arena.invoke("walls", r#"{"do": "sockets", "raise": true}"#);
    let answer = arena.attack("a wall, reported", attack).await;
    assert_eq!(fault(&answer), (500, 430), "{answer:?}");
    assert_eq!(answer.json()["errorType"], "PermissionError");
    arena.end().await;
}

#[tokio::test]
async fn who_kills_all_that_it_sees_has_killed_itself() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        arena.python("kill", "", include_str!("functions/kill_all.py"));
        let attack = async {
            for _ in 0..3 {
                let answer = arena.invoke("kill", "{}").await;
                assert_eq!(fault(&answer), (500, 439), "{column:?}: {answer:?}");
            }
        };
        arena.attack("kill all", attack).await;
        arena.end().await;
    }
}

/// Neither the removal of a `/tmp` nor the start of the next sandbox goes where a link points.
#[tokio::test]
async fn links_that_are_left_in_tmp_are_followed_by_nobody() {
    for column in Column::all() {
        let victim = tempfile::tempdir().unwrap();
        let (file, folder) = (victim.path().join("file"), victim.path().join("folder"));
        fs::write(&file, "precious").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inner"), "precious").unwrap();
        let owner = owner_of(&folder);
        let mut arena = Arena::start(column).await;
        arena.python("links", "", include_str!("functions/symlinks.py"));
        let attack = async {
            for to in [&file, &folder] {
                let event = json!({"do": "plant", "to": to}).to_string();
                let answer = arena.invoke("links", event).await;
                assert_eq!(fault(&answer), (500, 439), "{column:?}: {answer:?}");
                let next = arena.invoke("links", r#"{"do": "look"}"#).await;
                assert_eq!(next.json(), json!([]), "{column:?}: an empty /tmp for the next one");
            }
        };
        arena.attack("links in /tmp", attack).await;
        arena.end().await;
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(fs::read_to_string(folder.join("inner")).unwrap(), "precious");
        assert_eq!(owner_of(&folder), owner, "{column:?}");
    }
}

fn owner_of(path: &std::path::Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.mode())
}
