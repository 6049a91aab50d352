//! What readers and watchers see: the newest published snapshot and the recent history. Shared by the memory and
//! the embedded store, which differ only in what they do before they [`publish`](Core::publish).

use crate::backlog::{Backlog, BacklogError, Stretch};
use crate::history::{History, Read, WatcherId};
use crate::pins::Pins;
use crate::snapshot::{Commit, Snapshot};
use crate::{Batch, Compacted, KeyValue, Page, Range, RangeError, Revision, Watch};
use arc_swap::ArcSwap;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

/// The published state of a store.
pub(crate) struct Core {
    snapshot: ArcSwap<Snapshot>,
    history: Mutex<History>,
    pins: Mutex<Pins>,
    /// Where the history is that is not in memory, if it is anywhere.
    backlog: Option<Arc<Backlog>>,
}

impl Core {
    /// `history` ends at the revision of `snapshot`.
    pub(crate) fn new(snapshot: Snapshot, history: History, backlog: Option<Arc<Backlog>>) -> Arc<Self> {
        let pins = Mutex::new(Pins::new(history.retention().age));
        Arc::new(Self { snapshot: ArcSwap::from_pointee(snapshot), history: Mutex::new(history), pins, backlog })
    }

    /// Makes commits visible, to readers first, so that whoever saw an event also reads it.
    ///
    /// `snapshot` is the state after the last of them. One publisher at a time.
    pub(crate) fn publish(&self, snapshot: Snapshot, commits: Vec<Commit>) {
        let mut wakers = Vec::new();
        let mut evicted = Vec::new();
        let unpinned = self.pins.lock().replaced(&commits, Instant::now());
        {
            let mut history = self.history.lock();
            self.snapshot.store(Arc::new(snapshot));
            for commit in commits {
                evicted.append(&mut history.push(commit, &mut wakers));
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
        drop(unpinned);
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
        let (snapshot, prefix) = if at == snapshot.revision {
            (snapshot, "")
        } else if let Some(pinned) = self.pins.lock().find(at, &range.prefix) {
            return Ok(pinned.page(range));
        } else {
            (Arc::new(self.past(&snapshot, at, &range.prefix)?), range.prefix.as_str())
        };
        let page = snapshot.page(range);
        if page.remaining > 0 {
            // More pages will be asked for, of this snapshot.
            self.pins.lock().pin(snapshot, prefix, Instant::now());
        }
        Ok(page)
    }

    /// The keys with a prefix as they were: the present without what has happened since.
    fn past(&self, present: &Snapshot, at: Revision, prefix: &str) -> Result<Snapshot, RangeError> {
        let mut past = Snapshot::clone(present);
        while past.revision > at {
            let commits = self.history.lock().backwards(at, past.revision);
            let commits = commits.map_err(|oldest| RangeError::Compacted { asked: at, oldest })?;
            for commit in commits {
                for event in commit.events.iter().rev().filter(|event| event.kv.key.starts_with(prefix)) {
                    past.undo(event);
                }
                past.revision = Revision(commit.revision.0 - 1);
            }
        }
        Ok(past)
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, from: Revision, announced: bool) -> Watch {
        let id = self.history.lock().watch(prefix, from, announced);
        Watcher {
            core: self.clone(),
            id,
            prefix: prefix.into(),
            batches: VecDeque::new(),
            reading: None,
            finished: false,
        }
        .boxed()
    }

    pub(crate) fn request_progress(&self) {
        let wakers = self.history.lock().request_progress();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    pub(crate) fn compact(&self, revision: Revision) {
        let forgotten = self.history.lock().compact(revision);
        drop(forgotten);
        let unpinned = self.pins.lock().compact(revision);
        drop(unpinned);
    }

    /// The log begins with `first` now.
    pub(crate) fn log_begins(&self, first: Revision) {
        if let Some(backlog) = &self.backlog {
            self.history.lock().forget_log(Revision(first.0.saturating_sub(1)));
            backlog.forget_before(first);
        }
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
    prefix: Arc<str>,
    batches: VecDeque<Batch>,
    /// From which revision on the log is being read.
    reading: Option<(Revision, JoinHandle<Result<Stretch, BacklogError>>)>,
    finished: bool,
}

impl Watcher {
    /// Begins to read the log beside the runtime, as that blocks; at once where there is none.
    fn read_log(&mut self, from: Revision, upto: Revision) -> Result<(), Compacted> {
        let Some(backlog) = self.core.backlog.clone() else { return Err(self.core.history.lock().gone(from)) };
        let prefix = self.prefix.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                self.reading = Some((from, runtime.spawn_blocking(move || backlog.read(&prefix, from, upto))));
                Ok(())
            }
            Err(_) => self.have_read(from, backlog.read(&prefix, from, upto)),
        }
    }

    fn have_read(&mut self, from: Revision, read: Result<Stretch, BacklogError>) -> Result<(), Compacted> {
        let mut history = self.core.history.lock();
        match read {
            Ok(stretch) => {
                self.batches.extend(stretch.batches);
                history.read_to(self.id, stretch.next);
                Ok(())
            }
            Err(error) => {
                let gone = history.gone(from);
                drop(history);
                if !matches!(error, BacklogError::Gone) {
                    warn!(
                        revision = from.0,
                        error = &error as &dyn std::error::Error,
                        "a watcher cannot read the past"
                    );
                }
                Err(gone)
            }
        }
    }
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
            let step = if let Some((from, reading)) = &mut this.reading {
                let from = *from;
                let read = ready!(reading.poll_unpin(context));
                this.reading = None;
                match read {
                    Ok(read) => this.have_read(from, read),
                    Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
                    // The runtime is ending.
                    Err(_) => return Poll::Ready(None),
                }
            } else {
                let mut history = this.core.history.lock();
                match history.read(this.id, &mut this.batches) {
                    Ok(Read::Some | Read::Continue) => Ok(()),
                    Ok(Read::Log(from, upto)) => {
                        drop(history);
                        this.read_log(from, upto)
                    }
                    Ok(Read::Wait) => {
                        history.wake_later(this.id, context.waker());
                        return Poll::Pending;
                    }
                    Ok(Read::Closed) => {
                        this.finished = true;
                        Ok(())
                    }
                    Err(compacted) => Err(compacted),
                }
            };
            if let Err(compacted) = step {
                this.finished = true;
                return Poll::Ready(Some(Err(compacted)));
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.core.history.lock().unwatch(self.id);
    }
}
