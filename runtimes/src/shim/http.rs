//! A minimal HTTP/1.1 server connection: one request at a time, every part limited.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::wire::BODY_BYTES_MAX;

/// The most bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// The most bytes of an oversized body that are read, so that the caller receives the refusal instead
/// of a connection reset.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of a chunk's size line, and of a trailer line.
const CHUNK_LINE_MAX: usize = 1024;
const READ_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HttpMethod {
    Get,
    Post,
    Other(String),
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Other(name) => name,
        })
    }
}

/// How a body's length is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFraming {
    Length(u64),
    Chunked,
}

/// The head of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) method: HttpMethod,
    /// Path and query.
    pub(super) target: String,
    pub(super) keeps_alive: bool,
    /// Those headers that the connection keeps, by their names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    framing: BodyFraming,
    /// The caller waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

impl HttpRequest {
    /// The target without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }

    /// The first header of this name, if the connection keeps it.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(kept, _)| *kept == name).map(|(_, value)| value.as_str())
    }
}

/// The body of a request, or why it was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestBody {
    Whole(Vec<u8>),
    /// Over the limit. The rest of it has been read and discarded.
    TooLarge,
    /// Its framing is invalid or it is far too long: nothing more can be read.
    Broken,
}

/// Why a request cannot be parsed; the connection is closed after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    Syntax,
    HeadTooLarge,
}

impl RequestError {
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Syntax => 400,
            Self::HeadTooLarge => 431,
        }
    }

    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Syntax => "Bad Request",
            Self::HeadTooLarge => "Request Header Fields Too Large",
        }
    }
}

/// The response to a request.
#[derive(Debug)]
pub(super) struct HttpResponse<'a> {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// Complete header lines, each with its line ending.
    pub(super) headers: String,
    pub(super) body: &'a [u8],
    pub(super) keeps_alive: bool,
}

impl HttpResponse<'static> {
    /// Without a body; the connection stays open.
    pub(super) const fn plain(status: u16, reason: &'static str) -> Self {
        Self { status, reason, headers: String::new(), body: &[], keeps_alive: true }
    }

    /// Without a body; the connection is closed.
    pub(super) const fn closing(status: u16, reason: &'static str) -> Self {
        Self { status, reason, headers: String::new(), body: &[], keeps_alive: false }
    }
}

/// One connection from a program in the sandbox.
#[derive(Debug)]
pub(super) struct HttpConnection<S = TcpStream> {
    stream: S,
    /// Bytes that were read and not yet parsed.
    buffer: Vec<u8>,
    /// The names of headers whose values are kept, in lower case.
    kept_headers: &'static [&'static str],
}

impl HttpConnection<TcpStream> {
    /// Whether the other side has closed the connection; neither blocks nor consumes anything.
    pub(super) fn caller_is_gone(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(len) => Ok(len == 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(_) => Ok(true),
        }
    }
}

impl<S: Read + Write> HttpConnection<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), kept_headers: &[] }
    }

    /// The same connection, which keeps the values of these headers.
    pub(super) const fn keeping_headers(mut self, names: &'static [&'static str]) -> Self {
        self.kept_headers = names;
        self
    }

    pub(super) const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next request, or why it cannot be parsed; `None` when the connection ends.
    pub(super) fn read_request(&mut self) -> io::Result<Option<Result<HttpRequest, RequestError>>> {
        loop {
            match parse(&self.buffer, self.kept_headers) {
                Ok(Some((request, len))) => {
                    self.consume(len);
                    return Ok(Some(Ok(request)));
                }
                Err(bad) => return Ok(Some(Err(bad))),
                Ok(None) if HEAD_BYTES_MAX <= self.buffer.len() => {
                    return Ok(Some(Err(RequestError::HeadTooLarge)));
                }
                Ok(None) => {}
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The body of the request that was just read.
    pub(super) fn read_body(&mut self, request: &HttpRequest) -> io::Result<RequestBody> {
        let has_body = request.framing != BodyFraming::Length(0);
        if let BodyFraming::Length(len) = request.framing {
            let is_too_large = u64::try_from(BODY_BYTES_MAX).is_ok_and(|max| max < len);
            if is_too_large && request.expects_continue {
                // The body is not sent after this refusal: the connection cannot be used any further.
                return Ok(RequestBody::TooLarge);
            }
        }
        if request.expects_continue && has_body {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = BoundedBody::default();
        let is_sound = match request.framing {
            BodyFraming::Length(len) => self.take(len, &mut body)?,
            BodyFraming::Chunked => self.take_chunks(&mut body)?,
        };
        Ok(match (is_sound, body.is_over) {
            (true, false) => RequestBody::Whole(body.bytes),
            (true, true) => RequestBody::TooLarge,
            (false, _) => RequestBody::Broken,
        })
    }

    /// Sends a response, a small one in one write.
    pub(super) fn write(&mut self, reply: &HttpResponse<'_>) -> io::Result<()> {
        let connection = if reply.keeps_alive { "" } else { "Connection: close\r\n" };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\n{}Content-Length: {}\r\n{connection}\r\n",
            reply.status,
            reply.reason,
            reply.headers,
            reply.body.len()
        )
        .into_bytes();
        if READ_BYTES < reply.body.len() {
            self.stream.write_all(&bytes)?;
            return self.stream.write_all(reply.body);
        }
        bytes.extend_from_slice(reply.body);
        self.stream.write_all(&bytes)
    }

    fn take_chunks(&mut self, body: &mut BoundedBody) -> io::Result<bool> {
        loop {
            let Some(line) = self.take_line()? else { return Ok(false) };
            let Some(len) = chunk_len(&line) else { return Ok(false) };
            if len == 0 {
                return self.take_trailers();
            }
            if !self.take(len, body)? || self.take_line()?.is_none_or(|line| !line.is_empty()) {
                return Ok(false);
            }
        }
    }

    fn take_trailers(&mut self) -> io::Result<bool> {
        for _ in 0..HEADERS_MAX {
            match self.take_line()? {
                Some(line) if line.is_empty() => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Reads `len` bytes of body; false if there are more than can be discarded.
    fn take(&mut self, mut len: u64, body: &mut BoundedBody) -> io::Result<bool> {
        while 0 < len {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let here = usize::try_from(len).unwrap_or(usize::MAX).min(self.buffer.len());
            if !body.add(self.buffer.get(..here).unwrap_or_default()) {
                return Ok(false);
            }
            self.consume(here);
            len -= u64::try_from(here).unwrap_or(len);
        }
        Ok(true)
    }

    /// A line without its line ending; `None` when it is too long.
    fn take_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                line.pop_if(|byte| *byte == b'\r');
                return Ok(Some(line));
            }
            if CHUNK_LINE_MAX < self.buffer.len() {
                return Ok(None);
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads at least one byte, unless the stream has ended.
    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut block) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(len) => {
                    self.buffer.extend_from_slice(block.get(..len).unwrap_or_default());
                    return Ok(len);
                }
            }
        }
    }

    fn consume(&mut self, len: usize) {
        self.buffer.drain(..len.min(self.buffer.len()));
    }
}

/// Collects a body up to the limit; beyond it, bytes are only counted.
#[derive(Debug, Default)]
struct BoundedBody {
    bytes: Vec<u8>,
    is_over: bool,
    seen: u64,
}

impl BoundedBody {
    /// False when there is more than can be discarded.
    fn add(&mut self, part: &[u8]) -> bool {
        self.seen += u64::try_from(part.len()).unwrap_or(u64::MAX);
        if self.is_over || BODY_BYTES_MAX < self.bytes.len() + part.len() {
            self.is_over = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(part);
        }
        self.seen <= DISCARD_BYTES_MAX
    }
}

/// A chunk's size: hexadecimal digits up to a `;`.
fn chunk_len(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` would accept a sign.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_plain)
}

/// The request at the start of these bytes and its length; `None` while it is incomplete.
fn parse(
    bytes: &[u8],
    kept_headers: &[&'static str],
) -> Result<Option<(HttpRequest, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::HeadTooLarge),
        Err(_) => return Err(RequestError::Syntax),
    };
    let method = match head.method {
        Some("GET") => HttpMethod::Get,
        Some("POST") => HttpMethod::Post,
        other => HttpMethod::Other(other.unwrap_or_default().to_owned()),
    };
    let mut request = HttpRequest {
        method,
        target: head.path.unwrap_or_default().to_owned(),
        keeps_alive: head.version == Some(1),
        headers: Vec::new(),
        framing: BodyFraming::Length(0),
        expects_continue: false,
    };
    apply_headers(&mut request, head.headers)?;
    for header in head.headers.iter() {
        let is_named = |name: &&&'static str| header.name.eq_ignore_ascii_case(name);
        if let Some(name) = kept_headers.iter().find(is_named) {
            let value = std::str::from_utf8(header.value).map_err(|_| RequestError::Syntax)?;
            request.headers.push((name, value.trim().to_owned()));
        }
    }
    Ok(Some((request, len)))
}

/// A body with two lengths, or with one that is no number, is refused: its end would be ambiguous.
fn apply_headers(
    request: &mut HttpRequest,
    headers: &[httparse::Header<'_>],
) -> Result<(), RequestError> {
    let mut length = None;
    let mut is_chunked = false;
    for header in headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        let is_named = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is_named("content-length") {
            let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
            let given = value.parse().ok().filter(|_| is_plain).ok_or(RequestError::Syntax)?;
            if length.replace(given).is_some_and(|before: u64| before != given) {
                return Err(RequestError::Syntax);
            }
        } else if is_named("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(RequestError::Syntax);
            }
            is_chunked = true;
        } else if is_named("expect") {
            request.expects_continue = value.eq_ignore_ascii_case("100-continue");
        } else if is_named("connection") {
            for word in value.split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    request.keeps_alive = false;
                } else if word.eq_ignore_ascii_case("keep-alive") {
                    request.keeps_alive = true;
                }
            }
        }
    }
    request.framing = match (length, is_chunked) {
        (Some(_), true) => return Err(RequestError::Syntax),
        (None, true) => BodyFraming::Chunked,
        (length, false) => BodyFraming::Length(length.unwrap_or(0)),
    };
    Ok(())
}

#[cfg(test)]
mod tests;
