//! The error for a stored event that cannot be read.

use std::fmt::Display;

use hanshu_core::ports::QueueError;

/// A part of an event cannot be read: which event's, and why.
pub(crate) fn unreadable(event: impl Display, reason: impl Display) -> QueueError {
    QueueError::Internal(
        format!("what is stored of event `{event}` cannot be read: {reason}").into(),
    )
}
