//! The queue's rows, as its statements return them. Times are microseconds since 1970.

use hanshu_core::RequestId;
use hanshu_core::ports::QueueError;

use crate::stored::{StoredClaim, StoredEventState, unreadable};

row! {
    /// The columns that a claim returns.
    #[derive(Debug)]
    pub(super) struct ClaimedEventRow {
        request_id: String,
        version: String,
        revision: String,
        origin: String,
        accepted_at: i64,
        expires_at: i64,
        pub(super) due_at: i64,
        pub(super) seq: i64,
        claims: i64,
        ran: i64,
        payload: Vec<u8>,
        cancel_requested: i64,
    }
}

row! {
    /// An event's state, without its id, which was asked for.
    #[derive(Debug)]
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
        rerun_of: Option<String>,
    }
}

row! {
    /// A queue, and when it first has something to claim.
    #[derive(Debug)]
    pub(super) struct ReadyQueueRow {
        pub(super) queue: String,
        pub(super) moment: i64,
    }
}

row! {
    /// How many events of a queue wait, and when the oldest of them was accepted.
    #[derive(Debug)]
    pub(super) struct WaitingCountRow {
        pub(super) queue: String,
        pub(super) events: i64,
        pub(super) oldest: Option<i64>,
    }
}

row! {
    /// How many events of a queue are in some other state.
    #[derive(Debug)]
    pub(super) struct QueueCountRow {
        pub(super) queue: String,
        pub(super) events: i64,
    }
}

row! {
    /// A queue that had room for a group of events, and the number of the last of them.
    #[derive(Debug)]
    pub(super) struct AdmittedQueueRow {
        pub(super) name: String,
        pub(super) accepted: i64,
    }
}

impl ClaimedEventRow {
    pub(super) fn into_stored(self) -> Result<StoredClaim, QueueError> {
        let number =
            |count: i64| u32::try_from(count).map_err(|error| unreadable(&self.request_id, error));
        let (attempt, tries) = (number(self.ran)?, number(self.claims)?);
        Ok(StoredClaim {
            request_id: self.request_id,
            version: self.version,
            revision: self.revision,
            origin: self.origin,
            accepted_us: self.accepted_at,
            expires_us: self.expires_at,
            attempt,
            tries,
            payload: self.payload,
            cancel_requested: self.cancel_requested != 0,
        })
    }
}

impl EventStateRow {
    pub(super) fn into_stored(self, request_id: RequestId) -> StoredEventState {
        StoredEventState {
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
            rerun_of: self.rerun_of,
        }
    }
}
