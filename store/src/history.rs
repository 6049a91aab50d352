//! The recent past and who watches it: a ring of commits, and one cursor into it per watcher.
//!
//! [`History`] lives under a mutex of [`Core`](crate::core::Core), which every caller holds for a bounded number of
//! entries only: a watcher copies `Arc`s out of the ring at its own pace, so a slow one blocks nobody. What falls out
//! of the ring is compacted, for watches and for ranges in the past alike.
//!
//! Watchers are indexed by prefix: a commit wakes only those it concerns. One that sleeps has seen everything; the
//! first commit which concerns it tells it where to read on, so that the ring may move on beneath a quiet watcher.

use crate::snapshot::Commit;
use crate::{Batch, Compacted, Revision};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// How much history a store keeps: the longer of `age` and `events`, but never more than `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events younger than this are kept.
    pub age: Duration,
    /// So many events are kept, however old.
    pub events: usize,
    /// A cap on their keys and values together, whatever the two others say.
    pub bytes: usize,
}

impl Default for Retention {
    /// 5 minutes or 10,000 events, at most 64 MiB.
    fn default() -> Self {
        Self { age: Duration::from_secs(5 * 60), events: 10_000, bytes: 64 << 20 }
    }
}

/// The ring and its watchers.
pub(crate) struct History {
    retention: Retention,
    /// Consecutive revisions: the first is `compacted + 1`, the last is `newest`.
    ring: VecDeque<Commit>,
    events: usize,
    bytes: usize,
    /// Everything up to and with this revision is gone.
    compacted: Revision,
    newest: Revision,
    closed: bool,
    watchers: HashMap<WatcherId, Cursor>,
    next_id: WatcherId,
    by_prefix: HashMap<Arc<str>, Vec<WatcherId>>,
    /// The lengths of the prefixes in `by_prefix`, counted: the prefixes of a key that are worth looking up.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Watchers which begin in the future and have asked for progress.
    ahead: Vec<WatcherId>,
    /// The newest revision at which progress has been asked for.
    asked: Revision,
}

pub(crate) type WatcherId = u64;

/// Where one watcher stands.
struct Cursor {
    prefix: Arc<str>,
    from: Revision,
    /// The first revision which it has not read; `None` if nothing published since concerns it.
    unread: Option<Revision>,
    /// Owes a progress notification once it has read up to here.
    progress: Option<Revision>,
    waker: Option<Waker>,
}

/// What a watcher got from the ring.
pub(crate) enum Read {
    /// Something was appended to the batches.
    Some,
    /// Nothing in this stretch: read on.
    Continue,
    /// Nothing until woken.
    Wait,
    /// The store is closed and everything has been read.
    Closed,
}

impl History {
    /// No watcher holds the lock for more than so many commits.
    const STRETCH: usize = 256;

    /// A history which begins, and for now ends, at `newest`.
    pub(crate) fn new(retention: Retention, newest: Revision) -> Self {
        Self {
            retention,
            ring: VecDeque::new(),
            events: 0,
            bytes: 0,
            compacted: newest,
            newest,
            closed: false,
            watchers: HashMap::new(),
            next_id: 0,
            by_prefix: HashMap::new(),
            prefix_lengths: BTreeMap::new(),
            ahead: Vec::new(),
            asked: Revision(0),
        }
    }

    /// Appends a commit; `wakers` are to be woken once the lock is released, and the commits returned dropped.
    pub(crate) fn push(&mut self, commit: Commit, wakers: &mut Vec<Waker>) -> Vec<Commit> {
        let (revision, at) = (commit.revision, commit.at);
        debug_assert_eq!(revision.0, self.newest.0 + 1, "revisions are consecutive");
        for event in &commit.events {
            for length in self.prefix_lengths.range(..=event.kv.key.len()).map(|(length, _)| *length) {
                let Some(ids) = event.kv.key.get(..length).and_then(|prefix| self.by_prefix.get(prefix)) else {
                    continue;
                };
                for id in ids {
                    let cursor = self.watchers.get_mut(id).expect("the index knows only registered watchers");
                    if cursor.unread.is_none() && revision > cursor.from {
                        cursor.unread = Some(revision);
                        wakers.extend(cursor.waker.take());
                    }
                }
            }
        }
        self.newest = revision;
        self.events += commit.events.len();
        self.bytes += commit.bytes();
        self.ring.push_back(commit);
        let watchers = &mut self.watchers;
        self.ahead.retain(|id| match watchers.get_mut(id) {
            Some(cursor) if cursor.from > revision => true,
            Some(cursor) => {
                wakers.extend(cursor.waker.take());
                false
            }
            None => false,
        });
        self.evict(at)
    }

    fn evict(&mut self, now: Instant) -> Vec<Commit> {
        let mut evicted = Vec::new();
        while let Some(first) = self.ring.front() {
            let spare = self.events - first.events.len() >= self.retention.events;
            let old = now.saturating_duration_since(first.at) > self.retention.age;
            // The newest commit always stays: watchers must have a chance to see it.
            let oversize = self.bytes > self.retention.bytes && self.ring.len() > 1;
            if !(spare && old || oversize) {
                break;
            }
            evicted.extend(self.pop());
        }
        evicted
    }

    fn pop(&mut self) -> Option<Commit> {
        let first = self.ring.pop_front()?;
        self.compacted = first.revision;
        self.events -= first.events.len();
        self.bytes -= first.bytes();
        Some(first)
    }

    /// Forgets everything up to and with `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Commit> {
        let count = revision.0.min(self.newest.0).saturating_sub(self.compacted.0);
        (0..count).map_while(|_| self.pop()).collect()
    }

    /// The commits after `after` up to and with `upto`, or the newest [`Self::STRETCH`] of them, newest first.
    pub(crate) fn backwards(&self, after: Revision, upto: Revision) -> Result<Vec<Commit>, Revision> {
        if after < self.compacted {
            return Err(self.compacted);
        }
        let index = |revision: Revision| (revision.0 - self.compacted.0) as usize;
        Ok(self.ring.range(index(after)..index(upto)).rev().take(Self::STRETCH).cloned().collect())
    }

    /// Registers a watcher of the events after `from`. Had it come a moment earlier, it would have been asked for progress with the
    /// others: whoever waits for that must not wait for ever because it comes only now.
    pub(crate) fn watch(&mut self, prefix: &str, from: Revision) -> WatcherId {
        let id = self.next_id;
        self.next_id += 1;
        let prefix: Arc<str> = prefix.into();
        self.by_prefix.entry(prefix.clone()).or_default().push(id);
        *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
        let unread = (from < self.newest).then_some(Revision(from.0 + 1));
        let progress = (from < self.asked).then_some(self.asked);
        self.watchers.insert(id, Cursor { prefix, from, unread, progress, waker: None });
        id
    }

    pub(crate) fn unwatch(&mut self, id: WatcherId) {
        let Some(Cursor { prefix, .. }) = self.watchers.remove(&id) else { return };
        if let Some(ids) = self.by_prefix.get_mut(&prefix) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
        if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.prefix_lengths.remove(&prefix.len());
            }
        }
    }

    /// Every watcher owes a progress notification once it has read what is there now.
    pub(crate) fn request_progress(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        self.asked = self.newest;
        for (id, cursor) in &mut self.watchers {
            cursor.progress = Some(self.newest);
            if cursor.from > self.newest {
                if !self.ahead.contains(id) {
                    self.ahead.push(*id);
                }
            } else {
                wakers.extend(cursor.waker.take());
            }
        }
        wakers
    }

    pub(crate) fn close(&mut self) -> Vec<Waker> {
        self.closed = true;
        self.watchers.values_mut().filter_map(|cursor| cursor.waker.take()).collect()
    }

    /// Reads the next stretch for a watcher.
    pub(crate) fn read(&mut self, id: WatcherId, batches: &mut VecDeque<Batch>) -> Result<Read, Compacted> {
        let cursor = self.watchers.get_mut(&id).expect("a watcher is registered until it is dropped");
        if let Some(unread) = cursor.unread {
            if unread <= self.compacted {
                return Err(Compacted { asked: Revision(unread.0 - 1), oldest: self.compacted });
            }
            let start = (unread.0 - self.compacted.0 - 1) as usize;
            let end = (start + Self::STRETCH).min(self.ring.len());
            for commit in self.ring.range(start..end) {
                let concerned = commit.events.iter().filter(|event| event.kv.key.starts_with(&*cursor.prefix));
                let events: Vec<_> = concerned.cloned().collect();
                if !events.is_empty() {
                    batches.push_back(Batch { revision: commit.revision, events });
                }
            }
            cursor.unread = (end < self.ring.len()).then_some(Revision(unread.0 + (end - start) as u64));
        }
        let read_to = cursor.unread.map_or(self.newest, |unread| Revision(unread.0 - 1));
        if cursor.progress.is_some_and(|progress| read_to >= progress.max(cursor.from)) {
            cursor.progress = None;
            batches.push_back(Batch { revision: read_to, events: Vec::new() });
        }
        Ok(match (batches.is_empty(), cursor.unread) {
            (false, _) => Read::Some,
            (true, Some(_)) => Read::Continue,
            (true, None) if self.closed => Read::Closed,
            (true, None) => Read::Wait,
        })
    }

    /// Whom to wake when there is more to read for `id`; called under the lock of the [`Self::read`] that said `Wait`.
    pub(crate) fn wake_later(&mut self, id: WatcherId, waker: &Waker) {
        if let Some(cursor) = self.watchers.get_mut(&id) {
            match &mut cursor.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }
}
