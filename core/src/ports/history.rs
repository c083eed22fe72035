//! The history of ended asynchronous events: kept by age and number, read in pages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::ended_events::EndedEvent;
use super::registry::StoreError;
use crate::Timestamp;
use crate::event::Origin;
use crate::id::RequestId;
use crate::name::{FunctionName, NameError, Namespace, TriggerName};
use crate::record::{AsyncState, InvocationState};

/// Keeps what is known of ended asynchronous events.
#[async_trait]
pub trait InvocationHistory: Send + Sync {
    /// Keeps these events with their inputs; one that is kept already stays as it is.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn record(&self, events: &[EndedEvent]) -> Result<(), StoreError>;

    /// A page, newest end first.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn page(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError>;

    /// One ended event; `None` if it is unknown or no longer kept.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn find(&self, request_id: RequestId) -> Result<Option<HistoryEntry>, StoreError>;

    /// The payload of an ended event; `None` if it is unknown or no longer kept.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn input(&self, request_id: RequestId) -> Result<Option<Bytes>, StoreError>;

    /// Drops what is over the bounds; returns how many events went.
    ///
    /// # Errors
    /// The database cannot be reached.
    async fn collect(&self, bounds: &HistoryBounds, now: Timestamp) -> Result<u64, StoreError>;
}

/// An ended event as the history has it.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// Its last state, without its result.
    pub state: AsyncState,
    /// What started it.
    pub origin: Origin,
}

/// Bounds of what the history keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Events that ended longer ago go.
    pub age_max: Duration,
    /// Beyond so many events the oldest go.
    pub events_max: u64,
    /// Inputs of events that ended longer ago go.
    pub input_age_max: Duration,
    /// Beyond so many bytes of inputs the oldest go.
    pub input_bytes_max: u64,
}

/// Chooses ended events of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The namespace of the functions.
    pub namespace: Namespace,
    /// Of one function only.
    pub function: Option<FunctionName>,
    /// Of one of that function's triggers only; ignored without `function`.
    pub trigger: Option<TriggerName>,
    /// In these states only; empty means any.
    pub states: Vec<InvocationState>,
    /// Ended at or after this.
    pub from: Option<Timestamp>,
    /// Ended before this.
    pub to: Option<Timestamp>,
    /// Only those whose function's name, request id, or error's type or message contain this text,
    /// upper or lower case.
    pub text: Option<String>,
    /// After this place: the `next` of the page before.
    pub after: Option<HistoryCursor>,
    /// At most so many, at least 1.
    pub limit: usize,
}

/// A place in the history: an event, by its end and its id. Opaque text for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    /// When the event ended.
    pub ended_at: Timestamp,
    /// The event's request id.
    pub request_id: RequestId,
}

/// Ended invocations, and where the next page starts.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// Newest end first.
    pub events: Vec<AsyncState>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<HistoryCursor>,
    /// With a text: the search had to stop at its bound, having looked at everything that ended at
    /// or after this. `next` continues it.
    pub searched_to: Option<Timestamp>,
}

impl Default for HistoryBounds {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            age_max: DAY * 30,
            events_max: 1_000_000,
            input_age_max: DAY * 7,
            input_bytes_max: 1 << 30,
        }
    }
}

impl fmt::Display for HistoryCursor {
    /// Writes the form `microseconds.request-id`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ended_at.as_microsecond(), self.request_id)
    }
}

impl FromStr for HistoryCursor {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::new("cursor", text, "the `next` of an earlier page");
        let (ended_us, id) = text.split_once('.').ok_or_else(refused)?;
        let ended_us = ended_us.parse().map_err(|_| refused())?;
        Ok(Self {
            ended_at: Timestamp::from_microsecond(ended_us).map_err(|_| refused())?,
            request_id: id.parse().map_err(|_| refused())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_text() {
        let cursor =
            HistoryCursor { ended_at: Timestamp::UNIX_EPOCH, request_id: RequestId::new() };
        assert_eq!(cursor.to_string().parse::<HistoryCursor>().unwrap(), cursor);
        for bad in ["", ".", "1", "x.y", "1.2", "99999999999999999999.01890a5d"] {
            assert!(bad.parse::<HistoryCursor>().is_err(), "{bad}");
        }
    }
}
