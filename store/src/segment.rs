//! The format of one log segment, and how it is read back after a crash.
//!
//! A segment is a header and then frames, each at a multiple of 8 bytes, in a file that was filled with zeros
//! beforehand: an append changes no metadata, so its sync costs one write. One frame is one group commit: a checksum
//! over its first revision, length, time and transactions. Frame n+1 is written only after frame n has been synced. So
//! a frame that does not check out is a torn, never acknowledged append if nothing valid follows it, and damage to
//! acknowledged data if something does.
//!
//! Checksums start from a number which every segment draws anew, so that no stored value can pose as a frame.

use crate::Revision;
use crate::codec::{Decoder, Malformed, Record, put_events};
use crate::error::OpenError;
use crate::snapshot::Commit;
use bytes::BufMut;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::time::SystemTime;

const SEGMENT_MAGIC: &[u8; 8] = b"storelog";
const VERSION: u32 = 2;
const FRAME_MAGIC: u32 = 0x4d52_4657;
/// Length of the header of a segment, and of that of a frame.
pub(crate) const HEADER: usize = 32;
const ALIGNMENT: usize = 8;

/// What starts the checksums of one segment.
pub(crate) type Salt = u32;

/// A new segment's header.
pub(crate) fn segment_header(first: Revision) -> ([u8; HEADER], Salt) {
    let salt = std::hash::RandomState::new().build_hasher().finish() as Salt;
    let mut header = Vec::with_capacity(HEADER);
    header.put_slice(SEGMENT_MAGIC);
    header.put_u32_le(VERSION);
    header.put_u32_le(salt);
    header.put_u64_le(first.0);
    header.put_u32_le(crc32c::crc32c(&header));
    header.put_u32_le(0);
    (header.try_into().expect("the fields add up to the header's length"), salt)
}

/// Appends the frame of a group commit to `buffer`, for the segment which begins with revision `since`.
pub(crate) fn put_frame(buffer: &mut Vec<u8>, salt: Salt, commits: &[Commit], since: Revision, time: SystemTime) {
    let start = buffer.len();
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    buffer.put_u32_le(FRAME_MAGIC);
    buffer.put_u32_le(0);
    buffer.put_u64_le(commits.first().map_or(0, |commit| commit.revision.0));
    buffer.put_u64_le(0);
    buffer.put_u64_le(millis);
    for commit in commits {
        put_events(buffer, commit.events.iter().map(|event| &**event), since);
    }
    let length = (buffer.len() - start - HEADER) as u64;
    buffer[start + 16..start + 24].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(salt, &buffer[start + 8..]);
    buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}

/// A segment with one frame around `payload`, its checksums right.
pub(crate) fn with_payload(first: Revision, payload: &[u8]) -> Vec<u8> {
    let (header, salt) = segment_header(first);
    let mut bytes = header.to_vec();
    put_frame(&mut bytes, salt, &[], first, SystemTime::UNIX_EPOCH);
    bytes.extend_from_slice(payload);
    bytes[HEADER + 8..HEADER + 16].copy_from_slice(&first.0.to_le_bytes());
    bytes[HEADER + 16..HEADER + 24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let checksum = checksum(salt, &bytes[HEADER + 8..]);
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// CRC-32C, which processors compute themselves.
fn checksum(salt: Salt, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(salt, bytes)
}

/// A group commit read back.
pub(crate) struct Frame<'a> {
    pub(crate) first: Revision,
    pub(crate) time: SystemTime,
    transactions: Decoder<'a>,
}

impl<'a> Frame<'a> {
    /// The events of its transactions, with the revisions these took.
    pub(crate) fn transactions(mut self) -> Result<Vec<(Revision, Vec<Record<'a>>)>, Malformed> {
        let mut transactions = Vec::new();
        while !self.transactions.0.is_empty() {
            let revision = self.first.0.checked_add(transactions.len() as u64).ok_or(Malformed("revision"))?;
            transactions.push((Revision(revision), self.transactions.records()?));
        }
        Ok(transactions)
    }
}

/// What stands behind the last valid frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros, or nothing.
    Clean,
    /// An append that was never synced, so never acknowledged.
    Torn,
    /// A frame which was valid once, for one at this offset came after it.
    Damaged {
        /// Where valid frames go on.
        next: usize,
    },
}

/// A segment in memory, read frame by frame.
pub(crate) struct SegmentReader {
    bytes: Vec<u8>,
    salt: Salt,
    offset: usize,
}

impl SegmentReader {
    /// Reads a segment which should begin with revision `first`.
    pub(crate) fn open(path: &Path, first: Revision) -> Result<Self, OpenError> {
        let bytes = std::fs::read(path).map_err(OpenError::io("read", path))?;
        Self::of(bytes, first).map_err(|malformed| OpenError::corrupt(path, 0, malformed))
    }

    /// The same of what has been read.
    pub(crate) fn of(bytes: Vec<u8>, first: Revision) -> Result<Self, Malformed> {
        let salt = read_header(&bytes, first)?;
        Ok(Self { bytes, salt, offset: HEADER })
    }

    /// The next frame, or `None` at the first that does not check out.
    pub(crate) fn next_frame(&mut self) -> Option<Frame<'_>> {
        let (frame, end) = frame_at(&self.bytes, self.salt, self.offset)?;
        self.offset = end;
        Some(frame)
    }

    /// What starts the checksums.
    pub(crate) fn salt(&self) -> Salt {
        self.salt
    }

    /// Behind the last frame read.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// What follows, once [`Self::next_frame`] has said `None`.
    pub(crate) fn tail(&self) -> Tail {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) {
            return Tail::Clean;
        }
        (self.offset..self.bytes.len())
            .step_by(ALIGNMENT)
            .find(|offset| frame_at(&self.bytes, self.salt, *offset).is_some())
            .map_or(Tail::Torn, |next| Tail::Damaged { next })
    }
}

fn read_header(bytes: &[u8], first: Revision) -> Result<Salt, Malformed> {
    let mut fields = Decoder(bytes);
    let magic = fields.take(SEGMENT_MAGIC.len())?;
    let version = fields.u32()?;
    let salt = fields.u32()?;
    let begins = fields.u64()?;
    let checksum = fields.u32()?;
    fields.u32()?;
    if magic != SEGMENT_MAGIC || checksum != crc32c::crc32c(&bytes[..24]) {
        return Err(Malformed("segment header"));
    }
    if version != VERSION {
        return Err(Malformed("format version: written by another release"));
    }
    if begins != first.0 {
        return Err(Malformed("first revision: it is not the one in the file's name"));
    }
    Ok(salt)
}

/// The frame which begins at `offset`, and where it ends with its padding.
pub(crate) fn frame_at(bytes: &[u8], salt: Salt, offset: usize) -> Option<(Frame<'_>, usize)> {
    let bytes = bytes.get(offset..)?;
    let mut fields = Decoder(bytes);
    if fields.u32().ok()? != FRAME_MAGIC {
        return None;
    }
    let expected = fields.u32().ok()?;
    let first = Revision(fields.u64().ok()?);
    let length = usize::try_from(fields.u64().ok()?).ok()?;
    let millis = fields.u64().ok()?;
    let transactions = fields.take(length).ok()?;
    if checksum(salt, bytes.get(8..HEADER.checked_add(length)?)?) != expected {
        return None;
    }
    let time = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(millis))?;
    let end = (offset + HEADER + length).next_multiple_of(ALIGNMENT);
    Some((Frame { first, time, transactions: Decoder(transactions) }, end))
}
