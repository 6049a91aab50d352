//! Checkpoints in sled 0.34.
//!
//! sled's own idea of durable is not relied upon (it never syncs the files of large values): [`Generations`]
//! syncs the whole directory once the database is closed. Nor is its idea of valid: every entry is in a checksum of ours, kept with the
//! revision in a tree of its own. Recovery of a damaged file may panic inside sled; that is an error here.
//!
//! [`Generations`]: crate::checkpoint::Generations

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::codec::{self, Decoder, Malformed, put_state};
use crate::snapshot::Snapshot;
use crate::{KeyValue, Revision};
use bytes::BufMut;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The format; it has no state.
pub(crate) struct SledCheckpoint;

const SUMMARY_TREE: &str = "summary";
const SUMMARY_KEY: &str = "state";
/// sled's page cache: a checkpoint is written or read once, in order.
const CACHE: u64 = 16 << 20;

/// What the whole is, so that a part is never taken for it.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    revision: Revision,
    entries: u64,
    checksum: u32,
}

impl Summary {
    fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(20);
        buffer.put_u64_le(self.revision.0);
        buffer.put_u64_le(self.entries);
        buffer.put_u32_le(self.checksum);
        buffer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Decoder(bytes);
        Ok(Self { revision: Revision(fields.u64()?), entries: fields.u64()?, checksum: fields.u32()? })
    }
}

/// Adds an entry to the checksum, its borders included.
fn digest(hasher: &mut crc32fast::Hasher, key: &[u8], state: &[u8]) {
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&(state.len() as u64).to_le_bytes());
    hasher.update(state);
}

fn config(path: &Path) -> sled::Config {
    sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).mode(sled::Mode::HighThroughput)
}

impl Checkpoint for SledCheckpoint {
    fn write(&self, path: &Path, state: &Snapshot, cancelled: &AtomicBool) -> Result<(), CheckpointError> {
        let db = config(path).create_new(true).open()?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = Vec::new();
        for (key, kv) in &state.keys {
            if cancelled.load(Ordering::Relaxed) {
                return Err(CheckpointError::Cancelled);
            }
            buffer.clear();
            put_state(&mut buffer, kv);
            digest(&mut hasher, key.as_bytes(), &buffer);
            db.insert(key.as_bytes(), buffer.as_slice())?;
        }
        let summary =
            Summary { revision: state.revision, entries: state.keys.len() as u64, checksum: hasher.finalize() };
        db.open_tree(SUMMARY_TREE)?.insert(SUMMARY_KEY, summary.encode())?;
        db.flush()?;
        Ok(())
    }

    fn load(&self, path: &Path) -> Result<Snapshot, CheckpointError> {
        let mut state = Snapshot::default();
        state.revision = scan(path, |kv| {
            state.keys.insert(kv.key.clone(), Arc::new(kv));
        })?;
        Ok(state)
    }

    fn verify(&self, path: &Path) -> Result<Revision, CheckpointError> {
        scan(path, drop)
    }
}

fn scan(path: &Path, each: impl FnMut(KeyValue)) -> Result<Revision, CheckpointError> {
    catch_unwind(AssertUnwindSafe(|| scan_or_panic(path, each)))
        .unwrap_or_else(|_| Err(CheckpointError::Corrupt("sled panicked".to_owned())))
}

fn scan_or_panic(path: &Path, mut each: impl FnMut(KeyValue)) -> Result<Revision, CheckpointError> {
    let corrupt = |malformed: Malformed| CheckpointError::Corrupt(malformed.to_string());
    let db = config(path).open()?;
    let summary = db.open_tree(SUMMARY_TREE)?.get(SUMMARY_KEY)?;
    let summary = summary.ok_or_else(|| CheckpointError::Corrupt("it has no summary".to_owned()))?;
    let summary = Summary::decode(&summary).map_err(corrupt)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut entries = 0;
    for entry in db.iter() {
        let (key, state) = entry?;
        digest(&mut hasher, &key, &state);
        let key = codec::key(&key).map_err(corrupt)?;
        each(Decoder(&state).state(key).map_err(corrupt)?);
        entries += 1;
    }
    let found = Summary { revision: summary.revision, entries, checksum: hasher.finalize() };
    if found != summary {
        return Err(CheckpointError::Corrupt(format!("it should be {summary:?} but is {found:?}")));
    }
    Ok(summary.revision)
}
