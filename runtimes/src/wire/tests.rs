//! Frames survive their bytes; no bytes panic.

use proptest::prelude::*;

use super::*;

const KINDS: [FrameKind; 11] = [
    FrameKind::Hello,
    FrameKind::Start,
    FrameKind::Exited,
    FrameKind::Kill,
    FrameKind::Term,
    FrameKind::Init,
    FrameKind::Ready,
    FrameKind::InitFailed,
    FrameKind::Invoke,
    FrameKind::Result,
    FrameKind::Failed,
];

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop::sample::select(KINDS.as_slice())
}

proptest! {
    #[test]
    fn a_header_survives_the_wire(
        kind in kinds(), event: u64, flags: u8, len in 0..=BODY_BYTES_MAX
    ) {
        let header = FrameHeader { flags, ..FrameHeader::new(kind, event, len).unwrap() };
        prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        prop_assert_eq!(header.body_len(), len);
    }

    #[test]
    fn any_sixteen_bytes_are_a_header_or_refused(bytes: [u8; HEADER_LEN]) {
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert!(header.body_len() <= BODY_BYTES_MAX);
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_on_both_sides(over in 1u32..1_000_000) {
        let len = u32::try_from(BODY_BYTES_MAX).unwrap() + over;
        let refused = Err(FrameError::BodyTooLong(len));
        prop_assert_eq!(FrameHeader::new(FrameKind::Result, 1, usize::try_from(len).unwrap()), refused);
        let mut bytes = FrameHeader::new(FrameKind::Result, 1, 0).unwrap().encode();
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        prop_assert_eq!(FrameHeader::decode(&bytes), refused);
    }

    #[test]
    fn the_head_of_an_event_survives_the_wire(
        remaining_ms: u32, origin in 0u8..4, id in "[!-~]{36}"
    ) {
        let mut bytes = [0; INVOKE_HEAD_LEN];
        bytes[..4].copy_from_slice(&remaining_ms.to_le_bytes());
        bytes[4] = origin;
        bytes[5..].copy_from_slice(id.as_bytes());
        let head = InvokeHead::decode(&bytes).unwrap();
        prop_assert_eq!(head.remaining_ms, remaining_ms);
        prop_assert_eq!(head.origin, EventOrigin::from_number(origin).unwrap());
        prop_assert_eq!(head.request_id(), id);
        prop_assert_eq!(head.encode(), bytes);
    }

    #[test]
    fn any_head_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), INVOKE_HEAD_LEN)) {
        let bytes: [u8; INVOKE_HEAD_LEN] = bytes.try_into().unwrap();
        if let Ok(head) = InvokeHead::decode(&bytes) {
            prop_assert_eq!(head.encode(), bytes);
        }
    }
}

/// The bytes of PROTOCOL.md, written out by hand: a change here is a change of the protocol.
#[test]
fn a_header_is_laid_out_as_the_protocol_says() {
    let header =
        FrameHeader::new(FrameKind::Invoke, 0x0807_0605_0403_0201, 0x0001_0203).unwrap().last();
    assert_eq!(header.encode(), [3, 2, 1, 0, 32, 1, 41, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(header.is_last());
}

#[test]
fn a_head_of_another_length_is_refused() {
    let mut bytes = FrameHeader::new(FrameKind::Result, 1, 0).unwrap().encode();
    bytes[6] = 41;
    let refused = FrameError::HeadLength { kind: FrameKind::Result, found: 41 };
    assert_eq!(FrameHeader::decode(&bytes), Err(refused));
}

#[test]
fn a_start_is_the_json_of_the_protocol() {
    let text = r#"{"adapter":"direct","argv":["/usr/bin/python3"],"env":{"K":"V"},"cwd":"/var/user",
        "handler":"index.main","functionName":"f","functionVersion":"$LATEST","namespace":"default",
        "memoryMb":128,"timeoutMs":3000,"initTimeoutMs":65000,"userEnv":{"K":"V"},"port":28902}"#;
    let start: StartMessage = serde_json::from_str(text).unwrap();
    assert_eq!(start.init.adapter, RuntimeAdapter::Direct);
    let whole = serde_json::to_value(&start).unwrap();
    assert_eq!(whole, serde_json::from_str::<serde_json::Value>(text).unwrap());
    let init = serde_json::to_value(&start.init).unwrap();
    assert_eq!(init.as_object().unwrap().len(), whole.as_object().unwrap().len() - 2);
}

#[test]
fn what_is_not_known_of_an_end_is_left_out() {
    let exited = ExitedMessage { code: Some(3), ..ExitedMessage::default() };
    assert_eq!(serde_json::to_string(&exited).unwrap(), r#"{"code":3}"#);
    let failure = RuntimeFailure::new(status::USER_ERROR, "no");
    assert_eq!(
        serde_json::to_string(&failure).unwrap(),
        r#"{"statusCode":430,"errorCode":1,"errorMessage":"no"}"#
    );
    let exited: ExitedMessage = serde_json::from_str(r#"{"signal":9,"oomKilled":true}"#).unwrap();
    assert_eq!((exited.signal, exited.oom_killed), (Some(9), Some(true)));
}
