//! Why a server does not start: said in one sentence, with what to do.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{HANSHU, Ran, World, text_of};

/// Runs `serve`, which must end by itself.
pub(crate) fn serve(args: &[&str]) -> Ran {
    let mut child = Command::new(HANSHU)
        .arg("serve")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if until < Instant::now() {
            child.kill().unwrap();
            panic!("it does not end: {}", text_of(child.stderr.take().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap().into()
}

#[track_caller]
fn check(args: &[&str], said: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let usual = [("--listen", "127.0.0.1:0"), ("--http-listen", "127.0.0.1:0"), ("--data", data)];
    let missing = usual.iter().filter(|(flag, _)| !args.contains(flag));
    let mut full: Vec<&str> = missing.flat_map(|(flag, value)| [*flag, *value]).collect();
    full.extend(args);
    let ran = serve(&full);
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in said {
        assert!(ran.stderr.contains(part), "`{part}` is not in: {}", ran.stderr);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(&["--listen", &address], &[&address, "in use"]);
}

#[test]
fn a_second_server_on_a_folder_is_refused() {
    let world = World::start("process");
    check(&["--data", world.data.path().to_str().unwrap()], &["another server"]);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    check(&["--listen", "0.0.0.0:0"], &["--allow-plaintext"]);
    check(&["--timezone", "Mars/Base"], &["Mars/Base", "IANA"]);
    check(&["--roles", "cook"], &["`cook`"]);
    check(&["--config", "/no/such/file"], &["/no/such/file"]);
    check(&["--database", "mysql://x"], &["mysql"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_said() {
    check(&["--data", "/proc/hanshu"], &["/proc/hanshu"]);
    check(&["--data", "/dev/null"], &["/dev/null", "folder"]);
}

#[test]
fn unavailable_services_are_named() {
    check(&["--queue", "redis://127.0.0.1:9"], &["127.0.0.1:9"]);
    check(&["--database", "postgres://nobody@127.0.0.1:9/none"], &["database"]);
}

#[test]
fn the_first_start_makes_one_key_and_later_ones_keep_it() {
    let mut world = World::start("process");
    let (id, key) = (world.id.clone(), world.key.clone());
    assert!(id.starts_with("AKID") && id.len() == 36 && key.len() == 32, "{id}");
    assert_eq!(world.stop(), 0);
    world.start_server();
    assert_eq!((&world.id, &world.key), (&id, &key));
    assert!(!world.log().contains(&key), "no secret is logged");
}
