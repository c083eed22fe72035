//! Names and values of our own headers.

use hanshu_core::RequestId;
use http::{HeaderName, HeaderValue};

/// On every answer: which request it was.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// On every outcome: `none`, `function` or `platform`.
pub(crate) const FAULT: HeaderName = HeaderName::from_static("x-fault");
/// Milliseconds that the function ran, with three decimals.
pub(crate) const DURATION: HeaderName = HeaderName::from_static("x-hanshu-duration-ms");
/// `true` where a sandbox was started for the call.
pub(crate) const COLD: HeaderName = HeaderName::from_static("x-hanshu-cold");
/// In a request: `tail` asks for the end of the log.
pub(crate) const LOG: HeaderName = HeaderName::from_static("x-hanshu-log");
/// In an answer: the end of the log, base64, at most 4 KB before encoding.
pub(crate) const LOG_RESULT: HeaderName = HeaderName::from_static("x-hanshu-log-result");

/// A request id as a header's value.
pub(crate) fn id_value(request_id: RequestId) -> HeaderValue {
    let mut buffer = [0; 36];
    HeaderValue::from_str(request_id.encode(&mut buffer))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}
