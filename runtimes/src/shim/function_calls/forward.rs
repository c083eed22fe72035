//! One request of the function: its token is checked, then it is forwarded to the invoker.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::call_token::CallToken;
use crate::shim::http::{HttpConnection, HttpRequest, HttpResponse, RequestBody};

/// The longest pause of a caller while it sends its request or receives the response.
const CALLER_PATIENCE: Duration = Duration::from_secs(30);
const AUTHORIZATION: &str = "authorization";
/// The headers that are read; all but the first are forwarded.
const KEPT_HEADERS: &[&str] = &[AUTHORIZATION, "accept", "content-type", "prefer"];

/// Forwards requests that carry the token.
#[derive(Debug)]
pub(super) struct CallForwarder {
    pub(super) token: CallToken,
    /// The invoker's socket.
    pub(super) socket: PathBuf,
}

/// A response that the shim itself makes; the fields are those of the API's problems.
#[derive(Clone, Copy, Debug)]
struct ForwardProblem {
    status: u16,
    title: &'static str,
    code: &'static str,
    detail: &'static str,
    hint: &'static str,
}

const BAD_REQUEST: ForwardProblem = ForwardProblem {
    status: 400,
    title: "Bad Request",
    code: "invalid_value",
    detail: "the request is not valid HTTP/1.1, or its head is larger than 16 KB",
    hint: "send a plain HTTP/1.1 request",
};
const UNAUTHENTICATED: ForwardProblem = ForwardProblem {
    status: 401,
    title: "Unauthorized",
    code: "unauthenticated",
    detail: "the request does not carry this sandbox's token",
    hint: "send `Authorization: Bearer` with the value of HANSHU_TOKEN",
};
const TOO_LARGE: ForwardProblem = ForwardProblem {
    status: 413,
    title: "Content Too Large",
    code: "event_too_large",
    detail: "the event is larger than 6291456 bytes",
    hint: "send less: store large data elsewhere and send a reference to it",
};
const UNAVAILABLE: ForwardProblem = ForwardProblem {
    status: 503,
    title: "Service Unavailable",
    code: "unavailable",
    detail: "the platform does not answer function calls from this sandbox",
    hint: "try again later",
};

impl CallForwarder {
    /// Serves one request and closes the connection.
    pub(super) fn forward_one(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALLER_PATIENCE))?;
        stream.set_write_timeout(Some(CALLER_PATIENCE))?;
        let mut caller = HttpConnection::new(stream).keeping_headers(KEPT_HEADERS);
        let request = match caller.read_request()? {
            None => return Ok(()),
            Some(Err(_)) => return respond(&mut caller, &BAD_REQUEST),
            Some(Ok(request)) => request,
        };
        // Before the body is read: a body counts towards the function's memory.
        if !self.token.authorizes(request.header(AUTHORIZATION)) {
            return respond(&mut caller, &UNAUTHENTICATED);
        }
        let body = match caller.read_body(&request)? {
            RequestBody::Whole(body) => body,
            RequestBody::TooLarge => return respond(&mut caller, &TOO_LARGE),
            RequestBody::Broken => return respond(&mut caller, &BAD_REQUEST),
        };
        // No deadline from here on: the invoker has one, and its end closes the connection.
        let mut invoker = match self.send(&request, &body) {
            Ok(invoker) => invoker,
            Err(_) => return respond(&mut caller, &UNAVAILABLE),
        };
        drop(body);
        io::copy(&mut invoker, caller.stream_mut())?;
        Ok(())
    }

    fn send(&self, request: &HttpRequest, body: &[u8]) -> io::Result<UnixStream> {
        let mut invoker = UnixStream::connect(&self.socket)?;
        invoker.write_all(head_of(request, body.len()).as_bytes())?;
        invoker.write_all(body)?;
        Ok(invoker)
    }
}

/// The head of the forwarded request. Its parts were parsed from a head and so hold no line ends.
fn head_of(request: &HttpRequest, body_len: usize) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: sandbox\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if *name != AUTHORIZATION {
            head.extend([*name, ": ", value, "\r\n"]);
        }
    }
    head.push_str(&format!("Content-Length: {body_len}\r\nConnection: close\r\n\r\n"));
    head
}

fn respond(caller: &mut HttpConnection, problem: &ForwardProblem) -> io::Result<()> {
    let ForwardProblem { status, title, code, detail, hint } = *problem;
    let body = serde_json::json!({
        "type": "about:blank", "title": title, "status": status,
        "code": code, "detail": detail, "hint": hint,
    });
    let body = body.to_string().into_bytes();
    let headers = "Content-Type: application/problem+json\r\nx-fault: platform\r\n".to_owned();
    let keeps_alive = false;
    caller.write(&HttpResponse { status, reason: title, headers, body: &body, keeps_alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_unknown_headers_are_not_forwarded() {
        let head = b"POST /v1/functions/a/invocations?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\
                     Authorization: Bearer secret\r\nPrefer: respond-async\r\nCookie: a\r\n\
                     PREFER: wait=1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut caller =
            HttpConnection::new(io::Cursor::new(head.to_vec())).keeping_headers(KEPT_HEADERS);
        let request = caller.read_request().unwrap().unwrap().unwrap();
        assert_eq!(request.header(AUTHORIZATION), Some("Bearer secret"));
        assert_eq!(
            head_of(&request, 3),
            "POST /v1/functions/a/invocations?x=1 HTTP/1.1\r\nHost: sandbox\r\n\
             prefer: respond-async\r\nprefer: wait=1\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n"
        );
    }
}
