//! One event on its way through one revision.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::function::Revision;
use crate::id::RequestId;

/// One event on its way through one revision of a function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Kept over retries.
    pub request_id: RequestId,
    /// What runs.
    pub function: Arc<Revision>,
    /// What it is given.
    pub event: Event,
    /// Who waits for the answer.
    pub mode: InvocationMode,
}

/// Who waits for an invocation's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvocationMode {
    /// A caller, who may stand in line for a sandbox at most `wait_timeout`, then is refused.
    Sync {
        /// The longest wait for a sandbox.
        wait_timeout: Duration,
        /// Whether the caller wants the tail of the log in the report.
        tail: bool,
    },
    /// Nobody: a queued event's attempt, counted from 1.
    Async {
        /// The attempt's number, from 1.
        attempt: u32,
    },
}
