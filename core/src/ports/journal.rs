//! Records and logs of calls.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::error::ErrorCause;
use crate::function::FunctionId;
use crate::id::RequestId;
use crate::record::{InvocationRecord, LogBatch, LogLine};

/// Keeps records and logs: written through bounded rings, read by request id and by function.
#[async_trait]
pub trait InvocationJournal: Send + Sync {
    /// Hands over a record. Never waits: what a full ring drops is counted.
    fn record(&self, record: InvocationRecord);

    /// Hands over log lines. Never waits: what a full ring drops is counted, in lines.
    fn log(&self, batch: LogBatch);

    /// Waits until everything handed over before is written (for tests and the end).
    ///
    /// # Errors
    /// The disk or database.
    async fn flush(&self) -> Result<(), JournalError>;

    /// The attempts' records of one invocation, oldest first; empty where unknown.
    ///
    /// # Errors
    /// The disk or database.
    async fn find(&self, request_id: RequestId) -> Result<Vec<InvocationRecord>, JournalError>;

    /// A page of a function's log, in order of writing, with the platform's lines (START,
    /// Init Report, ERROR, END, Report; scf.md §7.1) around the function's own.
    ///
    /// # Errors
    /// The disk or database.
    async fn read(&self, query: &LogQuery) -> Result<LogPage, JournalError>;

    /// Drops what is over its bounds of age and size; returns the bytes (or rows) freed.
    ///
    /// # Errors
    /// The disk or database.
    async fn collect(&self, now: Timestamp) -> Result<u64, JournalError>;
}

/// Chooses log lines of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The function that wrote the lines.
    pub function: FunctionId,
    /// If given, only lines of this invocation.
    pub request_id: Option<RequestId>,
    /// Written at or after this.
    pub since: Option<Timestamp>,
    /// After this place: the `next` of the page before.
    pub after: Option<LogCursor>,
    /// At most so many journal entries; without `after` and `since` the newest.
    pub limit: usize,
    /// If there are none yet: wait so long for some.
    pub wait: Duration,
}

/// A place in the journal; opaque text for clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCursor(pub String);

/// Log lines, and where the next page starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// In order of writing.
    pub lines: Vec<LogLine>,
    /// Where the next page begins.
    pub next: LogCursor,
}

/// The journal failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// No page of this journal ended with the cursor: the caller's fault.
    #[error("cursor `{0}` is not one of this journal")]
    ForeignCursor(String),
    /// The journal cannot be read or written.
    #[error("the journal failed: {0}")]
    Failed(#[source] ErrorCause),
}
