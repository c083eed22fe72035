//! The adapter *custom*: a bash `bootstrap` that calls the runtime API with curl, and callers that
//! are written out byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;

use hanshu_runtimes::wire::{BODY_BYTES_MAX, FrameKind, RuntimeAdapter};

use crate::shim_fixture::{REQUEST_ID, ShimFixture, eventually, free_port};

const API: &str = r#"#!/bin/bash
set -u
API="http://$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT/runtime"
ready() { curl -sS -o /dev/null -w '%{http_code}' -X POST -d ' ' "$API/init/ready"; }
next() { curl -sS -D /tmp/headers.$$ "$API/invocation/next"; }
header() { tr -d '\r' < /tmp/headers.$$ | sed -n "s/^$1: //p"; }
answer() { curl -sS -w '%{http_code}' -X POST --data-binary @- "$API/invocation/$1"; }
"#;

fn bootstrap(text: &str) -> ShimFixture {
    ShimFixture::with_script(RuntimeAdapter::Custom, "bootstrap", &format!("{API}{text}\n"))
}

#[test]
fn a_bash_runtime_serves_events() {
    let mut fixture = bootstrap(
        r#"ready >&2
        while true; do
            event="$(next)"
            printf '{"event":%s,"id":"%s","mb":%s,"ms":%s}' "$event" "$(header request_id)" \
                "$(header memory_limit_in_mb)" "$(header time_limit_in_ms)" | answer response >&2
        done"#,
    )
    .ready();
    for event in [r#"{"a":"é"}"#, "[2]"] {
        let expected = format!(r#"{{"event":{event},"id":"{REQUEST_ID}","mb":128,"ms":3000}}"#);
        assert_eq!(fixture.result(event), expected);
    }
    eventually("three calls had the status 200", || fixture.log().ends_with("200"));
}

#[test]
fn an_error_is_a_failure_and_the_runtime_goes_on() {
    let mut fixture = bootstrap(
        "ready; while true; do next >/dev/null; echo 'no such file' | answer error; done",
    )
    .ready();
    for _ in 0..2 {
        let (failure, last) = fixture.failure("{}");
        assert_eq!((failure.status_code, last), (430, false));
        assert_eq!(failure.error_message, "no such file\n");
    }
}

#[test]
fn the_first_answer_wins_and_the_same_event_is_given_until_then() {
    let mut fixture = bootstrap(
        r#"ready; ready
        while true; do
            one="$(next)"; two="$(next)"
            echo "[$one,$two]" | answer response; echo 0 | answer response; echo 1 | answer error
        done"#,
    )
    .ready();
    assert_eq!(fixture.result("7"), "[7,7]\n");
    assert_eq!(fixture.result("8"), "[8,8]\n");
}

#[test]
fn an_answer_that_is_not_json_is_a_string() {
    let mut fixture =
        bootstrap("ready; while true; do next >/dev/null; echo hello | answer response; done")
            .ready();
    assert_eq!(fixture.result("{}"), r#""hello\n""#);
}

#[test]
fn six_megabytes_pass_through_curl_and_one_byte_more_does_not() {
    let mut fixture = bootstrap("ready; while true; do next | answer response >&2; done").ready();
    let event = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 2));
    assert_eq!(fixture.result(&event), event);
    let over = BODY_BYTES_MAX + 1;
    for headers in ["", "-H 'Transfer-Encoding: chunked'", "-H 'Expect:'"] {
        let mut fixture = bootstrap(&format!(
            "ready; while true; do next; head -c {over} /dev/zero | \
             curl -sS {headers} -X POST --data-binary @- $API/invocation/response; done"
        ))
        .ready();
        let (failure, last) = fixture.failure("{}");
        assert_eq!((failure.status_code, last), (407, false), "{headers}");
    }
}

#[test]
fn a_bootstrap_that_is_missing_or_not_executable_is_named() {
    let fixture = ShimFixture::new(RuntimeAdapter::Custom);
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 437);
    assert_eq!(failure.error_message, "the file `bootstrap` does not exist");

    let fixture = bootstrap("ready");
    fixture.file("bootstrap", "#!/bin/sh\n", 0o644);
    assert_eq!(
        fixture.refusal().error_message,
        "the file `bootstrap` is not executable (`chmod +x` it)"
    );

    let fixture = bootstrap("ready");
    fixture.file("bootstrap", "#!/nowhere/sh\n", 0o755);
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 437);
    assert!(failure.error_message.starts_with("`bootstrap` cannot be started"), "{failure:?}");
}

#[test]
fn a_bootstrap_that_is_never_ready_is_given_up() {
    let mut fixture = bootstrap("exec sleep 1000");
    fixture.start.init.init_timeout_ms = 100;
    let failure = fixture.refusal();
    assert_eq!(failure.status_code, 446);
    assert_eq!(failure.error_message, "`bootstrap` did not call /runtime/init/ready within 100 ms");
}

#[test]
fn a_bootstrap_that_ends_is_reported() {
    let mut fixture = bootstrap("ready; next; exit 9").ready();
    fixture.send_event(b"{}");
    assert_eq!(fixture.exited().code, Some(9));
    assert!(fixture.data_frame().is_none());
}

/// A runtime that does nothing, so that the test itself can be the caller.
fn stand_in() -> (ShimFixture, u16) {
    let mut fixture = bootstrap("exec sleep 1000");
    let port = free_port();
    fixture.start.init.port = port;
    fixture.start();
    fixture.send_init();
    (fixture, port)
}

fn call(port: u16) -> TcpStream {
    let mut stream = None;
    eventually("the runtime API listens", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    stream.unwrap()
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn one_connection_serves_call_after_call() {
    let (mut fixture, port) = stand_in();
    let mut stream = call(port);
    let empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(b"POST /runtime/init/ready HTTP/1.1\r\nContent-Length: 1\r\n\r\n ").unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n"), empty);
    assert_eq!(fixture.data_frame().unwrap().header.kind, FrameKind::Ready);
    for event in ["11", "22"] {
        stream.write_all(b"GET /runtime/invocation/next HTTP/1.1\r\n\r\n").unwrap();
        fixture.send_event(event.as_bytes());
        let expected = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest_id: {REQUEST_ID}\r\n\
             memory_limit_in_mb: 128\r\ntime_limit_in_ms: 3000\r\nContent-Length: 2\r\n\r\n{event}"
        );
        assert_eq!(read_until(&mut stream, event), expected);
        let head = "POST /runtime/invocation/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
        stream.write_all(format!("{head}\r\n2\r\n{event}\r\n0\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n"), empty);
        assert_eq!(fixture.data_frame().unwrap().body, event.as_bytes());
    }
}

#[test]
fn nonsense_is_refused_and_harms_nobody() {
    let (mut fixture, port) = stand_in();
    for (sent, status) in [
        ("nonsense\r\n\r\n", "400"),
        ("GET /nowhere HTTP/1.1\r\n\r\n", "404"),
        ("GET /runtime/init/ready HTTP/1.1\r\n\r\n", "405"),
        ("POST /runtime/invocation/response HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400"),
    ] {
        let mut stream = call(port);
        stream.write_all(sent.as_bytes()).unwrap();
        assert!(read_until(&mut stream, "\r\n").contains(status), "{sent}");
    }
    let mut stream = call(port);
    stream.write_all(b"POST /runtime/init/ready HTTP/1.0\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").contains("Connection: close"));
    assert_eq!(fixture.data_frame().unwrap().header.kind, FrameKind::Ready);
}

/// A caller that gave up waiting must not use up the connections.
#[test]
fn callers_that_go_away_leave_nothing_behind() {
    let (mut fixture, port) = stand_in();
    for _ in 0..40 {
        let mut stream = call(port);
        // Refused ones count too: they are over the limit only until the others were noticed.
        let _ = stream.write_all(b"GET /runtime/invocation/next HTTP/1.1\r\n\r\n");
    }
    eventually("a call is served again", || {
        let mut stream = call(port);
        let mut status = [0; 15];
        stream.write_all(b"POST /runtime/init/ready HTTP/1.1\r\n\r\n").is_ok()
            && stream.read_exact(&mut status).is_ok()
            && &status == b"HTTP/1.1 200 OK"
    });
    assert_eq!(fixture.data_frame().unwrap().header.kind, FrameKind::Ready);
}
