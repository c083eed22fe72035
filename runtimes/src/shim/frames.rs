//! Reads and writes frames on a blocking stream.

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{FrameHeader, FrameKind, HEADER_LEN, INVOKE_HEAD_LEN, InvokeHead};

/// Bodies up to this many bytes are sent together with their header, in one write.
const TOGETHER_MAX: usize = 64 * 1024;

/// One frame as it was read.
#[derive(Debug)]
pub(super) struct DecodedFrame {
    pub(super) header: FrameHeader,
    /// Present for an `INVOKE` only.
    pub(super) head: Option<InvokeHead>,
    pub(super) body: Vec<u8>,
}

impl DecodedFrame {
    /// The body, parsed as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(invalid)
    }
}

/// Reads one frame; `None` where the stream ends instead.
///
/// # Errors
/// `InvalidData` for bytes that are no frame, and what the stream says.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<DecodedFrame>> {
    let mut bytes = [0; HEADER_LEN];
    match stream.read_exact(&mut bytes) {
        Err(error) if ended(&error) => return Ok(None),
        other => other?,
    }
    let header = FrameHeader::decode(&bytes).map_err(invalid)?;
    let head = if header.kind == FrameKind::Invoke {
        let mut bytes = [0; INVOKE_HEAD_LEN];
        stream.read_exact(&mut bytes)?;
        Some(InvokeHead::decode(&bytes).map_err(invalid)?)
    } else {
        None
    };
    let mut body = vec![0; header.body_len()];
    stream.read_exact(&mut body)?;
    Ok(Some(DecodedFrame { header, head, body }))
}

/// Writes one frame without a head.
pub(super) fn write(stream: &mut impl Write, header: &FrameHeader, body: &[u8]) -> io::Result<()> {
    let bytes = header.encode();
    if TOGETHER_MAX < body.len() {
        stream.write_all(&bytes)?;
        return stream.write_all(body);
    }
    let mut together = Vec::with_capacity(HEADER_LEN + body.len());
    together.extend_from_slice(&bytes);
    together.extend_from_slice(body);
    stream.write_all(&together)
}

/// Writes one frame of the control connection.
pub(super) fn write_json<T: Serialize>(
    stream: &mut impl Write,
    kind: FrameKind,
    body: &T,
) -> io::Result<()> {
    let body = serde_json::to_vec(body).map_err(invalid)?;
    write(stream, &FrameHeader::new(kind, 0, body.len()).map_err(invalid)?, &body)
}

/// Whether an error means that the other side has closed the connection.
pub(super) fn ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// The error for bytes that violate the protocol.
pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(body in prop::collection::vec(any::<u8>(), 0..100_000)) {
            let mut bytes = Vec::new();
            let header = FrameHeader::new(FrameKind::Result, 7, body.len()).unwrap();
            write(&mut bytes, &header, &body).unwrap();
            let frame = read(&mut bytes.as_slice()).unwrap().unwrap();
            prop_assert_eq!(frame.header, header);
            prop_assert_eq!(frame.body, body);
        }

        #[test]
        fn any_bytes_are_a_frame_an_end_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            // Must neither panic nor hang.
            let _ = read(&mut bytes.as_slice());
        }
    }
}
