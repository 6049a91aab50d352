//! The whole state in one file: to keep elsewhere, and to make a store from.
//!
//! A header with the revision and the number of keys, the keys with their states, and the SHA-256 of everything before
//! it. The history is not saved.

use crate::checkpoint::CheckpointFailed;
use crate::codec::{Malformed, key, put_bytes, put_state};
use crate::error::OpenError;
use crate::snapshot::Snapshot;
use crate::{KeyValue, Revision, files};
use bytes::{BufMut, Bytes};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"storesnp";
const VERSION: u32 = 1;
const CHECKSUM: u64 = 32;
const BUFFER: usize = 64 << 10;

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
    /// The file is not what was saved.
    #[error("{} is not a valid snapshot: {reason}", .path.display())]
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

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ArchiveError + use<'a> {
    move |source| ArchiveError::Io { action, path: path.to_owned(), source }
}

/// Writes `snapshot` to a file beside `path`, and renames it once it is on the disk.
pub(crate) fn save(snapshot: &Snapshot, path: &Path) -> Result<(), ArchiveError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let saved = write(snapshot, &unfinished)
        .map_err(io_error("write", &unfinished))
        .and_then(|()| std::fs::rename(&unfinished, path).map_err(io_error("create", path)));
    if saved.is_err() {
        // The cause is what matters.
        let _ = std::fs::remove_file(&unfinished);
    }
    saved?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::sync_dir(dir).map_err(io_error("sync", dir))
}

fn write(snapshot: &Snapshot, path: &Path) -> io::Result<()> {
    let mut file =
        BufWriter::with_capacity(BUFFER, files::private().write(true).create(true).truncate(true).open(path)?);
    let mut hasher = Sha256::new();
    let mut buffer = Vec::new();
    buffer.put_slice(MAGIC);
    buffer.put_u32_le(VERSION);
    buffer.put_u64_le(snapshot.revision.0);
    buffer.put_u64_le(snapshot.keys.len() as u64);
    for kv in snapshot.keys.values() {
        hasher.update(&buffer);
        file.write_all(&buffer)?;
        buffer.clear();
        put_bytes(&mut buffer, kv.key.as_bytes());
        put_state(&mut buffer, kv);
    }
    hasher.update(&buffer);
    file.write_all(&buffer)?;
    file.write_all(&hasher.finalize())?;
    file.into_inner()?.sync_all()
}

/// Reads a file which [`save`] has written: its checksum first, so that nothing is believed before.
pub(crate) fn load(path: &Path) -> Result<Snapshot, ArchiveError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let corrupt = |reason: &str| ArchiveError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let length = file.metadata().map_err(io_error("read", path))?.len();
    let content = length.checked_sub(CHECKSUM).ok_or_else(|| corrupt("it is too short"))?;
    if !checksum_matches(&mut file, content).map_err(io_error("read", path))? {
        return Err(corrupt("its checksum does not match: it was damaged or cut short"));
    }
    file.rewind().map_err(io_error("read", path))?;
    let mut reader = BufReader::with_capacity(BUFFER, file.take(content));
    decode(&mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => corrupt(&error.to_string()),
        _ => io_error("read", path)(error),
    })
}

fn checksum_matches(file: &mut File, content: u64) -> io::Result<bool> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut left = content;
    while left > 0 {
        let part = left.min(BUFFER as u64) as usize;
        file.read_exact(&mut buffer[..part])?;
        hasher.update(&buffer[..part]);
        left -= part as u64;
    }
    let mut expected = [0; CHECKSUM as usize];
    file.read_exact(&mut expected)?;
    Ok(hasher.finalize()[..] == expected)
}

fn decode(reader: &mut impl Read) -> io::Result<Snapshot> {
    if take(reader, MAGIC.len() as u64)? != MAGIC {
        return Err(malformed(Malformed("beginning: it is no snapshot of a store")));
    }
    if take(reader, 4)? != VERSION.to_le_bytes() {
        return Err(malformed(Malformed("format version: written by another release")));
    }
    let mut snapshot = Snapshot { revision: Revision(number(reader)?), ..Snapshot::default() };
    for _ in 0..number(reader)? {
        let key = key(&bytes(reader)?).map_err(malformed)?;
        let kv = KeyValue {
            key: key.clone(),
            create_revision: Revision(number(reader)?),
            mod_revision: Revision(number(reader)?),
            version: number(reader)?,
            value: Bytes::from(bytes(reader)?),
        };
        snapshot.keys.insert(key, Arc::new(kv));
    }
    Ok(snapshot)
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
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
