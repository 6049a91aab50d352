//! The embedded store, called in process.

use crate::work::{PREFIX, Subject, VALUE, Watching};
use bytes::Bytes;
use futures::StreamExt;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::{EmbeddedStore, Operation, Options, Range, Revision, Store, Txn, Watch};

/// A store and the value it is given.
pub(crate) struct Ours {
    store: EmbeddedStore,
}

impl Ours {
    /// As a cluster opens it.
    pub(crate) fn open(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self { store: EmbeddedStore::open(dir, Options::default())? })
    }

    /// Makes checkpoints when told to only.
    pub(crate) fn open_without_checkpoints(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let options = Options { checkpoint_bytes: u64::MAX, ..Options::default() };
        Ok(Self { store: EmbeddedStore::open(dir, options)? })
    }

    /// Makes one.
    pub(crate) async fn checkpoint(&self) -> Result<(), Box<dyn Error>> {
        Ok(self.store.checkpoint().await?)
    }

    /// So many watchers of everything from now on, which nobody reads.
    pub(crate) fn asleep(&self, watchers: usize) -> Vec<Watch> {
        (0..watchers).map(|_| self.store.watch("", self.store.revision())).collect()
    }

    /// Reads so many events; how many there were.
    pub(crate) async fn catch_up(&self, watch: &mut Watch, events: usize) -> usize {
        let mut read = 0;
        while read < events {
            read += watch.next().await.expect("the store is open").expect("the history has it").events.len();
        }
        read
    }

    /// Gives the directory free.
    pub(crate) async fn close(&self) {
        self.store.close().await;
    }
}

impl Subject for Ours {
    async fn put(&self, key: String) {
        // A value of its own, as a request's body would be.
        let value = Bytes::from(vec![b'x'; VALUE]);
        let txn = Txn { compares: Vec::new(), operations: vec![Operation::Put { key: key.into(), value }] };
        self.store.txn(txn).await.expect("the disk is well");
    }

    async fn list(&self) -> usize {
        let range = Range { prefix: PREFIX.to_owned(), ..Range::default() };
        self.store.range(range).await.expect("the newest revision is there").items.len()
    }

    async fn watch(&self, watchers: usize) -> Watching {
        let seen = Arc::new(AtomicUsize::new(0));
        let from: Revision = self.store.revision();
        let tasks = (0..watchers).map(|watcher| {
            let mut watch = self.store.watch(&format!("{PREFIX}{}/", watcher % 10), from);
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Some(batch) = watch.next().await {
                    let batch = batch.expect("a watcher that reads on is not left behind");
                    seen.fetch_add(batch.events.len(), Ordering::Relaxed);
                }
            })
        });
        Watching { tasks: tasks.collect(), seen }
    }
}
