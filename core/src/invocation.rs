//! One event on its way through one revision.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::function::Revision;
use crate::id::RequestId;

/// One event on its way through one revision of a function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The same in every attempt of an event.
    pub request_id: RequestId,
    /// The revision to run, with its function.
    pub function: Arc<Revision>,
    /// The event that the function is called with.
    pub event: Event,
    /// Whether a caller waits for the answer.
    pub mode: InvocationMode,
}

/// Whether a caller waits for an invocation's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvocationMode {
    /// A caller waits. The call may be in the wait queue for `wait_timeout`, then it is refused.
    Sync {
        /// The longest wait for a sandbox.
        wait_timeout: Duration,
        /// Whether the caller wants the tail of the log in the report.
        tail: bool,
    },
    /// No caller waits: this is an attempt of a queued event.
    Async {
        /// The attempt's number, from 1.
        attempt: u32,
    },
}
