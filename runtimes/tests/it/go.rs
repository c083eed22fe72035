//! The adapter *go*, against programs that Go itself compiled: one on scf-go-lib's messages, one on
//! aws-lambda-go in its RPC mode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use hanshu_runtimes::wire::{BODY_BYTES_MAX, FrameKind, RuntimeAdapter};

use crate::shim_fixture::{REQUEST_ID, ShimFixture, free_port};

/// Compiles the programs of `runtimes/go` once for all tests.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        std::fs::create_dir_all(&target).unwrap();
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let built = Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(&target)
            .arg("./cmd/...")
            .env("CGO_ENABLED", "0")
            .current_dir(module)
            .output()
            .expect("the tests of Go functions need `go`");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target
    })
}

fn function(program: &str) -> ShimFixture {
    let mut fixture = ShimFixture::new(RuntimeAdapter::Go);
    let name = programs().join(program).to_string_lossy().into_owned();
    fixture.start.argv = vec![name];
    fixture.start.init.handler = program.to_owned();
    fixture.start.init.port = free_port();
    let names = [("TENCENTCLOUD_REGION", "here"), ("FUNCTION_NAME", "f")];
    for (name, value) in names {
        fixture.start.env.insert(name.to_owned(), value.to_owned());
    }
    fixture
}

const BOTH: [&str; 2] = ["scffunction", "lambdafunction"];

#[test]
fn functions_on_either_library_answer() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        for text in ["one", "zwei é \u{1F600}", "three"] {
            let event = format!(r#"{{"do":"echo","text":"{text}"}}"#);
            assert_eq!(fixture.result(&event), format!("\"{text}\""), "{program}");
        }
        assert_eq!(fixture.result(r#"{"do":"nothing"}"#), "null");
    }
}

#[test]
fn functions_are_told_their_request_and_deadline() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        let told: serde_json::Value =
            serde_json::from_str(&fixture.result(r#"{"do":"context"}"#)).unwrap();
        assert_eq!(told["requestId"], REQUEST_ID, "{program}");
        let left = told["remainingMs"].as_i64().unwrap();
        assert!((20_000..=30_000).contains(&left), "{program}: {left} ms");
    }
}

#[test]
fn scf_functions_are_told_more() {
    let mut fixture = function("scffunction").ready();
    let told: serde_json::Value =
        serde_json::from_str(&fixture.result(r#"{"do":"context"}"#)).unwrap();
    let expected = serde_json::json!({
        "requestId": REQUEST_ID, "remainingMs": told["remainingMs"], "functionName": "f",
        "functionVersion": "$LATEST", "namespace": "default", "memoryMb": 128, "timeoutMs": 3000,
        "region": "here", "greeting": "hi",
    });
    assert_eq!(told, expected);
}

#[test]
fn an_error_is_a_failure_and_the_function_goes_on() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        let (failure, last) = fixture.failure(r#"{"do":"fail","text":"boom"}"#);
        assert_eq!((failure.status_code, last), (430, false), "{program}");
        assert_eq!(failure.error_message, "boom");
        assert_eq!(failure.error_type.as_deref(), Some("errorString"));
        assert_eq!(fixture.result(r#"{"do":"echo","text":"on"}"#), "\"on\"");
    }
}

#[test]
fn a_panic_has_a_stack_and_is_the_last_event() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        let (failure, last) = fixture.failure(r#"{"do":"panic","text":"ouch"}"#);
        assert_eq!((failure.status_code, last), (430, true), "{program}");
        assert_eq!(failure.error_message, "ouch");
        let stack = failure.stack_trace.unwrap();
        assert!(stack.contains("handle"), "{program}: {stack}");
    }
}

#[test]
fn an_event_of_another_type_is_a_failure() {
    let (failure, last) = function("lambdafunction").ready().failure(r#"{"do":7}"#);
    assert_eq!((failure.status_code, last), (430, false));
    assert_eq!(failure.error_type.as_deref(), Some("UnmarshalTypeError"));
}

#[test]
fn six_megabytes_pass_both_ways_and_one_byte_more_does_not() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        let frame = r#"{"do":"echo","text":""}"#.len();
        let text = "x".repeat(BODY_BYTES_MAX - frame);
        let answer = fixture.result(&format!(r#"{{"do":"echo","text":"{text}"}}"#));
        assert_eq!(answer.len(), text.len() + 2, "{program}");
        for size in [BODY_BYTES_MAX - 1, 3 * BODY_BYTES_MAX] {
            let (failure, last) = fixture.failure(&format!(r#"{{"do":"fill","size":{size}}}"#));
            assert_eq!((failure.status_code, last), (407, false), "{program}");
        }
        let most = fixture.result(&format!(r#"{{"do":"fill","size":{}}}"#, BODY_BYTES_MAX - 2));
        assert_eq!(most.len(), BODY_BYTES_MAX);
    }
}

#[test]
fn an_exit_in_the_middle_of_an_event_is_reported_and_not_answered() {
    for program in BOTH {
        let mut fixture = function(program).ready();
        fixture.send_event(br#"{"do":"exit"}"#);
        assert_eq!(fixture.exited().code, Some(3), "{program}");
        assert!(fixture.data_frame().is_none());
    }
}

#[test]
fn output_is_the_log() {
    let mut fixture = function("scffunction").ready();
    assert_eq!(fixture.result(r#"{"do":"print","text":"said"}"#), "null");
    assert_eq!(fixture.log(), "said\n");
}

#[test]
fn a_function_that_never_listens_is_given_up() {
    let mut fixture =
        ShimFixture::with_script(RuntimeAdapter::Go, "main", "#!/bin/sh\nexec sleep 1000\n");
    fixture.start.init.port = free_port();
    fixture.start.init.init_timeout_ms = 100;
    let port = fixture.start.init.port;
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 446);
    let expected = format!("the function did not answer on port {port} within 100 ms");
    assert_eq!(failure.error_message, expected);
}

#[test]
fn a_function_that_ends_before_it_listens_is_reported() {
    let mut fixture = ShimFixture::with_script(RuntimeAdapter::Go, "main", "#!/bin/sh\nexit 8\n");
    fixture.start.init.port = free_port();
    fixture.start();
    fixture.send_init();
    assert_eq!(fixture.exited().code, Some(8));
}

#[test]
fn something_else_on_the_port_is_told_apart() {
    let port = free_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&b"HTTP/1.1 400 Bad Request\r\n".repeat(10)).unwrap();
        // Closes after the shim did.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut fixture =
        ShimFixture::with_script(RuntimeAdapter::Go, "main", "#!/bin/sh\nexec sleep 1000\n");
    fixture.start.init.port = port;
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 443, "{failure:?}");
    answering.join().unwrap();
}

#[test]
fn a_program_that_is_missing_or_not_executable_is_named() {
    let mut fixture = ShimFixture::new(RuntimeAdapter::Go);
    fixture.start.init.handler = "main".to_owned();
    fixture.start.argv = vec![fixture.code().join("main").to_string_lossy().into_owned()];
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 437);
    assert_eq!(failure.error_message, "the program `main` does not exist");

    let fixture = ShimFixture::with_script(RuntimeAdapter::Go, "main", "");
    fixture.file("main", "", 0o644);
    assert_eq!(
        fixture.refusal().error_message,
        "the program `main` is not executable (`chmod +x` it)"
    );
}

#[test]
fn a_sandbox_that_is_stopped_ends_its_function() {
    let mut fixture = function("scffunction").ready();
    fixture.send_event(br#"{"do":"hang"}"#);
    fixture.send_control(FrameKind::Kill, &[]);
    fixture.wait_end();
}
