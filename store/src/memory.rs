//! The store in memory only: for fixtures and `--ephemeral`. The same as [`EmbeddedStore`](crate::EmbeddedStore)
//! without log and checkpoints: a commit is visible at once and gone with the process. Needs no thread and no runtime.

use crate::archive::Archive;
use crate::core::Core;
use crate::history::{History, Retention};
use crate::snapshot::Snapshot;
use crate::{Committed, KeyValue, Page, Range, RangeError, Revision, Store, Txn, TxnError, Unavailable, Watch};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// A store in memory. Clones are the same store; its watches end when the last is dropped.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    /// One transaction at a time.
    writer: Mutex<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl MemoryStore {
    /// An empty store, at revision 0.
    pub fn new() -> Self {
        Self::with_retention(Retention::default())
    }

    /// An empty store which keeps so much history.
    pub fn with_retention(retention: Retention) -> Self {
        let core = Core::new(Snapshot::default(), History::new(retention, Revision(0)), None);
        Self { shared: Arc::new(Shared { core, writer: Mutex::new(()) }) }
    }

    /// The newest state as the bytes of one file, which [`restore`](crate::restore()) reads.
    pub fn archive(&self) -> Archive {
        Archive::new(Snapshot::clone(&self.shared.core.snapshot()))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn txn(&self, txn: Txn) -> Result<Committed, TxnError> {
        let _one_at_a_time = self.shared.writer.lock();
        let mut snapshot = Snapshot::clone(&self.shared.core.snapshot());
        let commit = snapshot.apply(txn, Instant::now())?;
        let revision = snapshot.revision;
        if let Some(commit) = commit {
            self.shared.core.publish(snapshot, vec![commit]);
        }
        Ok(Committed { revision })
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Unavailable> {
        Ok(self.shared.core.get(key))
    }

    async fn range(&self, range: Range) -> Result<Page, RangeError> {
        self.shared.core.range(&range)
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        self.shared.core.watch(prefix, from, false)
    }

    fn watch_past(&self, prefix: &str, from: Revision) -> Watch {
        self.shared.core.watch(prefix, from, true)
    }

    fn request_progress(&self) {
        self.shared.core.request_progress();
    }

    fn revision(&self) -> Revision {
        self.shared.core.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), Unavailable> {
        self.shared.core.compact(revision);
        Ok(())
    }
}
