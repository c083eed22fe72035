//! The body of `INIT_FAILED` and `FAILED`, and its status codes.

use serde::{Deserialize, Serialize};

/// Status codes of a [`RuntimeFailure`], which are SCF's (scf.md §3.1).
pub mod status {
    /// The answer is over 6 MB.
    pub const ANSWER_TOO_LARGE: u16 = 407;
    /// User code raised.
    pub const USER_ERROR: u16 = 430;
    /// The memory limit was met.
    pub const OUT_OF_MEMORY: u16 = 434;
    /// The handler's file or function is missing.
    pub const HANDLER_NOT_FOUND: u16 = 437;
    /// The user's process ended in the middle of an event.
    pub const PROCESS_EXITED: u16 = 439;
    /// User code cannot be loaded, or broke the protocol.
    pub const CODE_ERROR: u16 = 443;
    /// The runtime was not ready in time.
    pub const INIT_TIMED_OUT: u16 = 446;
}

/// The body of `INIT_FAILED` and `FAILED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeFailure {
    /// One of [`status`].
    pub status_code: u16,
    /// 1: user code failed; -1: it was stopped.
    pub error_code: i32,
    /// What went wrong, for the function's author.
    pub error_message: String,
    /// The error's type in its own language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Where it went wrong, for the function's author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
}

impl RuntimeFailure {
    /// A failure of user code, with a message and no more.
    #[must_use]
    pub fn new(status_code: u16, message: impl Into<String>) -> Self {
        Self {
            status_code,
            error_code: 1,
            error_message: message.into(),
            error_type: None,
            stack_trace: None,
        }
    }
}
