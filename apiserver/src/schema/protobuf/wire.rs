//! The wire format: keys, varints, lengths.

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::schema) enum WireError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: field has wrong wireType")]
    Mismatch,
    #[error("proto: invalid UTF-8")]
    Utf8,
    #[error("proto: nested too deeply")]
    Depth,
    #[error("proto: invalid embedded JSON")]
    Json,
    #[error("proto: time out of range")]
    Time,
}

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug)]
pub(in crate::schema) enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

pub(in crate::schema) struct Reader<'a>(pub(in crate::schema) &'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::schema) fn next(&mut self) -> Result<Option<(u32, Item<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| WireError::Overflow)?;
        let item = match key & 7 {
            0 => Item::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Item::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| WireError::Truncated)?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Overflow)?;
                Item::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Item::Fixed32
            }
            other => return Err(WireError::WireType(other as u8)),
        };
        Ok(Some((tag, item)))
    }

    pub(in crate::schema) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, byte) in self.0.iter().enumerate() {
            if index == 10 {
                return Err(WireError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(WireError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }
}

pub(in crate::schema) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(in crate::schema) fn put_number(out: &mut Vec<u8>, tag: u16, value: u64) {
    put_varint(out, u64::from(tag) << 3);
    put_varint(out, value);
}

pub(in crate::schema) fn put_bytes(out: &mut Vec<u8>, tag: u16, bytes: &[u8]) {
    put_varint(out, u64::from(tag) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
