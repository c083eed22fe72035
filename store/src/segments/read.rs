//! Reading: segments are narrowed by time and by what they may hold, and then read in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;

use hanshu_core::ports::{JournalError, LogCursor, LogPage, LogQuery};
use hanshu_core::{InvocationRecord, RequestId};

use super::frame::{Frames, function_hash, request_hash};
use super::index::path;
use super::{Shared, failed, locked};
use crate::journal::{Entry, page};

/// A request's id may be a little younger than its first entry's time, by another clock.
const CLOCK_SLACK_US: i64 = 60 * 1_000_000;

/// A place: in this segment, before the frame that begins at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    number: u64,
    at: u64,
}

/// Which entries.
struct Wanted<'a> {
    query: &'a LogQuery,
    function: u64,
    request: u64,
    since_us: i64,
}

impl Wanted<'_> {
    fn is_it(&self, entry: &Entry) -> bool {
        *entry.function() == self.query.function
            && (self.query.request_id.is_none() || entry.request_id() == self.query.request_id)
    }

    /// Whether a segment may hold any.
    fn may_be_in(&self, segment: &super::index::Segment) -> bool {
        self.since_us <= segment.last_us
            && segment.may_hold(self.function)
            && (self.request == 0 || segment.may_hold(self.request))
    }
}

impl Shared {
    /// The records of one request, oldest first. Blocks.
    pub(super) fn find(
        &self,
        request_id: RequestId,
    ) -> Result<Vec<InvocationRecord>, JournalError> {
        let request = request_hash(Some(request_id));
        let since_us = born_us(request_id);
        let places: Vec<(u64, u64)> = locked(&self.segments)
            .iter()
            .filter(|segment| since_us <= segment.last_us && segment.may_hold(request))
            .map(|segment| (segment.number, segment.len))
            .collect();
        let mut found = Vec::new();
        for (number, len) in places {
            let Some(mut frames) = self.frames(number, 0, len)? else { continue };
            let error = |error| failed(&path(&self.folder, number), &error);
            while let Some(head) = frames.next().map_err(error)? {
                if head.request != request {
                    frames.skip(&head).map_err(error)?;
                    continue;
                }
                match frames.entry(&head).map_err(error)? {
                    Some(Entry::Record(record)) if record.request_id == request_id => {
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
        let wanted = Wanted {
            query,
            function: function_hash(&query.function),
            request: request_hash(query.request_id),
            since_us: born.max(since),
        };
        match (&query.after, query.since) {
            (Some(after), _) => self.forward(&wanted, parse(after)?),
            (None, Some(_)) => self.forward(&wanted, Place { number: 0, at: 0 }),
            (None, None) => self.newest(&wanted),
        }
    }

    /// The first entries after a place.
    fn forward(&self, wanted: &Wanted<'_>, after: Place) -> Result<LogPage, JournalError> {
        let (candidates, end) = self.candidates(wanted);
        let mut entries = Vec::new();
        for (number, len) in candidates {
            if number < after.number {
                continue;
            }
            let at = if number == after.number { after.at } else { 0 };
            let full = self.scan(wanted, (number, at, len), |place, entry| {
                entries.push(entry);
                (wanted.query.limit <= entries.len()).then_some(place)
            })?;
            if let Some(next) = full {
                return Ok(page(entries.iter(), cursor(next)));
            }
        }
        Ok(page(entries.iter(), cursor(end.max(after))))
    }

    /// The last entries of all, from the newest segment backwards.
    fn newest(&self, wanted: &Wanted<'_>) -> Result<LogPage, JournalError> {
        let (candidates, end) = self.candidates(wanted);
        let limit = wanted.query.limit;
        let mut entries: VecDeque<Entry> = VecDeque::new();
        for (number, len) in candidates.into_iter().rev() {
            let mut here = VecDeque::new();
            self.scan(wanted, (number, 0, len), |_, entry| {
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
        Ok(page(entries.iter(), cursor(end)))
    }

    /// Segments that may hold what is wanted, oldest first, with their lengths; and the end.
    fn candidates(&self, wanted: &Wanted<'_>) -> (Vec<(u64, u64)>, Place) {
        let segments = locked(&self.segments);
        let end = segments
            .last()
            .map_or(Place { number: 0, at: 0 }, |last| Place { number: last.number, at: last.len });
        let found = segments.iter().filter(|segment| wanted.may_be_in(segment));
        (found.map(|segment| (segment.number, segment.len)).collect(), end)
    }

    /// Hands every wanted entry of a part of a segment to `take`, with the place after it, until
    /// that says stop.
    fn scan<T>(
        &self,
        wanted: &Wanted<'_>,
        (number, at, len): (u64, u64, u64),
        mut take: impl FnMut(Place, Entry) -> Option<T>,
    ) -> Result<Option<T>, JournalError> {
        let error = |error| failed(&path(&self.folder, number), &error);
        let Some(mut frames) = self.frames(number, at, len)? else { return Ok(None) };
        while let Some(head) = frames.next().map_err(error)? {
            let may_match = head.function == wanted.function
                && (wanted.request == 0 || head.request == wanted.request)
                && wanted.since_us <= head.time_us;
            if !may_match {
                frames.skip(&head).map_err(error)?;
                continue;
            }
            let entry = frames.entry(&head).map_err(error)?;
            let Some(entry) = entry.filter(|entry| wanted.is_it(entry)) else { continue };
            if let Some(done) = take(Place { number, at: head.end }, entry) {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// `None` if the segment was removed meanwhile.
    fn frames(&self, number: u64, at: u64, len: u64) -> Result<Option<Frames>, JournalError> {
        let at_path = path(&self.folder, number);
        match File::open(&at_path).and_then(|file| Frames::open(file, at, len)) {
            Ok(frames) => Ok(Some(frames)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&at_path, &error)),
        }
    }
}

fn born_us(request_id: RequestId) -> i64 {
    let born_ms = request_id.born_ms().and_then(|ms| i64::try_from(ms).ok());
    born_ms.map_or(i64::MIN, |ms| ms.saturating_mul(1000).saturating_sub(CLOCK_SLACK_US))
}

fn cursor(place: Place) -> LogCursor {
    LogCursor(format!("{}:{}", place.number, place.at))
}

fn parse(cursor: &LogCursor) -> Result<Place, JournalError> {
    let place = cursor.0.split_once(':').and_then(|(number, at)| {
        Some(Place { number: number.parse().ok()?, at: at.parse().ok()? })
    });
    place.ok_or_else(|| JournalError::foreign_cursor(cursor))
}
