//! How keys, values and transactions look in the log, in checkpoints and in archives: little-endian numbers, and
//! byte strings behind their length. Checksums are the business of those formats.

use crate::{Event, EventKind, Key, KeyValue, Revision};
use bytes::{BufMut, Bytes};

/// The bytes are not what an encoder here writes.
#[derive(Debug, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends a byte string.
pub(crate) fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.put_u64_le(bytes.len() as u64);
    buffer.put_slice(bytes);
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const NO_PREVIOUS: u8 = 0;
const PREVIOUS_HERE: u8 = 1;
const PREVIOUS_EARLIER: u8 = 2;

/// Appends what a transaction did, so that [`Decoder::records`] can say it again.
///
/// The state before an event is written out unless it was itself written at revision `since` or later: whoever has
/// everything from there on has it already. So a log segment can be read without what stands before it.
pub(crate) fn put_events<'a>(buffer: &mut Vec<u8>, events: impl ExactSizeIterator<Item = &'a Event>, since: Revision) {
    buffer.put_u64_le(events.len() as u64);
    for Event { kv, previous, kind } in events {
        buffer.put_u8(if *kind == EventKind::Put { PUT } else { DELETE });
        buffer.put_u64_le(kv.create_revision.0);
        buffer.put_u64_le(kv.version);
        put_bytes(buffer, kv.key.as_bytes());
        if *kind == EventKind::Put {
            put_bytes(buffer, &kv.value);
        }
        match previous {
            None => buffer.put_u8(NO_PREVIOUS),
            Some(previous) if previous.mod_revision >= since => {
                buffer.put_u8(PREVIOUS_EARLIER);
                buffer.put_u64_le(previous.mod_revision.0);
            }
            Some(previous) => {
                buffer.put_u8(PREVIOUS_HERE);
                buffer.put_u64_le(previous.mod_revision.0);
                put_bytes(buffer, &previous.value);
            }
        }
    }
}

/// What the log says of one event. Borrowed from it: what is not wanted costs no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) key: &'a str,
    /// `None` for a delete.
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) create_revision: Revision,
    pub(crate) version: u64,
    pub(crate) previous: Option<Previous<'a>>,
}

/// The state before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous<'a> {
    pub(crate) mod_revision: Revision,
    /// `None`: the segment has it at that revision.
    pub(crate) value: Option<&'a [u8]>,
}

/// Appends a key's state without the key.
pub(crate) fn put_state(buffer: &mut Vec<u8>, kv: &KeyValue) {
    buffer.put_u64_le(kv.create_revision.0);
    buffer.put_u64_le(kv.mod_revision.0);
    buffer.put_u64_le(kv.version);
    put_bytes(buffer, &kv.value);
}

/// Reads from the front of a slice; never beyond it.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes were taken")))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes were taken")))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u64()?;
        self.take(usize::try_from(length).map_err(|_| Malformed("length"))?)
    }

    /// The events of one transaction.
    pub(crate) fn records(&mut self) -> Result<Vec<Record<'a>>, Malformed> {
        let mut records = Vec::new();
        for _ in 0..self.u64()? {
            records.push(self.record()?);
        }
        Ok(records)
    }

    fn record(&mut self) -> Result<Record<'a>, Malformed> {
        let kind = self.byte()?;
        let (create_revision, version) = (Revision(self.u64()?), self.u64()?);
        let key = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("key"))?;
        let value = match kind {
            PUT => Some(self.bytes()?),
            DELETE => None,
            _ => return Err(Malformed("operation")),
        };
        let previous = match self.byte()? {
            NO_PREVIOUS => None,
            PREVIOUS_EARLIER => Some(Previous { mod_revision: Revision(self.u64()?), value: None }),
            PREVIOUS_HERE => Some(Previous { mod_revision: Revision(self.u64()?), value: Some(self.bytes()?) }),
            _ => return Err(Malformed("state before an event")),
        };
        Ok(Record { key, value, create_revision, version, previous })
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn state(&mut self, key: Key) -> Result<KeyValue, Malformed> {
        Ok(KeyValue {
            key,
            create_revision: Revision(self.u64()?),
            mod_revision: Revision(self.u64()?),
            version: self.u64()?,
            value: Bytes::copy_from_slice(self.bytes()?),
        })
    }
}

pub(crate) fn key(bytes: &[u8]) -> Result<Key, Malformed> {
    std::str::from_utf8(bytes).map(Key::from).map_err(|_| Malformed("key"))
}
