//! The adapter *direct*, and what the shim does for every runtime: watching over it.

use std::time::{Duration, Instant};

use hanshu_runtimes::wire::{FrameKind, RuntimeAdapter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shim_fixture::{ShimFixture, eventually, runs};

fn runtime(text: &str) -> ShimFixture {
    let mut fixture = ShimFixture::with_script(
        RuntimeAdapter::Direct,
        "runtime",
        &format!("#!/bin/sh\n{text}\n"),
    );
    fixture.start();
    fixture
}

/// Waits for a line of the log.
fn line(fixture: &mut ShimFixture) -> String {
    let mut log = String::new();
    eventually("a line is logged", || {
        log.push_str(&fixture.log());
        log.ends_with('\n')
    });
    log.trim().to_owned()
}

#[test]
fn a_runtime_finds_its_socket_its_environment_and_no_input() {
    let mut fixture = runtime(r#"echo "$HANSHU_SOCKET|$KEY|$PWD|$(cat)"; sleep 1000"#);
    let dir = fixture.dir().display().to_string();
    assert_eq!(line(&mut fixture), format!("{dir}/data.sock|v|{dir}/code|"));
}

#[test]
fn a_runtime_connects_and_answers_by_itself() {
    let mut fixture = ShimFixture::new(RuntimeAdapter::Direct);
    let program = fixture.file("runtime.py", RUNTIME, 0o644);
    let program = program.to_string_lossy().into_owned();
    fixture.start.argv = vec!["/usr/bin/python3".to_owned(), program];
    let mut fixture = fixture.ready();
    assert_eq!(fixture.result("[1]"), "[1]");
    assert_eq!(fixture.result("[2]"), "[2]");
}

/// The least that a runtime can be.
const RUNTIME: &str = r#"
import os, socket, struct
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["HANSHU_SOCKET"])
f = s.makefile("rwb")
while True:
    length, kind, flags, head, event = struct.unpack("<IBBHQ", f.read(16))
    f.read(head)
    body = f.read(length)
    answer, body = (17, b"") if kind == 16 else (33, body)
    f.write(struct.pack("<IBBHQ", len(body), answer, 0, 0, event) + body)
    f.flush()
"#;

#[test]
fn the_status_of_a_runtime_is_reported_at_once() {
    let mut fixture = runtime("exit 7");
    let began = Instant::now();
    let exited = fixture.exited();
    assert_eq!((exited.code, exited.signal), (Some(7), None));
    assert_ne!(exited.oom_killed, Some(true));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(fixture.control_frame().is_none());
    fixture.wait_end();
}

#[test]
fn the_signal_that_ends_a_runtime_is_reported() {
    let exited = runtime("kill -SEGV $$").exited();
    assert_eq!((exited.code, exited.signal), (None, Some(11)));
    let exited = runtime("kill -9 $$").exited();
    assert_eq!((exited.code, exited.signal), (None, Some(9)));
}

#[test]
fn a_runtime_that_cannot_be_started_is_reported() {
    let mut fixture = ShimFixture::new(RuntimeAdapter::Direct);
    fixture.start.argv = vec!["/nowhere/python3".to_owned()];
    fixture.start();
    let exited = fixture.exited();
    assert_eq!(exited.code, Some(127));
    let error = exited.error.unwrap();
    assert!(error.starts_with("the runtime cannot be started: No such file"), "{error}");
    fixture.wait_end();
}

#[test]
fn no_sandbox_outlives_its_invoker() {
    let mut fixture = runtime("echo $$; exec sleep 1000");
    let pid = line(&mut fixture);
    fixture.hang_up();
    fixture.wait_end();
    eventually("the runtime ends", || !runs(&pid));
}

#[test]
fn an_invoker_that_goes_before_the_start_ends_the_shim() {
    let mut fixture = runtime("exec sleep 1000");
    fixture.send_control(FrameKind::Kill, &[]);
    fixture.wait_end();
}

#[test]
fn a_term_frame_is_forwarded_to_the_runtime() {
    let mut fixture = runtime("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(line(&mut fixture), "ready");
    fixture.send_control(FrameKind::Term, &[]);
    assert_eq!(fixture.exited().code, Some(5));
}

#[test]
fn a_term_signal_is_forwarded_and_what_stays_is_killed() {
    let mut fixture = runtime("trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(line(&mut fixture), "ready");
    kill(Pid::from_raw(fixture.shim_pid()), Signal::SIGTERM).unwrap();
    assert_eq!(fixture.exited().code, Some(6));

    let mut fixture = runtime("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(line(&mut fixture), "ready");
    let began = Instant::now();
    kill(Pid::from_raw(fixture.shim_pid()), Signal::SIGTERM).unwrap();
    assert_eq!(fixture.exited().signal, Some(9));
    assert!(Duration::from_secs(2) <= began.elapsed());
}

/// Handlers of the shim must not become a mask in its children.
#[test]
fn a_runtime_starts_with_no_signal_blocked_or_ignored() {
    let text = "#!/bin/sh\nexec grep -E 'Sig(Blk|Ign)' /proc/self/status\n";
    let mut fixture = ShimFixture::with_script(RuntimeAdapter::Direct, "runtime", text);
    fixture.start_ignoring("HUP QUIT USR1 TERM CHLD");
    assert_eq!(fixture.exited().code, Some(0));
    let log = fixture.log();
    let sets: Vec<_> = log.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(sets.len(), 2, "{log}");
    for set in sets {
        // The C library keeps 32 and 33 for itself.
        let standard = u64::from_str_radix(set, 16).unwrap() & 0x7fff_ffff;
        assert_eq!(standard, 0, "{log}");
    }
}

#[test]
fn the_kernel_is_told_to_choose_the_runtime_before_the_shim() {
    let mut fixture = runtime("cat /proc/self/oom_score_adj; sleep 1000");
    assert_eq!(line(&mut fixture), "1000");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let shim = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", fixture.shim_pid()));
    assert_eq!(shim.unwrap(), own);
}
