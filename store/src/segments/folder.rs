//! The folder of segments: which there are, what is known of each, and which are removed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hanshu_core::ports::JournalError;
use tokio::sync::watch;

use super::frame::SegmentFrameHeader;
use super::index::{SegmentExtent, SegmentIndex, index_path, segment_path};

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOptions {
    /// A segment is closed when it has so many bytes.
    pub segment_bytes: u64,
    /// All segments together: the oldest go first.
    pub bytes_max: u64,
    /// What is older goes when `collect` is called.
    pub age_max: Duration,
}

/// The segments of a journal.
#[derive(Debug)]
pub(super) struct SegmentFolder {
    path: PathBuf,
    options: SegmentOptions,
    /// Oldest first; the last one is written to.
    segments: Mutex<Vec<SegmentIndex>>,
    /// Counts writes, for readers that wait for one.
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

impl SegmentFolder {
    /// Opens the folder, making it if absent. Blocks for as long as segments without an index take
    /// to be read.
    pub(super) fn open(path: &Path, options: SegmentOptions) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let segments = Mutex::new(load(path)?);
        Ok(Self { path: path.into(), options, segments, changed: watch::Sender::new(0) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn options(&self) -> &SegmentOptions {
        &self.options
    }

    /// A receiver that is notified of every write.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The segments, oldest first. The lock is not to be held across anything that blocks.
    pub(super) fn segments(&self) -> MutexGuard<'_, Vec<SegmentIndex>> {
        // Nothing panics while the lock is held; if something did, the list would still be whole.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that is written to.
    pub(super) fn last(&self) -> SegmentExtent {
        let segments = self.segments();
        segments.last().map_or(SegmentExtent { number: 1, len: 0 }, SegmentIndex::extent)
    }

    /// Notes frames that were appended to the last segment, and tells readers.
    pub(super) fn note_frames(&self, frames: &[SegmentFrameHeader], bytes: usize) {
        let mut segments = self.segments();
        if let Some(last) = segments.last_mut() {
            frames.iter().for_each(|frame| last.note(frame));
            last.len += u64::try_from(bytes).unwrap_or(0);
        }
        drop(segments);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes the index of the last segment, which is about to be closed.
    pub(super) fn save_last(&self) -> std::io::Result<()> {
        self.segments().last().map_or(Ok(()), |last| last.save(&self.path))
    }

    /// Adds the segment that is written to from now on.
    pub(super) fn begin(&self, number: u64) {
        self.segments().push(SegmentIndex::empty(number));
    }

    /// Removes closed segments that ended before a time, and then the oldest until the rest is
    /// within the journal's size. Returns the bytes freed.
    pub(super) fn remove_over(&self, before_us: i64) -> Result<u64, JournalError> {
        let mut freed = 0;
        while let Some(SegmentExtent { number, len }) = self.next_to_remove(before_us) {
            let path = segment_path(&self.path, number);
            // The index first: a segment without an index is read again at the next start, an
            // index without a segment would stay.
            let _ = fs::remove_file(index_path(&self.path, number));
            fs::remove_file(&path).map_err(|error| io_error(&path, &error))?;
            self.segments().retain(|segment| segment.number != number);
            freed += len;
        }
        Ok(freed)
    }

    fn next_to_remove(&self, before_us: i64) -> Option<SegmentExtent> {
        let segments = self.segments();
        let (_, closed) = segments.split_last()?;
        let total: u64 = segments.iter().map(|segment| segment.len).sum();
        let oldest = closed.first()?;
        let is_over = self.options.bytes_max < total || oldest.last_us < before_us;
        is_over.then(|| oldest.extent())
    }
}

/// All segments, oldest first; at least one. The last is read in full: it may end in the middle of
/// a frame.
fn load(folder: &Path) -> std::io::Result<Vec<SegmentIndex>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let Some(last) = numbers.pop() else { return Ok(vec![SegmentIndex::empty(1)]) };
    let mut segments = Vec::new();
    for number in numbers {
        segments.push(SegmentIndex::closed(folder, number)?);
    }
    segments.push(SegmentIndex::scan(folder, last)?);
    Ok(segments)
}

pub(super) fn io_error(path: &Path, error: &std::io::Error) -> JournalError {
    JournalError::Failed(format!("`{}`: {error}", path.display()).into())
}
