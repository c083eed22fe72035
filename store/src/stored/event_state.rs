//! The state of a queued event and its end: columns of the table `queue_events`, or fields of its
//! hash in Redis.

use bytes::Bytes;
use hanshu_core::ports::{EventEnd, QueueError, QueueName};
use hanshu_core::{AsyncState, ErrorCause, Failure, InvocationState, Origin, Qualifier, RequestId};

use super::attempt::attempts;
use super::failure::StoredFailure;
use super::origin::StoredOrigin;
use super::times::time;
use super::unreadable::unreadable;

/// What the end of an event writes.
#[derive(Debug)]
pub(crate) struct StoredEventEnd {
    /// One of the last states.
    pub(crate) state: InvocationState,
    /// JSON text, of a success.
    pub(crate) result: Option<String>,
    /// A [`StoredFailure`] as JSON.
    pub(crate) error: Option<String>,
}

/// The state of an event, as it was stored.
#[derive(Debug)]
pub(crate) struct StoredEventState {
    pub(crate) request_id: RequestId,
    pub(crate) queue: String,
    pub(crate) version: String,
    /// A [`StoredOrigin`] as JSON.
    pub(crate) origin: String,
    pub(crate) state: String,
    /// Lines of attempts that are over.
    pub(crate) attempts: String,
    /// The line of the attempt that runs.
    pub(crate) begun: String,
    pub(crate) accepted_us: i64,
    pub(crate) ended_us: Option<i64>,
    pub(crate) result: Option<String>,
    /// A [`StoredFailure`] as JSON.
    pub(crate) error: Option<String>,
    /// A request id.
    pub(crate) rerun_of: Option<String>,
}

impl StoredEventEnd {
    /// The end of an event that was cancelled.
    pub(crate) fn cancelled() -> Self {
        Self { state: InvocationState::Cancelled, result: None, error: None }
    }

    pub(crate) fn of(ended: &EventEnd) -> Result<Self, QueueError> {
        let to_json = |failure: &Failure| {
            let text = serde_json::to_string(&StoredFailure::from(failure));
            text.map_err(|error| QueueError::Internal(ErrorCause::new(error)))
        };
        Ok(match ended {
            EventEnd::Succeeded(json) => {
                Self { state: InvocationState::Succeeded, result: Some(text(json)), error: None }
            }
            EventEnd::Failed(failure) => Self {
                state: InvocationState::Failed,
                result: None,
                error: Some(to_json(failure)?),
            },
            EventEnd::Expired(failure) => Self {
                state: InvocationState::Expired,
                result: None,
                error: failure.as_ref().map(to_json).transpose()?,
            },
            EventEnd::Cancelled => Self::cancelled(),
        })
    }
}

/// JSON text is UTF-8 without NUL, which PostgreSQL refuses. A runtime that user code took over may
/// answer with any bytes, and the settle must still succeed: else its event would run again for
/// ever.
fn text(json: &Bytes) -> String {
    String::from_utf8_lossy(json).replace('\0', "\u{fffd}")
}

impl TryFrom<StoredEventState> for AsyncState {
    type Error = QueueError;

    fn try_from(stored: StoredEventState) -> Result<Self, QueueError> {
        let id = stored.request_id;
        let queue: QueueName = stored.queue.parse().map_err(|error| unreadable(id, error))?;
        let version: Qualifier = stored.version.parse().map_err(|error| unreadable(id, error))?;
        let origin: StoredOrigin<'_> =
            serde_json::from_str(&stored.origin).map_err(|error| unreadable(id, error))?;
        let origin = Origin::try_from(origin).map_err(|error| unreadable(id, error))?;
        let error = stored.error.map(|text| serde_json::from_str::<StoredFailure<'_>>(&text));
        let error = error.transpose().map_err(|error| unreadable(id, error))?;
        let rerun_of = stored.rerun_of.map(|text| text.parse());
        Ok(Self {
            request_id: id,
            function: queue.function,
            version,
            trigger: queue.trigger.or_else(|| origin.trigger().cloned()),
            state: state(&stored.state).ok_or_else(|| unreadable(id, &stored.state))?,
            attempts: attempts(&stored.attempts, &stored.begun)
                .map_err(|error| unreadable(id, error))?,
            accepted_at: time(stored.accepted_us)?,
            ended_at: stored.ended_us.map(time).transpose()?,
            result: stored.result,
            error: error.map(Into::into),
            rerun_of: rerun_of.transpose().map_err(|error| unreadable(id, error))?,
            called_by: origin.caller().cloned(),
        })
    }
}

/// The state of the event with this id, as it was stored.
pub(crate) fn read_state(id: &str, text: &str) -> Result<InvocationState, QueueError> {
    state(text).ok_or_else(|| unreadable(id, text))
}

fn state(text: &str) -> Option<InvocationState> {
    InvocationState::ALL.into_iter().find(|state| state.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_json_is_stored_as_text_that_every_database_takes() {
        assert_eq!(text(&Bytes::from_static(b"\0\xff{")), "\u{fffd}\u{fffd}{");
    }
}
