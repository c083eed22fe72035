//! Ended events as a stream: each reader has a cursor of its own and sees each end at least once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::queue::QueueError;
use crate::digest::Digest;
use crate::event::Origin;
use crate::record::AsyncState;

/// A reader of ended events. A reader of a later program is a variant, and a row of
/// `ended_readers` in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedEventReader {
    /// What fills [`super::InvocationHistory`].
    History,
}

/// A place in the stream; later places are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndedEventPosition(pub i64);

/// An event that has ended, as readers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedEvent {
    /// Its position in the stream.
    pub position: EndedEventPosition,
    /// Its last state; `result` is `None`: results stay beside the queue.
    pub state: AsyncState,
    /// The revision that it was accepted for.
    pub revision: Digest,
    /// What started it.
    pub origin: Origin,
    /// JSON text: what the function was given.
    pub input: Bytes,
}

/// Events read from the stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndedEventBatch {
    /// In their order, without those that could not be read.
    pub events: Vec<EndedEvent>,
    /// What to confirm once all of them have been dealt with; `None` if nothing was there.
    pub position: Option<EndedEventPosition>,
}

/// The stream of ended events. An end is written to it in the transaction, or script, that settles
/// the event, so that none is missing after a crash.
#[async_trait]
pub trait EndedEvents: Send + Sync {
    /// The next events behind the reader's cursor, at most `max`, in their order.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    async fn read(
        &self,
        reader: EndedEventReader,
        max: usize,
    ) -> Result<EndedEventBatch, QueueError>;

    /// Moves the reader's cursor to `position`, never back, and drops what every reader has
    /// passed. What was read and not confirmed is read again: readers are idempotent by request
    /// id.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    async fn confirm(
        &self,
        reader: EndedEventReader,
        position: EndedEventPosition,
    ) -> Result<(), QueueError>;

    /// Takes over at most `max` ends that wait where the queue wrote them, if that is not this
    /// stream itself (Redis): each is here exactly once before it goes there. Returns how many.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`], on either side.
    async fn take_over(&self, max: usize) -> Result<usize, QueueError>;

    /// Returns when an event may have ended, and after `at_most` in any case.
    async fn changed(&self, at_most: Duration);
}

impl EndedEventReader {
    /// Every reader of the stream.
    pub const ALL: [Self; 1] = [Self::History];

    /// Its name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
        }
    }
}
