//! One event's output within a size limit: its start and its end are kept, the middle is counted.
//! Pure.

use hanshu_core::{LOG_KEEP_BYTES, LOG_TAIL_BYTES_MAX};

/// A line up to this long is kept whole where the start or the end of the output is cut.
const LINE_BYTES_MAX: usize = 1024 * 1024 + 4096;
/// Bytes of the end that are held in memory: what is kept, and the line in which it may begin.
const END_BYTES_MAX: usize = LOG_KEEP_BYTES + LINE_BYTES_MAX;

/// One event's output.
#[derive(Debug, Default)]
pub(crate) struct OutputCapture {
    /// The part of the start that was not taken yet.
    start: Vec<u8>,
    /// Bytes that were added to the start, including those taken since.
    start_len: usize,
    /// Bytes of the start's last line so far.
    line_len: usize,
    start_is_full: bool,
    end: Vec<u8>,
    /// Bytes dropped between start and end.
    dropped_bytes: u64,
    /// The last bytes of all output, where a caller asked for them.
    tail: Option<Vec<u8>>,
}

impl OutputCapture {
    /// Keeps the last [`LOG_TAIL_BYTES_MAX`] bytes from now on, those of earlier output included.
    pub(crate) fn want_tail(&mut self) {
        let mut tail = Vec::new();
        for part in [&self.start, &self.end] {
            extend_tail(&mut tail, part);
        }
        self.tail = Some(tail);
    }

    /// Adds output that was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Some(tail) = &mut self.tail {
            extend_tail(tail, bytes);
        }
        let rest = if self.start_is_full { bytes } else { self.push_start(bytes) };
        self.end.extend_from_slice(rest);
        if 2 * END_BYTES_MAX < self.end.len() {
            self.drop_front(self.end.len() - END_BYTES_MAX);
        }
    }

    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.start.is_empty() && self.end.is_empty() && self.dropped_bytes == 0
    }

    /// Takes the whole lines of the start.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        let Some(last) = self.start.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.start.split_off(last + 1);
        let whole = std::mem::replace(&mut self.start, rest);
        lines(&whole)
    }

    /// Takes the rest, with a mark where bytes were dropped.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        let from = self.end_begins_at();
        self.drop_front(from);
        let mut start = std::mem::take(&mut self.start);
        let end = std::mem::take(&mut self.end);
        if self.dropped_bytes == 0 {
            start.extend_from_slice(&end);
            return lines(&start);
        }
        let mut all = lines(&start);
        all.push(format!("[… {} bytes cut …]", self.dropped_bytes));
        all.extend(lines(&end));
        all
    }

    /// The last bytes of all output, as lossy UTF-8; `None` unless they were asked for.
    pub(crate) fn tail(&self) -> Option<String> {
        self.tail.as_ref().map(|tail| String::from_utf8_lossy(tail).into_owned())
    }

    /// Bytes dropped so far.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Fills the start up to its limit, or to the end of the line that crosses it; returns the rest.
    fn push_start<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut take = LOG_KEEP_BYTES.saturating_sub(self.start_len).min(bytes.len());
        let (head, rest) = bytes.split_at(take);
        self.line_len = match head.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => head.len() - last - 1,
            None => self.line_len + head.len(),
        };
        if LOG_KEEP_BYTES <= self.start_len + take && !rest.is_empty() {
            let open = 0 < self.line_len;
            let room = LINE_BYTES_MAX.saturating_sub(self.line_len);
            let more = rest.iter().take(room).position(|byte| *byte == b'\n');
            take += match more {
                _ if !open => 0,
                Some(end) => end + 1,
                None => rest.len().min(room),
            };
            let done = !open || more.is_some() || room <= rest.len();
            self.start_is_full = done;
            self.line_len += rest.len().min(room);
        }
        let (head, rest) = bytes.split_at(take);
        self.start.extend_from_slice(head);
        self.start_len += take;
        rest
    }

    /// Where the kept end begins: at the line that crosses its limit, unless that line is longer than
    /// [`LINE_BYTES_MAX`].
    fn end_begins_at(&self) -> usize {
        let over = self.end.len().saturating_sub(LOG_KEEP_BYTES);
        if over == 0 {
            return 0;
        }
        let before = self.end.get(..over).unwrap_or_default();
        let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if over - line <= LINE_BYTES_MAX { line } else { over }
    }

    fn drop_front(&mut self, bytes: usize) {
        self.end.drain(..bytes);
        self.dropped_bytes += bytes as u64;
    }
}

fn extend_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(bytes.len().saturating_sub(LOG_TAIL_BYTES_MAX)..).unwrap_or_default();
    let keep = LOG_TAIL_BYTES_MAX - bytes.len();
    tail.drain(..tail.len().saturating_sub(keep));
    tail.extend_from_slice(bytes);
}

fn lines(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured(chunks: &[&[u8]]) -> Vec<String> {
        let mut capture = OutputCapture::default();
        let mut all = Vec::new();
        for chunk in chunks {
            capture.push(chunk);
            all.extend(capture.take_lines());
        }
        all.extend(capture.finish());
        all
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        assert_eq!(captured(&[b"a\nb", b"c\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(captured(&[b"\n"]), [""]);
        assert_eq!(captured(&[b""]), [""; 0]);
        assert_eq!(captured(&[b"\xff\x00x\n"]), ["\u{fffd}\0x"]);
    }

    #[test]
    fn a_line_of_a_megabyte_survives_wherever_it_stands() {
        let long = "x".repeat(1024 * 1024);
        for before in [0, 1, LOG_KEEP_BYTES - 1, LOG_KEEP_BYTES, 3 * LOG_KEEP_BYTES] {
            let text = format!("{}{long}\nlast\n", "y\n".repeat(before / 2));
            let chunks: Vec<_> = text.as_bytes().chunks(65536).collect();
            let lines = captured(&chunks);
            assert!(lines.contains(&long), "after {before} bytes");
            assert_eq!(lines.last().unwrap(), "last");
        }
    }

    #[test]
    fn fifty_megabytes_are_cut_with_a_mark_and_keep_start_and_end() {
        let mut capture = OutputCapture::default();
        let mut kept = Vec::new();
        let mut total = 0;
        for number in 0..700_000 {
            let line = format!("line {number} {}\n", "z".repeat(60));
            total += line.len();
            capture.push(line.as_bytes());
            assert!(capture.start.len() + capture.end.len() < 5 * 1024 * 1024);
            if number % 1000 == 0 {
                kept.extend(capture.take_lines());
            }
        }
        kept.extend(capture.finish());
        assert!(50_000_000 < total);
        assert!(kept[0].starts_with("line 0 ") && kept.last().unwrap().starts_with("line 699999 "));
        let marks: Vec<_> = kept.iter().filter(|line| line.starts_with("[…")).collect();
        assert_eq!(marks, [&format!("[… {} bytes cut …]", capture.dropped_bytes())]);
        let bytes: usize = kept.iter().map(|line| line.len() + 1).sum();
        let dropped = usize::try_from(capture.dropped_bytes()).unwrap();
        assert_eq!(bytes - marks[0].len() - 1 + dropped, total);
    }

    #[test]
    fn the_tail_is_the_end_of_everything() {
        let mut capture = OutputCapture::default();
        capture.push(b"early ");
        capture.want_tail();
        capture.push(&[b'a'; 5000]);
        capture.push(b"end");
        let tail = capture.tail().unwrap();
        assert_eq!(tail.len(), LOG_TAIL_BYTES_MAX);
        assert!(tail.ends_with("aend"));
    }

    proptest! {
        /// Below the limit, output in any chunks comes out as its lines.
        #[test]
        fn nothing_is_lost_below_the_limit(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let whole = chunks.concat();
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(captured(&chunks), lines(&whole));
        }
    }
}
