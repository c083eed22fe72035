//! The messages of `net/rpc` and of the service `Function`, in gob.
//!
//! Go matches fields by name, so that these serve scf-go-lib, old and new, and aws-lambda-go.

use super::decode::GobValue;
use super::encode::{StructDefinition, StructFieldWriter, id, int, message, uint};
use crate::shim::invocation_response::clipped;
use crate::wire::{RuntimeFailure, status};

const REQUEST: i64 = 65;
const PING_REQUEST: i64 = 66;
const INVOKE_REQUEST: i64 = 67;
const TIMESTAMP: i64 = 68;

/// The type of the request header of every call.
pub(super) const REQUEST_TYPE: StructDefinition = StructDefinition {
    id: REQUEST,
    name: "Request",
    fields: &[("ServiceMethod", id::STRING), ("Seq", id::UINT)],
};

pub(super) const PING_TYPE: StructDefinition =
    StructDefinition { id: PING_REQUEST, name: "PingRequest", fields: &[] };

pub(super) const INVOKE_TYPE: StructDefinition = StructDefinition {
    id: INVOKE_REQUEST,
    name: "InvokeRequest",
    fields: &[
        ("Payload", id::BYTES),
        ("RequestId", id::STRING),
        ("TraceId", id::STRING),
        ("Deadline", TIMESTAMP),
        ("InvokedFunctionUnique", id::STRING),
        ("ClientContext", id::BYTES),
        ("Namespace", id::STRING),
        ("FunctionName", id::STRING),
        ("FunctionVersion", id::STRING),
        ("MemoryLimitInMb", id::INT),
        ("TimeLimitInMs", id::INT),
        ("Environment", id::STRING),
        ("TencentcloudRegion", id::STRING),
        ("TencentcloudAppID", id::STRING),
        ("TencentcloudUin", id::STRING),
        ("FunctionTrace", id::STRING),
    ],
};

pub(super) const TIMESTAMP_TYPE: StructDefinition = StructDefinition {
    id: TIMESTAMP,
    name: "InvokeRequest_Timestamp",
    fields: &[("Seconds", id::INT), ("Nanos", id::INT)],
};

/// A deadline as time since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RpcDeadline {
    pub(super) seconds: i64,
    pub(super) nanos: i64,
}

/// The argument of `Function.Invoke`, without the event's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InvokeRequest<'a> {
    pub(super) request_id: &'a str,
    /// Must be set, since it is the deadline of the handler's context.
    pub(super) deadline: RpcDeadline,
    pub(super) namespace: &'a str,
    pub(super) function_name: &'a str,
    pub(super) function_version: &'a str,
    pub(super) memory_limit_in_mb: u32,
    pub(super) time_limit_in_ms: u32,
    /// JSON object of strings.
    pub(super) environment: &'a str,
    pub(super) region: &'a str,
    pub(super) app_id: &'a str,
    pub(super) uin: &'a str,
}

/// Writes the request header of a call.
pub(super) fn write_request(out: &mut Vec<u8>, method: &str, sequence: u64) {
    message(out, |out| {
        int(out, REQUEST);
        let mut fields = StructFieldWriter::new(out);
        fields.text(1, method);
        fields.uint(2, sequence);
        fields.end();
    });
}

/// The argument of `Function.Ping`.
pub(super) fn write_ping(out: &mut Vec<u8>) {
    message(out, |out| {
        int(out, PING_REQUEST);
        StructFieldWriter::new(out).end();
    });
}

/// The encoded argument of `Function.Invoke`: the parts before and after the event's bytes, so that
/// a large event is not copied.
pub(super) fn split_invoke(request: &InvokeRequest<'_>, payload_len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut before = Vec::new();
    int(&mut before, INVOKE_REQUEST);
    let mut after = Vec::new();
    let mut fields = StructFieldWriter::new(&mut after);
    if payload_len != 0 {
        // Field 1 and its length.
        before.push(1);
        uint(&mut before, u64::try_from(payload_len).unwrap_or(u64::MAX));
        fields = fields.after(1);
    }
    fields.text(2, request.request_id);
    let RpcDeadline { seconds, nanos } = request.deadline;
    if seconds != 0 || nanos != 0 {
        fields.nested(4, |time| {
            time.int(1, seconds);
            time.int(2, nanos);
        });
    }
    fields.text(7, request.namespace);
    fields.text(8, request.function_name);
    fields.text(9, request.function_version);
    fields.int(10, i64::from(request.memory_limit_in_mb));
    fields.int(11, i64::from(request.time_limit_in_ms));
    fields.text(12, request.environment);
    fields.text(13, request.region);
    fields.text(14, request.app_id);
    fields.text(15, request.uin);
    fields.end();
    let len = before.len() + payload_len + after.len();
    let mut whole = Vec::with_capacity(before.len() + 9);
    uint(&mut whole, u64::try_from(len).unwrap_or(u64::MAX));
    whole.append(&mut before);
    (whole, after)
}

/// The response header of every call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RpcResponse {
    pub(super) sequence: u64,
    /// Empty if the method was called.
    pub(super) error: String,
}

impl RpcResponse {
    pub(super) fn from_value(value: &GobValue<'_>) -> Self {
        let sequence = value.field("Seq").and_then(GobValue::as_uint).unwrap_or(0);
        Self { sequence, error: value.text("Error") }
    }
}

/// The reply of `Function.Invoke`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InvokeReply {
    pub(super) payload: Vec<u8>,
    pub(super) error: Option<InvokeReplyError>,
}

/// The error that the handler returned or panicked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InvokeReplyError {
    message: String,
    kind: String,
    /// Two lines for each frame, as Go prints it.
    stack: String,
    pub(super) should_exit: bool,
}

impl InvokeReply {
    pub(super) fn from_value(value: &GobValue<'_>) -> Self {
        let payload = value.field("Payload").and_then(GobValue::as_bytes).unwrap_or_default();
        let error = value.field("Error").map(InvokeReplyError::from_value);
        Self { payload: payload.to_vec(), error }
    }
}

impl InvokeReplyError {
    fn from_value(value: &GobValue<'_>) -> Self {
        let frames = value.field("StackTrace").map(GobValue::items).unwrap_or_default();
        let stack: Vec<_> = frames.iter().map(stack_line).collect();
        Self {
            message: value.text("Message"),
            kind: value.text("Type"),
            stack: stack.join("\n"),
            should_exit: value.field("ShouldExit").is_some_and(GobValue::is_true),
        }
    }

    pub(super) fn into_failure(self) -> RuntimeFailure {
        let some = |text: String| Some(clipped(text)).filter(|text| !text.is_empty());
        RuntimeFailure {
            error_type: some(self.kind),
            stack_trace: some(self.stack),
            ..RuntimeFailure::new(status::USER_ERROR, clipped(self.message))
        }
    }
}

/// A stack frame as Go prints it.
fn stack_line(frame: &GobValue<'_>) -> String {
    let line = frame.field("Line").and_then(GobValue::as_int).unwrap_or(0);
    format!("{}\n\t{}:{line}", frame.text("Label"), frame.text("Path"))
}
