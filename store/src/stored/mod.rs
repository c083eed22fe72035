//! How an event's attempts and end are written beside its queue, the same in SQL and in Redis.
//!
//! Attempts are lines of JSON that are only ever appended, so that a claim of many events and a
//! settle are one statement each: `attempts` has those that are over (a node that died leaves one
//! without an end), `begun` the one that runs now. An attempt's number is its line's.

use bytes::Bytes;
use hanshu_core::ports::{EventEnd, QueueError, QueueName};
use hanshu_core::{
    AsyncState, Attempt, Failure, InvocationState, NodeId, Origin, Qualifier, RequestId, Timestamp,
};

/// An ended event's last columns.
#[derive(Debug)]
pub(crate) struct StoredEnd {
    /// One of the three last states.
    pub(crate) state: InvocationState,
    /// JSON text, of a success.
    pub(crate) result: Option<String>,
    /// A [`Failure`] as JSON text.
    pub(crate) error: Option<String>,
}

/// A row or hash, before it is believed.
#[derive(Debug)]
pub(crate) struct StoredState {
    pub(crate) request_id: RequestId,
    pub(crate) queue: String,
    pub(crate) version: String,
    pub(crate) origin: String,
    pub(crate) state: String,
    pub(crate) attempts: String,
    pub(crate) begun: String,
    pub(crate) accepted_us: i64,
    pub(crate) ended_us: Option<i64>,
    pub(crate) result: Option<String>,
    pub(crate) error: Option<String>,
}

/// Something stored that cannot be read: which event's, and why.
pub(crate) fn unreadable(what: impl std::fmt::Display, why: impl std::fmt::Display) -> QueueError {
    QueueError::Internal(format!("what is kept of event `{what}` cannot be read: {why}"))
}

/// The line of an attempt that begins now.
pub(crate) fn begun(now: Timestamp, node: &NodeId) -> Result<String, QueueError> {
    line(&Attempt {
        number: 0,
        started_at: now,
        ended_at: None,
        status: None,
        node: Some(node.clone()),
        cold: false,
    })
}

/// The line of an attempt that is over.
pub(crate) fn finished(attempt: Option<&Attempt>) -> Result<String, QueueError> {
    attempt.map_or_else(|| Ok(String::new()), line)
}

/// A time from its microseconds, as all times are kept.
pub(crate) fn time(us: i64) -> Result<Timestamp, QueueError> {
    Timestamp::from_microsecond(us).map_err(|error| unreadable("time", error))
}

/// When a hold that begins now ends, in microseconds. A hold is at most a century, so that the
/// sum cannot overflow.
pub(crate) fn hold_end(now: Timestamp, hold: std::time::Duration) -> i64 {
    const CENTURY_US: i64 = 100 * 366 * 24 * 3600 * 1_000_000;
    let hold = i64::try_from(hold.as_micros()).map_or(CENTURY_US, |us| us.min(CENTURY_US));
    now.as_microsecond().saturating_add(hold)
}

/// What an origin is written as.
pub(crate) fn origin_text(origin: &Origin) -> Result<String, QueueError> {
    serde_json::to_string(origin).map_err(|error| QueueError::Internal(error.to_string()))
}

fn line(attempt: &Attempt) -> Result<String, QueueError> {
    let mut text = serde_json::to_string(attempt)
        .map_err(|error| QueueError::Internal(format!("an attempt cannot be written: {error}")))?;
    text.push('\n');
    Ok(text)
}

impl StoredEnd {
    /// How `ended` is written.
    pub(crate) fn of(ended: &EventEnd) -> Result<Self, QueueError> {
        let write = |failure: &Failure| {
            serde_json::to_string(failure).map_err(|error| QueueError::Internal(error.to_string()))
        };
        Ok(match ended {
            EventEnd::Succeeded(json) => {
                Self { state: InvocationState::Succeeded, result: Some(text(json)), error: None }
            }
            EventEnd::Failed(failure) => {
                Self { state: InvocationState::Failed, result: None, error: Some(write(failure)?) }
            }
            EventEnd::Expired(failure) => Self {
                state: InvocationState::Expired,
                result: None,
                error: failure.as_ref().map(write).transpose()?,
            },
        })
    }
}

/// JSON text is UTF-8 without NUL, which PostgreSQL refuses. A runtime that was taken over may
/// answer anything, and a settle must still go through: else its event would run again for ever.
fn text(json: &Bytes) -> String {
    String::from_utf8_lossy(json).replace('\0', "\u{fffd}")
}

impl TryFrom<StoredState> for AsyncState {
    type Error = QueueError;

    fn try_from(row: StoredState) -> Result<Self, QueueError> {
        let id = row.request_id;
        let queue: QueueName = row.queue.parse().map_err(|error| unreadable(id, error))?;
        let version: Qualifier = row.version.parse().map_err(|error| unreadable(id, error))?;
        let origin: Origin =
            serde_json::from_str(&row.origin).map_err(|error| unreadable(id, error))?;
        let mut attempts = Vec::new();
        for (number, line) in (1..).zip(row.attempts.lines().chain(row.begun.lines())) {
            let attempt: Attempt =
                serde_json::from_str(line).map_err(|error| unreadable(id, error))?;
            attempts.push(Attempt { number, ..attempt });
        }
        let error: Option<Failure> = row
            .error
            .map(|text| serde_json::from_str(&text).map_err(|error| unreadable(id, error)))
            .transpose()?;
        Ok(Self {
            request_id: id,
            function: queue.function,
            version,
            trigger: queue.trigger.or_else(|| origin.trigger().cloned()),
            state: state(&row.state).ok_or_else(|| unreadable(id, &row.state))?,
            attempts,
            accepted_at: time(row.accepted_us)?,
            ended_at: row.ended_us.map(time).transpose()?,
            result: row.result,
            error,
        })
    }
}

fn state(text: &str) -> Option<InvocationState> {
    [
        InvocationState::Queued,
        InvocationState::Running,
        InvocationState::Retrying,
        InvocationState::Succeeded,
        InvocationState::Failed,
        InvocationState::Expired,
    ]
    .into_iter()
    .find(|state| state.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_json_is_kept_as_text_that_every_database_takes() {
        assert_eq!(text(&Bytes::from_static(b"\0\xff{")), "\u{fffd}\u{fffd}{");
    }
}
