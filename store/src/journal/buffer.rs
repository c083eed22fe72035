//! The way into a journal: bounded in entries and bytes, and never waited for. One writer takes
//! from it in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::JournalError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::entry::JournalEntry;

/// Most entries that may wait to be written.
const ENTRIES_MAX: usize = 16_384;
/// Most bytes, roughly, that may wait to be written.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// A batch is written when its first entry is so old …
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// … or when so much waits.
const BATCH_BYTES: usize = 256 * 1024;
/// The longest wait for everything handed over to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// Writes batches of entries.
#[async_trait]
pub(crate) trait EntrySink: Send {
    /// Keeps the batch, all of it or, where that fails, as much as there was room for.
    async fn write(&mut self, batch: Vec<JournalEntry>) -> Result<(), JournalError>;
}

/// What was lost because the ring was full or a write failed, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedEntries {
    /// Lines of functions' output.
    pub lines: u64,
    /// Records of attempts.
    pub records: u64,
}

/// Hands entries to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct JournalBuffer {
    sender: mpsc::Sender<BufferMessage>,
    counters: Arc<BufferCounters>,
}

/// The one that writes. Nothing is written until it runs.
pub struct JournalWriter {
    receiver: mpsc::Receiver<BufferMessage>,
    counters: Arc<BufferCounters>,
    sink: Box<dyn EntrySink>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "flushes are rare, and entries are many")]
enum BufferMessage {
    Entry(JournalEntry),
    Flush(oneshot::Sender<Result<(), JournalError>>),
}

#[derive(Debug, Default)]
struct BufferCounters {
    bytes_waiting: AtomicUsize,
    /// Says that the writer should not gather any longer.
    hurry: Notify,
    dropped_lines: AtomicU64,
    dropped_records: AtomicU64,
}

/// A buffer, and the writer that empties it into the sink.
pub(crate) fn buffer(sink: Box<dyn EntrySink>) -> (JournalBuffer, JournalWriter) {
    let (sender, receiver) = mpsc::channel(ENTRIES_MAX);
    let counters = Arc::new(BufferCounters::default());
    (
        JournalBuffer { sender, counters: Arc::clone(&counters) },
        JournalWriter { receiver, counters, sink },
    )
}

impl JournalBuffer {
    /// Hands over an entry, or counters it as dropped.
    pub(crate) fn push(&self, entry: JournalEntry) {
        let bytes = entry.bytes();
        let waiting = self.counters.bytes_waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if BYTES_MAX < waiting {
            self.counters.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.counters.lose(&entry);
            return;
        }
        let sent = self.sender.try_send(BufferMessage::Entry(entry));
        if waiting - bytes < BATCH_BYTES && BATCH_BYTES <= waiting {
            self.counters.hurry.notify_one();
        }
        if let Err(error) = sent {
            self.counters.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
            let (mpsc::error::TrySendError::Full(message)
            | mpsc::error::TrySendError::Closed(message)) = error;
            if let BufferMessage::Entry(entry) = message {
                self.counters.lose(&entry);
            }
        }
    }

    /// Waits until everything handed over before is written.
    pub(crate) async fn flush(&self) -> Result<(), JournalError> {
        let work = async {
            let (answer, written) = oneshot::channel();
            let gone = |_| JournalError::Failed("its writer has ended".into());
            self.sender.send(BufferMessage::Flush(answer)).await.map_err(|_| gone(()))?;
            self.counters.hurry.notify_one();
            written.await.map_err(|_| gone(()))?
        };
        let late = |_| {
            JournalError::Failed(format!("no flush within {} s", FLUSH_DEADLINE.as_secs()).into())
        };
        timeout(FLUSH_DEADLINE, work).await.map_err(late)?
    }

    pub(crate) fn dropped(&self) -> DroppedEntries {
        DroppedEntries {
            lines: self.counters.dropped_lines.load(Ordering::Relaxed),
            records: self.counters.dropped_records.load(Ordering::Relaxed),
        }
    }
}

impl BufferCounters {
    fn lose(&self, entry: &JournalEntry) {
        match entry {
            JournalEntry::Log(batch) => {
                let lines = u64::try_from(batch.lines.len()).unwrap_or(u64::MAX);
                self.drop_some(DroppedEntries { lines, records: 0 });
            }
            JournalEntry::Record(_) => self.drop_some(DroppedEntries { lines: 0, records: 1 }),
        }
    }

    fn drop_some(&self, dropped: DroppedEntries) {
        self.dropped_lines.fetch_add(dropped.lines, Ordering::Relaxed);
        self.dropped_records.fetch_add(dropped.records, Ordering::Relaxed);
        metrics::counter!("hanshu_journal_dropped_lines_total").increment(dropped.lines);
        metrics::counter!("hanshu_journal_dropped_records_total").increment(dropped.records);
    }
}

impl JournalWriter {
    /// Writes until `stop` is cancelled, and then what is left. Not to be cancelled otherwise:
    /// what it holds would be lost.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut was_failing = false;
        while let Some(Some(first)) = stop.run_until_cancelled(self.receiver.recv()).await {
            self.write_batch(first, &mut was_failing).await;
        }
        self.receiver.close();
        while let Some(first) = self.receiver.recv().await {
            self.write_batch(first, &mut was_failing).await;
        }
    }

    /// Gathers for a moment, writes, and answers who waits for it. While it gathers it does not
    /// listen: an entry that comes then costs its sender no wake-up of this task.
    async fn write_batch(&mut self, first: BufferMessage, was_failing: &mut bool) {
        let (mut batch, mut bytes, mut flushes) = (Vec::new(), 0, Vec::new());
        let much_waits = BATCH_BYTES <= self.counters.bytes_waiting.load(Ordering::Relaxed);
        if matches!(first, BufferMessage::Entry(_)) && !much_waits {
            let _ = timeout(BATCH_WAIT, self.counters.hurry.notified()).await;
        }
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                BufferMessage::Entry(entry) => {
                    bytes += entry.bytes();
                    batch.push(entry);
                }
                BufferMessage::Flush(answer) => flushes.push(answer),
            }
            if BATCH_BYTES <= bytes || !flushes.is_empty() {
                break;
            }
            next = self.receiver.try_recv().ok();
        }
        let written = self.write(batch, bytes).await;
        match (&written, *was_failing) {
            (Err(error), false) => tracing::error!(%error, "Records and logs are being lost"),
            (Ok(()), true) => tracing::warn!("Records and logs are kept again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        *was_failing = written.is_err();
        for answer in flushes {
            // Whoever asked may have given up waiting.
            let _ = answer.send(written.clone());
        }
    }

    async fn write(&mut self, batch: Vec<JournalEntry>, bytes: usize) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        let lines = batch.iter().map(JournalEntry::lines).sum::<usize>();
        let records = batch.iter().filter(|entry| matches!(entry, JournalEntry::Record(_))).count();
        let written = self.sink.write(batch).await;
        self.counters.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        if written.is_err() {
            let count = |n| u64::try_from(n).unwrap_or(u64::MAX);
            self.counters
                .drop_some(DroppedEntries { lines: count(lines), records: count(records) });
        }
        written
    }
}

impl std::fmt::Debug for JournalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalWriter").field("counters", &self.counters).finish_non_exhaustive()
    }
}
