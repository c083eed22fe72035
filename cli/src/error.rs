//! How a command ends: exit codes, and errors that carry theirs.

use std::process::ExitCode;

use hanshu_api::wire::ProblemBody;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0.
    Done,
    /// 1: the function failed.
    Failed,
    /// 5: the invocation has not ended yet.
    NotEnded,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// 2: what was typed, or a file that was named, is wrong.
    #[error("{0}")]
    Usage(String),
    /// 3: the platform refused.
    #[error("{}", refusal(.0))]
    Refused(Box<ProblemBody>),
    /// 3: the platform answered something that this program does not understand.
    #[error("{0}")]
    Answer(String),
    /// 4: no server.
    #[error("{0}")]
    Unreachable(String),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NotEnded => 5,
        })
    }
}

impl Error {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) | Self::Answer(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }

    /// A usage error that names a file.
    pub(crate) fn file(path: &std::path::Path, what: impl std::fmt::Display) -> Self {
        Self::Usage(format!("{}: {what}", path.display()))
    }
}

fn refusal(problem: &ProblemBody) -> String {
    // What follows the first line shows the place in a file.
    let (what, place) = problem.detail.split_once('\n').unwrap_or((&problem.detail, ""));
    let mut text = format!("{what} ({})", problem.code);
    if !place.is_empty() {
        text += &format!("\n{place}");
    }
    if !problem.hint.is_empty() {
        text += &format!("\nhint: {}", problem.hint);
    }
    if let Some(id) = &problem.request_id {
        text += &format!("\nrequest id: {id}");
    }
    text
}
