//! Queues of events that wait for their function.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Timestamp;
use crate::digest::Digest;
use crate::error::{ErrorCause, ErrorKind};
use crate::event::{Event, Origin};
use crate::function::FunctionId;
use crate::id::{NodeId, RequestId};
use crate::name::{NameError, Qualifier, TriggerName};
use crate::outcome::Failure;
use crate::record::{AsyncState, Attempt, InvocationState};
use crate::trigger::TriggerId;

/// One queue for each trigger, and one for each function's direct calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName {
    /// The function that runs the events.
    pub function: FunctionId,
    /// The trigger that feeds it; `None` for direct calls.
    pub trigger: Option<TriggerName>,
}

/// An event to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Id of the invocation, the same in all attempts.
    pub request_id: RequestId,
    /// The queue that it waits in.
    pub queue: QueueName,
    /// The version that was called: `$LATEST` or a number.
    pub version: Qualifier,
    /// The revision it was accepted for; it runs on that one.
    pub revision: Digest,
    /// The event for the function.
    pub event: Event,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When the event expires.
    pub expires_at: Timestamp,
    /// The queue takes no more than this many waiting events.
    pub max_waiting: u32,
    /// For a timer's event: which tick it is.
    pub tick: Option<TimerTick>,
    /// The invocation that this one runs again.
    pub rerun_of: Option<RequestId>,
}

/// One tick of one timer. A push with a tick is refused as a duplicate unless the tick is later
/// than the trigger's high-water mark, which is compared and set in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerTick {
    /// The timer that ticks.
    pub trigger: TriggerId,
    /// The scheduled time.
    pub at: Timestamp,
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// Kept: it survives a crash of every process.
    Accepted,
    /// Another node queued this tick already.
    Duplicate,
}

/// The result of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The event has ended as cancelled.
    Cancelled,
    /// A dispatcher has claimed the event. The request is stored: the event is not run again, and
    /// ends as cancelled unless its current attempt ends it otherwise.
    Requested,
    /// The event had ended, in this state.
    Ended(InvocationState),
    /// No such event is kept.
    Unknown,
}

/// What an event's holder learns when it extends its hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldStatus {
    /// The event is held for longer.
    Extended,
    /// The event is held for longer, and somebody has asked to cancel it.
    CancelRequested,
}

/// What became of an event that was to be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// It waits until its due time.
    Waiting,
    /// It has ended as cancelled, since somebody had asked for that while it was claimed.
    Cancelled,
}

/// The right to settle one claim. It cannot be copied, and only the queue that was claimed from can
/// make one that it accepts. A settle is refused as stale once the claim is settled, or once its
/// hold ran out and another claim was made; one that failed for another reason may be tried again.
pub struct Receipt(Box<dyn Any + Send + Sync>);

/// An event that was taken off a queue. It is held until it is settled or its hold is over.
#[derive(Debug)]
pub struct Claim {
    /// The right to settle it.
    pub receipt: Receipt,
    /// Id of the invocation, the same in all attempts.
    pub request_id: RequestId,
    /// The queue that it was taken from.
    pub queue: QueueName,
    /// The version that was called: `$LATEST` or a number.
    pub version: Qualifier,
    /// The revision it was accepted for; it runs on that one.
    pub revision: Digest,
    /// The payload for the function, JSON text.
    pub payload: Bytes,
    /// What produced the event, for the function.
    pub origin: Origin,
    /// This attempt's number, from 1, not counting tries that cost none.
    pub attempt: u32,
    /// All claims of it so far, this one included: grows at refusals too.
    pub tries: u32,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When the event expires.
    pub expires_at: Timestamp,
    /// Somebody asked to cancel it while an earlier claim held it: it must not run, but end as
    /// [`EventEnd::Cancelled`].
    pub cancel_requested: bool,
}

/// How an event's last attempt left it.
#[derive(Clone, Debug, PartialEq)]
pub enum EventEnd {
    /// The function returned this JSON text.
    Succeeded(Bytes),
    /// Attempts used up, or it cannot be run.
    Failed(Failure),
    /// Too old; with the last failure seen, if any.
    Expired(Option<Failure>),
    /// Somebody cancelled it.
    Cancelled,
}

/// Queues that have something due.
#[derive(Clone, Debug, Default)]
pub struct ReadyQueues {
    /// Due now (or with holds that ran out), oldest first.
    pub queues: Vec<QueueName>,
    /// When the next one will be due, if none is now.
    pub next_due: Option<Timestamp>,
}

/// One queue's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The queue that the figures are of.
    pub queue: QueueName,
    /// Waiting, retries that are not due yet included.
    pub waiting: u64,
    /// Claimed and held.
    pub running: u64,
    /// When the oldest waiting event was accepted.
    pub oldest: Option<Timestamp>,
    /// Ended in failure or expiry, within their keep time.
    pub dead_lettered: u64,
}

/// One queue, to claim events from and to settle them.
///
/// Delivery is at least once: an event whose claim runs out before it is settled is claimed again.
/// (Streams of users, such as Redis streams, are read by the triggers themselves: their entries are
/// acknowledged there and never pass through a queue of this kind.)
#[async_trait]
pub trait EventSource: Send + Sync {
    /// Takes at most `max` events that are due. Each is ours for `hold`. Marks them running, with
    /// an attempt begun now on `node`.
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        node: &NodeId,
    ) -> Result<Vec<Claim>, QueueError>;

    /// Holds the event for another `hold` from now, and tells whether somebody asked to cancel it.
    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<HoldStatus, QueueError>;

    /// Ends the event: state, result and the finished attempt in one transaction. `attempt` is
    /// `None` where none ran (expired in the queue, function gone). The event ends in this way
    /// even if somebody asked to cancel it: its attempt was faster.
    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError>;

    /// Puts the event back until `due`. With an attempt that ran and counts; without one, the
    /// try cost none (a refusal). An event that somebody asked to cancel ends as cancelled instead.
    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<RetryOutcome, QueueError>;
}

/// Our own queues, with the state of every event in them and of those that ended lately.
#[async_trait]
pub trait EventQueue: Send + Sync {
    /// Once this returns `Accepted`, the event survives a crash of every process of ours.
    ///
    /// # Errors
    /// [`QueueError::Full`] when `max_waiting` events wait, [`QueueError::Unavailable`].
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError>;

    /// At most `max` queues to claim from.
    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError>;

    /// Returns when something may have become ready: at once after a push in this process, and
    /// after `at_most` in any case.
    async fn changed(&self, at_most: Duration);

    /// One of the queues.
    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource>;

    /// The state of a queued or lately ended event.
    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError>;

    /// Ends an event that waits, also for a retry, as cancelled. For one that is claimed the request
    /// is stored, which survives a crash of every process: its holder learns of it from
    /// [`EventSource::extend`] and [`EventSource::retry`], and the next one, should the holder be
    /// lost, from [`Claim::cancel_requested`]. May be repeated. The event has exactly one end,
    /// whichever of this and its attempt comes first.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, QueueError>;

    /// All queues that hold anything.
    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError>;

    /// Drops ended events older than `ended_before`; returns how many.
    async fn collect(&self, ended_before: Timestamp) -> Result<u64, QueueError>;

    /// Revisions that events name which have not ended: they must not be forgotten, nor their
    /// packages be removed.
    async fn pinned(&self) -> Result<Vec<Digest>, QueueError>;

    /// Why accepted events would not be safe, if they would not; else nothing.
    async fn durability_warnings(&self) -> Vec<String>;

    /// Ends the tasks that the queue has of its own, once they have carried out what they were
    /// given. Later calls may fail.
    fn close(&self) {}
}

/// The queue failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The queue has as many waiting events as it may.
    #[error("the queue `{queue}` is full: {waiting} events wait, its limit")]
    Full {
        /// The queue that is full.
        queue: QueueName,
        /// Events that wait in it.
        waiting: u64,
    },
    /// The claim ran out and the event was claimed again, or has ended.
    #[error("the claim of `{0}` is not ours any more")]
    Stale(String),
    /// The store cannot be reached, or not within its deadline.
    #[error("the queue is not available: {0}")]
    Unavailable(#[source] ErrorCause),
    /// A row could not be read, or a statement was wrong.
    #[error("the queue failed: {0}")]
    Internal(#[source] ErrorCause),
}

impl QueueError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::Throttled,
            Self::Stale(_) => ErrorKind::Conflict,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

impl Receipt {
    /// For queues: a receipt that holds what the queue needs to find the claim again. While that
    /// type is private to the queue, no other code can make a receipt that the queue accepts.
    pub fn new(token: impl Any + Send + Sync) -> Self {
        Self(Box::new(token))
    }

    /// For queues: what [`Receipt::new`] was given; `None` if another queue made it.
    pub fn token<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt(…)")
    }
}

impl fmt::Display for QueueName {
    /// `namespace/function` for direct calls, `namespace/function/trigger` for a trigger's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trigger {
            None => self.function.fmt(f),
            Some(trigger) => write!(f, "{}/{trigger}", self.function),
        }
    }
}

impl FromStr for QueueName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else {
            return Err(NameError::new("queue", text, "`namespace/function[/trigger]`"));
        };
        let function = FunctionId { namespace: namespace.parse()?, name: name.parse()? };
        let trigger = parts.next().map(str::parse).transpose()?;
        if parts.next().is_some() {
            return Err(NameError::new("queue", text, "`namespace/function[/trigger]`"));
        }
        Ok(Self { function, trigger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_name_survives_text() {
        for text in ["default/hello", "default/hello/every-five-seconds"] {
            assert_eq!(text.parse::<QueueName>().unwrap().to_string(), text);
        }
        for bad in ["", "default", "a/b/c", "default/hello/x/y", "default//x"] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad}");
        }
    }
}
