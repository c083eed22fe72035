//! Whose fault it is that a sandbox did not come up, and how failures are told.

use hanshu_core::{Failure, InstanceId, Refusal, Revision, RuntimeFamily, StatusCode, Verdict};
use hanshu_runtimes::wire::{self, ExitedMessage};

use super::handshake::StartupError;
use crate::backend::port::{Sandbox, StartError};
use crate::sandbox::control::SandboxEnd;
use crate::sandbox::instance::ran_out_of_memory;

/// Bytes of a failure's message, of its type, of its stack: more than our bootstraps let through,
/// which count 65,536 characters and cut in the middle.
const FAILURE_TEXT_BYTES_MAX: usize = 4 * 65_536 + 256;

pub(super) fn refused(reason: String) -> Verdict {
    Verdict::Refused(Refusal::Sandbox { reason })
}

pub(super) fn start_error(error: &StartError, instance: InstanceId) -> Verdict {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match error {
        // Who found that out has told of it once.
        StartError::Unavailable(_) => tracing::debug!(%error, source, %instance, "No sandbox"),
        _ => tracing::warn!(%error, source, %instance, "Could not start a sandbox"),
    }
    refused(error.to_string())
}

/// Whose fault it is that a runtime did not come up.
pub(super) fn verdict_of(
    hitch: StartupError,
    revision: &Revision,
    sandbox: &dyn Sandbox,
    instance: InstanceId,
) -> Verdict {
    let config = &revision.config;
    match hitch {
        StartupError::InitFailed(failure) => Verdict::Failed(failure_of(failure)),
        StartupError::TimedOut => Verdict::Failed(Failure::seen(
            StatusCode::InitTimeout,
            format!("Initialization timed out after {} seconds", config.init_timeout.as_secs()),
        )),
        StartupError::Ended(end) if ran_out_of_memory(end.as_ref(), sandbox) => {
            Verdict::Failed(out_of_memory(config.memory_mb))
        }
        StartupError::Ended(Some(SandboxEnd::Exited(exited))) => {
            could_not_load(&exited, config.runtime.family())
        }
        StartupError::Ended(Some(SandboxEnd::Lost) | None) => {
            tracing::warn!(%instance, "A sandbox ended before it was ready");
            refused("it ended before it was ready".into())
        }
        StartupError::Broken(reason) => {
            tracing::warn!(%instance, reason, "A sandbox did not come up");
            refused(reason)
        }
    }
}

fn could_not_load(exited: &ExitedMessage, family: RuntimeFamily) -> Verdict {
    match (&exited.error, family) {
        // The interpreter is the node's business.
        (Some(error), RuntimeFamily::Python | RuntimeFamily::Nodejs) => refused(error.clone()),
        (Some(error), RuntimeFamily::Go | RuntimeFamily::Shell | RuntimeFamily::Custom) => {
            Verdict::Failed(Failure::seen(StatusCode::HandlerNotFound, error.clone()))
        }
        (None, _) => Verdict::Failed(Failure::seen(
            StatusCode::UserCodeError,
            format!("The process ended while the function was loaded ({})", ending(exited)),
        )),
    }
}

/// `exit status 3` or `signal 11`.
pub(crate) fn ending(exited: &ExitedMessage) -> String {
    match (exited.signal, exited.code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "reason unknown".into(),
    }
}

/// SCF's failure for want of memory.
pub(crate) fn out_of_memory(memory_mb: u32) -> Failure {
    Failure::seen(StatusCode::MemoryLimitReached, format!("Task memory exceeded {memory_mb} MB"))
}

/// A runtime's failure as callers see it. It is kept and shown, so its texts are bounded, and it
/// cannot say what is the platform's to say.
pub(crate) fn failure_of(failure: wire::RuntimeFailure) -> Failure {
    Failure {
        status_code: code_of(failure.status_code),
        error_code: failure.error_code,
        error_message: bounded(failure.error_message),
        error_type: failure.error_type.map(bounded),
        stack_trace: failure.stack_trace.map(bounded),
    }
}

/// What a runtime may say of its function. Any other code, a success or an error of the platform,
/// is the runtime's mistake, and so the user code's.
fn code_of(number: u16) -> StatusCode {
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

/// A failure's text, or as much of its beginning as is kept.
fn bounded(mut text: String) -> String {
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

    fn told(status_code: u16, message: String) -> Failure {
        failure_of(wire::RuntimeFailure::new(status_code, message))
    }

    #[test]
    fn a_runtime_cannot_say_what_is_the_platforms_to_say() {
        let code = |number| told(number, String::new()).status_code.number();
        assert_eq!([200, 432, 433, 435, 445, 449, 500, 7].map(code), [430; 8]);
        let its_own = [407, 430, 434, 437, 439, 443, 446];
        assert_eq!(its_own.map(code), its_own);
    }

    #[test]
    fn a_failures_text_is_kept_up_to_its_bound() {
        let most = "x".repeat(FAILURE_TEXT_BYTES_MAX);
        assert_eq!(told(430, most.clone()).error_message, most);
        // Three bytes each, so that the bound is inside of one.
        let cut = told(430, "\u{20ac}".repeat(FAILURE_TEXT_BYTES_MAX)).error_message;
        assert!(cut.ends_with("\u{20ac}\n… cut") && cut.len() < FAILURE_TEXT_BYTES_MAX + 10);
    }
}
