//! What a broker must offer so that its streams can start functions.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamEntry {
    /// Unique in the stream; entries are ordered as the stream orders them.
    pub(crate) id: String,
    /// Names and values.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Entries that a consumer holds until they are acknowledged or dead-lettered, in the stream's
/// order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamBatch {
    pub(crate) entries: Vec<StreamEntry>,
    /// The attempt that is to run, from 1; the same for all entries.
    pub(crate) attempt: u32,
}

/// The consumer group and the consumer that read a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerIdentity {
    /// The trigger: its consumers share the stream's entries.
    pub(crate) group: String,
    /// The node: what a consumer holds is its own again after a restart.
    pub(crate) consumer: String,
}

/// The broker failed, or cannot be reached. The text is for `hanshu trigger list`: it contains
/// neither an address nor a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StreamError(pub(crate) String);

/// A stream that can be connected to.
#[async_trait]
pub(crate) trait StreamSource: fmt::Debug + Send + Sync {
    /// Connects, and makes the stream and the group where they are missing. A new group starts at
    /// the stream's beginning, so that what was written before the trigger's deploy is not lost.
    async fn connect(
        &self,
        identity: &ConsumerIdentity,
    ) -> Result<Box<dyn StreamConsumer>, StreamError>;

    /// Writes an entry as an element of `Records` of an event: JSON text.
    fn write_record(&self, entry: &StreamEntry, json: &mut Vec<u8>);
}

/// One connected consumer of a group. Delivery is at least once: what is neither acknowledged nor
/// dead-lettered is read again, by this consumer or, when it has been silent, by another one.
///
/// The broker keeps a number for each entry that is held: the attempt that runs, or will run next.
/// Only failures of the function raise it; a crash of the platform does not.
#[async_trait]
pub(crate) trait StreamConsumer: Send {
    /// The next batch: what this consumer holds after a connect or after [`Self::redeliver`]; then
    /// what other consumers hold and have not renewed for `dead_after`; then new entries. Waits
    /// about a second at most; the batch is empty if there is nothing.
    async fn read(&mut self, dead_after: Duration) -> Result<StreamBatch, StreamError>;

    /// The next reads begin again with what this consumer holds.
    fn redeliver(&mut self);

    /// Keeps the entries for longer; `false` if this consumer does not hold all of them any more.
    async fn renew(&mut self, ids: &[String]) -> Result<bool, StreamError>;

    /// Removes the entries from the group: they are done.
    async fn ack(&mut self, ids: &[String]) -> Result<(), StreamError>;

    /// Sets the number of the entries' next attempt.
    async fn set_attempt(&mut self, ids: &[String], attempt: u32) -> Result<(), StreamError>;

    /// Copies the entries to the stream's dead-letter stream, with the reason, and acknowledges
    /// them: both or neither.
    async fn dead_letter(
        &mut self,
        entries: &[StreamEntry],
        reason: &str,
    ) -> Result<(), StreamError>;

    /// The number of entries in the dead-letter stream.
    async fn dead_lettered(&mut self) -> Result<u64, StreamError>;
}
