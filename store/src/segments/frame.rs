//! Entries on disk: frames of a checksum, what a search asks for, and JSON.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of everything after the first 8 bytes |
//! | 4 | CRC-32 of everything after the first 8 bytes |
//! | 1 | kind: 1 output, 2 record |
//! | 8 | hash of the function |
//! | 8 | hash of the request id; 0 for none |
//! | 8 | time, microseconds since 1970 |
//! | … | the entry as JSON |
//!
//! Numbers are little-endian.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use hanshu_core::ports::JournalError;
use hanshu_core::{FunctionId, RequestId};

use crate::journal::{JournalEntry, JournalEntryKind};

const PREFIX_BYTES: u64 = 8;
const FIXED_BYTES: u64 = 25;
/// No entry is larger: its lines are bounded where they are captured.
const FRAME_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a search needs of a frame, without reading its JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFrameHeader {
    /// `None` for a kind that we do not know.
    pub(super) kind: Option<JournalEntryKind>,
    pub(super) function: u64,
    pub(super) request: u64,
    pub(super) time_us: i64,
    /// Where the frame begins, and where the next one does.
    pub(super) at: u64,
    pub(super) end: u64,
    checksum: u32,
}

/// Reads a segment's frames one after the other.
#[derive(Debug)]
pub(super) struct FrameReader {
    reader: BufReader<File>,
    at: u64,
    len: u64,
}

/// A stable hash (FNV-1a, 64 bits) that is never 0.
fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

pub(super) fn function_hash(function: &FunctionId) -> u64 {
    hash(&function.to_string())
}

pub(super) fn request_hash(request_id: Option<RequestId>) -> u64 {
    request_id.map_or(0, |id| hash(id.encode(&mut [0; 36])))
}

/// Appends an entry's frame to the buffer; returns what the segment's index needs of it.
pub(super) fn encode(
    entry: &JournalEntry,
    buffer: &mut Vec<u8>,
) -> Result<SegmentFrameHeader, JournalError> {
    let json = entry.encode()?;
    let (function, request) = (function_hash(entry.function()), request_hash(entry.request_id()));
    let time_us = entry.time().as_microsecond();
    let mut body = Vec::with_capacity(json.len() + 25);
    body.push(entry.kind().number());
    body.extend_from_slice(&function.to_le_bytes());
    body.extend_from_slice(&request.to_le_bytes());
    body.extend_from_slice(&time_us.to_le_bytes());
    body.extend_from_slice(json.as_bytes());
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| u64::from(*length) <= FRAME_BYTES_MAX)
        .ok_or_else(|| JournalError::Failed(format!("an entry has {} bytes", body.len()).into()))?;
    let checksum = crc32fast::hash(&body);
    let at = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&checksum.to_le_bytes());
    buffer.extend_from_slice(&body);
    let end = at + PREFIX_BYTES + u64::from(length);
    Ok(SegmentFrameHeader {
        kind: Some(entry.kind()),
        function,
        request,
        time_us,
        at,
        end,
        checksum,
    })
}

impl FrameReader {
    /// The frames from one that begins at `at`, up to `len` bytes of the file.
    pub(super) fn open(file: File, at: u64, len: u64) -> std::io::Result<Self> {
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        reader.seek(SeekFrom::Start(at))?;
        Ok(Self { reader, at, len })
    }

    /// The next frame's header; `None` at the end, or where a frame was cut off.
    pub(super) fn next(&mut self) -> std::io::Result<Option<SegmentFrameHeader>> {
        let mut bytes = [0; 33];
        if self.len < self.at + PREFIX_BYTES + FIXED_BYTES {
            return Ok(None);
        }
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (prefix, fixed) = bytes.split_at(8);
        let length = u64::from(u32::from_le_bytes(array(prefix, 0)));
        let end = self.at + PREFIX_BYTES + length;
        if !(FIXED_BYTES..=FRAME_BYTES_MAX).contains(&length) || self.len < end {
            return Ok(None);
        }
        let header = SegmentFrameHeader {
            kind: fixed.first().and_then(|kind| JournalEntryKind::of_number(i64::from(*kind))),
            function: u64::from_le_bytes(array(fixed, 1)),
            request: u64::from_le_bytes(array(fixed, 9)),
            time_us: i64::from_le_bytes(array(fixed, 17)),
            at: self.at,
            end,
            checksum: u32::from_le_bytes(array(prefix, 4)),
        };
        self.at = end;
        Ok(Some(header))
    }

    /// Skips the rest of the frame whose header was read last.
    pub(super) fn skip(&mut self, header: &SegmentFrameHeader) -> std::io::Result<()> {
        let rest = header.end - header.at - PREFIX_BYTES - FIXED_BYTES;
        self.reader.seek_relative(i64::try_from(rest).unwrap_or(i64::MAX))
    }

    /// The JSON of the frame whose header was read last; `None` if its checksum is wrong.
    pub(super) fn json(&mut self, header: &SegmentFrameHeader) -> std::io::Result<Option<Vec<u8>>> {
        let rest = header.end - header.at - PREFIX_BYTES - FIXED_BYTES;
        let mut json = vec![0; usize::try_from(rest).unwrap_or(0)];
        self.reader.read_exact(&mut json)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[header.kind.map_or(0, JournalEntryKind::number)]);
        hasher.update(&header.function.to_le_bytes());
        hasher.update(&header.request.to_le_bytes());
        hasher.update(&header.time_us.to_le_bytes());
        hasher.update(&json);
        Ok((hasher.finalize() == header.checksum).then_some(json))
    }

    /// The entry of the frame whose header was read last; `None` if it is damaged.
    pub(super) fn entry(
        &mut self,
        header: &SegmentFrameHeader,
    ) -> std::io::Result<Option<JournalEntry>> {
        let Some(kind) = header.kind else {
            self.skip(header)?;
            return Ok(None);
        };
        let json = self.json(header)?;
        Ok(json.and_then(|json| JournalEntry::decode(kind, &json).ok()))
    }
}

/// `N` bytes from `at`; zeros where there are none.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|slice| slice.try_into().ok());
    found.unwrap_or([0; N])
}
