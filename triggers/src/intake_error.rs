//! Why the intake refuses an event.

use hanshu_core::ports::{CatalogError, QueueError};
use hanshu_core::{CALL_DEPTH_MAX, ErrorKind, ForbiddenError};

/// The intake refused an event. (How an event that it took ended is an outcome, never an error.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// The payload is not JSON.
    #[error("the event is not valid JSON: {reason}")]
    InvalidJson {
        /// The parser's message, with line and column.
        reason: String,
    },
    /// The payload is larger than this kind of call allows.
    #[error("the event has {bytes} bytes, more than the {bytes_max} that {way} call may have")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// Limit for this kind of call.
        bytes_max: usize,
        /// `a synchronous` or `an asynchronous`.
        way: &'static str,
    },
    /// No such function or version.
    #[error("{0}")]
    Function(#[from] CatalogError),
    /// The queue is full or unavailable.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// The actor may not start this function.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenError),
    /// A function that was called through so many functions calls no other.
    #[error(
        "this call is the end of a chain of {CALL_DEPTH_MAX} calls from function to function: \
         longer ones are refused, since most of them never end"
    )]
    TooDeep,
    /// Only timers can be fired.
    #[error("trigger `{0}` is not a timer: only timers can be fired")]
    NotATimer(String),
    /// An invocation was not found, and not every node could be asked for it.
    #[error("the invocation was not found, and not every node could be asked")]
    NodesUnavailable,
    /// The process stops and did not finish the check of a large payload.
    #[error("the server is stopping")]
    Stopping,
}

impl IntakeError {
    /// The kind that decides the status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidJson { .. } | Self::TooLarge { .. } | Self::NotATimer(_) => {
                ErrorKind::Invalid
            }
            Self::Forbidden(_) | Self::TooDeep => ErrorKind::Forbidden,
            Self::Function(CatalogError::NoFunction(_) | CatalogError::NoVersion(..)) => {
                ErrorKind::NotFound
            }
            Self::Function(CatalogError::Unavailable) | Self::NodesUnavailable | Self::Stopping => {
                ErrorKind::Unavailable
            }
            Self::Queue(error) => error.kind(),
        }
    }

    /// A stable name for problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => "invalid_json",
            Self::TooLarge { .. } => "event_too_large",
            Self::Function(CatalogError::NoFunction(_)) => "function_not_found",
            Self::Function(CatalogError::NoVersion(..)) => "version_not_found",
            Self::Function(CatalogError::Unavailable) => "registry_unavailable",
            Self::Queue(QueueError::Full { .. }) => "queue_full",
            Self::Queue(QueueError::Unavailable(_)) => "queue_unavailable",
            Self::Queue(QueueError::Stale(_) | QueueError::Internal(_)) => "internal",
            Self::Forbidden(_) => "forbidden",
            Self::TooDeep => "call_too_deep",
            Self::NotATimer(_) => "not_a_timer",
            Self::NodesUnavailable => "nodes_unavailable",
            Self::Stopping => "stopping",
        }
    }
}
