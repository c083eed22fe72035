//! An adapter's response to an event: a return value, which must be JSON, or a failure.

use crate::wire::{BODY_BYTES_MAX, RuntimeFailure, status};

/// The most bytes of an error's message and of its stack. Escaped as JSON they still fit into a
/// frame.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// How an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InvocationResponse {
    /// JSON, at most [`BODY_BYTES_MAX`] bytes.
    Returned(Vec<u8>),
    /// The function failed.
    Failed(RuntimeFailure),
}

impl InvocationResponse {
    /// The output of a program: JSON as it is, empty as `null`, anything else as a JSON string.
    pub(super) fn from_output(bytes: Vec<u8>) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Self::Returned(b"null".to_vec());
        }
        let json = if is_json(&bytes) {
            bytes
        } else {
            serde_json::to_vec(&String::from_utf8_lossy(&bytes)).unwrap_or_default()
        };
        if BODY_BYTES_MAX < json.len() {
            return Self::too_large();
        }
        Self::Returned(json)
    }

    /// The failure for a return value over the limit.
    pub(super) fn too_large() -> Self {
        // The message that SCF and the other runtimes use.
        Self::failed(status::ANSWER_TOO_LARGE, "body size is too long")
    }

    /// A failure of user code, with a message only.
    pub(super) fn failed(status_code: u16, message: impl Into<String>) -> Self {
        Self::Failed(RuntimeFailure::new(status_code, clipped(message.into())))
    }

    /// The failure of a process that was killed.
    pub(super) fn ended(status_code: u16, message: impl Into<String>) -> Self {
        Self::Failed(RuntimeFailure { error_code: -1, ..RuntimeFailure::new(status_code, message) })
    }
}

/// Whether these bytes are one JSON text. Nothing is allocated, and depth uses no stack.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Cuts a text at [`TEXT_BYTES_MAX`].
pub(super) fn clipped(mut text: String) -> String {
    if TEXT_BYTES_MAX < text.len() {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str(" […]");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(output: &[u8], expected: &str) {
        let expected = InvocationResponse::Returned(expected.as_bytes().to_vec());
        assert_eq!(InvocationResponse::from_output(output.to_vec()), expected);
    }

    #[test]
    fn json_stays_as_it_is_and_the_rest_becomes_a_string() {
        check(b"{\"a\": [1, 2.50]}\n", "{\"a\": [1, 2.50]}\n");
        check(b"\"hi\"", "\"hi\"");
        check(b"hello\nyou\n", r#""hello\nyou\n""#);
        check(b"{\"a\":", r#""{\"a\":""#);
        check(b"1 2", r#""1 2""#);
        check(b"a\xffb", "\"a\u{fffd}b\"");
        check(b"\"a\xffb\"", "\"\\\"a\u{fffd}b\\\"\"");
        check(b" \n", "null");
        check(b"", "null");
    }

    #[test]
    fn deep_json_needs_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        check(deep.as_bytes(), &deep);
    }

    #[test]
    fn text_that_is_too_large_as_json_is_refused() {
        let quotes = vec![b'"'; BODY_BYTES_MAX / 2 + 1];
        assert_eq!(InvocationResponse::from_output(quotes), InvocationResponse::too_large());
        let exact = [b"\"".as_slice(), &vec![b'x'; BODY_BYTES_MAX - 2], b"\""].concat();
        assert_eq!(
            InvocationResponse::from_output(exact.clone()),
            InvocationResponse::Returned(exact)
        );
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let clipped = clipped("ü".repeat(TEXT_BYTES_MAX));
        assert!(clipped.len() <= TEXT_BYTES_MAX + 10);
        assert!(clipped.ends_with("ü […]"));
    }

    proptest! {
        #[test]
        fn every_output_becomes_json(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let InvocationResponse::Returned(json) = InvocationResponse::from_output(bytes) else { panic!("failed") };
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }
    }
}
