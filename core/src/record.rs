//! What is kept and shown of invocations: states, records, log lines.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::event::FunctionCaller;
use crate::function::FunctionId;
use crate::id::{NodeId, RequestId};
use crate::name::{Qualifier, TriggerName};
use crate::outcome::{Failure, StatusCode};

/// How far an invocation has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvocationState {
    /// Accepted, no attempt yet.
    Queued,
    /// An attempt runs.
    Running,
    /// An attempt failed and another is due.
    Retrying,
    /// Ended: the function returned.
    Succeeded,
    /// Ended: attempts used up, or it could not be run.
    Failed,
    /// Ended: it was too old to be run.
    Expired,
    /// Ended by a cancellation.
    Cancelled,
}

/// One attempt to run an invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the attempt, counted from 1.
    pub number: u32,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// `None` while it runs, or if its node died.
    pub ended_at: Option<Timestamp>,
    /// `None` while it runs, or if its node died.
    pub status: Option<StatusCode>,
    /// The node that it ran on.
    pub node: Option<NodeId>,
    /// Whether a sandbox was started for it.
    pub cold: bool,
}

/// The state of a queued invocation, kept beside its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct AsyncState {
    /// Id of the invocation, the same in all attempts.
    pub request_id: RequestId,
    /// The function that is called.
    pub function: FunctionId,
    /// The version that was called: `$LATEST` or a number.
    pub version: Qualifier,
    /// The trigger that started it; `None` for a direct call.
    pub trigger: Option<TriggerName>,
    /// How far it has got.
    pub state: InvocationState,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// JSON text of the return value, if it succeeded.
    pub result: Option<String>,
    /// Why it failed, if it did.
    pub error: Option<Failure>,
    /// The invocation that it runs again.
    pub rerun_of: Option<RequestId>,
    /// The function that asked for it, if one did.
    pub called_by: Option<FunctionCaller>,
}

/// The record of one invocation's attempt that ran (or was refused), sync or async, for the
/// journal. Serialised there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvocationRecord {
    /// Id of the invocation, the same in all its attempts.
    pub request_id: RequestId,
    /// The function that was called.
    pub function: FunctionId,
    /// The version that was called: `$LATEST` or a number.
    pub version: Qualifier,
    /// The trigger that started it; `None` for a direct call.
    pub trigger: Option<TriggerName>,
    /// The function that asked for it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_by: Option<FunctionCaller>,
    /// From 1; always 1 for a synchronous call.
    pub attempt: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub status: StatusCode,
    /// Why it failed, if it did.
    pub error: Option<Failure>,
    /// Whether a sandbox was started for it.
    pub cold: bool,
    /// For a cold one: how long that took.
    pub init: Option<Duration>,
    /// For a cold one: the figures of its Init Report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// MiB: the function's limit.
    pub memory_mb: u32,
    /// Bytes: what it used, as sampled; 0 where unknown.
    pub memory_bytes: u64,
    /// The node that it ran on.
    pub node: Option<NodeId>,
    /// Whether this is the first entry of the attempt in the journal (no output before it).
    pub first: bool,
}

/// Output of a function, as captured: a batch of whole lines of one attempt, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogBatch {
    /// Id of the invocation; `None` for output that arrived while no event ran.
    pub request_id: Option<RequestId>,
    /// The function that wrote the lines.
    pub function: FunctionId,
    /// The version that was called: `$LATEST` or a number.
    pub version: Qualifier,
    /// When the first line was read.
    pub time: Timestamp,
    /// The lines, without their ends. Invalid UTF-8 has been replaced.
    pub lines: Vec<String>,
    /// Whether this is the first entry of the attempt in the journal.
    pub first: bool,
    /// With the first entry of a cold attempt: the figures of its Init Report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
}

/// How a sandbox came up: what the Init Report says (scf.md §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStart {
    /// From the order to start it until it was ready, or had failed.
    pub total: Duration,
    /// What that was made of; `None` where it did not come up.
    pub parts: Option<ColdStartParts>,
    /// MiB: the function's limit.
    pub memory_mb: u32,
    /// Bytes in use when it was ready; 0 where unknown.
    pub memory_bytes: u64,
    /// Whether a prewarmed sandbox became the sandbox; else it was started for the function.
    #[serde(default, alias = "from_stem")]
    pub from_prewarmed: bool,
}

/// The parts of a cold start, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStartParts {
    /// Until the code was on this node.
    pub code: Duration,
    /// Until the sandbox stood and its runtime had connected.
    pub runtime: Duration,
    /// Until the user's code was loaded.
    pub function: Duration,
}

/// A line of a log, for its reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When the platform read the line.
    pub time: Timestamp,
    /// Id of the invocation; `None` for output that arrived while no event ran.
    pub request_id: Option<RequestId>,
    /// Who wrote it.
    pub from: LogSource,
    /// The text, without its end.
    pub text: String,
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// The function, on stdout or stderr.
    Function,
    /// The platform: START, Init Report, ERROR, END, Report.
    Platform,
}

impl InvocationState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it will not change any more.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Retrying => false,
            Self::Succeeded | Self::Failed | Self::Expired | Self::Cancelled => true,
        }
    }
}
