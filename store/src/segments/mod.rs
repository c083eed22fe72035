//! The journal in append-only files: segments of frames, each with a small index in memory.
//!
//! A record and three log lines cost 17 µs of SQLite a call; here they are one part of a write
//! every 20 ms. What the last moment before a crash held may be lost; what is half written is cut
//! off at the next start.

mod frame;
mod index;
mod read;
mod write;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{InvocationJournal, JournalError, LogPage, LogQuery};
use hanshu_core::{InvocationRecord, LogBatch, RequestId, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::journal::{Dropped, Entry, JournalWriter, Ring, channel};
use index::Segment;
use write::Appender;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOptions {
    /// A segment is closed when it has so many bytes.
    pub segment_bytes: u64,
    /// All segments together: the oldest go first.
    pub bytes_max: u64,
    /// What is older goes when `collect` is called.
    pub age_max: Duration,
}

/// The journal in a folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SegmentJournal {
    ring: Ring,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    options: SegmentOptions,
    /// Oldest first; the last one is written to.
    segments: Mutex<Vec<Segment>>,
    /// Counts writes, for those who wait for one.
    changed: watch::Sender<u64>,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            segment_bytes: 16 * MIB,
            bytes_max: 1024 * MIB,
            age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl SegmentJournal {
    /// Opens the journal in a folder, making it if absent. Nothing is written until the writer
    /// runs. Blocks for as long as segments without an index take to be read.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(
        folder: &Path,
        options: SegmentOptions,
    ) -> Result<(Self, JournalWriter), JournalError> {
        let open = || {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let segments = load(folder)?;
            let shared = Arc::new(Shared {
                folder: folder.into(),
                options,
                segments: Mutex::new(segments),
                changed: watch::Sender::new(0),
            });
            let appender = Appender::open(Arc::clone(&shared))?;
            Ok((shared, appender))
        };
        let (shared, appender) = open().map_err(|error| failed(folder, &error))?;
        let (ring, writer) = channel(Box::new(appender));
        Ok((Self { ring, shared }, writer))
    }

    /// What was lost since the start.
    pub fn dropped(&self) -> Dropped {
        self.ring.dropped()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || work(&shared));
        done.await.map_err(|error| JournalError(error.to_string()))?
    }

    async fn page(&self, query: LogQuery) -> Result<LogPage, JournalError> {
        self.blocking(move |shared| shared.page(&query)).await
    }
}

#[async_trait]
impl InvocationJournal for SegmentJournal {
    fn record(&self, record: InvocationRecord) {
        self.ring.push(Entry::Record(record));
    }

    fn log(&self, batch: LogBatch) {
        self.ring.push(Entry::Log(batch));
    }

    async fn flush(&self) -> Result<(), JournalError> {
        self.ring.flush().await
    }

    async fn find(&self, request_id: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        self.blocking(move |shared| shared.find(request_id)).await
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage, JournalError> {
        let deadline = Instant::now() + query.wait;
        let mut changed = self.shared.changed.subscribe();
        let mut query = query.clone();
        loop {
            changed.mark_unchanged();
            let page = self.page(query.clone()).await?;
            if !page.lines.is_empty() || deadline <= Instant::now() {
                return Ok(page);
            }
            query.after = Some(page.next.clone());
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(page),
            }
        }
    }

    async fn collect(&self, now: Timestamp) -> Result<u64, JournalError> {
        let before = now.checked_sub(self.shared.options.age_max).unwrap_or(Timestamp::MIN);
        self.blocking(move |shared| shared.remove_over(before.as_microsecond())).await
    }
}

/// All segments there are, oldest first; at least one. The last is read wholly: it may end in the
/// middle of a frame.
fn load(folder: &Path) -> std::io::Result<Vec<Segment>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let Some(last) = numbers.pop() else { return Ok(vec![Segment::empty(1)]) };
    let mut segments = Vec::new();
    for number in numbers {
        segments.push(Segment::closed(folder, number)?);
    }
    segments.push(Segment::scan(folder, last)?);
    Ok(segments)
}

/// No lock is held while anything can panic; if one did, what it guards is still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(path: &Path, error: &std::io::Error) -> JournalError {
    JournalError(format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
fn tests_entry(buffer: &mut Vec<u8>) -> frame::Head {
    let batch = LogBatch {
        request_id: None,
        function: hanshu_core::FunctionId {
            namespace: hanshu_core::Namespace::default(),
            name: "hello".parse().unwrap(),
        },
        version: hanshu_core::Qualifier::Latest,
        time: Timestamp::UNIX_EPOCH,
        lines: vec!["x".into()],
        first: false,
        cold_start: None,
    };
    frame::encode(&Entry::Log(batch), buffer).unwrap()
}
