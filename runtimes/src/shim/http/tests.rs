//! Requests as clients send them, and invalid ones.

use proptest::prelude::*;

use super::*;

/// What the caller sends, in pieces of some size, and what it gets.
#[derive(Debug)]
struct ScriptedCaller {
    sent: Vec<u8>,
    piece: usize,
    got: Vec<u8>,
}

impl Read for ScriptedCaller {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.sent.len().min(self.piece).min(buffer.len());
        buffer[..len].copy_from_slice(&self.sent[..len]);
        self.sent.drain(..len);
        Ok(len)
    }
}

impl Write for ScriptedCaller {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.got.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connection(sent: &[u8], piece: usize) -> HttpConnection<ScriptedCaller> {
    HttpConnection::new(ScriptedCaller { sent: sent.to_vec(), piece, got: Vec::new() })
}

/// Reads requests until the end or the first that is bad; gives what was understood of each.
fn check(sent: &[u8], expected: &[&str]) {
    for piece in [1, 7, 100_000] {
        let mut connection = connection(sent, piece);
        let mut found = Vec::new();
        while let Some(request) = connection.read_request().unwrap() {
            let Ok(request) = request else {
                found.push(request.unwrap_err().status().to_string());
                break;
            };
            let body = match connection.read_body(&request).unwrap() {
                RequestBody::Whole(bytes) => String::from_utf8(bytes).unwrap(),
                other => format!("{other:?}"),
            };
            let keeps = if request.keeps_alive { "" } else { " close" };
            found.push(format!("{:?} {} {body:?}{keeps}", request.method, request.path()));
        }
        assert_eq!(found, expected, "in pieces of {piece}");
    }
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    check(
        b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
          PUT /c HTTP/1.1\r\nConnection: close\r\n\r\nGET /d HTTP/1.0\r\n\r\n",
        &["Get /a \"\"", "Post /b \"abc\"", "Other(\"PUT\") /c \"\" close", "Get /d \"\" close"],
    );
}

#[test]
fn chunks_are_put_together() {
    check(
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
          3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        &["Post /a \"abc0123456789\"", "Get /b \"\""],
    );
}

#[test]
fn broken_chunks_are_told() {
    for chunks in ["x\r\n", "+3\r\nabc\r\n", "3\r\nabcd\r\n", "\r\n", "11111111111111111\r\n"] {
        let sent =
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        let mut connection = connection(sent.as_bytes(), 5);
        let request = connection.read_request().unwrap().unwrap().unwrap();
        assert_eq!(connection.read_body(&request).unwrap(), RequestBody::Broken, "{chunks:?}");
    }
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    check(b"nonsense\r\n\r\n", &["400"]);
    check(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", &["400"]);
    check(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &["400"]);
    check(b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", &["400"]);
    check(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na", &["400"]);
    check(b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", &["400"]);
}

#[test]
fn heads_have_a_limit() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES_MAX * 2));
    check(long.as_bytes(), &["431"]);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    check(many.as_bytes(), &["431"]);
}

#[test]
fn a_caller_that_asks_is_told_to_go_on() {
    let head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut connection = connection(format!("{head}ab").as_bytes(), 1000);
    let request = connection.read_request().unwrap().unwrap().unwrap();
    assert_eq!(connection.read_body(&request).unwrap(), RequestBody::Whole(b"ab".to_vec()));
    assert_eq!(connection.stream.got, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent_where_the_caller_asks() {
    let head = format!(
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    let mut connection = connection(head.as_bytes(), 1000);
    let request = connection.read_request().unwrap().unwrap().unwrap();
    assert_eq!(connection.read_body(&request).unwrap(), RequestBody::TooLarge);
    assert_eq!(connection.stream.got, b"");
}

#[test]
fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
    for (len, whole) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {len}\r\n\r\n");
        let mut sent = head.into_bytes();
        sent.resize(sent.len() + len, b'x');
        let mut connection =
            HttpConnection::new(LargeBodyCaller { sent: io::Cursor::new(sent), got: Vec::new() });
        let request = connection.read_request().unwrap().unwrap().unwrap();
        let body = connection.read_body(&request).unwrap();
        assert_eq!(matches!(&body, RequestBody::Whole(bytes) if bytes.len() == len), whole);
        assert_eq!(body == RequestBody::TooLarge, !whole);
        assert!(connection.read_request().unwrap().is_none(), "all of it was read");
    }
}

/// A caller with much to say.
#[derive(Debug)]
struct LargeBodyCaller {
    sent: io::Cursor<Vec<u8>>,
    got: Vec<u8>,
}

impl Read for LargeBodyCaller {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.sent.read(buffer)
    }
}

impl Write for LargeBodyCaller {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.got.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn replies_say_their_length_and_whether_the_connection_ends() {
    let mut connection = connection(b"", 1);
    connection.write(&HttpResponse::plain(200, "OK")).unwrap();
    connection.write(&HttpResponse::closing(400, "Bad Request")).unwrap();
    let expected = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
                    HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&connection.stream.got), expected);
}

proptest! {
    #[test]
    fn any_bytes_are_requests_an_end_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50
    ) {
        read_all(&bytes, piece);
    }

    #[test]
    fn anything_after_a_chunked_head_is_a_body_or_refused(
        rest in "[0-9a-fA-F;\r\nx ]{0,60}", piece in 1usize..50
    ) {
        let head = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        read_all(format!("{head}{rest}").as_bytes(), piece);
    }
}

/// Must neither panic nor go on for ever.
fn read_all(bytes: &[u8], piece: usize) {
    let mut connection = connection(bytes, piece);
    for _ in 0..=bytes.len() {
        let Ok(Some(Ok(request))) = connection.read_request() else { return };
        match connection.read_body(&request) {
            Ok(RequestBody::Whole(_)) => {}
            _ => return,
        }
    }
    panic!("more requests than bytes");
}
