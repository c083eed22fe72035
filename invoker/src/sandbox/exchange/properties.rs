//! Properties of every answer that a sandbox may send: the fuzzer's target `exchange`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a property that does not hold must be reported; this is no part of the program"
)]

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hanshu_core::{Origin, RequestId};
use hanshu_runtimes::wire::{BODY_BYTES_MAX, FrameError, FrameHeader, FrameKind, HEADER_LEN};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use super::connection::{ConnectionError, DataConnection};
use super::event_exchange::{EventExchange, ExchangeError};

/// Bytes of a script that are sent: they fit into a socket's buffer, so that neither side waits.
const SENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that the first byte of a script stands for: the pause may come late.
const CUT_BYTES: usize = 97;
/// Frames up to this many bytes are read in one piece with the bytes that follow.
const PIECE_BYTES: usize = 16 * 1024;

/// A frame as it was sent.
type ParsedFrame = (FrameHeader, Vec<u8>);

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
}

/// `script` is the position of a pause, then all bytes that a sandbox sends before it closes the
/// connection. The frames that are read must be those that were sent, although reading is dropped
/// and begun again at the pause; and an event must be answered by its own whole answer only.
///
/// # Panics
/// A property does not hold.
pub fn exchange(script: &[u8]) {
    let Some((cut, sent)) = script.split_first() else { return };
    let sent = &sent[..sent.len().min(SENT_BYTES_MAX)];
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            frames_are_read(usize::from(*cut) * CUT_BYTES, sent).await;
            an_event_is_answered(sent).await;
        });
    });
}

/// The frames of a stream in order, and the error that ends it.
fn parse(mut sent: &[u8]) -> (Vec<ParsedFrame>, Option<FrameError>) {
    let mut frames = Vec::new();
    while let Some((bytes, rest)) = sent.split_first_chunk::<HEADER_LEN>() {
        let header = match FrameHeader::decode(bytes) {
            Ok(header) if header.kind != FrameKind::Invoke => header,
            Ok(header) => {
                let error = FrameError::HeadLength { kind: header.kind, found: header.head_len };
                return (frames, Some(error));
            }
            Err(error) => return (frames, Some(error)),
        };
        let Some((body, rest)) = rest.split_at_checked(header.body_len()) else { break };
        frames.push((header, body.to_vec()));
        sent = rest;
    }
    (frames, None)
}

fn pair() -> (DataConnection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("two sockets can be had");
    ours.set_nonblocking(true).expect("a socket need not block");
    (DataConnection::new(ours).expect("there is a runtime"), theirs)
}

async fn frames_are_read(cut: usize, sent: &[u8]) {
    let (first, second) = sent.split_at(cut.min(sent.len()));
    let (mut conn, mut theirs) = pair();
    let mut read = Vec::new();
    let mut end = None;
    theirs.write_all(first).expect("there is room");
    // The second pass comes after the reactor ran; a read that it begins is dropped.
    for _ in 0..2 {
        yield_now().await;
        while let Some(frame) = conn.read_frame().now_or_never() {
            match frame {
                Ok(frame) => read.push((frame.header, frame.body.to_vec())),
                Err(error) => {
                    end = Some(error);
                    break;
                }
            }
        }
    }
    // The other side may have closed the connection because of the first part.
    let _ = theirs.write_all(second);
    theirs.shutdown(Shutdown::Write).expect("there is a connection");
    while end.is_none() {
        match conn.read_frame().await {
            Ok(frame) => {
                assert!(frame.body.len() <= BODY_BYTES_MAX);
                read.push((frame.header, frame.body.to_vec()));
            }
            Err(error) => end = Some(error),
        }
    }
    let (frames, malformed) = parse(sent);
    assert_eq!(read, frames);
    match (end, malformed) {
        (Some(ConnectionError::Ended), None) => {}
        (Some(ConnectionError::Malformed(found)), Some(expected)) => assert_eq!(found, expected),
        (end, malformed) => panic!("{end:?} instead of {malformed:?}"),
    }
}

async fn an_event_is_answered(sent: &[u8]) {
    let (mut conn, mut theirs) = pair();
    let event = Bytes::from_static(b"{}");
    let mut exchange = EventExchange::new(RequestId::new(), &Origin::Direct, 1_000, event)
        .expect("an event of two bytes");
    let mut sent = sent.to_vec();
    if let Some(name) = sent.get_mut(8..16) {
        name.copy_from_slice(&exchange.event.to_le_bytes());
    }
    theirs.write_all(&sent).expect("there is room");
    theirs.shutdown(Shutdown::Write).expect("there is a connection");
    let answered = exchange.drive(&mut conn).await;
    let (frames, _) = parse(&sent);
    let first = frames.first().filter(|(header, _)| header.event == exchange.event);
    match (answered, first) {
        (Ok(answer), Some((header, body))) => {
            assert_eq!(answer.last, header.is_last());
            match answer.result {
                Ok(result) => {
                    assert_eq!((header.kind, &result[..]), (FrameKind::Result, &body[..]));
                }
                Err(_) => assert_eq!(header.kind, FrameKind::Failed),
            }
            let surplus = HEADER_LEN + body.len() < sent.len();
            assert!(!surplus || PIECE_BYTES <= HEADER_LEN + body.len(), "a surplus is missed");
        }
        (Err(ExchangeError::NotAnAnswer(kind)), Some((header, _))) => assert_eq!(kind, header.kind),
        (Err(ExchangeError::Surplus), Some((_, body))) => {
            assert!(HEADER_LEN + body.len() < sent.len());
        }
        (Err(ExchangeError::Failure(_)), Some((header, _))) => {
            assert_eq!(header.kind, FrameKind::Failed);
        }
        (Err(ExchangeError::Connection(_)), None) => {}
        (answered, first) => panic!("{answered:?} to {first:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn the_properties_of_answers_hold_for_the_corpus() {
        replay("exchange", exchange);
    }
}
