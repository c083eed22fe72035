//! The queue's rows, as its statements return them. Times are microseconds since 1970.

use hanshu_core::RequestId;
use sqlx::FromRow;

use crate::stored::StoredState;

/// A claimed event.
#[derive(Debug, FromRow)]
pub(super) struct ClaimedEventRow {
    pub(super) request_id: String,
    pub(super) version: String,
    pub(super) revision: String,
    pub(super) origin: String,
    pub(super) accepted_at: i64,
    pub(super) expires_at: i64,
    pub(super) due_at: i64,
    pub(super) seq: i64,
    pub(super) claims: i64,
    pub(super) ran: i64,
    pub(super) payload: Vec<u8>,
}

/// An event's state, without its id, which was asked for.
#[derive(Debug, FromRow)]
pub(super) struct EventStateRow {
    queue: String,
    version: String,
    origin: String,
    state: String,
    attempts: String,
    begun: String,
    accepted_at: i64,
    ended_at: Option<i64>,
    result: Option<String>,
    error: Option<String>,
}

/// A queue, and when it first has something to claim.
#[derive(Debug, FromRow)]
pub(super) struct ReadyQueueRow {
    pub(super) queue: String,
    pub(super) moment: i64,
}

/// How many events of a queue wait, and when the oldest of them was accepted.
#[derive(Debug, FromRow)]
pub(super) struct WaitingCountRow {
    pub(super) queue: String,
    pub(super) events: i64,
    pub(super) oldest: Option<i64>,
}

/// How many events of a queue are in some other state.
#[derive(Debug, FromRow)]
pub(super) struct QueueCountRow {
    pub(super) queue: String,
    pub(super) events: i64,
}

/// A queue that had room for a group of events, and the number of the last of them.
#[derive(Debug, FromRow)]
pub(super) struct AdmittedQueueRow {
    pub(super) name: String,
    pub(super) accepted: i64,
}

impl EventStateRow {
    pub(super) fn into_stored(self, request_id: RequestId) -> StoredState {
        StoredState {
            request_id,
            queue: self.queue,
            version: self.version,
            origin: self.origin,
            state: self.state,
            attempts: self.attempts,
            begun: self.begun,
            accepted_us: self.accepted_at,
            ended_us: self.ended_at,
            result: self.result,
            error: self.error,
        }
    }
}
