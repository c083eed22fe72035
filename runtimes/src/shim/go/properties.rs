//! Properties of everything that a Go function may send and of what is sent to it: the fuzz target
//! `gob`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what does not hold must be seen; this is no part of the program"
)]

use std::io::{self, Cursor, Read, Write};

use super::decode::{GobMessage, GobTypes, GobValue};
use super::encode::define;
use super::messages::{
    INVOKE_TYPE, InvokeRequest, REQUEST_TYPE, RpcDeadline, TIMESTAMP_TYPE, split_invoke,
    write_request,
};
use super::rpc::{RpcClient, RpcError};

/// The most calls for one input.
const CALLS_MAX: usize = 8;

/// Uses `sent` as a function's replies to successive calls, then as a series of messages, then as the
/// parts of an event, which must be decoded as they were encoded.
///
/// # Panics
/// A property does not hold.
pub fn gob(sent: &[u8]) {
    replies_are_bounded(sent);
    messages_are_bounded(sent);
    requests_round_trip(sent);
}

/// Every call ends, and a reply is no longer than the input.
fn replies_are_bounded(sent: &[u8]) {
    let mut client = RpcClient::new(ScriptedFunction(Cursor::new(sent)));
    if !goes_on(&client.ping()) {
        return;
    }
    for _ in 0..CALLS_MAX {
        let replied = client.invoke(&InvokeRequest::default(), Vec::new());
        if !goes_on(&replied) {
            return;
        }
        let Ok(reply) = replied else { continue };
        assert!(reply.payload.len() <= sent.len());
        if let Some(error) = reply.error {
            let failure = error.into_failure();
            assert!(!failure.error_type.is_some_and(|kind| kind.is_empty()));
        }
    }
}

fn goes_on<T>(replied: &Result<T, RpcError>) -> bool {
    matches!(replied, Ok(_) | Err(RpcError::Refused(_) | RpcError::TooLarge))
}

/// Successive messages, each preceded by a length of one byte: values lie within the message and
/// within the limits of depth and number.
fn messages_are_bounded(mut sent: &[u8]) {
    let mut types = GobTypes::new();
    while let Some((len, rest)) = sent.split_first() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        sent = rest;
        match types.read(message) {
            Ok(GobMessage::Defined) => {}
            Ok(GobMessage::Value(value)) => {
                let values = count(&value, 0, message.len());
                assert!(values <= super::decode::VALUES_MAX);
            }
            Err(_) => return,
        }
    }
}

fn count(value: &GobValue<'_>, depth: usize, bytes_max: usize) -> usize {
    assert!(depth <= super::decode::DEPTH_MAX);
    let below = |inner: &GobValue<'_>| count(inner, depth + 1, bytes_max);
    1 + match value {
        GobValue::List(items) => items.iter().map(below).sum(),
        GobValue::Struct(fields) => fields.iter().map(|(_, inner)| below(inner)).sum(),
        GobValue::Bytes(bytes) => {
            assert!(bytes.len() <= bytes_max);
            0
        }
        GobValue::Bool(_)
        | GobValue::Int(_)
        | GobValue::Uint(_)
        | GobValue::Float(_)
        | GobValue::Other => 0,
    }
}

/// An encoded event is decoded unchanged by the generic gob reader.
fn requests_round_trip(parts: &[u8]) {
    let (numbers, rest) = parts.split_at(parts.len().min(16));
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(numbers) {
        *to = *from;
    }
    let [seconds, nanos] = [&padded[..8], &padded[8..]]
        .map(|half| half.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte)));
    let text = String::from_utf8_lossy(rest);
    let request = InvokeRequest {
        request_id: &text,
        deadline: RpcDeadline { seconds, nanos },
        environment: &text,
        memory_limit_in_mb: u32::from(padded[0]),
        ..InvokeRequest::default()
    };
    let mut out = Vec::new();
    for definition in [&REQUEST_TYPE, &INVOKE_TYPE, &TIMESTAMP_TYPE] {
        define(&mut out, definition);
    }
    write_request(&mut out, &text, seconds.unsigned_abs());
    let (before, after) = split_invoke(&request, rest.len());
    out.extend([&before, rest, &after].concat());

    let mut types = GobTypes::new();
    let mut stream = out.as_slice();
    for _ in 0..3 {
        let message = next_message(&mut stream);
        assert!(matches!(types.read(message), Ok(GobMessage::Defined)));
    }
    let message = next_message(&mut stream);
    let Ok(GobMessage::Value(told)) = types.read(message) else { panic!("a request is a value") };
    assert_eq!(told.text("ServiceMethod"), text);
    assert_eq!(told.field("Seq").and_then(GobValue::as_uint).unwrap_or(0), seconds.unsigned_abs());
    let message = next_message(&mut stream);
    let Ok(GobMessage::Value(told)) = types.read(message) else { panic!("an event is a value") };
    assert!(stream.is_empty());
    assert_eq!(told.field("Payload").and_then(GobValue::as_bytes).unwrap_or_default(), rest);
    assert_eq!([told.text("RequestId"), told.text("Environment")], [text.as_ref(); 2]);
    let number = |value: Option<&GobValue<'_>>| value.and_then(GobValue::as_int).unwrap_or(0);
    assert_eq!(number(told.field("MemoryLimitInMb")), i64::from(padded[0]));
    let deadline = told.field("Deadline");
    assert_eq!(number(deadline.and_then(|time| time.field("Seconds"))), seconds);
    assert_eq!(number(deadline.and_then(|time| time.field("Nanos"))), nanos);
}

/// Splits off one message with its length, as `rpc.rs` reads it, but from a slice.
fn next_message<'a>(stream: &mut &'a [u8]) -> &'a [u8] {
    let (first, rest) = stream.split_first().expect("there is a message");
    let digits = if *first < 0x80 { 0 } else { usize::from(first.wrapping_neg()) };
    let (number, rest) = rest.split_at(digits);
    let len = if digits == 0 { usize::from(*first) } else { 0 };
    let len = number.iter().fold(len, |len, byte| len << 8 | usize::from(*byte));
    let (message, rest) = rest.split_at(len);
    *stream = rest;
    message
}

/// The function's side of a connection, whose output is known in advance.
struct ScriptedFunction<'a>(Cursor<&'a [u8]>);

impl Read for ScriptedFunction<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ScriptedFunction<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
