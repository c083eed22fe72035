//! What is known of a segment without reading it: its size, its time, and which functions and
//! requests it may hold. A closed segment's index is kept beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::frame::{Frames, Head};

/// Bits of a segment's filter. With 4 per key, 16,000 requests are told wrongly once in 400.
const FILTER_BYTES: usize = 32 * 1024;
const MAGIC: &[u8; 8] = b"hanshuJ1";

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Counts up; also the file's name.
    pub(super) number: u64,
    /// Bytes of whole frames.
    pub(super) len: u64,
    /// The earliest and the latest time of its entries, microseconds since 1970.
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    filter: Box<[u8]>,
}

impl Segment {
    pub(super) fn empty(number: u64) -> Self {
        let filter = vec![0; FILTER_BYTES].into_boxed_slice();
        Self { number, len: 0, first_us: i64::MAX, last_us: i64::MIN, filter }
    }

    /// Notes an entry that was written.
    pub(super) fn note(&mut self, head: &Head) {
        self.first_us = self.first_us.min(head.time_us);
        self.last_us = self.last_us.max(head.time_us);
        for key in [head.function, head.request] {
            for (byte, mask) in bits(key) {
                if let Some(byte) = self.filter.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
    }

    /// Whether it may hold entries of that function or request. Never wrong when it says no.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        bits(key).all(|(byte, mask)| self.filter.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    /// Reads the index that is kept beside a closed segment, or else the segment itself.
    pub(super) fn closed(folder: &Path, number: u64) -> std::io::Result<Self> {
        let len = fs::metadata(path(folder, number))?.len();
        match fs::read(index_path(folder, number)).ok().and_then(|bytes| decode(number, &bytes)) {
            Some(known) if known.len <= len => Ok(known),
            Some(_) | None => {
                let scanned = Self::scan(folder, number)?;
                scanned.keep(folder)?;
                Ok(scanned)
            }
        }
    }

    /// Reads a segment up to its last whole frame.
    pub(super) fn scan(folder: &Path, number: u64) -> std::io::Result<Self> {
        let mut segment = Self::empty(number);
        let file = File::open(path(folder, number))?;
        let len = file.metadata()?.len();
        let mut frames = Frames::open(file, 0, len)?;
        while let Some(head) = frames.next()? {
            if frames.json(&head)?.is_none() && head.kind.is_some() {
                break;
            }
            segment.note(&head);
            segment.len = head.end;
        }
        Ok(segment)
    }

    /// Keeps the index beside its segment.
    pub(super) fn keep(&self, folder: &Path) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.first_us.to_le_bytes());
        bytes.extend_from_slice(&self.last_us.to_le_bytes());
        bytes.extend_from_slice(&self.filter);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let temporary = folder.join(".tmp-index");
        fs::write(&temporary, bytes)?;
        fs::rename(temporary, index_path(folder, self.number))
    }
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.log"))
}

pub(super) fn index_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.index"))
}

fn decode(number: u64, bytes: &[u8]) -> Option<Segment> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (last, filter) = rest.split_first_chunk::<8>()?;
    (filter.len() == FILTER_BYTES).then(|| Segment {
        number,
        len: u64::from_le_bytes(*len),
        first_us: i64::from_le_bytes(*first),
        last_us: i64::from_le_bytes(*last),
        filter: filter.into(),
    })
}

/// A key's bits: four slices of its hash, which is spread once more.
fn bits(key: u64) -> impl Iterator<Item = (usize, u8)> {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ key;
    (0..4).map(move |turn: u32| {
        let bit = mixed.rotate_left(turn * 16).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 46;
        let bit = usize::try_from(bit).unwrap_or(0) % (FILTER_BYTES * 8);
        (bit / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(key: u64) -> Head {
        let mut buffer = Vec::new();
        let mut head = crate::segments::tests_entry(&mut buffer);
        (head.function, head.request) = (key, key);
        head
    }

    #[test]
    fn a_filter_never_misses_and_seldom_errs() {
        let mut segment = Segment::empty(1);
        let key = |n: u64| n.wrapping_mul(0x2545_f491_4f6c_dd1d);
        for n in 1..=16_000 {
            segment.note(&head(key(n)));
        }
        assert!((1..=16_000).all(|n| segment.may_hold(key(n))));
        let wrong = (20_000..30_000).filter(|n| segment.may_hold(key(*n))).count();
        assert!(wrong < 150, "{wrong} of 10,000");
    }

    #[test]
    fn an_index_survives_its_file_and_a_damaged_one_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::empty(7);
        segment.note(&head(99));
        segment.len = 55;
        segment.keep(folder.path()).unwrap();
        let mut bytes = fs::read(index_path(folder.path(), 7)).unwrap();
        let read = decode(7, &bytes).unwrap();
        assert_eq!((read.len, read.first_us), (55, segment.first_us));
        assert!(read.may_hold(99));
        bytes[40] ^= 1;
        assert!(decode(7, &bytes).is_none());
        assert!(decode(7, b"short").is_none());
    }
}
