//! The journal's port over its folder: disk work runs where it may block, readers wait for
//! writes.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hanshu_core::ports::{InvocationJournal, JournalError, LogPage, LogQuery};
use hanshu_core::{ErrorCause, InvocationRecord, LogBatch, RequestId, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::append::SegmentAppender;
use super::folder::{SegmentFolder, SegmentOptions, io_error};
use crate::journal::{DroppedEntries, JournalBuffer, JournalEntry, JournalWriter, buffer};

/// The journal in a folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SegmentJournal {
    buffer: JournalBuffer,
    segments: Arc<SegmentFolder>,
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
            let segments = Arc::new(SegmentFolder::open(folder, options)?);
            let appender = SegmentAppender::open(Arc::clone(&segments))?;
            Ok((segments, appender))
        };
        let (segments, appender) = open().map_err(|error| io_error(folder, &error))?;
        let (buffer, writer) = buffer(Box::new(appender));
        Ok((Self { buffer, segments }, writer))
    }

    /// What was lost since the start.
    pub fn dropped(&self) -> DroppedEntries {
        self.buffer.dropped()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SegmentFolder) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let segments = Arc::clone(&self.segments);
        let done = tokio::task::spawn_blocking(move || work(&segments));
        done.await.map_err(|error| JournalError::Failed(ErrorCause::new(error)))?
    }

    async fn page(&self, query: LogQuery) -> Result<LogPage, JournalError> {
        self.blocking(move |segments| segments.page(&query)).await
    }
}

#[async_trait]
impl InvocationJournal for SegmentJournal {
    fn record(&self, record: InvocationRecord) {
        self.buffer.push(JournalEntry::Record(record));
    }

    fn log(&self, batch: LogBatch) {
        self.buffer.push(JournalEntry::Log(batch));
    }

    async fn flush(&self) -> Result<(), JournalError> {
        self.buffer.flush().await
    }

    async fn find(&self, request_id: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        self.blocking(move |segments| segments.find(request_id)).await
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage, JournalError> {
        let deadline = Instant::now() + query.wait;
        let mut changed = self.segments.subscribe();
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
        let before = now.checked_sub(self.segments.options().age_max).unwrap_or(Timestamp::MIN);
        self.blocking(move |segments| segments.remove_over(before.as_microsecond())).await
    }
}
