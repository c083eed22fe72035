//! A minimal HTTP/1.1 client: it sends the bytes that it is given, never retries, and notices a
//! second answer.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Longest wait for a whole answer. Calls take 3 s, the wait queue 10 s, a start 30 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Largest head of an answer, bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Largest body of an answer, bytes.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// A complete answer.
#[derive(Debug, Default)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) fault: String,
    pub(crate) request_id: String,
    pub(crate) body: Vec<u8>,
    /// The connection must not be used again.
    close: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum RequestFailure {
    /// Nobody listens, or the connection ended before the answer was complete.
    Disconnected(#[expect(dead_code, reason = "printed in the event log by `Debug`")] String),
    /// There was no answer within [`PATIENCE`].
    TimedOut,
    /// What was received is not exactly one valid answer.
    Malformed(String),
}

/// How fast a request is sent and its answer read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TransferPace {
    Quick,
    /// At most this many bytes at a time, with this pause in between.
    Slow(usize, Duration),
}

/// A keep-alive connection, opened when it is needed.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    address: String,
    stream: Option<TcpStream>,
}

impl ClientConnection {
    pub(crate) fn to(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(
        &mut self,
        bytes: &[u8],
        pace: TransferPace,
    ) -> Result<HttpAnswer, RequestFailure> {
        let answered = timeout(PATIENCE, self.try_exchange(bytes, pace)).await;
        let answered = answered.unwrap_or(Err(RequestFailure::TimedOut));
        if answered.as_ref().map_or(true, |answer| answer.close) {
            self.stream = None;
        }
        answered
    }

    /// Sends bytes and closes the connection without reading.
    pub(crate) async fn send_and_leave(&mut self, bytes: &[u8]) -> Result<(), RequestFailure> {
        let mut stream = self.open().await?;
        let sent = timeout(PATIENCE, stream.write_all(bytes)).await;
        sent.map_err(|_| RequestFailure::TimedOut)?.map_err(disconnected)
    }

    /// The open connection, if it still is open, or a new one.
    async fn open(&mut self) -> Result<TcpStream, RequestFailure> {
        if let Some(stream) = self.stream.take() {
            let mut byte = [0];
            match stream.try_read(&mut byte) {
                Ok(0) => {}
                Ok(_) => return Err(RequestFailure::Malformed("bytes after the answer".into())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(stream),
                Err(_) => {}
            }
        }
        let stream = TcpStream::connect(&self.address).await.map_err(disconnected)?;
        stream.set_nodelay(true).map_err(disconnected)?;
        Ok(stream)
    }

    async fn try_exchange(
        &mut self,
        bytes: &[u8],
        pace: TransferPace,
    ) -> Result<HttpAnswer, RequestFailure> {
        let mut stream = self.open().await?;
        let answer = send_and_read(&mut stream, bytes, pace).await?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// Sends a request and reads its answer. A refusal may come before the request is sent; then the
/// rest is not sent.
async fn send_and_read(
    stream: &mut TcpStream,
    bytes: &[u8],
    pace: TransferPace,
) -> Result<HttpAnswer, RequestFailure> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        let TransferPace::Slow(size, pause) = pace else { return writer.write_all(bytes).await };
        for piece in bytes.chunks(size.max(1)) {
            writer.write_all(piece).await?;
            sleep(pause).await;
        }
        Ok(())
    };
    let read = read_answer(&mut reader, pace);
    tokio::pin!(write, read);
    tokio::select! {
        answer = &mut read => answer.map(|answer| HttpAnswer { close: true, ..answer }),
        // What could not be sent does not matter once there is an answer.
        _ = &mut write => read.await,
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: soak\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n", body.len());
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The value of an `authorization` header.
pub(crate) fn basic(id: &str, key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{key}")))
}

fn disconnected(error: std::io::Error) -> RequestFailure {
    RequestFailure::Disconnected(error.to_string())
}

async fn read_answer(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    pace: TransferPace,
) -> Result<HttpAnswer, RequestFailure> {
    let mut bytes = Vec::new();
    let (mut answer, head, length) = loop {
        if let Some(parsed) = parse_head(&bytes)? {
            break parsed;
        }
        if HEAD_MAX < bytes.len() {
            return Err(RequestFailure::Malformed("an endless head".into()));
        }
        read_more(reader, &mut bytes, TransferPace::Quick).await?;
    };
    if BODY_MAX < length {
        return Err(RequestFailure::Malformed(format!("an answer of {length} bytes")));
    }
    while bytes.len() < head + length {
        read_more(reader, &mut bytes, pace).await?;
    }
    if head + length < bytes.len() {
        let rest = bytes.split_off(head + length);
        let rest = String::from_utf8_lossy(&rest).chars().take(80).collect::<String>();
        return Err(RequestFailure::Malformed(format!("bytes after the answer: {rest}")));
    }
    answer.body = bytes.split_off(head);
    Ok(answer)
}

async fn read_more(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    pace: TransferPace,
) -> Result<(), RequestFailure> {
    let mut buffer = vec![0; 64 * 1024];
    let (size, pause) = match pace {
        TransferPace::Quick => (buffer.len(), Duration::ZERO),
        TransferPace::Slow(size, pause) => (size.clamp(1, buffer.len()), pause),
    };
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let read =
        reader.read(buffer.get_mut(..size).unwrap_or_default()).await.map_err(disconnected)?;
    if read == 0 {
        return Err(RequestFailure::Disconnected(format!(
            "the connection ended after {} bytes",
            bytes.len()
        )));
    }
    bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
    Ok(())
}

/// The answer without its body, the head's length and the body's; `None` while the head is
/// incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(HttpAnswer, usize, usize)>, RequestFailure> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed =
        response.parse(bytes).map_err(|error| RequestFailure::Malformed(error.to_string()))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned()).unwrap_or_default()
    };
    let answer = HttpAnswer {
        status: response.code.unwrap_or_default(),
        fault: header("x-fault"),
        request_id: header("x-request-id"),
        body: Vec::new(),
        close: header("connection").eq_ignore_ascii_case("close"),
    };
    let length = header("content-length");
    match length.parse() {
        Ok(length) => Ok(Some((answer, head, length))),
        Err(_) => Err(RequestFailure::Malformed(format!("a content-length of `{length}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> String {
        match read_answer(&mut text.as_bytes(), TransferPace::Quick).await {
            Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[tokio::test]
    async fn one_answer_is_one_answer() {
        let one = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(read(one).await, "200 hi");
        assert!(read(&format!("{one}{one}")).await.contains("bytes after the answer"));
        assert!(
            read("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi").await.contains("Disconnected")
        );
        assert!(read("HTTP/1.1 200 OK\r\n\r\n").await.contains("content-length"));
        assert!(read("nonsense\r\n\r\n").await.contains("Malformed"));
    }
}
