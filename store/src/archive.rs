//! The whole state in one file: to keep elsewhere, and to make a store from.
//!
//! A header with the revision, the number of keys and the length of the file; the keys with their states; and the
//! SHA-256 of everything before it. The history is not saved. [`Archive`] makes such a file piece by piece,
//! [`verify_archive`] says whether one is whole, and [`restore`](crate::restore()) makes a store of it.

use crate::checkpoint::CheckpointFailed;
use crate::codec::{Malformed, key, put_bytes, put_state};
use crate::error::OpenError;
use crate::snapshot::Snapshot;
use crate::{Key, KeyValue, Revision};
use bytes::{BufMut, Bytes};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"storesnp";
const VERSION: u32 = 2;
/// Magic, version, revision, keys, length.
const HEADER: usize = 8 + 4 + 8 + 8 + 8;
const CHECKSUM: u64 = 32;
/// How much is read or made at a time.
const PIECE: usize = 64 << 10;

/// Why a state was not saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a snapshot of a store", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file has a format this release does not read.
    #[error("{} has format version {version}; this release reads version {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// The file ends too early.
    #[error("{} is cut short: it has {length} bytes of {expected}", .path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// How long it is.
        length: u64,
        /// How long it was when it was saved.
        expected: u64,
    },
    /// The file is not what was saved.
    #[error("{} is damaged: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The directory to restore into cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The state could not be written there.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointFailed),
}

impl ArchiveError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn corrupt(path: &Path, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What a whole archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The revision of the state.
    pub revision: Revision,
    /// How many keys it has.
    pub keys: u64,
    /// Length of the file in bytes.
    pub length: u64,
}

/// A state as the pieces of its file, made as they are asked for. Lets go of what has been given out.
pub struct Archive {
    contents: Contents,
    entries: Box<dyn Iterator<Item = (Key, Arc<KeyValue>)> + Send>,
    hasher: Sha256,
    part: Part,
}

/// What of an archive comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Entries,
    End,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Archive").field("contents", &self.contents).finish_non_exhaustive()
    }
}

impl Archive {
    pub(crate) fn new(state: Snapshot) -> Self {
        const NUMBERS: u64 = 5 * 8;
        let entries = state.keys.values().map(|kv| NUMBERS + (kv.key.len() + kv.value.len()) as u64);
        let length = HEADER as u64 + entries.sum::<u64>() + CHECKSUM;
        let contents = Contents { revision: state.revision, keys: state.keys.len() as u64, length };
        let entries = Box::new(state.keys.into_iter());
        Self { contents, entries, hasher: Sha256::new(), part: Part::Header }
    }

    /// What the file will be.
    pub fn contents(&self) -> Contents {
        self.contents
    }
}

impl Iterator for Archive {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.part == Part::End {
            return None;
        }
        let mut buffer = Vec::with_capacity(PIECE + (4 << 10));
        if self.part == Part::Header {
            let Contents { revision, keys, length } = self.contents;
            buffer.put_slice(MAGIC);
            buffer.put_u32_le(VERSION);
            for number in [revision.0, keys, length] {
                buffer.put_u64_le(number);
            }
            self.part = Part::Entries;
        }
        while buffer.len() < PIECE
            && let Some((key, kv)) = self.entries.next()
        {
            put_bytes(&mut buffer, key.as_bytes());
            put_state(&mut buffer, &kv);
        }
        self.hasher.update(&buffer);
        // Full means that there may be more; the next piece may still turn out to be the checksum alone.
        if buffer.len() < PIECE {
            buffer.put_slice(&std::mem::take(&mut self.hasher).finalize());
            self.part = Part::End;
        }
        Some(buffer.into())
    }
}

/// Reads a file which an [`Archive`] has made, and says what is in it if it is whole. `progress` is told of how many
/// bytes how many have been read.
///
/// # Errors
/// What the file is instead. Nothing in it has been believed before its checksum was right.
pub fn verify_archive(path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Contents, ArchiveError> {
    verified(path, &mut progress).map(|(_, contents)| contents)
}

fn verified(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(File, Contents), ArchiveError> {
    let mut file = File::open(path).map_err(ArchiveError::io("open", path))?;
    let length = file.metadata().map_err(ArchiveError::io("read", path))?.len();
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(ArchiveError::io("read", path))?;
    if !header.starts_with(MAGIC) {
        return Err(ArchiveError::Foreign { path: path.to_owned() });
    }
    let Some((version, contents)) = parse_header(&header) else {
        return Err(ArchiveError::CutShort { path: path.to_owned(), length, expected: HEADER as u64 + CHECKSUM });
    };
    if version != VERSION {
        return Err(ArchiveError::Version { path: path.to_owned(), version });
    }
    if length < contents.length {
        return Err(ArchiveError::CutShort { path: path.to_owned(), length, expected: contents.length });
    }
    if length > contents.length || length < HEADER as u64 + CHECKSUM {
        let reason = format!("it has {length} bytes, but says that it has {}", contents.length);
        return Err(ArchiveError::corrupt(path, reason));
    }
    let matches = checksum_matches(&mut file, &header, length, progress).map_err(ArchiveError::io("read", path))?;
    if !matches {
        return Err(ArchiveError::corrupt(path, "its checksum does not match"));
    }
    Ok((file, contents))
}

fn parse_header(header: &[u8]) -> Option<(u32, Contents)> {
    let mut fields = crate::codec::Decoder(header);
    fields.take(MAGIC.len()).ok()?;
    let version = fields.u32().ok()?;
    let revision = Revision(fields.u64().ok()?);
    Some((version, Contents { revision, keys: fields.u64().ok()?, length: fields.u64().ok()? }))
}

/// Reads on behind the header.
fn checksum_matches(
    file: &mut File,
    header: &[u8],
    length: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<bool> {
    let mut hasher = Sha256::new();
    hasher.update(header);
    let mut buffer = vec![0; PIECE];
    let mut left = length - HEADER as u64 - CHECKSUM;
    while left > 0 {
        let part = left.min(PIECE as u64) as usize;
        file.read_exact(&mut buffer[..part])?;
        hasher.update(&buffer[..part]);
        left -= part as u64;
        progress(length - left, length);
    }
    let mut expected = [0; CHECKSUM as usize];
    file.read_exact(&mut expected)?;
    Ok(hasher.finalize()[..] == expected)
}

/// Reads the state out of a file: its checksum first.
pub(crate) fn load(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Snapshot, ArchiveError> {
    let (mut file, contents) = verified(path, progress)?;
    file.rewind().map_err(ArchiveError::io("read", path))?;
    let mut reader = BufReader::with_capacity(PIECE, file.take(contents.length - CHECKSUM));
    decode(&mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ArchiveError::corrupt(path, error),
        _ => ArchiveError::io("read", path)(error),
    })
}

/// Reads everything but the checksum.
pub(crate) fn decode(reader: &mut impl Read) -> io::Result<Snapshot> {
    let header = take(reader, HEADER as u64)?;
    let (_, contents) = parse_header(&header).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut state = Snapshot { revision: contents.revision, ..Snapshot::default() };
    for _ in 0..contents.keys {
        let key = key(&bytes(reader)?).map_err(malformed)?;
        let kv = KeyValue {
            key: key.clone(),
            create_revision: Revision(number(reader)?),
            mod_revision: Revision(number(reader)?),
            version: number(reader)?,
            value: Bytes::from(bytes(reader)?),
        };
        if kv.mod_revision > state.revision || kv.create_revision > kv.mod_revision {
            return Err(malformed(Malformed("revision of a key: it is later than the whole")));
        }
        if state.keys.insert(key, Arc::new(kv)).is_some() {
            return Err(malformed(Malformed("order of keys: one is there twice")));
        }
    }
    if reader.read(&mut [0])? > 0 {
        return Err(malformed(Malformed("number of keys: there are more")));
    }
    Ok(state)
}

fn malformed(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

fn bytes(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = number(reader)?;
    take(reader, length)
}

fn number(reader: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads so many bytes, allocating no more than there are.
fn take(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    // It doubles as it grows, and may stay for long.
    bytes.shrink_to_fit();
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
