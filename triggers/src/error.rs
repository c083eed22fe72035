//! Why an event was not taken in.

use hanshu_core::ErrorKind;
use hanshu_core::ports::{CatalogError, QueueError};

/// An event was not taken in. (How one that was taken in ended is an outcome, never an error.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The event is not JSON.
    #[error("the event is not valid JSON: {reason}")]
    InvalidJson {
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The event is larger than its way in allows.
    #[error("the event has {bytes} bytes, more than the {bytes_max} that {way} call may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
        /// `a synchronous` or `an asynchronous`.
        way: &'static str,
    },
    /// No such function or version.
    #[error("{0}")]
    Function(#[from] CatalogError),
    /// The queue is full, or away.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// Only timers can be fired.
    #[error("trigger `{0}` is not a timer: only timers can be fired")]
    NotATimer(String),
    /// The check of a large event was cut off: the process stops.
    #[error("the server is stopping")]
    Stopping,
}

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidJson { .. } | Self::TooLarge { .. } | Self::NotATimer(_) => {
                ErrorKind::Invalid
            }
            Self::Function(CatalogError::NoFunction(_) | CatalogError::NoVersion(..)) => {
                ErrorKind::NotFound
            }
            Self::Function(CatalogError::Unavailable) | Self::Stopping => ErrorKind::Unavailable,
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
            Self::NotATimer(_) => "not_a_timer",
            Self::Stopping => "stopping",
        }
    }
}
