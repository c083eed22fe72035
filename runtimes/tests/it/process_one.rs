//! The shim as process 1 of a pid namespace, as it is in every sandbox. Needs root, or user
//! namespaces; CI has them.

use std::process::Command;

use hanshu_runtimes::wire::{FrameKind, RuntimeAdapter};

use crate::shim_fixture::{ShimFixture, eventually};

/// Whether pid namespaces can be made here. In CI they must.
fn can_be_init() -> bool {
    let made = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    let can = made.is_ok_and(|status| status.success());
    assert!(can || std::env::var_os("CI").is_none(), "CI tests the shim as process 1");
    can
}

fn init(adapter: RuntimeAdapter, text: &str) -> Option<ShimFixture> {
    if !can_be_init() {
        return None;
    }
    let mut fixture =
        ShimFixture::with_script(adapter, "run.sh", &format!("#!/bin/bash\n{text}\n"));
    fixture.start_as_init();
    Some(fixture)
}

/// How many processes have this word among their arguments, anywhere on the machine.
fn count(word: &str) -> usize {
    let is_it = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().map(is_it).filter(|it| *it).count()
}

#[test]
fn whatever_a_script_forks_off_ends_with_its_event() {
    // Its own session, and no parent: only process 1 can find it.
    let text = "(setsid sleep 1000.125 >/dev/null 2>&1 &) ; echo 1";
    let Some(mut fixture) = init(RuntimeAdapter::Shell, text) else { return };
    assert_eq!(fixture.init().header.kind, FrameKind::Ready);
    for _ in 0..3 {
        assert_eq!(fixture.result("{}"), "1\n");
        assert_eq!(count("1000.125"), 0);
    }
}

#[test]
fn a_fork_bomb_of_sleepers_is_gone_before_the_next_event() {
    let text = "for i in {1..200}; do (sleep 1000.375 &) ; done; ls -d /proc/[0-9]* | wc -l";
    let Some(mut fixture) = init(RuntimeAdapter::Shell, text) else { return };
    assert_eq!(fixture.init().header.kind, FrameKind::Ready);
    for _ in 0..2 {
        let processes: usize = fixture.result("{}").trim().parse().unwrap();
        assert!((200..230).contains(&processes), "{processes}");
    }
}

#[test]
fn what_a_runtime_forks_off_ends_with_it() {
    let text = "(setsid sleep 1000.625 >/dev/null 2>&1 &) ; exit 4";
    let Some(mut fixture) = init(RuntimeAdapter::Direct, text) else { return };
    assert_eq!(fixture.exited().code, Some(4));
    fixture.wait_end();
    assert_eq!(count("1000.625"), 0);
}

#[test]
fn a_kill_ends_everything() {
    let text = "(setsid sleep 1000.875 >/dev/null 2>&1 &) ; sleep 0.05; echo up; sleep 1000";
    let Some(mut fixture) = init(RuntimeAdapter::Direct, text) else { return };
    eventually("the runtime starts", || fixture.log() == "up\n");
    assert_eq!(count("1000.875"), 1);
    fixture.send_control(FrameKind::Kill, &[]);
    fixture.wait_end();
    assert_eq!(count("1000.875"), 0);
}

#[test]
fn orphans_are_collected() {
    let text = "for i in {1..20}; do (true &) ; done; sleep 0.1; \
                until ! grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.01; done; \
                echo clean; sleep 1000";
    let Some(mut fixture) = init(RuntimeAdapter::Direct, text) else { return };
    eventually("no zombie is left", || fixture.log() == "clean\n");
}

/// The function may have the shim's user: it must not look into process 1.
#[test]
fn the_shim_hides_from_the_function() {
    let text = "exec 2>/dev/null; cat /proc/1/environ >/dev/null && echo open || echo closed; \
                sleep 1000";
    if !can_be_init() {
        return;
    }
    let mut fixture = ShimFixture::with_script(
        RuntimeAdapter::Direct,
        "run.sh",
        &format!("#!/bin/bash\n{text}\n"),
    );
    // Root may look anywhere, so that another user is taken.
    fixture.start_as_nobody();
    eventually("the runtime has tried", || match fixture.log().as_str() {
        "" => false,
        "closed\n" => true,
        other => panic!("{other}"),
    });
}
