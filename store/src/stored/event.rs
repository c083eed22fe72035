//! A queued event: columns of the table `queue_events`, or fields of its hash in Redis.
//!
//! Neither has a version of its own: columns change by migrations only, and the version of the
//! fields is a part of every key in Redis.

use bytes::Bytes;
use hanshu_core::ErrorCause;
use hanshu_core::ports::{Claim, NewEvent, QueueError, QueueName};

use super::origin::{origin_json, read_origin};
use super::times::time;
use super::unreadable::unreadable;
use crate::claim_token::ClaimToken;

/// An event to be stored.
#[derive(Debug)]
pub(crate) struct StoredNewEvent<'a> {
    pub(crate) request_id: String,
    pub(crate) queue: String,
    pub(crate) version: String,
    pub(crate) revision: &'a str,
    /// JSON of [`super::origin`].
    pub(crate) origin: String,
    pub(crate) accepted_us: i64,
    pub(crate) expires_us: i64,
    pub(crate) payload: &'a Bytes,
    /// A request id.
    pub(crate) rerun_of: Option<String>,
}

/// A claimed event, as it was stored.
#[derive(Debug)]
pub(crate) struct StoredClaim {
    pub(crate) request_id: String,
    pub(crate) version: String,
    pub(crate) revision: String,
    pub(crate) origin: String,
    pub(crate) accepted_us: i64,
    pub(crate) expires_us: i64,
    /// Attempts that count, this one included.
    pub(crate) attempt: u32,
    /// Claims, this one included.
    pub(crate) tries: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) cancel_requested: bool,
}

impl<'a> StoredNewEvent<'a> {
    pub(crate) fn of(event: &'a NewEvent) -> Result<Self, QueueError> {
        let origin = origin_json(&event.event.origin);
        Ok(Self {
            request_id: event.request_id.to_string(),
            queue: event.queue.to_string(),
            version: event.version.to_string(),
            revision: event.revision.as_str(),
            origin: origin.map_err(|error| QueueError::Internal(ErrorCause::new(error)))?,
            accepted_us: event.accepted_at.as_microsecond(),
            expires_us: event.expires_at.as_microsecond(),
            payload: &event.event.payload,
            rerun_of: event.rerun_of.map(|id| id.to_string()),
        })
    }
}

impl StoredClaim {
    pub(crate) fn into_claim(self, queue: &QueueName) -> Result<Claim, QueueError> {
        let id = self.request_id.as_str();
        let request_id = id.parse().map_err(|error| unreadable(id, error))?;
        Ok(Claim {
            receipt: ClaimToken { request_id, claim: self.tries }.into_receipt(),
            request_id,
            queue: queue.clone(),
            version: self.version.parse().map_err(|error| unreadable(id, error))?,
            revision: self.revision.parse().map_err(|error| unreadable(id, error))?,
            payload: self.payload.into(),
            origin: read_origin(id, &self.origin)?,
            attempt: self.attempt,
            tries: self.tries,
            accepted_at: time(self.accepted_us)?,
            expires_at: time(self.expires_us)?,
            cancel_requested: self.cancel_requested,
        })
    }
}
