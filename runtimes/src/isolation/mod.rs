//! `hanshu isolate`: builds the isolation of a process sandbox, as a program of its own.
//!
//! The invoker starts it with an [`IsolationPlan`] on standard input. It runs twice, since a process
//! enters a namespace of process ids only by being started in it:
//!
//! 1. The *outer stage* ([`outer_stage`]) makes the namespaces, starts the inner stage in them and
//!    waits for it to end; killing it kills the sandbox.
//! 2. The *inner stage* ([`inner_stage`]) is process 1: it builds the root file system, drops every
//!    privilege, and becomes the shim by `exec`.
//!
//! Standard output carries lines of [`IsolationReport`] for the invoker. It closes when the shim was
//! executed, or after an error. There is no `unsafe` and no `fork`: every step is one safe call.

mod inner_stage;
mod loopback;
mod mounts;
mod outer_stage;
mod plan;
mod privileges;
mod root_filesystem;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use nix::errno::Errno;

pub use plan::{
    BindMount, IsolatedNetwork, IsolatedTmp, IsolationPlan, IsolationPrivileges, IsolationReport,
    ProcessLimits,
};

/// The argument with which the outer stage starts the inner one.
pub const INSIDE: &str = "--inside";
/// The exit status of either stage when a step of the isolation failed.
pub const FAILED: u8 = 125;
/// The most bytes of a plan, which is a few paths and numbers.
const PLAN_BYTES_MAX: u64 = 64 * 1024;

/// Runs `hanshu isolate` with the arguments of this process. Must be called before any thread is
/// started: a process with threads cannot enter a user namespace.
#[must_use]
pub fn main() -> ExitCode {
    let inside = std::env::args_os().any(|argument| argument == INSIDE);
    let ended = read_plan().and_then(|plan| {
        if inside { inner_stage::become_shim(&plan) } else { outer_stage::run(&plan) }
    });
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report(&IsolationReport::Error(error.to_string()));
            ExitCode::from(FAILED)
        }
    }
}

/// A step of the isolation failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct IsolationError {
    step: String,
    source: io::Error,
}

/// Adds the failed step's name to an error.
trait StepContext<T> {
    fn in_step(self, step: impl Display) -> Result<T, IsolationError>;
}

impl<T> StepContext<T> for Result<T, Errno> {
    fn in_step(self, step: impl Display) -> Result<T, IsolationError> {
        self.map_err(|errno| IsolationError { step: step.to_string(), source: errno.into() })
    }
}

impl<T> StepContext<T> for io::Result<T> {
    fn in_step(self, step: impl Display) -> Result<T, IsolationError> {
        self.map_err(|source| IsolationError { step: step.to_string(), source })
    }
}

impl<T> StepContext<T> for Result<T, caps::errors::CapsError> {
    fn in_step(self, step: impl Display) -> Result<T, IsolationError> {
        self.map_err(|error| IsolationError {
            step: step.to_string(),
            source: io::Error::other(error),
        })
    }
}

fn read_plan() -> Result<IsolationPlan, IsolationError> {
    let input = io::Read::take(io::stdin().lock(), PLAN_BYTES_MAX);
    serde_json::from_reader(input).map_err(io::Error::from).in_step("read the plan")
}

/// Writes one line to the invoker. An error is ignored: without the invoker there is no reader.
fn report(line: &IsolationReport) {
    if let Ok(text) = serde_json::to_string(line) {
        let _ = writeln!(io::stdout(), "{text}");
    }
}
