//! Short words for what the tests do again and again.

use futures::{FutureExt, StreamExt};
use std::time::Duration;
use store::{
    Batch, Compacted, Compare, EmbeddedStore, Event, EventKind, KeyValue, Operation, Options, Page, Range, RangeError,
    Retention, Revision, Store, Txn, TxnError, Watch,
};
use tempfile::TempDir;

/// So little history that a test can outlive it.
pub(crate) const RETENTION: Retention = Retention { age: Duration::from_secs(300), events: 100, bytes: 64 << 10 };

/// Small files, so that few writes already change segments; the history is in memory.
pub(crate) const OPTIONS: Options =
    Options { retention: RETENTION, ring_bytes: RETENTION.bytes, segment_bytes: 32 << 10, checkpoint_bytes: 1 << 30 };

/// The newest commit is in memory; the rest of the history is read from the log.
pub(crate) const FROM_LOG: Options = Options { ring_bytes: 0, ..OPTIONS };

/// An embedded store and its directory.
pub(crate) struct OnDisk {
    pub(crate) store: EmbeddedStore,
    pub(crate) dir: TempDir,
}

impl OnDisk {
    pub(crate) fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { store: EmbeddedStore::open(dir.path(), options).expect("an empty directory opens"), dir }
    }
}

pub(crate) fn put_operation(key: &str, value: impl AsRef<[u8]>) -> Operation {
    Operation::Put { key: key.into(), value: value.as_ref().to_vec().into() }
}

pub(crate) fn delete_operation(key: &str) -> Operation {
    Operation::Delete { key: key.into() }
}

pub(crate) fn compare(key: &str, mod_revision: u64) -> Compare {
    Compare { key: key.into(), mod_revision: Revision(mod_revision) }
}

pub(crate) async fn txn(
    store: &dyn Store,
    compares: impl Into<Vec<Compare>>,
    operations: impl Into<Vec<Operation>>,
) -> Result<u64, TxnError> {
    let txn = Txn { compares: compares.into(), operations: operations.into() };
    store.txn(txn).await.map(|committed| committed.revision.0)
}

pub(crate) async fn put(store: &dyn Store, key: &str, value: impl AsRef<[u8]>) -> u64 {
    txn(store, [], [put_operation(key, value)]).await.expect("a put without a compare succeeds")
}

pub(crate) async fn delete(store: &dyn Store, key: &str) -> u64 {
    txn(store, [], [delete_operation(key)]).await.expect("a delete without a compare succeeds")
}

pub(crate) async fn range(store: &dyn Store, prefix: &str, at: Option<u64>) -> Result<Page, RangeError> {
    store.range(Range { prefix: prefix.into(), at: at.map(Revision), ..Range::default() }).await
}

/// `key=value` of a page.
pub(crate) fn shown(page: &Page) -> Vec<String> {
    page.items.iter().map(show).collect()
}

fn show(kv: &KeyValue) -> String {
    format!("{}={}", kv.key, String::from_utf8_lossy(&kv.value))
}

/// `revision put|delete key=value`, or `revision progress`.
pub(crate) fn shown_batch(batch: &Batch) -> String {
    let shown = |event: &Event| match event.kind {
        EventKind::Put => format!("put {}", show(&event.kv)),
        EventKind::Delete => format!("delete {}", show(&event.kv)),
    };
    let events: Vec<_> = batch.events.iter().map(|event| shown(event)).collect();
    format!("{} {}", batch.revision.0, if events.is_empty() { "progress".to_owned() } else { events.join(", ") })
}

pub(crate) async fn next(watch: &mut Watch) -> String {
    shown_batch(&watch.next().await.expect("the watch goes on").expect("its past is there"))
}

pub(crate) async fn next_compacted(watch: &mut Watch) -> Compacted {
    watch.next().await.expect("the watch says why it ends").expect_err("its past is gone")
}

/// What there is without waiting for anybody but the disk. The clock must be paused: it moves on once nothing is left to
/// be read.
pub(crate) async fn caught_up(watch: &mut Watch) -> Vec<String> {
    let mut seen = Vec::new();
    while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
        seen.push(shown_batch(&batch.expect("its past is there")));
    }
    seen
}

/// What there is without waiting.
pub(crate) fn ready(watch: &mut Watch) -> Vec<String> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten())
        .map(|batch| shown_batch(&batch.expect("its past is there")))
        .collect()
}
