//! Writing: frames are appended to the last segment; a full one is closed and the oldest are
//! removed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hanshu_core::ports::JournalError;

use super::frame::{Head, encode};
use super::index::{Segment, index_path, path};
use super::{Shared, failed, locked};
use crate::journal::{Entry, Sink};

/// A segment is closed when its first entry is so much older than the next one, so that age can
/// be told by whole segments where little is written.
const SEGMENT_SPAN_US: i64 = 24 * 3600 * 1_000_000;

/// Appends to the journal's last segment.
#[derive(Debug)]
pub(super) struct Appender {
    shared: Arc<Shared>,
    file: Arc<File>,
}

/// Frames that are to be written at once.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    heads: Vec<Head>,
}

impl Appender {
    /// Opens the last segment, cutting off what a crash left of a frame.
    pub(super) fn open(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (number, len) = shared.last();
        let file = open_segment(&shared.folder, number)?;
        file.set_len(len)?;
        Ok(Self { shared, file: Arc::new(file) })
    }

    fn append(&mut self, batch: &[Entry]) -> Result<(), JournalError> {
        let mut pending = Pending::default();
        for entry in batch {
            let head = encode(entry, &mut pending.bytes)?;
            pending.heads.push(head);
            if self.is_full(&pending) {
                self.write(std::mem::take(&mut pending))?;
                self.rotate()?;
            }
        }
        self.write(pending)
    }

    fn is_full(&self, pending: &Pending) -> bool {
        let more = u64::try_from(pending.bytes.len()).unwrap_or(u64::MAX);
        let newest = pending.heads.last().map_or(i64::MIN, |head| head.time_us);
        let segments = locked(&self.shared.segments);
        segments.last().is_some_and(|last| {
            self.shared.options.segment_bytes <= last.len + more
                || SEGMENT_SPAN_US <= newest.saturating_sub(last.first_us)
        })
    }

    /// Writes whole frames, or none: what a full disk cuts off is taken back.
    fn write(&mut self, pending: Pending) -> Result<(), JournalError> {
        let (number, len) = self.shared.last();
        if pending.bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = (&*self.file).write_all(&pending.bytes) {
            let _ = self.file.set_len(len);
            return Err(failed(&path(&self.shared.folder, number), &error));
        }
        let mut segments = locked(&self.shared.segments);
        if let Some(last) = segments.last_mut() {
            pending.heads.iter().for_each(|head| last.note(head));
            last.len += u64::try_from(pending.bytes.len()).unwrap_or(0);
        }
        drop(segments);
        self.shared.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Closes the last segment and begins the next.
    fn rotate(&mut self) -> Result<(), JournalError> {
        let folder = &self.shared.folder;
        let (number, _) = self.shared.last();
        let at = path(folder, number);
        self.file.sync_data().map_err(|error| failed(&at, &error))?;
        let next = open_segment(folder, number + 1).map_err(|error| failed(&at, &error))?;
        self.file = Arc::new(next);
        {
            let mut segments = locked(&self.shared.segments);
            if let Some(closed) = segments.last() {
                closed.keep(folder).map_err(|error| failed(&at, &error))?;
            }
            segments.push(Segment::empty(number + 1));
        }
        self.shared.remove_over(i64::MIN)?;
        Ok(())
    }
}

#[async_trait]
impl Sink for Appender {
    async fn write(&mut self, batch: Vec<Entry>) -> Result<(), JournalError> {
        let mut appender = Self { shared: Arc::clone(&self.shared), file: Arc::clone(&self.file) };
        let done = tokio::task::spawn_blocking(move || {
            let written = appender.append(&batch);
            (appender, written)
        });
        let (appender, written) = done.await.map_err(|error| JournalError(error.to_string()))?;
        *self = appender;
        written
    }
}

impl Shared {
    /// Removes closed segments that ended before, and then the oldest until the rest is within
    /// the journal's size. Returns the bytes freed.
    pub(super) fn remove_over(&self, before_us: i64) -> Result<u64, JournalError> {
        let mut freed = 0;
        loop {
            let Some((number, len)) = self.next_to_go(before_us) else { return Ok(freed) };
            let at = path(&self.folder, number);
            // The index first: a segment without one is read again, one without the other is not.
            let _ = fs::remove_file(index_path(&self.folder, number));
            fs::remove_file(&at).map_err(|error| failed(&at, &error))?;
            locked(&self.segments).retain(|segment| segment.number != number);
            freed += len;
        }
    }

    fn next_to_go(&self, before_us: i64) -> Option<(u64, u64)> {
        let segments = locked(&self.segments);
        let (_, closed) = segments.split_last()?;
        let total: u64 = segments.iter().map(|segment| segment.len).sum();
        let oldest = closed.first()?;
        let is_over = self.options.bytes_max < total || oldest.last_us < before_us;
        is_over.then_some((oldest.number, oldest.len))
    }

    /// The last segment's number and length.
    pub(super) fn last(&self) -> (u64, u64) {
        locked(&self.segments).last().map_or((1, 0), |last| (last.number, last.len))
    }
}

fn open_segment(folder: &Path, number: u64) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path(folder, number))
}
