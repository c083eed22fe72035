//! Answers of one JSON text a line, sent as they come.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::mpsc;

/// The media type of NDJSON.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";
/// Lines that wait for a slow reader.
pub(crate) const LINES_MAX: usize = 256;

/// A value as one line of JSON, with its line end.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// The lines of a channel, until its senders are gone.
pub(crate) fn stream(
    receiver: mpsc::Receiver<Bytes>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (Ok(line), receiver))
    })
}
