//! How keys, values and transactions look in the log, in checkpoints and in archives: little-endian numbers, and
//! byte strings behind their length. Checksums are the business of those formats.

use crate::{Event, EventKind, Key, KeyValue, Operation, Revision};
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

/// Appends what a transaction did, so that [`Decoder::operations`] can do it again.
pub(crate) fn put_events<'a>(buffer: &mut Vec<u8>, events: impl ExactSizeIterator<Item = &'a Event>) {
    buffer.put_u64_le(events.len() as u64);
    for event in events {
        match event.kind {
            EventKind::Put => {
                buffer.put_u8(PUT);
                put_bytes(buffer, event.kv.key.as_bytes());
                put_bytes(buffer, &event.kv.value);
            }
            EventKind::Delete => {
                buffer.put_u8(DELETE);
                put_bytes(buffer, event.kv.key.as_bytes());
            }
        }
    }
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

    pub(crate) fn key(&mut self) -> Result<Key, Malformed> {
        key(self.bytes()?)
    }

    pub(crate) fn operations(&mut self) -> Result<Vec<Operation>, Malformed> {
        let mut operations = Vec::new();
        for _ in 0..self.u64()? {
            let kind = self.take(1)?[0];
            let key = self.key()?;
            operations.push(match kind {
                PUT => Operation::Put { key, value: Bytes::copy_from_slice(self.bytes()?) },
                DELETE => Operation::Delete { key },
                _ => return Err(Malformed("operation")),
            });
        }
        Ok(operations)
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
