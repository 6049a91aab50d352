//! What readers and watchers see: the newest published snapshot and the recent history. Shared by the memory and
//! the embedded store, which differ only in what they do before they [`publish`](Core::publish).

use crate::history::{History, Read, WatcherId};
use crate::snapshot::{Commit, Snapshot};
use crate::{Batch, Compacted, KeyValue, Page, Range, RangeError, Revision, Watch};
use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The published state of a store.
pub(crate) struct Core {
    snapshot: ArcSwap<Snapshot>,
    history: Mutex<History>,
}

impl Core {
    /// `history` ends at the revision of `snapshot`.
    pub(crate) fn new(snapshot: Snapshot, history: History) -> Arc<Self> {
        Arc::new(Self { snapshot: ArcSwap::from_pointee(snapshot), history: Mutex::new(history) })
    }

    /// Makes commits visible, to readers first, so that whoever saw an event also reads it.
    ///
    /// `snapshot` is the state after the last of them. One publisher at a time.
    pub(crate) fn publish(&self, snapshot: Snapshot, commits: Vec<Commit>) {
        let mut wakers = Vec::new();
        let mut evicted = Vec::new();
        {
            let mut history = self.history.lock();
            self.snapshot.store(Arc::new(snapshot));
            for commit in commits {
                evicted.append(&mut history.push(commit, &mut wakers));
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn revision(&self) -> Revision {
        self.snapshot.load().revision
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        self.snapshot.load().keys.get(key).map(|kv| KeyValue::clone(kv))
    }

    pub(crate) fn range(&self, range: &Range) -> Result<Page, RangeError> {
        let snapshot = self.snapshot();
        let at = range.at.unwrap_or(snapshot.revision);
        if at > snapshot.revision {
            return Err(RangeError::Future { asked: at, newest: snapshot.revision });
        }
        if at == snapshot.revision {
            return Ok(snapshot.page(range));
        }
        // The past is the present without what has happened since.
        let mut past = Snapshot::clone(&snapshot);
        while past.revision > at {
            let commits = self.history.lock().backwards(at, past.revision);
            let commits = commits.map_err(|oldest| RangeError::Compacted { asked: at, oldest })?;
            for commit in commits {
                for event in commit.events.iter().rev().filter(|event| event.kv.key.starts_with(&range.prefix)) {
                    past.undo(event);
                }
                past.revision = Revision(commit.revision.0 - 1);
            }
        }
        Ok(past.page(range))
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, from: Revision) -> Watch {
        let id = self.history.lock().watch(prefix, from);
        Watcher { core: self.clone(), id, batches: VecDeque::new(), finished: false }.boxed()
    }

    pub(crate) fn request_progress(&self) {
        let wakers = self.history.lock().request_progress();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    pub(crate) fn compact(&self, revision: Revision) {
        let forgotten = self.history.lock().compact(revision);
        drop(forgotten);
    }

    /// Ends all watches once they have delivered what was published.
    pub(crate) fn close(&self) {
        let wakers = self.history.lock().close();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

/// A running watch.
struct Watcher {
    core: Arc<Core>,
    id: WatcherId,
    batches: VecDeque<Batch>,
    finished: bool,
}

impl Stream for Watcher {
    type Item = Result<Batch, Compacted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(batch) = this.batches.pop_front() {
                return Poll::Ready(Some(Ok(batch)));
            }
            if this.finished {
                return Poll::Ready(None);
            }
            let mut history = this.core.history.lock();
            match history.read(this.id, &mut this.batches) {
                Ok(Read::Some | Read::Continue) => {}
                Ok(Read::Wait) => {
                    history.wake_later(this.id, context.waker());
                    return Poll::Pending;
                }
                Ok(Read::Closed) => this.finished = true,
                Err(compacted) => {
                    this.finished = true;
                    return Poll::Ready(Some(Err(compacted)));
                }
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.core.history.lock().unwatch(self.id);
    }
}
