//! What is known of a segment without reading it: its size, its times, and by a Bloom filter which
//! functions and requests it might contain. A closed segment's index is kept in a file beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::frame::{FrameReader, SegmentFrameHeader};

/// Size of a segment's filter. With 4 bits for each key and 16,000 requests, about 1 in 400 keys is
/// a false positive.
const FILTER_BYTES: usize = 32 * 1024;
const MAGIC: &[u8; 8] = b"hanshuJ1";

/// A segment as far as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentExtent {
    pub(super) number: u64,
    /// Bytes of whole frames.
    pub(super) len: u64,
}

/// One segment's index.
#[derive(Debug)]
pub(super) struct SegmentIndex {
    /// Counts up; also the file's name.
    pub(super) number: u64,
    /// Bytes of whole frames.
    pub(super) len: u64,
    /// The earliest and the latest time of its entries, microseconds since 1970.
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    filter: Box<[u8]>,
}

impl SegmentIndex {
    pub(super) fn empty(number: u64) -> Self {
        let filter = vec![0; FILTER_BYTES].into_boxed_slice();
        Self { number, len: 0, first_us: i64::MAX, last_us: i64::MIN, filter }
    }

    /// How far it is written.
    pub(super) fn extent(&self) -> SegmentExtent {
        SegmentExtent { number: self.number, len: self.len }
    }

    /// Notes an entry that was written.
    pub(super) fn note(&mut self, header: &SegmentFrameHeader) {
        self.first_us = self.first_us.min(header.time_us);
        self.last_us = self.last_us.max(header.time_us);
        for key in [header.function, header.request] {
            for (byte, mask) in bits(key) {
                if let Some(byte) = self.filter.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
    }

    /// Whether it might contain entries of that function or request. `false` is certain.
    pub(super) fn might_contain(&self, key: u64) -> bool {
        bits(key).all(|(byte, mask)| self.filter.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    /// Reads the index that is kept beside a closed segment, or else the segment itself.
    pub(super) fn closed(folder: &Path, number: u64) -> std::io::Result<Self> {
        let len = fs::metadata(segment_path(folder, number))?.len();
        match fs::read(index_path(folder, number)).ok().and_then(|bytes| decode(number, &bytes)) {
            Some(known) if known.len <= len => Ok(known),
            Some(_) | None => {
                let scanned = Self::scan(folder, number)?;
                scanned.save(folder)?;
                Ok(scanned)
            }
        }
    }

    /// Reads a segment up to its last whole frame.
    pub(super) fn scan(folder: &Path, number: u64) -> std::io::Result<Self> {
        let mut segment = Self::empty(number);
        let file = File::open(segment_path(folder, number))?;
        let len = file.metadata()?.len();
        let mut frames = FrameReader::open(file, 0, len)?;
        while let Some(header) = frames.next()? {
            if frames.json(&header)?.is_none() && header.kind.is_some() {
                break;
            }
            segment.note(&header);
            segment.len = header.end;
        }
        Ok(segment)
    }

    /// Writes the index beside its segment.
    pub(super) fn save(&self, folder: &Path) -> std::io::Result<()> {
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

pub(super) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.log"))
}

pub(super) fn index_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.index"))
}

fn decode(number: u64, bytes: &[u8]) -> Option<SegmentIndex> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (last, filter) = rest.split_first_chunk::<8>()?;
    (filter.len() == FILTER_BYTES).then(|| SegmentIndex {
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
    use hanshu_core::{FunctionId, LogBatch, Namespace, Qualifier, Timestamp};

    use super::*;
    use crate::journal::JournalEntry;
    use crate::segments::frame::encode;

    fn header(key: u64) -> SegmentFrameHeader {
        let mut buffer = Vec::new();
        let entry = JournalEntry::Log(LogBatch {
            request_id: None,
            function: FunctionId {
                namespace: Namespace::default(),
                name: "hello".parse().unwrap(),
            },
            version: Qualifier::Latest,
            time: Timestamp::UNIX_EPOCH,
            lines: vec!["x".into()],
            first: false,
            cold_start: None,
        });
        let mut header = encode(&entry, &mut buffer).unwrap();
        (header.function, header.request) = (key, key);
        header
    }

    #[test]
    fn a_filter_has_no_false_negatives_and_few_false_positives() {
        let mut segment = SegmentIndex::empty(1);
        let key = |n: u64| n.wrapping_mul(0x2545_f491_4f6c_dd1d);
        for n in 1..=16_000 {
            segment.note(&header(key(n)));
        }
        assert!((1..=16_000).all(|n| segment.might_contain(key(n))));
        let wrong = (20_000..30_000).filter(|n| segment.might_contain(key(*n))).count();
        assert!(wrong < 150, "{wrong} of 10,000");
    }

    #[test]
    fn an_index_is_read_back_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = SegmentIndex::empty(7);
        segment.note(&header(99));
        segment.len = 55;
        segment.save(folder.path()).unwrap();
        let mut bytes = fs::read(index_path(folder.path(), 7)).unwrap();
        let read = decode(7, &bytes).unwrap();
        assert_eq!((read.len, read.first_us), (55, segment.first_us));
        assert!(read.might_contain(99));
        bytes[40] ^= 1;
        assert!(decode(7, &bytes).is_none());
        assert!(decode(7, b"short").is_none());
    }
}
