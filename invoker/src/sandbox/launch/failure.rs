//! Verdicts on sandboxes that did not come up, and failures of runtimes as callers see them.

use hanshu_core::{Failure, InstanceId, Refusal, Revision, RuntimeProfile, StatusCode, Verdict};
use hanshu_runtimes::wire::{self, ExitedMessage};

use super::handshake::StartupError;
use crate::backend::port::{Sandbox, StartError};
use crate::sandbox::control::SandboxEnd;
use crate::sandbox::instance::ran_out_of_memory;

/// Bytes of a failure's message, of its type and of its stack each: more than the bootstraps send,
/// which keep 65,536 characters.
const FAILURE_TEXT_BYTES_MAX: usize = 4 * 65_536 + 256;

/// The verdict that the platform could not provide the sandbox.
pub(super) fn refuse(reason: String) -> Verdict {
    Verdict::Refused(Refusal::Sandbox { reason })
}

/// The verdict on a sandbox that its backend did not start.
pub(super) fn start_refused(error: &StartError, instance: InstanceId) -> Verdict {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match error {
        // Logged once where it was found out.
        StartError::Unavailable(_) => tracing::debug!(%error, source, %instance, "No sandbox"),
        _ => tracing::warn!(%error, source, %instance, "Could not start a sandbox"),
    }
    refuse(error.to_string())
}

/// The verdict on a runtime that did not become ready: the function's fault or the platform's.
pub(super) fn verdict_of(
    error: StartupError,
    revision: &Revision,
    sandbox: &dyn Sandbox,
    instance: InstanceId,
) -> Verdict {
    let config = &revision.config;
    match error {
        StartupError::InitFailed(failure) => Verdict::Failed(to_failure(failure)),
        StartupError::TimedOut => Verdict::Failed(Failure::seen(
            StatusCode::InitTimeout,
            format!("Initialization timed out after {} seconds", config.init_timeout.as_secs()),
        )),
        StartupError::Ended(end) if ran_out_of_memory(end.as_ref(), sandbox) => {
            Verdict::Failed(out_of_memory(config.memory_mb))
        }
        StartupError::Ended(Some(SandboxEnd::Exited(exited))) => {
            exited_while_loading(&exited, config.runtime.family().profile())
        }
        StartupError::Ended(Some(SandboxEnd::Lost) | None) => {
            tracing::warn!(%instance, "A sandbox ended before it was ready");
            refuse("it ended before it was ready".into())
        }
        StartupError::Broken(reason) => {
            tracing::warn!(%instance, reason, "A sandbox did not come up");
            refuse(reason)
        }
    }
}

fn exited_while_loading(exited: &ExitedMessage, runtime: &RuntimeProfile) -> Verdict {
    match &exited.error {
        Some(error) if runtime.runs_package_program() => {
            Verdict::Failed(Failure::seen(StatusCode::HandlerNotFound, error.clone()))
        }
        // The interpreter is missing or cannot be run, which is the node's fault.
        Some(error) => refuse(error.clone()),
        None => Verdict::Failed(Failure::seen(
            StatusCode::UserCodeError,
            format!("The process ended while the function was loaded ({})", exit_text(exited)),
        )),
    }
}

/// `exit status 3` or `signal 11`.
pub(crate) fn exit_text(exited: &ExitedMessage) -> String {
    match (exited.signal, exited.code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "reason unknown".into(),
    }
}

/// SCF's failure for lack of memory.
pub(crate) fn out_of_memory(memory_mb: u32) -> Failure {
    Failure::seen(StatusCode::MemoryLimitReached, format!("Task memory exceeded {memory_mb} MB"))
}

/// A runtime's failure as callers see it. It is stored and shown, so its texts are limited, and it
/// cannot claim a status that only the platform may give.
pub(crate) fn to_failure(failure: wire::RuntimeFailure) -> Failure {
    Failure {
        status_code: status_of(failure.status_code),
        error_code: failure.error_code,
        error_message: limited(failure.error_message),
        error_type: failure.error_type.map(limited),
        stack_trace: failure.stack_trace.map(limited),
    }
}

/// The status codes that a runtime may report. Any other code, a success or an error of the platform,
/// is a mistake of the runtime, and counts as one of the user's code.
fn status_of(number: u16) -> StatusCode {
    match number {
        wire::status::ANSWER_TOO_LARGE => StatusCode::ResponseTooLarge,
        wire::status::OUT_OF_MEMORY => StatusCode::MemoryLimitReached,
        wire::status::HANDLER_NOT_FOUND => StatusCode::HandlerNotFound,
        wire::status::PROCESS_EXITED => StatusCode::ProcessExit,
        wire::status::CODE_ERROR => StatusCode::UserCodeError,
        wire::status::INIT_TIMED_OUT => StatusCode::InitTimeout,
        _ => StatusCode::UserException,
    }
}

/// A failure's text, cut to [`FAILURE_TEXT_BYTES_MAX`].
fn limited(mut text: String) -> String {
    let end = (0..=FAILURE_TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    if FAILURE_TEXT_BYTES_MAX < text.len() {
        text.truncate(end.unwrap_or(0));
        text.push_str("\n… cut");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(status_code: u16, message: String) -> Failure {
        to_failure(wire::RuntimeFailure::new(status_code, message))
    }

    #[test]
    fn a_runtime_cannot_report_a_status_of_the_platform() {
        let code = |number| received(number, String::new()).status_code.number();
        assert_eq!([200, 432, 433, 435, 445, 449, 499, 500, 7].map(code), [430; 9]);
        let its_own = [407, 430, 434, 437, 439, 443, 446];
        assert_eq!(its_own.map(code), its_own);
    }

    #[test]
    fn a_failures_text_is_kept_up_to_its_limit() {
        let most = "x".repeat(FAILURE_TEXT_BYTES_MAX);
        assert_eq!(received(430, most.clone()).error_message, most);
        // Three bytes each, so that the limit is inside of one.
        let cut = received(430, "\u{20ac}".repeat(FAILURE_TEXT_BYTES_MAX)).error_message;
        assert!(cut.ends_with("\u{20ac}\n… cut") && cut.len() < FAILURE_TEXT_BYTES_MAX + 10);
    }
}
