//! The adapter *shell*: scripts as functions.

use hanshu_runtimes::wire::{BODY_BYTES_MAX, FrameKind, RuntimeAdapter};

use crate::shim_fixture::{REQUEST_ID, ShimFixture, eventually, runs};

fn script(text: &str) -> ShimFixture {
    ShimFixture::with_script(RuntimeAdapter::Shell, "run.sh", &format!("#!/bin/sh\n{text}\n"))
        .ready()
}

fn check(text: &str, event: &str, expected: &str) {
    assert_eq!(script(text).result(event), expected);
}

#[test]
fn a_script_answers_with_its_output() {
    check("cat", r#"{"a":[1,"é"]}"#, r#"{"a":[1,"é"]}"#);
    check("echo hello", "{}", r#""hello\n""#);
    check("true", "{}", "null");
    check("exec </dev/null; echo 7", "{}", "7\n");
}

#[test]
fn a_script_sees_its_environment_and_request() {
    let text = r#"printf '["%s","%s","%s","%s"]' "$KEY" "$SCF_REQUEST_ID" "$TRIGGER_SRC" "$PWD""#;
    let mut fixture = script(text);
    let code = fixture.code();
    let expected = format!(r#"["v","{REQUEST_ID}","direct","{}"]"#, code.display());
    assert_eq!(fixture.result("{}"), expected);
}

#[test]
fn standard_error_is_the_log() {
    let mut fixture = script("echo one >&2; cat");
    assert_eq!(fixture.result("1"), "1");
    assert_eq!(fixture.log(), "one\n");
    assert_eq!(fixture.result("2"), "2");
    assert_eq!(fixture.log(), "one\n");
}

#[test]
fn a_status_is_a_failure() {
    let mut fixture = script(r#"read -r code; echo no >&2; exit "$code""#);
    let (failure, last) = fixture.failure("3\n");
    assert_eq!((failure.status_code, last), (430, false));
    assert_eq!(failure.error_message, "the script ended with status 3");
    assert_eq!(fixture.result("0\n"), "null");
}

#[test]
fn a_script_that_is_killed_has_failed_and_the_next_event_runs() {
    let mut fixture = script(r#"read -r word; [ "$word" = 1 ] && kill -9 $$; echo 5"#);
    let (failure, last) = fixture.failure("1\n");
    assert_eq!((failure.status_code, failure.error_code, last), (439, -1, false));
    assert_eq!(failure.error_message, "the script was killed by SIGKILL (9)");
    assert_eq!(fixture.result("2\n"), "5\n");
}

#[test]
fn what_a_script_leaves_running_is_ended_with_it() {
    let mut fixture = script("sleep 1000 & echo $!");
    let pid = fixture.result("{}");
    eventually("the sleeper ends", || !runs(pid.trim()));
}

#[test]
fn six_megabytes_pass_both_ways_and_one_byte_more_does_not() {
    let mut fixture = script("cat");
    let event = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 2));
    assert_eq!(fixture.result(&event), event);
    let mut fixture = script(&format!("head -c {} /dev/zero; sleep 1000", BODY_BYTES_MAX + 1));
    let (failure, last) = fixture.failure("{}");
    assert_eq!((failure.status_code, last), (407, false));
}

#[test]
fn endless_output_is_cut_off() {
    let (failure, _) = script("exec yes").failure("{}");
    assert_eq!(failure.status_code, 407);
}

#[test]
fn a_script_that_does_not_read_its_event_still_answers() {
    let mut fixture = script("echo 1");
    let event = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..3 {
        assert_eq!(fixture.result(&event), "1\n");
    }
}

#[test]
fn a_running_script_ends_with_the_sandbox() {
    let mut fixture = script("echo $$ >&2; exec sleep 1000");
    fixture.send_event(b"{}");
    let mut pid = String::new();
    eventually("the script starts", || {
        pid = fixture.log();
        !pid.is_empty()
    });
    fixture.send_control(FrameKind::Kill, &[]);
    fixture.wait_end();
    eventually("the script ends", || !runs(pid.trim()));
}

fn check_refusal(name: &str, text: &str, mode: u32, expected: &str) {
    let mut fixture = ShimFixture::with_script(RuntimeAdapter::Shell, "run.sh", "#!/bin/sh\n");
    fixture.file(name, text, mode);
    fixture.start.init.handler = "job.sh".to_owned();
    let failure = fixture.refusal();
    assert_eq!((failure.status_code, failure.error_message.as_str()), (437, expected));
}

#[test]
fn a_file_that_is_no_script_is_named() {
    let interpreter = "#!/usr/bin/ksh93u -x\n";
    check_refusal("other.sh", "#!/bin/sh\n", 0o755, "the file `job.sh` does not exist");
    check_refusal("job.sh", "echo 1\n", 0o755, "the file `job.sh` does not start with `#!`");
    let chmod = "the file `job.sh` is not executable (`chmod +x` it)";
    check_refusal("job.sh", "#!/bin/sh\n", 0o644, chmod);
    let missing = "the file `job.sh` is to be run by `/usr/bin/ksh93u`, which is not here";
    check_refusal("job.sh", interpreter, 0o755, missing);
}
