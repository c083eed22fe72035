//! Writing: frames are appended to the last segment; a full one is closed and the oldest are
//! removed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hanshu_core::ErrorCause;
use hanshu_core::ports::JournalError;

use super::folder::{SegmentFolder, io_error};
use super::frame::{SegmentFrameHeader, encode};
use super::index::{SegmentExtent, segment_path};
use crate::journal::{EntrySink, JournalEntry};

/// A segment is closed when its first entry is so much older than the next one, so that old
/// entries can be removed, which happens by whole segments, where little is written.
const SEGMENT_SPAN_US: i64 = 24 * 3600 * 1_000_000;

/// Appends to the journal's last segment.
#[derive(Debug)]
pub(super) struct SegmentAppender {
    segments: Arc<SegmentFolder>,
    file: Arc<File>,
}

/// Frames that are to be written at once.
#[derive(Default)]
struct PendingFrames {
    bytes: Vec<u8>,
    frames: Vec<SegmentFrameHeader>,
}

impl SegmentAppender {
    /// Opens the last segment, cutting off what a crash left of a frame.
    pub(super) fn open(segments: Arc<SegmentFolder>) -> std::io::Result<Self> {
        let SegmentExtent { number, len } = segments.last();
        let file = open_segment(segments.path(), number)?;
        file.set_len(len)?;
        Ok(Self { segments, file: Arc::new(file) })
    }

    fn append(&mut self, batch: &[JournalEntry]) -> Result<(), JournalError> {
        let mut pending = PendingFrames::default();
        for entry in batch {
            let frame = encode(entry, &mut pending.bytes)?;
            pending.frames.push(frame);
            if self.is_full(&pending) {
                self.write(std::mem::take(&mut pending))?;
                self.rotate()?;
            }
        }
        self.write(pending)
    }

    fn is_full(&self, pending: &PendingFrames) -> bool {
        let more = u64::try_from(pending.bytes.len()).unwrap_or(u64::MAX);
        let newest = pending.frames.last().map_or(i64::MIN, |frame| frame.time_us);
        let segments = self.segments.segments();
        segments.last().is_some_and(|last| {
            self.segments.options().segment_bytes <= last.len + more
                || SEGMENT_SPAN_US <= newest.saturating_sub(last.first_us)
        })
    }

    /// Writes whole frames, or none: on a full disk, what was written of them is cut off again.
    fn write(&mut self, pending: PendingFrames) -> Result<(), JournalError> {
        if pending.bytes.is_empty() {
            return Ok(());
        }
        let SegmentExtent { number, len } = self.segments.last();
        if let Err(error) = (&*self.file).write_all(&pending.bytes) {
            let _ = self.file.set_len(len);
            return Err(io_error(&segment_path(self.segments.path(), number), &error));
        }
        self.segments.note_frames(&pending.frames, pending.bytes.len());
        Ok(())
    }

    /// Closes the last segment and begins the next.
    fn rotate(&mut self) -> Result<(), JournalError> {
        let folder = self.segments.path();
        let number = self.segments.last().number;
        let to_error = |error| io_error(&segment_path(folder, number), &error);
        self.file.sync_data().map_err(to_error)?;
        self.segments.save_last().map_err(to_error)?;
        self.file = Arc::new(open_segment(folder, number + 1).map_err(to_error)?);
        self.segments.begin(number + 1);
        self.segments.remove_over(i64::MIN)?;
        Ok(())
    }
}

#[async_trait]
impl EntrySink for SegmentAppender {
    async fn write(&mut self, batch: Vec<JournalEntry>) -> Result<(), JournalError> {
        let mut appender =
            Self { segments: Arc::clone(&self.segments), file: Arc::clone(&self.file) };
        let done = tokio::task::spawn_blocking(move || {
            let written = appender.append(&batch);
            (appender, written)
        });
        let (appender, written) =
            done.await.map_err(|error| JournalError::Failed(ErrorCause::new(error)))?;
        *self = appender;
        written
    }
}

fn open_segment(folder: &Path, number: u64) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(segment_path(folder, number))
}
