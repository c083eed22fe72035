//! Reading a request's body up to a limit.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::timeout;

/// How long a client may pause in the middle of a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// More bytes than the limit: declared, or sent.
    TooLarge,
    /// The client paused too long.
    Stalled,
    /// The client left, or broke the framing.
    Broken,
}

/// Reads the whole body, at most `limit` bytes. One that declares more is refused before a byte
/// is read; one that comes in a single piece is not copied.
pub(crate) async fn read_payload<B>(body: B, limit: usize) -> Result<Bytes, PayloadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut body = body;
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if limit < declared {
        return Err(PayloadError::TooLarge);
    }
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if limit < first.len() {
        return Err(PayloadError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = next(&mut body).await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(declared.max(first.len() + second.len()));
    let mut piece = Some(second);
    whole.extend_from_slice(&first);
    while let Some(bytes) = piece {
        if limit - whole.len() < bytes.remaining() {
            return Err(PayloadError::TooLarge);
        }
        whole.extend_from_slice(&bytes);
        piece = next(&mut body).await?;
    }
    Ok(whole.freeze())
}

/// The next piece of data; `None` at the end.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, PayloadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = timeout(PAUSE_MAX, body.frame()).await.map_err(|_| PayloadError::Stalled)?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(PayloadError::Broken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    async fn read(pieces: &[&'static str], limit: usize) -> Result<Bytes, PayloadError> {
        let frames: Vec<Result<_, std::io::Error>> =
            pieces.iter().map(|p| Ok(Frame::data(Bytes::from_static(p.as_bytes())))).collect();
        read_payload(StreamBody::new(stream::iter(frames)), limit).await
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(read(&["12", "345", "6"], 6).await.unwrap(), "123456");
        assert_eq!(read(&["12", "345", "67"], 6).await, Err(PayloadError::TooLarge));
        assert_eq!(read(&["1234567"], 6).await, Err(PayloadError::TooLarge));
        assert_eq!(read(&[], 6).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_single_piece_is_not_copied() {
        let sent = Bytes::from(vec![b'x'; 100]);
        let read = read_payload(Full::new(sent.clone()), 100).await.unwrap();
        assert_eq!(read.as_ptr(), sent.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pauses_for_too_long_is_given_up() {
        let frames = stream::pending::<Result<Frame<Bytes>, std::io::Error>>();
        let read = read_payload(StreamBody::new(Box::pin(frames)), 100).await;
        assert_eq!(read, Err(PayloadError::Stalled));
    }
}
