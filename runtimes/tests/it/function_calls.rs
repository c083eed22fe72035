//! The sandbox's call endpoint: which requests are forwarded to the invoker, and how.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use hanshu_runtimes::wire::{BODY_BYTES_MAX, CALLS_MAX, CALLS_SOCKET, FrameKind, RuntimeAdapter};

use crate::shim_fixture::{ShimFixture, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n\"a\"";

/// A sandbox whose function does nothing by itself, the invoker's socket, and what is needed to call.
struct CallFixture {
    shim: ShimFixture,
    invoker: UnixListener,
    address: String,
    token: String,
}

impl CallFixture {
    fn new() -> Self {
        let mut shim = ShimFixture::with_script(
            RuntimeAdapter::Direct,
            "runtime",
            "#!/bin/sh\necho \"$HANSHU_ENDPOINT $HANSHU_TOKEN\"; sleep 1000\n",
        );
        shim.start.env.insert("HANSHU_TOKEN".to_owned(), "forged".to_owned());
        let invoker = UnixListener::bind(shim.dir().join(CALLS_SOCKET)).unwrap();
        shim.start();
        let mut log = String::new();
        eventually("the runtime prints its variables", || {
            log.push_str(&shim.log());
            log.ends_with('\n')
        });
        let (endpoint, token) = log.trim().split_once(' ').unwrap();
        let address = endpoint.strip_prefix("http://").unwrap().to_owned();
        Self { invoker, address, token: token.to_owned(), shim }
    }

    /// Sends a request with this sandbox's token.
    fn send(&self, line: &str, headers: &str, body: &[u8]) -> TcpStream {
        self.send_with(&format!("Authorization: Bearer {}\r\n", self.token), line, headers, body)
    }

    fn send_with(&self, token: &str, line: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\n{token}{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A refused body may be reset before all of it is sent.
        let _ = stream.write_all(body);
        stream
    }

    /// The next forwarded request, to be answered on the stream.
    fn forwarded(&self, body_len: usize) -> (String, UnixStream) {
        let (mut stream, _) = self.invoker.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let mut body = vec![0; body_len];
        stream.read_exact(&mut body).unwrap();
        request.extend(body);
        (String::from_utf8(request).unwrap(), stream)
    }

    fn nothing_is_forwarded(&self) -> bool {
        self.invoker.set_nonblocking(true).unwrap();
        self.invoker.accept().is_err()
    }
}

fn response(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_call_with_the_token_is_forwarded_without_it() {
    let fixture = CallFixture::new();
    let line = "POST /v1/functions/a/invocations?qualifier=1";
    let headers = "Host: x\r\nPrefer: respond-async\r\nX-Other: y\r\n";
    let call = fixture.send(line, headers, b"[1]");
    let (request, mut invoker) = fixture.forwarded(3);
    assert_eq!(
        request,
        format!(
            "{line} HTTP/1.1\r\nHost: sandbox\r\nprefer: respond-async\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n[1]"
        )
    );
    invoker.write_all(ANSWER.as_bytes()).unwrap();
    drop(invoker);
    assert_eq!(response(call), ANSWER);
}

/// Routes and permissions are the invoker's affair.
#[test]
fn any_method_and_path_is_forwarded() {
    let fixture = CallFixture::new();
    for line in ["PUT /v1/functions/a", "DELETE /v1/functions/a", "GET /v1/invocations/1?wait=2"] {
        let call = fixture.send(line, "", b"");
        let (request, mut invoker) = fixture.forwarded(0);
        assert!(request.starts_with(&format!("{line} HTTP/1.1\r\n")), "{request}");
        invoker.write_all(ANSWER.as_bytes()).unwrap();
        drop(invoker);
        assert_eq!(response(call), ANSWER);
    }
}

#[test]
fn a_call_without_this_sandboxs_token_is_refused() {
    let (fixture, other) = (CallFixture::new(), CallFixture::new());
    assert_ne!(fixture.token, other.token);
    let foreign = format!("Authorization: Bearer {}\r\n", other.token);
    let basic = format!("Authorization: Basic {}\r\n", fixture.token);
    for token in ["", "Authorization: Bearer forged\r\n", &foreign, &basic] {
        let call = fixture.send_with(token, "GET /v1/invocations/1", "", b"");
        let text = response(call);
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
        assert!(text.contains("Content-Type: application/problem+json\r\n"), "{text}");
        assert!(text.contains(r#""code":"unauthenticated""#), "{text}");
    }
    assert!(fixture.nothing_is_forwarded());
}

#[test]
fn an_event_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let fixture = CallFixture::new();
    let line = "POST /v1/functions/a/invocations";
    let text = response(fixture.send(line, "", &vec![b'1'; BODY_BYTES_MAX + 1]));
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    let address = fixture.address.clone();
    let token = fixture.token.clone();
    let sender = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: \
             {BODY_BYTES_MAX}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'1'; BODY_BYTES_MAX]).unwrap();
        response(stream)
    });
    let (request, mut invoker) = fixture.forwarded(BODY_BYTES_MAX);
    assert!(BODY_BYTES_MAX < request.len());
    invoker.write_all(ANSWER.as_bytes()).unwrap();
    drop(invoker);
    assert_eq!(sender.join().unwrap(), ANSWER);
}

#[test]
fn what_is_no_request_is_refused() {
    let fixture = CallFixture::new();
    let mut stream = TcpStream::connect(&fixture.address).unwrap();
    stream.write_all(b"\0\r\n\r\n").unwrap();
    let text = response(stream);
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
    assert!(fixture.nothing_is_forwarded());
}

#[test]
fn without_the_invokers_socket_calls_are_unavailable() {
    let fixture = CallFixture::new();
    std::fs::remove_file(fixture.shim.dir().join(CALLS_SOCKET)).unwrap();
    let text = response(fixture.send("GET /v1/invocations/1", "", b""));
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
}

#[test]
fn a_call_over_the_bound_waits_for_another_to_end() {
    let fixture = CallFixture::new();
    let calls: Vec<_> =
        (0..=CALLS_MAX).map(|_| fixture.send("GET /v1/invocations/1", "", b"")).collect();
    let mut invokers: Vec<_> = (0..CALLS_MAX).map(|_| fixture.forwarded(0).1).collect();
    assert!(fixture.nothing_is_forwarded());
    fixture.invoker.set_nonblocking(false).unwrap();
    drop(invokers.pop());
    invokers.push(fixture.forwarded(0).1);
    for mut invoker in invokers {
        invoker.write_all(ANSWER.as_bytes()).unwrap();
    }
    let answered = calls.into_iter().map(response).filter(|text| text == ANSWER).count();
    assert_eq!(answered, CALLS_MAX);
}

#[test]
fn the_endpoint_ends_with_the_sandbox() {
    let mut fixture = CallFixture::new();
    let call = fixture.send("GET /v1/invocations/1", "", b"");
    let (_, invoker) = fixture.forwarded(0);
    fixture.shim.send_control(FrameKind::Kill, &[]);
    fixture.shim.wait_end();
    assert_eq!(response(call), "");
    assert!(TcpStream::connect(&fixture.address).is_err());
    drop(invoker);
}

/// The script's own variables are the endpoint's: each adapter passes them on.
#[test]
fn every_adapter_passes_the_variables_on() {
    let print = "printf '\"%s\"' \"${HANSHU_ENDPOINT%:*} ${#HANSHU_TOKEN}\"";
    let expected = r#""http://127.0.0.1 64""#;
    let script = format!("#!/bin/sh\n{print}\n");
    let mut shell = ShimFixture::with_script(RuntimeAdapter::Shell, "run.sh", &script).ready();
    assert_eq!(shell.result("{}"), expected);

    let bootstrap = format!(
        "#!/bin/sh\nA=\"http://$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT/runtime\"\n\
         curl -sS -o /dev/null -X POST -d ' ' \"$A/init/ready\"\n\
         while true; do curl -sS \"$A/invocation/next\" >/dev/null\n\
         {print} | curl -sS -X POST --data-binary @- \"$A/invocation/response\"; done\n"
    );
    let custom = ShimFixture::with_script(RuntimeAdapter::Custom, "bootstrap", &bootstrap);
    assert_eq!(custom.ready().result("{}"), expected);
}
