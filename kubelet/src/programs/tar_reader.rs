//! Reading tar archives as they come: ustar, with the long names of GNU and of pax.
//!
//! Follows POSIX.1-2017, `pax`, and GNU tar's "Basic Tar Format".

use crate::files::CAPACITY;
use crate::program::Input;
use bytes::{Bytes, BytesMut};
use std::io;
use tar::{EntryType, Header};
use tokio::io::{AsyncReadExt, BufReader};

const BLOCK: u64 = 512;
/// Long names and pax records are not larger.
const LONGEST_RECORD: u64 = 1 << 20;

/// One member of an archive.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) what: What,
}

/// What a member is.
pub(super) enum What {
    Directory,
    File(Bytes),
    /// A link, a device.
    Other,
}

/// The members of an archive, one after the other.
pub(super) struct Members {
    input: BufReader<Input>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Members {
    pub(super) fn new(input: Input) -> Self {
        Members { input: BufReader::with_capacity(64 << 10, input) }
    }

    /// The next member; `None` at the end, to which the input has been read then.
    ///
    /// # Errors
    /// `InvalidData`: it is no archive, or one that is cut off. `StorageFull`: a member is larger than any file tree.
    pub(super) async fn next(&mut self) -> io::Result<Option<Member>> {
        let mut long_name = None;
        let mut long_size = None;
        loop {
            let mut block = [0; BLOCK as usize];
            match self.input.read_exact(&mut block).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            if block.iter().all(|byte| *byte == 0) {
                // Whoever writes the rest must not find that nobody reads.
                tokio::io::copy_buf(&mut self.input, &mut tokio::io::sink()).await?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            let sum: u32 = block
                .iter()
                .enumerate()
                .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
                .sum();
            if header.cksum().ok() != Some(sum) {
                return Err(broken("a header's checksum is wrong"));
            }
            let size = header.entry_size().map_err(|_| broken("a header's size is no number"))?;
            match header.entry_type() {
                EntryType::GNULongName => {
                    let name = self.content(size, LONGEST_RECORD).await?;
                    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                    long_name = Some(String::from_utf8_lossy(name).into_owned());
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => {
                    self.content(size, LONGEST_RECORD).await?;
                }
                EntryType::XHeader => {
                    for (key, value) in records(&self.content(size, LONGEST_RECORD).await?) {
                        match key.as_str() {
                            "path" => long_name = Some(value),
                            "size" => long_size = value.parse().ok(),
                            _ => {}
                        }
                    }
                }
                kind => {
                    let name = long_name.unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
                    let mode = header.mode().unwrap_or(0o644) & 0o7777;
                    let content = self.content(long_size.unwrap_or(size), CAPACITY as u64).await?;
                    let what = match kind {
                        EntryType::Directory => What::Directory,
                        EntryType::Regular | EntryType::Continuous if name.ends_with('/') => What::Directory,
                        EntryType::Regular | EntryType::Continuous => What::File(content),
                        _ => What::Other,
                    };
                    return Ok(Some(Member { name, mode, what }));
                }
            }
        }
    }

    /// A member's content, and the padding behind it.
    async fn content(&mut self, size: u64, most: u64) -> io::Result<Bytes> {
        if size > most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut content = BytesMut::with_capacity(size as usize);
        let mut input = (&mut self.input).take(size);
        while input.read_buf(&mut content).await? > 0 {
            tokio::task::coop::consume_budget().await;
            if content.len() as u64 == size {
                break;
            }
        }
        if (content.len() as u64) < size {
            return Err(broken("it ends too early"));
        }
        let mut padding = [0; BLOCK as usize];
        let padding = &mut padding[..(size.next_multiple_of(BLOCK) - size) as usize];
        match self.input.read_exact(padding).await {
            Ok(_) => Ok(content.freeze()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(broken("it ends too early")),
            Err(error) => Err(error),
        }
    }
}

/// pax records: `LENGTH KEY=VALUE\n`, the length being that of all of it.
fn records(mut text: &[u8]) -> Vec<(String, String)> {
    let mut records = Vec::new();
    while let Some(space) = text.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&text[..space]).ok().and_then(|number| number.parse::<usize>().ok());
        let Some(record) = length.filter(|length| *length > space + 1 && *length <= text.len()) else { break };
        let body = String::from_utf8_lossy(&text[space + 1..record - 1]).into_owned();
        if let Some((key, value)) = body.split_once('=') {
            records.push((key.to_owned(), value.to_owned()));
        }
        text = &text[record..];
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(archive: Vec<u8>) -> io::Result<Vec<String>> {
        let mut members = Members::new(Box::new(io::Cursor::new(archive)));
        let mut names = Vec::new();
        while let Some(member) = members.next().await? {
            names.push(member.name);
        }
        Ok(names)
    }

    #[tokio::test]
    async fn pax_records_name_what_a_header_has_no_room_for() {
        let name = format!("{}/é.txt", "x".repeat(200));
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", name.as_bytes())]).expect("in memory");
        let mut header = Header::new_ustar();
        header.set_size(2);
        builder.append_data(&mut header, "short", &b"hi"[..]).expect("in memory");
        assert_eq!(names(builder.into_inner().expect("in memory")).await.expect("an archive"), [name]);
        assert_eq!(records(b"6 a=b\n5 c=\n99 x=y\n"), [("a".into(), "b".into()), ("c".into(), String::new())]);
    }

    #[test]
    fn garbage_is_an_error_or_an_end_and_never_a_panic() {
        use proptest::prelude::*;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind: u8, size: u64)| {
            let _ = runtime.block_on(names(bytes.clone()));
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[156] = kind;
            header.set_size(size % (1 << 33));
            header.set_cksum();
            let _ = runtime.block_on(names([header.as_bytes().as_slice(), &bytes].concat()));
        });
    }
}
