//! Bodies of one JSON text a line (`application/x-ndjson`), written and read as they come.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

/// Lines that wait for a slow reader.
pub(crate) const LINES_MAX: usize = 256;
/// Longest line that is read.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One line with its end.
pub(crate) fn encode_line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// The lines of a channel as a body, until its senders are gone.
pub(crate) fn stream_lines(
    receiver: mpsc::Receiver<Bytes>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (Ok(line), receiver))
    })
}

/// The lines of an answer.
pub(crate) fn read_lines<T: DeserializeOwned>(
    response: reqwest::Response,
) -> impl Stream<Item = io::Result<T>> + Unpin {
    let pieces = response.bytes_stream().map_err(io::Error::other);
    let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
    FramedRead::new(StreamReader::new(pieces), codec).map(|line| {
        let line = line.map_err(io::Error::other)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    })
}
