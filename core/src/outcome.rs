//! How an invocation ended. There is exactly one outcome, and no error beside it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{NodeId, RequestId};

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The function's answer, or what failed and whose fault it is.
    pub verdict: Verdict,
    /// Time and memory that it used, and its log.
    pub report: Report,
}

/// Whether the function returned, failed, or was not run by the platform.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The function returned this JSON.
    Returned(Bytes),
    /// The function is at fault. This is billed and counts as an attempt.
    Failed(Failure),
    /// The platform is at fault. This is not billed and does not count as an attempt.
    Refused(Refusal),
}

/// What the function did wrong. The shape callers see, `requestId` aside (scf.md §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The kind of failure.
    pub status_code: StatusCode,
    /// 1 for what user code raised, −1 for what the platform saw.
    pub error_code: i32,
    /// The error's message, as a person reads it; not to be parsed.
    pub error_message: String,
    /// The error's type, where the language has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The language's stack, the platform's own frames removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
}

/// Why the platform did not, or could not, run the event to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Refusal {
    /// The function's concurrency is used up, and so is the caller's time in the wait queue.
    Concurrency {
        /// The function's limit, or what the node allowed.
        limit: u32,
    },
    /// The node has no room for another sandbox, and the caller's time in the wait queue is used up.
    Capacity {
        /// What was missing.
        reason: String,
    },
    /// As many callers wait for the function as may.
    WaitQueueFull {
        /// Callers in the wait queue.
        waiting: u32,
    },
    /// A sandbox could not be started or was lost through no fault of the function.
    Sandbox {
        /// What went wrong, fit for a caller.
        reason: String,
    },
    /// The function (or that revision of it) is gone.
    Gone {
        /// What was looked for.
        what: String,
    },
    /// This node is stopping, or no node takes invocations.
    Unavailable {
        /// What is unavailable, for the caller.
        reason: String,
    },
}

/// Time and memory that an invocation used, and the tail of its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When the sandbox was given the event, or when it was refused.
    pub started_at: Timestamp,
    /// From handing over the event to its answer.
    pub duration: Duration,
    /// Whether a sandbox was started for it.
    pub cold: bool,
    /// For a cold one: from the start of the sandbox to its readiness.
    pub init: Option<Duration>,
    /// Bytes, as last sampled from the sandbox's cgroup; 0 where unknown.
    pub memory_bytes: u64,
    /// Where it ran; `None` if nowhere.
    pub node: Option<NodeId>,
    /// The last [`crate::LOG_TAIL_BYTES_MAX`] bytes of its log, where asked for.
    pub log_tail: Option<String>,
}

/// SCF's invocation status codes (scf.md §3.1), those that we give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum StatusCode {
    /// 200: the function returned.
    Success,
    /// 407: the answer is over 6 MB.
    ResponseTooLarge,
    /// 430: user code raised.
    UserException,
    /// 432: concurrency used up.
    ResourceLimitReached,
    /// 433: out of time.
    TimeLimitReached,
    /// 434: out of memory.
    MemoryLimitReached,
    /// 435: the function is gone.
    FunctionNotFound,
    /// 437: no such handler file or function.
    HandlerNotFound,
    /// 439: the process ended in the middle of an event.
    ProcessExit,
    /// 443: user code cannot be loaded, or broke the runtime's rules.
    UserCodeError,
    /// 445: the sandbox could not be started.
    ContainerInitError,
    /// 446: not initialised in time.
    InitTimeout,
    /// 449: no capacity.
    InsufficientResources,
    /// 499: somebody cancelled the invocation.
    RequestCanceled,
    /// 500: the platform's fault.
    InternalError,
}

impl StatusCode {
    const TABLE: [(Self, u16); 15] = [
        (Self::Success, 200),
        (Self::ResponseTooLarge, 407),
        (Self::UserException, 430),
        (Self::ResourceLimitReached, 432),
        (Self::TimeLimitReached, 433),
        (Self::MemoryLimitReached, 434),
        (Self::FunctionNotFound, 435),
        (Self::HandlerNotFound, 437),
        (Self::ProcessExit, 439),
        (Self::UserCodeError, 443),
        (Self::ContainerInitError, 445),
        (Self::InitTimeout, 446),
        (Self::InsufficientResources, 449),
        (Self::RequestCanceled, 499),
        (Self::InternalError, 500),
    ];

    /// The number that SCF gives this status, such as 430.
    pub fn number(self) -> u16 {
        Self::TABLE.iter().find(|(code, _)| *code == self).map_or(500, |(_, number)| *number)
    }
}

impl From<StatusCode> for u16 {
    fn from(code: StatusCode) -> Self {
        code.number()
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Self::TABLE
            .iter()
            .find(|(_, known)| *known == number)
            .map(|(code, _)| *code)
            .ok_or_else(|| format!("`{number}` is not an invocation status code"))
    }
}

impl Outcome {
    /// The outcome of an invocation that was refused at `at` and never ran.
    pub fn refused(refusal: Refusal, at: Timestamp) -> Self {
        let report = Report {
            started_at: at,
            duration: Duration::ZERO,
            cold: false,
            init: None,
            memory_bytes: 0,
            node: None,
            log_tail: None,
        };
        Self { verdict: Verdict::Refused(refusal), report }
    }
}

impl Verdict {
    /// Whether it ended so because somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.status_code == StatusCode::RequestCanceled,
            Self::Returned(_) | Self::Refused(_) => false,
        }
    }

    /// SCF's code of it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Returned(_) => StatusCode::Success,
            Self::Failed(failure) => failure.status_code,
            Self::Refused(refusal) => refusal.status(),
        }
    }
}

impl Failure {
    /// A failure that the platform saw, rather than one that user code raised.
    pub fn seen(status_code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status_code,
            error_code: -1,
            error_message: message.into(),
            error_type: None,
            stack_trace: None,
        }
    }

    /// The failure of an invocation that was cancelled, before it ran or while it did.
    pub fn cancelled() -> Self {
        Self::seen(StatusCode::RequestCanceled, "the invocation was cancelled")
    }

    /// The body that callers see:
    /// `{"errorCode","errorMessage","errorType"?,"stackTrace"?,"requestId","statusCode"}`.
    pub fn body(&self, request_id: RequestId) -> serde_json::Value {
        let mut body = serde_json::json!({
            "errorCode": self.error_code,
            "errorMessage": self.error_message,
            "requestId": request_id,
            "statusCode": self.status_code.number(),
        });
        for (key, text) in [("errorType", &self.error_type), ("stackTrace", &self.stack_trace)] {
            if let (Some(text), Some(map)) = (text, body.as_object_mut()) {
                map.insert(key.into(), text.clone().into());
            }
        }
        body
    }
}

impl Refusal {
    /// The status code that SCF has for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Concurrency { .. } => StatusCode::ResourceLimitReached,
            Self::Capacity { .. } | Self::WaitQueueFull { .. } => StatusCode::InsufficientResources,
            Self::Sandbox { .. } => StatusCode::ContainerInitError,
            Self::Gone { .. } => StatusCode::FunctionNotFound,
            Self::Unavailable { .. } => StatusCode::InternalError,
        }
    }

    /// Whether it is for want of a free place: trying a little later may help.
    pub fn is_throttle(&self) -> bool {
        match self {
            Self::Concurrency { .. } | Self::Capacity { .. } | Self::WaitQueueFull { .. } => true,
            Self::Sandbox { .. } | Self::Gone { .. } | Self::Unavailable { .. } => false,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Concurrency { limit } => {
                write!(f, "the function already runs {limit} invocations at once, its limit")
            }
            Self::Capacity { reason } => write!(f, "no room for another sandbox: {reason}"),
            Self::WaitQueueFull { waiting } => {
                write!(f, "{waiting} calls already wait for this function")
            }
            Self::Sandbox { reason } => write!(f, "the sandbox failed: {reason}"),
            Self::Gone { what } => write!(f, "{what} does not exist any more"),
            Self::Unavailable { reason } => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_code_survives_its_number() {
        for (code, number) in StatusCode::TABLE {
            assert_eq!(u16::from(code), number);
            assert_eq!(StatusCode::try_from(number), Ok(code));
        }
        assert!(StatusCode::try_from(431).is_err());
    }
}
