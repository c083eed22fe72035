//! The messages between nodes: the length of a JSON head, the head, then bytes as they are.
//!
//! `head_length: u32 big endian | head: JSON | payload`. The payload is not parsed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hanshu_core::ports::PackageError;
use hanshu_core::{
    Digest, Event, Failure, FunctionConfig, FunctionId, Invocation, InvocationMode, Origin,
    Outcome, Qualifier, Refusal, Report, RequestId, Revision, Verdict,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest head: a configuration with 4 KB of variables, names and texts is far below.
pub(crate) const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Path of a request that runs an invocation.
pub(crate) const INVOCATIONS_PATH: &str = "/internal/v1/invocations";

/// The route of [`cancel_path`].
pub(crate) const CANCEL_ROUTE: &str = "/internal/v1/invocations/{id}/cancel";

/// Where the cancellation of an invocation goes.
pub(crate) fn cancel_path(request_id: RequestId) -> String {
    format!("{INVOCATIONS_PATH}/{request_id}/cancel")
}

#[derive(Serialize, Deserialize)]
struct InvocationHead {
    request_id: RequestId,
    function: FunctionId,
    version: Qualifier,
    digest: Digest,
    code: Digest,
    config: FunctionConfig,
    origin: Origin,
    mode: ModeHead,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ModeHead {
    Sync { wait_timeout: Duration, tail: bool },
    Async { attempt: u32 },
}

#[derive(Serialize, Deserialize)]
struct OutcomeHead {
    verdict: VerdictHead,
    report: Report,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VerdictHead {
    Returned,
    Failed(Failure),
    Refused(Refusal),
}

/// A line of an image build's answer; the last is `Done` or `Failed`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImageBuildLine {
    Progress(String),
    Done,
    Failed(String),
}

/// Why a package was not taken or given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PackageFault {
    Refused(String),
    Digest { expected: Digest, actual: Digest },
    Missing(Digest),
    Io(String),
}

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a message between nodes cannot be read: {0}; do all nodes run the same version?")]
pub(crate) struct MessageError(String);

pub(crate) fn encode_call(invocation: &Invocation) -> Result<Bytes, MessageError> {
    let Invocation { request_id, function, event, mode } = invocation;
    let head = InvocationHead {
        request_id: *request_id,
        function: function.function.clone(),
        version: function.version,
        digest: function.digest.clone(),
        code: function.code.clone(),
        config: function.config.clone(),
        origin: event.origin.clone(),
        mode: match *mode {
            InvocationMode::Sync { wait_timeout, tail } => ModeHead::Sync { wait_timeout, tail },
            InvocationMode::Async { attempt } => ModeHead::Async { attempt },
        },
    };
    join(&head, &event.payload)
}

pub(crate) fn decode_call(message: Bytes) -> Result<Invocation, MessageError> {
    let (head, payload) = split::<InvocationHead>(message)?;
    let InvocationHead { request_id, function, version, digest, code, config, origin, mode } = head;
    Ok(Invocation {
        request_id,
        function: Arc::new(Revision { function, version, digest, code, config }),
        event: Event { origin, payload },
        mode: match mode {
            ModeHead::Sync { wait_timeout, tail } => InvocationMode::Sync { wait_timeout, tail },
            ModeHead::Async { attempt } => InvocationMode::Async { attempt },
        },
    })
}

pub(crate) fn encode_outcome(outcome: Outcome) -> Result<Bytes, MessageError> {
    let (verdict, payload) = match outcome.verdict {
        Verdict::Returned(payload) => (VerdictHead::Returned, payload),
        Verdict::Failed(failure) => (VerdictHead::Failed(failure), Bytes::new()),
        Verdict::Refused(refusal) => (VerdictHead::Refused(refusal), Bytes::new()),
    };
    join(&OutcomeHead { verdict, report: outcome.report }, &payload)
}

pub(crate) fn decode_outcome(message: Bytes) -> Result<Outcome, MessageError> {
    let (head, payload) = split::<OutcomeHead>(message)?;
    let verdict = match head.verdict {
        VerdictHead::Returned => Verdict::Returned(payload),
        VerdictHead::Failed(failure) => Verdict::Failed(failure),
        VerdictHead::Refused(refusal) => Verdict::Refused(refusal),
    };
    Ok(Outcome { verdict, report: head.report })
}

fn join(head: &impl Serialize, payload: &[u8]) -> Result<Bytes, MessageError> {
    let head = serde_json::to_vec(head).map_err(|error| MessageError(error.to_string()))?;
    let length = u32::try_from(head.len()).map_err(|error| MessageError(error.to_string()))?;
    let mut message = BytesMut::with_capacity(4 + head.len() + payload.len());
    message.put_u32(length);
    message.put_slice(&head);
    message.put_slice(payload);
    Ok(message.freeze())
}

fn split<H: DeserializeOwned>(mut message: Bytes) -> Result<(H, Bytes), MessageError> {
    let short = || MessageError("it is cut off".into());
    if message.len() < 4 {
        return Err(short());
    }
    let length = message.get_u32() as usize;
    if HEAD_BYTES_MAX < length {
        return Err(MessageError(format!("its head has {length} bytes")));
    }
    if message.len() < length {
        return Err(short());
    }
    let head = message.split_to(length);
    let head = serde_json::from_slice(&head).map_err(|error| MessageError(error.to_string()))?;
    Ok((head, message))
}

impl From<PackageError> for PackageFault {
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::Refused(reason) => Self::Refused(reason),
            PackageError::Digest { expected, actual } => Self::Digest { expected, actual },
            PackageError::Missing(digest) => Self::Missing(digest),
            PackageError::Io(reason) => Self::Io(reason),
        }
    }
}

impl From<PackageFault> for PackageError {
    fn from(fault: PackageFault) -> Self {
        match fault {
            PackageFault::Refused(reason) => Self::Refused(reason),
            PackageFault::Digest { expected, actual } => Self::Digest { expected, actual },
            PackageFault::Missing(digest) => Self::Missing(digest),
            PackageFault::Io(reason) => Self::Io(reason),
        }
    }
}
