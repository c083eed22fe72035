//! Against the bytes that were captured between Go's own `net/rpc` client and scf-go-lib
//! (scf.md §6.6), and against any bytes at all.

use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::*;
use crate::shim::go::encode::{define, int, uint};
use crate::shim::go::messages::{
    INVOKE_TYPE, InvokeReply, InvokeRequest, PING_TYPE, REQUEST_TYPE, RpcDeadline, TIMESTAMP_TYPE,
    split_invoke, write_ping, write_request,
};
use crate::shim::go::rpc::{RpcClient, RpcError};
use crate::wire::BODY_BYTES_MAX;

/// Server's definitions of `Response` and `PingResponse`, with the values between them.
const PING_REPLY: &str = "3aff8103010108526573706f6e736501ff82000103010d536572766963654d657468\
    6f64010c00010353657101060001054572726f72010c000000\
    12ff82010d46756e6374696f6e2e50696e6700\
    18ff830301010c50696e67526573706f6e736501ff84000000\
    03ff8400";
const INVOKE_RESPONSE: &str = "16ff82010f46756e6374696f6e2e496e766f6b65010100";
const INVOKE_REPLY_TYPES: &str = "33ff850301010e496e766f6b65526573706f6e736501ff86000102010750\
    61796c6f6164010a0001054572726f7201ff88000000\
    56ff8703010114496e766f6b65526573706f6e73655f4572726f7201ff8800010401074d657373616765010c0001\
    0454797065010c00010a537461636b547261636501ff8c00010a53686f756c64457869740102000000\
    3aff8b0201012b5b5d2a6d657373616765732e496e766f6b65526573706f6e73655f4572726f725f537461636b\
    4672616d6501ff8c0001ff8a0000\
    28ff89030102ff8a000103010450617468010c0001044c696e6501040001054c6162656c010c000000";
const HI: &str = "0bff86010622686920762200";
const BOOM: &str = "18ff86020104626f6f6d010b6572726f72537472696e670000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn check_written(write: impl FnOnce(&mut Vec<u8>), captured: &str) {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(out, bytes(captured));
}

#[test]
fn calls_are_the_bytes_that_go_sends() {
    check_written(
        |out| define(out, &REQUEST_TYPE),
        "2fff81030101075265717565737401ff82000102010d536572766963654d6574686f64010c0001035365710106\
         000000",
    );
    check_written(
        |out| write_request(out, "Function.Ping", 0),
        "12ff82010d46756e6374696f6e2e50696e6700",
    );
    check_written(
        |out| define(out, &PING_TYPE),
        "17ff830301010b50696e675265717565737401ff84000000",
    );
    check_written(write_ping, "03ff8400");
    check_written(
        |out| write_request(out, "Function.Invoke", 1),
        "16ff82010f46756e6374696f6e2e496e766f6b65010100",
    );
    check_written(
        |out| define(out, &INVOKE_TYPE),
        "fe0137ff850301010d496e766f6b655265717565737401ff8600011001075061796c6f6164010a000109526571\
         756573744964010c00010754726163654964010c000108446561646c696e6501ff88000115496e766f6b656446\
         756e6374696f6e556e69717565010c00010d436c69656e74436f6e74657874010a0001094e616d657370616365\
         010c00010c46756e6374696f6e4e616d65010c00010f46756e6374696f6e56657273696f6e010c00010f4d656d\
         6f72794c696d6974496e4d62010400010d54696d654c696d6974496e4d73010400010b456e7669726f6e6d656e\
         74010c00011254656e63656e74636c6f7564526567696f6e010c00011154656e63656e74636c6f756441707049\
         44010c00010f54656e63656e74636c6f756455696e010c00010d46756e6374696f6e5472616365010c000000",
    );
    check_written(
        |out| define(out, &TIMESTAMP_TYPE),
        "3bff8703010117496e766f6b65526571756573745f54696d657374616d7001ff8800010201075365636f6e6473\
         01040001054e616e6f730104000000",
    );
}

#[test]
fn an_event_is_the_bytes_that_go_sends() {
    let request = InvokeRequest {
        request_id: "rid-1",
        deadline: RpcDeadline { seconds: 1_795_332_068, nanos: 0 },
        memory_limit_in_mb: 128,
        environment: r#"{"A":"b"}"#,
        ..InvokeRequest::default()
    };
    check_written(
        |out| {
            let payload = br#"{"k":"v"}"#;
            let (before, after) = split_invoke(&request, payload.len());
            out.extend([before.as_slice(), payload, &after].concat());
        },
        "2cff8601097b226b223a2276227d01057269642d310201fcd6052fc80006fe010002097b2241223a2262227d00",
    );
}

/// The function's side of a connection: it sends all its bytes at once.
#[derive(Debug)]
struct ScriptedFunction(io::Cursor<Vec<u8>>);

impl Read for ScriptedFunction {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ScriptedFunction {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn function(parts: &[&str]) -> RpcClient<ScriptedFunction> {
    RpcClient::new(ScriptedFunction(io::Cursor::new(
        parts.iter().flat_map(|hex| bytes(hex)).collect(),
    )))
}

#[test]
fn replies_are_understood_as_go_sent_them() {
    let second = "16ff82010f46756e6374696f6e2e496e766f6b65010200";
    let mut client = function(&[PING_REPLY, INVOKE_RESPONSE, INVOKE_REPLY_TYPES, HI, second, BOOM]);
    client.ping().unwrap();
    let reply = client.invoke(&InvokeRequest::default(), Vec::new()).unwrap();
    assert_eq!(reply, InvokeReply { payload: br#""hi v""#.to_vec(), error: None });
    let error = client.invoke(&InvokeRequest::default(), Vec::new()).unwrap().error.unwrap();
    assert!(!error.should_exit);
    let failure = error.into_failure();
    assert_eq!((failure.status_code, failure.error_message.as_str()), (430, "boom"));
    assert_eq!(failure.error_type.as_deref(), Some("errorString"));
    assert_eq!(failure.stack_trace, None);
}

#[test]
fn a_reply_to_another_call_breaks_the_connection() {
    let mut client = function(&[PING_REPLY, INVOKE_RESPONSE, INVOKE_REPLY_TYPES, HI]);
    client.ping().unwrap();
    client.invoke(&InvokeRequest::default(), Vec::new()).unwrap();
    let mut client = function(&[PING_REPLY, "12ff82010d46756e6374696f6e2e50696e6700", "03ff8400"]);
    client.ping().unwrap();
    let refused = client.invoke(&InvokeRequest::default(), Vec::new()).unwrap_err();
    assert!(matches!(refused, RpcError::Broken(_)), "{refused:?}");
}

#[test]
fn a_reply_that_is_too_large_is_skipped_and_the_next_is_read() {
    let len = 2 * BODY_BYTES_MAX + 1;
    let mut sent: Vec<u8> = [PING_REPLY, INVOKE_RESPONSE, INVOKE_REPLY_TYPES]
        .iter()
        .flat_map(|hex| bytes(hex))
        .collect();
    uint(&mut sent, u64::try_from(len).unwrap());
    sent.resize(sent.len() + len, 7);
    sent.extend(bytes("16ff82010f46756e6374696f6e2e496e766f6b65010200"));
    sent.extend(bytes(HI));
    let mut client = RpcClient::new(ScriptedFunction(io::Cursor::new(sent)));
    client.ping().unwrap();
    let refused = client.invoke(&InvokeRequest::default(), Vec::new()).unwrap_err();
    assert!(matches!(refused, RpcError::TooLarge), "{refused:?}");
    assert_eq!(client.invoke(&InvokeRequest::default(), Vec::new()).unwrap().payload, br#""hi v""#);
}

#[test]
fn a_connection_that_ends_is_an_error_of_the_connection() {
    let whole = [PING_REPLY, INVOKE_RESPONSE, INVOKE_REPLY_TYPES, HI].concat();
    let whole = bytes(&whole);
    for len in 0..whole.len() {
        let mut client = RpcClient::new(ScriptedFunction(io::Cursor::new(whole[..len].to_vec())));
        let replied =
            client.ping().and_then(|()| client.invoke(&InvokeRequest::default(), Vec::new()));
        assert!(matches!(replied, Err(RpcError::Io(_))), "after {len} bytes: {replied:?}");
    }
}

fn read_numbers(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn numbers_are_written_as_the_documentation_of_gob_says() {
    assert_eq!(read_numbers(|out| uint(out, 0)), [0]);
    assert_eq!(read_numbers(|out| uint(out, 7)), [7]);
    assert_eq!(read_numbers(|out| uint(out, 256)), [0xfe, 1, 0]);
    assert_eq!(read_numbers(|out| int(out, -129)), [0xfe, 1, 1]);
}

/// Hostile input: a list of lists of lists, each a byte.
#[test]
fn what_is_too_deep_or_too_much_is_refused() {
    let mut types = GobTypes::new();
    types.defined.insert(65, GobType::List { element: 65 });
    let mut deep = Vec::new();
    int(&mut deep, 65);
    deep.push(0);
    deep.extend([1; 10_000]);
    assert_eq!(types.read(&deep).unwrap_err(), GobError::TooMuch);
    types.defined.insert(66, GobType::List { element: id::BOOL });
    let mut many = Vec::new();
    int(&mut many, 66);
    many.push(0);
    uint(&mut many, 200_000);
    many.resize(many.len() + 200_000, 0);
    assert_eq!(types.read(&many).unwrap_err(), GobError::TooMuch);
}

#[test]
fn a_type_is_defined_once() {
    let mut types = GobTypes::new();
    let mut message = Vec::new();
    define(&mut message, &REQUEST_TYPE);
    assert!(matches!(types.read(&message[1..]), Ok(GobMessage::Defined)));
    assert_eq!(types.read(&message[1..]).unwrap_err(), GobError::Definition);
}

proptest! {
    #[test]
    fn numbers_survive(value: u64, signed: i64) {
        let unsigned = read_numbers(|out| uint(out, value));
        prop_assert_eq!(GobReader { rest: &unsigned }.uint(), Ok(value));
        let with_sign = read_numbers(|out| int(out, signed));
        prop_assert_eq!(GobReader { rest: &with_sign }.int(), Ok(signed));
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..5)
    ) {
        let mut types = GobTypes::new();
        for message in messages {
            if types.read(&message).is_err() {
                break;
            }
        }
    }

    /// Near misses go deeper than noise does.
    #[test]
    fn a_captured_stream_with_a_few_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut sent = bytes(&[PING_REPLY, INVOKE_RESPONSE, INVOKE_REPLY_TYPES, HI].concat());
        for (index, byte) in changes {
            let index = index.index(sent.len());
            sent[index] = byte;
        }
        let mut client = RpcClient::new(ScriptedFunction(io::Cursor::new(sent)));
        let _ = client.ping().and_then(|()| client.invoke(&InvokeRequest::default(), Vec::new()));
    }
}
