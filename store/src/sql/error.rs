//! Errors of a database, recognised by type and code, never by text.

use std::path::PathBuf;
use std::time::Duration;

use hanshu_core::ports::{JournalError, QueueError, StoreError};
use hanshu_core::{ErrorCause, ErrorKind};
use sqlx::sqlite::SqliteError;

/// The database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The URL names no database that we know.
    #[error("`{0}` names no database: expected `sqlite:PATH`, `sqlite::memory:` or `postgres://…`")]
    Url(String),
    /// The folder or file cannot be had.
    #[error("the database file `{}` cannot be opened for writing ({reason}): check the folder and its permissions", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// A newer program has migrated it.
    #[error(
        "its schema has version {found}, this program knows versions up to {known}: start the newer hanshu, or restore a backup"
    )]
    Newer {
        /// Version that the database has.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// A migration that was applied is not the one we know.
    #[error(
        "its schema version {0} is not the one that this program made: it belongs to another program"
    )]
    Foreign(i64),
    /// SQLite cannot make sense of the file.
    #[error("its file is damaged, or is no SQLite database: restore a backup")]
    Damaged,
    /// The disk is full.
    #[error("the disk of the database is full: free some space")]
    Full,
    /// It cannot be written.
    #[error(
        "the database cannot be written (read-only file, folder or server): check permissions and mounts"
    )]
    ReadOnly,
    /// Its disk fails, or is full where SQLite does not say so.
    #[error(
        "the disk of the database cannot be used ({0}): see that it has room, is mounted and can be written"
    )]
    Disk(String),
    /// It cannot be reached, or the connection broke.
    #[error("the database cannot be reached: {0}")]
    Away(String),
    /// Others hold locks for too long.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// No answer in time.
    #[error("the database did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// A row that cannot be read.
    #[error("table `{table}`, row `{key}`: {reason}")]
    Row {
        /// The table that the row is in.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement or the driver failed.
    #[error("a statement failed: {0}")]
    Statement(#[source] sqlx::Error),
}

impl DatabaseError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) => ErrorKind::Invalid,
            Self::File { .. }
            | Self::Full
            | Self::ReadOnly
            | Self::Disk(_)
            | Self::Away(_)
            | Self::Busy(_)
            | Self::Deadline(_) => ErrorKind::Unavailable,
            Self::Newer { .. }
            | Self::Foreign(_)
            | Self::Damaged
            | Self::Row { .. }
            | Self::Statement(_) => ErrorKind::Internal,
        }
    }

    fn is_unavailable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(inner) => match of_code(inner.as_ref()) {
                Some(known) => known,
                None => Self::Statement(sqlx::Error::Database(inner)),
            },
            sqlx::Error::Io(error) => Self::Away(error.to_string()),
            sqlx::Error::Tls(error) => Self::Away(error.to_string()),
            sqlx::Error::PoolTimedOut => {
                Self::Away("no connection could be made, or became free, in time".into())
            }
            sqlx::Error::PoolClosed => Self::Away("it was closed".into()),
            sqlx::Error::WorkerCrashed => Self::Away("its worker ended".into()),
            sqlx::Error::BeginFailed => Self::Away("a transaction could not be begun".into()),
            other => Self::Statement(other),
        }
    }
}

/// What a database's own error code means to us; `None` for what only says that a statement was
/// wrong. SQLite: <https://www.sqlite.org/rescode.html>, primary codes. PostgreSQL: appendix A,
/// classes of SQLSTATE.
fn of_code(error: &dyn sqlx::error::DatabaseError) -> Option<DatabaseError> {
    let code = error.code()?;
    if error.try_downcast_ref::<SqliteError>().is_some() {
        let extended: i32 = code.parse().ok()?;
        return match extended & 0xff {
            5 | 6 => Some(DatabaseError::Busy(error.message().into())),
            8 => Some(DatabaseError::ReadOnly),
            10 | 14 => Some(DatabaseError::Disk(error.message().into())),
            11 | 26 => Some(DatabaseError::Damaged),
            13 => Some(DatabaseError::Full),
            _ => None,
        };
    }
    match code.as_ref() {
        "53100" => Some(DatabaseError::Full),
        "25006" => Some(DatabaseError::ReadOnly),
        // Statement, lock and idle timeouts; serialisation failures and deadlocks.
        "57014" | "55P03" | "25P03" => Some(DatabaseError::Busy(error.message().into())),
        // Wrong password, no such role, no such database: the operator's to mend, at any time.
        "3D000" => Some(DatabaseError::Away(error.message().into())),
        other => match other.get(..2)? {
            "40" => Some(DatabaseError::Busy(error.message().into())),
            "08" | "28" | "53" | "57" | "58" => Some(DatabaseError::Away(error.message().into())),
            _ => None,
        },
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        let unavailable = error.is_unavailable();
        let cause = ErrorCause::new(error);
        if unavailable { Self::Unavailable(cause) } else { Self::Internal(cause) }
    }
}

impl From<DatabaseError> for QueueError {
    fn from(error: DatabaseError) -> Self {
        let unavailable = error.is_unavailable();
        let cause = ErrorCause::new(error);
        if unavailable { Self::Unavailable(cause) } else { Self::Internal(cause) }
    }
}

impl From<DatabaseError> for JournalError {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(ErrorCause::new(error))
    }
}
