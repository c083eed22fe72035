//! Properties of every stream of frames, from any sender: the fuzz target `frames`, and a test on its
//! corpus.

#![allow(
    clippy::expect_used,
    reason = "what does not hold must be seen; this is no part of the program"
)]

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frames::{self, DecodedFrame};
pub use super::go::properties::gob;
use crate::wire::{
    BODY_BYTES_MAX, ExitedMessage, FrameKind, HEADER_LEN, HelloMessage, InitMessage,
    RuntimeFailure, StartMessage,
};

/// Reads `stream` to its end. Every frame encodes to the bytes that it was read from and holds no
/// more memory than the protocol allows; a body that was parsed round-trips.
///
/// # Panics
/// A property does not hold.
pub fn frames(stream: &[u8]) {
    let mut rest = stream;
    loop {
        let before = rest;
        match frames::read(&mut rest) {
            Ok(Some(frame)) => {
                let (taken, left) = before.split_at(before.len() - rest.len());
                assert_eq!(left, rest);
                frame_is(&frame, taken);
                body_survives(&frame);
            }
            Ok(None) => {
                assert!(before.len() < HEADER_LEN, "a header is no end");
                return;
            }
            Err(_) => return,
        }
    }
}

fn frame_is(frame: &DecodedFrame, bytes: &[u8]) {
    assert!(frame.body.len() <= BODY_BYTES_MAX && frame.body.capacity() <= BODY_BYTES_MAX);
    assert_eq!(frame.head.is_some(), frame.header.kind == FrameKind::Invoke);
    let mut written = frame.header.encode().to_vec();
    if let Some(head) = &frame.head {
        assert_eq!(head.request_id().as_bytes(), head.request_id);
        written.extend(head.encode());
    }
    written.extend(&frame.body);
    assert_eq!(written, bytes);
    if frame.head.is_none() {
        let mut written = Vec::new();
        frames::write(&mut written, &frame.header, &frame.body).expect("a vector takes all bytes");
        assert_eq!(written, bytes);
    }
}

fn body_survives(frame: &DecodedFrame) {
    match frame.header.kind {
        FrameKind::Hello => json_survives::<HelloMessage>(frame),
        FrameKind::Start => json_survives::<StartMessage>(frame),
        FrameKind::Exited => json_survives::<ExitedMessage>(frame),
        FrameKind::Init => json_survives::<InitMessage>(frame),
        FrameKind::InitFailed | FrameKind::Failed => json_survives::<RuntimeFailure>(frame),
        FrameKind::Kill
        | FrameKind::Term
        | FrameKind::Ready
        | FrameKind::Invoke
        | FrameKind::Result => {}
    }
}

fn json_survives<T: Serialize + DeserializeOwned + Debug + PartialEq>(frame: &DecodedFrame) {
    let Ok(read) = frame.json::<T>() else { return };
    let mut bytes = Vec::new();
    frames::write_json(&mut bytes, frame.header.kind, &read).expect("what was read can be written");
    let again = frames::read(&mut bytes.as_slice()).expect("what was written can be read");
    assert_eq!(again.and_then(|frame| frame.json::<T>().ok()), Some(read));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn what_holds_of_frames_holds_of_the_corpus() {
        replay("frames", frames);
    }

    #[test]
    fn what_holds_of_gob_holds_of_the_corpus() {
        replay("gob", gob);
    }
}
