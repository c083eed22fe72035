//! One entry of the journal.

use hanshu_core::ports::JournalError;
use hanshu_core::{ErrorCause, FunctionId, InvocationRecord, LogBatch, RequestId, Timestamp};

use crate::stored::{StoredInvocationRecord, StoredLogBatch};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JournalEntry {
    /// Output of a function.
    Log(LogBatch),
    /// The record of an attempt.
    Record(InvocationRecord),
}

/// What an entry is. The numbers are kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalEntryKind {
    Log = 1,
    Record = 2,
}

impl JournalEntryKind {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Record => 2,
        }
    }

    pub(crate) fn of_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Log),
            2 => Some(Self::Record),
            _ => None,
        }
    }
}

impl JournalEntry {
    pub(crate) fn kind(&self) -> JournalEntryKind {
        match self {
            Self::Log(_) => JournalEntryKind::Log,
            Self::Record(_) => JournalEntryKind::Record,
        }
    }

    pub(crate) fn function(&self) -> &FunctionId {
        match self {
            Self::Log(batch) => &batch.function,
            Self::Record(record) => &record.function,
        }
    }

    pub(crate) fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::Log(batch) => batch.request_id,
            Self::Record(record) => Some(record.request_id),
        }
    }

    /// When it was written: of output its first line, of an attempt its end.
    pub(crate) fn time(&self) -> Timestamp {
        match self {
            Self::Log(batch) => batch.time,
            Self::Record(record) => ended_at(record),
        }
    }

    /// Lines of output; 0 for a record.
    pub(crate) fn lines(&self) -> usize {
        match self {
            Self::Log(batch) => batch.lines.len(),
            Self::Record(_) => 0,
        }
    }

    /// Roughly, in memory and on disk.
    pub(crate) fn bytes(&self) -> usize {
        const OF_AN_ENTRY: usize = 300;
        const OF_A_LINE: usize = 24;
        match self {
            Self::Log(batch) => {
                let lines = batch.lines.iter().map(|line| line.len() + OF_A_LINE);
                OF_AN_ENTRY + lines.sum::<usize>()
            }
            Self::Record(record) => {
                let failure = record.error.as_ref();
                let texts = failure.map(|it| [&it.error_type, &it.stack_trace]);
                let texts = texts.into_iter().flatten().flatten().map(String::len);
                let message = failure.map_or(0, |it| it.error_message.len());
                2 * OF_AN_ENTRY + message + texts.sum::<usize>()
            }
        }
    }

    /// As JSON text, without its kind.
    pub(crate) fn encode(&self) -> Result<String, JournalError> {
        let text = match self {
            Self::Log(batch) => serde_json::to_string(&StoredLogBatch::from(batch)),
            Self::Record(record) => serde_json::to_string(&StoredInvocationRecord::from(record)),
        };
        text.map_err(|error| JournalError::Failed(ErrorCause::new(error)))
    }

    pub(crate) fn decode(kind: JournalEntryKind, text: &[u8]) -> Result<Self, JournalError> {
        let entry = match kind {
            JournalEntryKind::Log => serde_json::from_slice::<StoredLogBatch<'_>>(text)
                .map(|batch| Self::Log(batch.into())),
            JournalEntryKind::Record => serde_json::from_slice::<StoredInvocationRecord<'_>>(text)
                .map(|record| Self::Record(record.into())),
        };
        entry.map_err(|error| {
            JournalError::Failed(format!("an entry cannot be read: {error}").into())
        })
    }
}

/// When an attempt ended.
pub(crate) fn ended_at(record: &InvocationRecord) -> Timestamp {
    record.started_at.checked_add(record.duration).unwrap_or(record.started_at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hanshu_core::{Failure, Namespace, Qualifier, StatusCode};

    use super::*;

    #[test]
    fn a_failure_counts_with_all_that_it_says() {
        let record = |error| {
            JournalEntry::Record(InvocationRecord {
                request_id: RequestId::new(),
                function: FunctionId {
                    namespace: Namespace::default(),
                    name: "hello".parse().unwrap(),
                },
                version: Qualifier::Latest,
                trigger: None,
                called_by: None,
                attempt: 1,
                started_at: Timestamp::UNIX_EPOCH,
                duration: Duration::ZERO,
                status: StatusCode::UserException,
                error,
                cold: false,
                init: None,
                cold_start: None,
                memory_mb: 128,
                memory_bytes: 0,
                node: None,
                first: true,
            })
        };
        let long = || "x".repeat(10_000);
        let (error_type, stack_trace) = (Some(long()), Some(long()));
        let seen = Failure::seen(StatusCode::UserException, long());
        let failure = Failure { error_type, stack_trace, ..seen };
        assert_eq!(record(Some(failure)).bytes(), record(None).bytes() + 30_000);
    }
}
