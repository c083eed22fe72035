//! Reading: segments are chosen by time and by what they might contain, then read in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;

use hanshu_core::ports::{JournalError, LogCursor, LogPage, LogQuery};
use hanshu_core::{InvocationRecord, RequestId};

use super::folder::{SegmentFolder, io_error};
use super::frame::{FrameReader, function_hash, request_hash};
use super::index::{SegmentExtent, SegmentIndex, segment_path};
use crate::journal::{JournalEntry, render_page};

/// A request's id may be a little younger than its first entry's time, by another clock.
const CLOCK_SLACK_US: i64 = 60 * 1_000_000;

/// A position in the journal: in this segment, before the frame that begins at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct JournalPosition {
    segment: u64,
    offset: u64,
}

/// Which entries are asked for.
struct EntryFilter<'a> {
    query: &'a LogQuery,
    function: u64,
    request: u64,
    since_us: i64,
}

impl EntryFilter<'_> {
    fn matches(&self, entry: &JournalEntry) -> bool {
        *entry.function() == self.query.function
            && (self.query.request_id.is_none() || entry.request_id() == self.query.request_id)
    }

    /// Whether a segment might contain any.
    fn might_be_in(&self, segment: &SegmentIndex) -> bool {
        self.since_us <= segment.last_us
            && segment.might_contain(self.function)
            && (self.request == 0 || segment.might_contain(self.request))
    }
}

impl SegmentFolder {
    /// The records of one request, oldest first. Blocks.
    pub(super) fn find(
        &self,
        request_id: RequestId,
    ) -> Result<Vec<InvocationRecord>, JournalError> {
        let request = request_hash(Some(request_id));
        let since_us = born_us(request_id);
        let candidates: Vec<SegmentExtent> = self
            .segments()
            .iter()
            .filter(|segment| since_us <= segment.last_us && segment.might_contain(request))
            .map(SegmentIndex::extent)
            .collect();
        let mut found = Vec::new();
        for extent in candidates {
            let Some(mut frames) = self.frames(extent, 0)? else { continue };
            let to_error = |error| io_error(&segment_path(self.path(), extent.number), &error);
            while let Some(header) = frames.next().map_err(to_error)? {
                if header.request != request {
                    frames.skip(&header).map_err(to_error)?;
                    continue;
                }
                match frames.entry(&header).map_err(to_error)? {
                    Some(JournalEntry::Record(record)) if record.request_id == request_id => {
                        found.push(record);
                    }
                    Some(_) | None => {}
                }
            }
        }
        found.sort_by_key(|record| (record.attempt, record.started_at));
        Ok(found)
    }

    /// A page of a function's log; does not wait. Blocks.
    pub(super) fn page(&self, query: &LogQuery) -> Result<LogPage, JournalError> {
        let born = query.request_id.map_or(i64::MIN, born_us);
        let since = query.since.map_or(i64::MIN, |since| since.as_microsecond());
        let filter = EntryFilter {
            query,
            function: function_hash(&query.function),
            request: request_hash(query.request_id),
            since_us: born.max(since),
        };
        match (&query.after, query.since) {
            (Some(after), _) => self.forward(&filter, parse(after)?),
            (None, Some(_)) => self.forward(&filter, JournalPosition { segment: 0, offset: 0 }),
            (None, None) => self.newest(&filter),
        }
    }

    /// The first entries after a position.
    fn forward(
        &self,
        filter: &EntryFilter<'_>,
        after: JournalPosition,
    ) -> Result<LogPage, JournalError> {
        let (candidates, end) = self.candidates(filter);
        let mut entries = Vec::new();
        for extent in candidates {
            if extent.number < after.segment {
                continue;
            }
            let offset = if extent.number == after.segment { after.offset } else { 0 };
            let next = self.scan(filter, extent, offset, |next, entry| {
                entries.push(entry);
                (filter.query.limit <= entries.len()).then_some(next)
            })?;
            if let Some(next) = next {
                return Ok(render_page(entries.iter(), cursor(next)));
            }
        }
        Ok(render_page(entries.iter(), cursor(end.max(after))))
    }

    /// The last entries of all, from the newest segment backwards.
    fn newest(&self, filter: &EntryFilter<'_>) -> Result<LogPage, JournalError> {
        let (candidates, end) = self.candidates(filter);
        let limit = filter.query.limit;
        let mut entries: VecDeque<JournalEntry> = VecDeque::new();
        for extent in candidates.into_iter().rev() {
            let mut here = VecDeque::new();
            self.scan(filter, extent, 0, |_, entry| {
                here.push_back(entry);
                if limit < here.len() + entries.len() {
                    here.pop_front();
                }
                None::<()>
            })?;
            here.append(&mut entries);
            entries = here;
            if limit <= entries.len() {
                break;
            }
        }
        Ok(render_page(entries.iter(), cursor(end)))
    }

    /// Segments that might contain matching entries, oldest first; and the end of the journal.
    fn candidates(&self, filter: &EntryFilter<'_>) -> (Vec<SegmentExtent>, JournalPosition) {
        let segments = self.segments();
        let end = segments.last().map_or(JournalPosition { segment: 0, offset: 0 }, |last| {
            JournalPosition { segment: last.number, offset: last.len }
        });
        let found = segments.iter().filter(|segment| filter.might_be_in(segment));
        (found.map(SegmentIndex::extent).collect(), end)
    }

    /// Passes every matching entry of a segment, from an offset on, to `visit`, with the position
    /// after it, until that returns something.
    fn scan<T>(
        &self,
        filter: &EntryFilter<'_>,
        extent: SegmentExtent,
        offset: u64,
        mut visit: impl FnMut(JournalPosition, JournalEntry) -> Option<T>,
    ) -> Result<Option<T>, JournalError> {
        let to_error = |error| io_error(&segment_path(self.path(), extent.number), &error);
        let Some(mut frames) = self.frames(extent, offset)? else { return Ok(None) };
        while let Some(header) = frames.next().map_err(to_error)? {
            let may_match = header.function == filter.function
                && (filter.request == 0 || header.request == filter.request)
                && filter.since_us <= header.time_us;
            if !may_match {
                frames.skip(&header).map_err(to_error)?;
                continue;
            }
            let entry = frames.entry(&header).map_err(to_error)?;
            let Some(entry) = entry.filter(|entry| filter.matches(entry)) else { continue };
            let next = JournalPosition { segment: extent.number, offset: header.end };
            if let Some(done) = visit(next, entry) {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// `None` if the segment was removed meanwhile.
    fn frames(
        &self,
        extent: SegmentExtent,
        offset: u64,
    ) -> Result<Option<FrameReader>, JournalError> {
        let path = segment_path(self.path(), extent.number);
        match File::open(&path).and_then(|file| FrameReader::open(file, offset, extent.len)) {
            Ok(frames) => Ok(Some(frames)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, &error)),
        }
    }
}

fn born_us(request_id: RequestId) -> i64 {
    let born_ms = request_id.born_ms().and_then(|ms| i64::try_from(ms).ok());
    born_ms.map_or(i64::MIN, |ms| ms.saturating_mul(1000).saturating_sub(CLOCK_SLACK_US))
}

fn cursor(position: JournalPosition) -> LogCursor {
    LogCursor(format!("{}:{}", position.segment, position.offset))
}

fn parse(cursor: &LogCursor) -> Result<JournalPosition, JournalError> {
    let position = cursor.0.split_once(':').and_then(|(segment, offset)| {
        Some(JournalPosition { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    });
    position.ok_or_else(|| JournalError::ForeignCursor(cursor.0.clone()))
}
