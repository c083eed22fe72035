//! How a command ends: exit codes, and the errors that have one.

use std::process::ExitCode;

use hanshu_api::wire::ProblemBody;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandStatus {
    /// 0: the command is done.
    Done,
    /// 1: the function failed.
    Failed,
    /// 5: the invocation has not ended yet.
    NotEnded,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// 2: the command line, or a file that it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// 3: the platform refused.
    #[error("{}", refusal(.0))]
    Refused(Box<ProblemBody>),
    /// 3: the platform answered something that this program does not understand.
    #[error("{0}")]
    Answer(String),
    /// 4: no server was reached.
    #[error("{0}")]
    Unreachable(String),
}

impl From<CommandStatus> for ExitCode {
    fn from(exit: CommandStatus) -> Self {
        Self::from(match exit {
            CommandStatus::Done => 0,
            CommandStatus::Failed => 1,
            CommandStatus::NotEnded => 5,
        })
    }
}

impl Error {
    /// The exit code of this error.
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
