//! etcd's promises, embedded: one revision counter, compare-and-swap transactions, prefix ranges at a revision, and
//! watches that see every event exactly once.
//!
//! [`Store`] is the contract. The API server is its only user. Nothing here knows what the values mean.
//! [`MemoryStore`] keeps it until the process ends, [`EmbeddedStore`] in a directory, whatever happens to the process.

mod archive;
mod backlog;
mod checkpoint;
mod codec;
mod committer;
mod core;
mod embedded;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod history;
mod lock;
mod log;
mod memory;
mod pins;
mod recovery;
mod restore;
mod segment;
mod sled_checkpoint;
mod snapshot;

pub use archive::{Archive, ArchiveError, Contents, verify_archive};
pub use checkpoint::CheckpointFailed;
pub use embedded::{EmbeddedStore, Options};
pub use error::OpenError;
pub use history::Retention;
pub use memory::MemoryStore;
pub use restore::{Existing, Restored, restore};

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// A key: a path such as `/registry/users/anna`.
pub type Key = Arc<str>;

/// A point in the history of the whole store. Every committed transaction takes the next one; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A key with its value and the revisions etcd keeps for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value: opaque here.
    pub value: Bytes,
    /// The revision which created the key.
    pub create_revision: Revision,
    /// The revision of the last write.
    pub mod_revision: Revision,
    /// Number of writes since creation, from 1.
    pub version: u64,
}

/// A condition of a transaction: the key's `mod_revision` is still this one (0: the key does not exist).
#[derive(Clone, Debug)]
pub struct Compare {
    /// The key looked at.
    pub key: Key,
    /// What its `mod_revision` must be.
    pub mod_revision: Revision,
}

/// A write of a transaction.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Create or replace the key.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
    },
    /// Remove the key; removing what does not exist is no event.
    Delete {
        /// The key.
        key: Key,
    },
}

/// All or nothing: if every compare holds, every operation is done, at one revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// Conditions, all of which must hold.
    pub compares: Vec<Compare>,
    /// Writes, at most one per key.
    pub operations: Vec<Operation>,
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision it took (unchanged if it wrote nothing).
    pub revision: Revision,
}

/// Why a transaction did nothing.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A compare did not hold; the key's present state is given so that the caller can answer without another read.
    #[error("compare failed on {key}")]
    Conflict {
        /// The key whose compare failed.
        key: Key,
        /// What stands there now.
        current: Option<KeyValue>,
    },
    /// The store has stopped, for example because a sync to disk failed. No write succeeds any more.
    #[error("store stopped: {0}")]
    Stopped(Arc<str>),
    /// Nobody knows whether it has been done.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A range question: the keys with a prefix, in order, on one snapshot.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Only keys which begin so.
    pub prefix: String,
    /// Begin after this key (for `continue`).
    pub after: Option<Key>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
    /// On the snapshot of this revision; `None` is the newest.
    pub at: Option<Revision>,
}

/// An answer to a [`Range`].
#[derive(Clone, Debug)]
pub struct Page {
    /// The snapshot's revision.
    pub revision: Revision,
    /// The keys found, in order.
    pub items: Vec<KeyValue>,
    /// How many more there are behind the last item.
    pub remaining: usize,
}

/// The store did not answer. Not one in this process: one behind a network.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store is unavailable: {0}")]
pub struct Unavailable(pub Arc<str>);

/// Why a range was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// That revision's snapshot is gone.
    #[error("revision {asked} has been compacted; the oldest is {oldest}", asked = .asked.0, oldest = .oldest.0)]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest which can still be read.
        oldest: Revision,
    },
    /// That revision has not happened yet.
    #[error("revision {asked} is in the future; the newest is {newest}", asked = .asked.0, newest = .newest.0)]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key's state after the change; for a delete the last value, with `mod_revision` of the delete.
    pub kv: KeyValue,
    /// The state before, if there was one.
    pub previous: Option<KeyValue>,
    /// Put or delete.
    pub kind: EventKind,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created or replaced.
    Put,
    /// Removed.
    Delete,
}

/// Events of one revision under the watched prefix, in order.
///
/// An empty batch is a progress notification: nothing under the prefix has changed up to `revision`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// All events up to and with this revision have been delivered.
    pub revision: Revision,
    /// The changes.
    pub events: Vec<Arc<Event>>,
}

/// The watched past is gone, or the watcher fell too far behind: list again.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("revision {} has been compacted; the oldest is {}", .asked.0, .oldest.0)]
pub struct Compacted {
    /// Where the watcher stood.
    pub asked: Revision,
    /// The oldest revision it could continue from.
    pub oldest: Revision,
}

/// A running watch; dropping it ends it.
pub type Watch = futures::stream::BoxStream<'static, Result<Batch, Compacted>>;

/// The contract: what an API server needs from its store. A store behind a network can keep it as well: each call may
/// fail to get an answer, and a watch may end, after which whoever wants to go on watches from the last revision seen.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits `txn`. When this returns, the writes are durable and visible.
    async fn txn(&self, txn: Txn) -> Result<Committed, TxnError>;

    /// Reads one key from the newest snapshot.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Unavailable>;

    /// Reads a range on a consistent snapshot without blocking writers.
    async fn range(&self, range: Range) -> Result<Page, RangeError>;

    /// Every event under `prefix` after `from`, exactly once, in revision order, from the past into the future.
    fn watch(&self, prefix: &str, from: Revision) -> Watch;

    /// The same from a revision before the newest, with a progress notification when it has come to what was the newest at its
    /// beginning: for a reader who goes on from there by other means.
    fn watch_past(&self, prefix: &str, from: Revision) -> Watch {
        let watch = self.watch(prefix, from);
        self.request_progress();
        watch
    }

    /// Makes every running watch deliver a progress notification as soon as it has caught up, and every later one that begins before
    /// the revision of now.
    fn request_progress(&self);

    /// The newest committed revision that is known here.
    fn revision(&self) -> Revision;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), Unavailable>;
}
