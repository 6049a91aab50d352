//! Checkpoints in sled 0.34.
//!
//! sled's own idea of durable is not relied upon (it never syncs the files of large values): [`Generations`] syncs the
//! whole directory once the databases are closed. Nor is its idea of valid: every entry is in a checksum of ours, kept
//! with the revision in a tree of its own. Recovery of a damaged file may panic inside sled; that is an error here. And as
//! sled writes into what it opens, and a crash at that moment can spoil it, a checkpoint is never opened again: a copy is.
//!
//! A checkpoint is a row of shards, each a database of its own, opened one after the other: a database that is read
//! once from end to end stays in memory wholly, whatever the capacity of its cache.
//!
//! [`Generations`]: crate::checkpoint::Generations

use crate::checkpoint::{Checkpoint, CheckpointError, Work};
use crate::codec::{self, Decoder, Malformed, put_state};
use crate::snapshot::Snapshot;
use crate::{KeyValue, Revision, files};
use bytes::BufMut;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The format.
pub(crate) struct SledCheckpoint {
    /// A shard takes no more entries beyond this size.
    shard_bytes: usize,
}

impl Default for SledCheckpoint {
    /// Shards of 16 MiB: so much, and a copy of it, is in memory while one is written or read.
    fn default() -> Self {
        Self { shard_bytes: 16 << 20 }
    }
}

const SUMMARY_TREE: &str = "summary";
const SUMMARY_KEY: &str = "shard";
const CACHE: u64 = 16 << 20;
/// How long sled may take to let go of a database, and how often it is looked.
const RELEASE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);

/// What a shard is, so that a part is never taken for the whole.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    revision: Revision,
    shard: u64,
    is_last: bool,
    entries: u64,
    checksum: u32,
}

impl Summary {
    fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        buffer.put_u64_le(self.revision.0);
        buffer.put_u64_le(self.shard);
        buffer.put_u64_le(u64::from(self.is_last));
        buffer.put_u64_le(self.entries);
        buffer.put_u32_le(self.checksum);
        buffer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Decoder(bytes);
        Ok(Self {
            revision: Revision(fields.u64()?),
            shard: fields.u64()?,
            is_last: fields.u64()? == 1,
            entries: fields.u64()?,
            checksum: fields.u32()?,
        })
    }
}

/// For [`fuzz`](crate::fuzz).
pub(crate) fn decode_summary(bytes: &[u8]) {
    let _ = Summary::decode(bytes);
}

/// The checksum of a shard's entries, their borders included.
#[derive(Default)]
struct Digest {
    checksum: u32,
    entries: u64,
    bytes: usize,
}

impl Digest {
    fn add(&mut self, key: &[u8], state: &[u8]) {
        for part in [key, state] {
            self.checksum = crc32c::crc32c_append(self.checksum, &(part.len() as u64).to_le_bytes());
            self.checksum = crc32c::crc32c_append(self.checksum, part);
            self.bytes += part.len();
        }
        self.entries += 1;
    }

    fn summary(self, revision: Revision, shard: u64, is_last: bool) -> Summary {
        Summary { revision, shard, is_last, entries: self.entries, checksum: self.checksum }
    }
}

fn config(path: &Path, shard: u64) -> sled::Config {
    let path = shard_path(path, shard);
    sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).mode(sled::Mode::HighThroughput)
}

fn shard_path(path: &Path, shard: u64) -> PathBuf {
    path.join(format!("{shard:05}"))
}

impl Checkpoint for SledCheckpoint {
    fn write(&self, path: &Path, state: Snapshot, work: &Work) -> Result<(), CheckpointError> {
        let revision = state.revision;
        let mut entries = state.keys.into_iter().peekable();
        let mut buffer = Vec::new();
        for shard in 0.. {
            let db = config(path, shard).create_new(true).open()?;
            let mut digest = Digest::default();
            while digest.bytes < self.shard_bytes
                && let Some((key, kv)) = entries.next()
            {
                work.step()?;
                buffer.clear();
                put_state(&mut buffer, &kv);
                digest.add(key.as_bytes(), &buffer);
                db.insert(key.as_bytes(), buffer.as_slice())?;
            }
            let is_last = entries.peek().is_none();
            let summary = digest.summary(revision, shard, is_last);
            db.open_tree(SUMMARY_TREE)?.insert(SUMMARY_KEY, summary.encode())?;
            db.flush()?;
            close(db, path, shard)?;
            // Opened again, sled writes down where everything is, which it would else look for each time it is read.
            close(config(path, shard).open()?, path, shard)?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn load(&self, path: &Path, work: &Work) -> Result<Snapshot, CheckpointError> {
        let mut state = Snapshot::default();
        state.revision = scan(path, |kv| {
            state.keys.insert(kv.key.clone(), Arc::new(kv));
            work.step()
        })?;
        Ok(state)
    }

    fn verify(&self, path: &Path, work: &Work) -> Result<Revision, CheckpointError> {
        scan(path, |_| work.step())
    }
}

/// Waits until sled has let go of a shard. Its threads go on for a moment when a database is dropped: what is copied in
/// that moment may be half of something.
fn close(db: sled::Db, path: &Path, shard: u64) -> Result<(), CheckpointError> {
    drop(db);
    let file = File::open(shard_path(path, shard).join("db"))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Real time: it is a thread that is waited for.
            Err(TryLockError::WouldBlock) if start.elapsed() < RELEASE => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => return Err(CheckpointError::Stuck("sled")),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Reads all shards, and says of which revision they are.
fn scan(
    path: &Path,
    mut each: impl FnMut(KeyValue) -> Result<(), CheckpointError>,
) -> Result<Revision, CheckpointError> {
    let mut revision = None;
    for shard in 0.. {
        let summary = catch_unwind(AssertUnwindSafe(|| scan_shard(path, shard, &mut each)))
            .unwrap_or_else(|_| Err(CheckpointError::Corrupt("sled panicked".to_owned())))?;
        if *revision.get_or_insert(summary.revision) != summary.revision {
            return Err(CheckpointError::Corrupt(format!("shard {shard} is of another revision")));
        }
        if summary.is_last {
            break;
        }
    }
    Ok(revision.unwrap_or_default())
}

/// A shard's files again, in a directory beside the checkpoint; removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(path: &Path, shard: u64) -> Result<Self, CheckpointError> {
        let copy = Self(path.with_extension(files::SCRATCH));
        remove(&copy.0)?;
        copy_tree(&shard_path(path, shard), &shard_path(&copy.0, shard))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Whoever makes or reads the next checkpoint clears it away.
        let _ = remove(&self.0);
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    files::create_private_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn scan_shard(
    path: &Path,
    shard: u64,
    each: &mut impl FnMut(KeyValue) -> Result<(), CheckpointError>,
) -> Result<Summary, CheckpointError> {
    let corrupt = |malformed: Malformed| CheckpointError::Corrupt(malformed.to_string());
    if !shard_path(path, shard).is_dir() {
        return Err(CheckpointError::Corrupt(format!("shard {shard} is missing")));
    }
    let copy = Copy::of(path, shard)?;
    let db = config(&copy.0, shard).open()?;
    let summary = db.open_tree(SUMMARY_TREE)?.get(SUMMARY_KEY)?;
    let summary = summary.ok_or_else(|| CheckpointError::Corrupt(format!("shard {shard} has no summary")))?;
    let summary = Summary::decode(&summary).map_err(corrupt)?;
    let mut digest = Digest::default();
    for entry in db.iter() {
        let (key, state) = entry?;
        digest.add(&key, &state);
        let key = codec::key(&key).map_err(corrupt)?;
        each(Decoder(&state).state(key).map_err(corrupt)?)?;
    }
    let found = digest.summary(summary.revision, shard, summary.is_last);
    if found != summary {
        return Err(CheckpointError::Corrupt(format!("it should be {summary:?} but is {found:?}")));
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_several_shards_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let value = bytes::Bytes::from(vec![7; 1 << 10]);
        let keys = (0..70).map(|n| {
            let key: crate::Key = format!("key {n:02}").into();
            let (create_revision, mod_revision) = (Revision(n), Revision(n + 1));
            let value = value.clone();
            (key.clone(), Arc::new(KeyValue { key, value, create_revision, mod_revision, version: 2 }))
        });
        let state = Snapshot { revision: Revision(99), keys: keys.collect() };
        let format = SledCheckpoint { shard_bytes: 32 << 10 };
        format.write(&path, state.clone(), &Work::default()).unwrap();
        let loaded = format.load(&path, &Work::default()).unwrap();
        assert!(loaded.keys == state.keys && loaded.revision == state.revision);

        let shards: Vec<_> = (0..4).map(|shard| shard_path(&path, shard)).collect();
        assert_eq!(shards.iter().map(|shard| shard.exists()).collect::<Vec<_>>(), [true, true, true, false]);
        std::fs::rename(&shards[1], &shards[3]).unwrap();
        assert_eq!(format.verify(&path, &Work::default()).unwrap_err().to_string(), "shard 1 is missing");
        std::fs::rename(&shards[2], &shards[1]).unwrap();
        assert!(matches!(format.verify(&path, &Work::default()), Err(CheckpointError::Corrupt(_))));
    }

    fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut contents: Vec<_> = entries
            .flat_map(
                |path| if path.is_dir() { contents(&path) } else { vec![(path.clone(), std::fs::read(path).unwrap())] },
            )
            .collect();
        contents.sort();
        contents
    }

    /// sled writes into what it opens: a process that was killed while it read a checkpoint left one which panicked.
    #[test]
    fn reading_a_checkpoint_changes_nothing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let state = Snapshot { revision: Revision(7), ..Snapshot::default() };
        let format = SledCheckpoint::default();
        format.write(&path, state, &Work::default()).unwrap();
        let written = contents(dir.path());
        format.load(&path, &Work::default()).unwrap();
        format.verify(&path, &Work::default()).unwrap();
        assert!(contents(dir.path()) == written, "nor is anything left beside it");
    }

    #[test]
    fn the_state_of_an_empty_store_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = Snapshot { revision: Revision(7), ..Snapshot::default() };
        let format = SledCheckpoint::default();
        format.write(&dir.path().join("empty"), state, &Work::default()).unwrap();
        assert_eq!(format.verify(&dir.path().join("empty"), &Work::default()).unwrap(), Revision(7));
    }
}
