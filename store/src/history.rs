//! The recent past and who watches it: a ring of commits, and one cursor into it per watcher.
//!
//! [`History`] lives under a mutex of [`Core`](crate::core::Core), which every caller holds for a bounded number of
//! entries only: a watcher copies `Arc`s out of the ring at its own pace, so a slow one blocks nobody. Where there is a
//! log, what falls out of the ring for want of memory is read from there ([`Backlog`](crate::backlog::Backlog)); what
//! outlives the retention is compacted.
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
    /// How much of it may be in memory; the rest is read from the log.
    ring_bytes: usize,
    /// Consecutive revisions: the first is `floor + 1`, the last is `newest`.
    ring: VecDeque<Commit>,
    in_ring: Amount,
    /// Everything up to and with this revision is in the log only, or gone.
    floor: Revision,
    /// What the log has between `compacted` and `floor`, in stretches.
    in_log: VecDeque<Stretch>,
    /// All of `in_log`.
    logged: Amount,
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

/// Events, and the memory for them.
#[derive(Clone, Copy, Default)]
struct Amount {
    events: usize,
    bytes: usize,
}

impl Amount {
    fn of(commit: &Commit) -> Self {
        Self { events: commit.events.len(), bytes: commit.bytes() }
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.events -= other.events;
        self.bytes -= other.bytes;
    }
}

/// Commits which have left the ring, together.
struct Stretch {
    last: Revision,
    /// When the last was committed.
    at: Instant,
    amount: Amount,
}

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
    /// What is between these two revisions, both included, has to be read from the log; then [`History::read_to`].
    Log(Revision, Revision),
    /// Nothing until woken.
    Wait,
    /// The store is closed and everything has been read.
    Closed,
}

impl History {
    /// No watcher holds the lock for more than so many commits.
    const STRETCH: usize = 256;
    /// Commits out of the ring are forgotten in stretches of about so many bytes, or a hundredth of what is kept.
    const STRETCH_BYTES: usize = 1 << 20;

    /// A history in memory alone, which begins, and for now ends, at `newest`.
    pub(crate) fn new(retention: Retention, newest: Revision) -> Self {
        Self::with_log(retention, usize::MAX, newest)
    }

    /// A history of which no more than `ring_bytes` are in memory, as the log has the rest.
    pub(crate) fn with_log(retention: Retention, ring_bytes: usize, newest: Revision) -> Self {
        Self {
            retention,
            ring_bytes,
            ring: VecDeque::new(),
            in_ring: Amount::default(),
            floor: newest,
            in_log: VecDeque::new(),
            logged: Amount::default(),
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

    pub(crate) fn retention(&self) -> Retention {
        self.retention
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
        self.in_ring.add(Amount::of(&commit));
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
        while let Some((oldest, at)) = self.oldest() {
            let events = self.in_ring.events + self.logged.events;
            let spare = events - oldest.events >= self.retention.events;
            let old = now.saturating_duration_since(at) > self.retention.age;
            // The newest commit always stays: watchers must have a chance to see it.
            let more = self.ring.len() > 1 || !self.in_log.is_empty();
            let oversize = self.in_ring.bytes + self.logged.bytes > self.retention.bytes && more;
            if !(spare && old || oversize) {
                break;
            }
            self.forget_oldest(&mut evicted);
        }
        while self.in_ring.bytes > self.ring_bytes && self.ring.len() > 1 {
            if let Some(first) = self.pop() {
                self.leave_to_log(&first);
                evicted.push(first);
            }
        }
        evicted
    }

    /// The oldest part that can be forgotten at once, and its age.
    fn oldest(&self) -> Option<(Amount, Instant)> {
        let in_log = self.in_log.front().map(|stretch| (stretch.amount, stretch.at));
        in_log.or_else(|| self.ring.front().map(|first| (Amount::of(first), first.at)))
    }

    fn forget_oldest(&mut self, evicted: &mut Vec<Commit>) {
        if let Some(stretch) = self.in_log.pop_front() {
            self.logged.subtract(stretch.amount);
            self.compacted = stretch.last;
        } else if let Some(first) = self.pop() {
            self.compacted = first.revision;
            evicted.push(first);
        }
    }

    fn pop(&mut self) -> Option<Commit> {
        let first = self.ring.pop_front()?;
        self.floor = first.revision;
        self.in_ring.subtract(Amount::of(&first));
        Some(first)
    }

    fn leave_to_log(&mut self, commit: &Commit) {
        let amount = Amount::of(commit);
        self.logged.add(amount);
        let limit = Self::STRETCH_BYTES.min(self.retention.bytes / 100);
        match self.in_log.back_mut() {
            Some(stretch) if stretch.amount.bytes + amount.bytes <= limit => {
                stretch.amount.add(amount);
                (stretch.last, stretch.at) = (commit.revision, commit.at);
            }
            _ => self.in_log.push_back(Stretch { last: commit.revision, at: commit.at, amount }),
        }
    }

    /// Forgets everything up to and with `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Commit> {
        let revision = revision.min(self.newest);
        self.forget_log(revision);
        let count = revision.0.saturating_sub(self.floor.0);
        let forgotten = (0..count).map_while(|_| self.pop()).collect();
        self.compacted = self.compacted.max(revision);
        forgotten
    }

    /// The log has nothing up to and with `revision` any more; the ring may.
    pub(crate) fn forget_log(&mut self, revision: Revision) {
        let revision = revision.min(self.floor);
        while let Some(stretch) = self.in_log.front().filter(|stretch| stretch.last <= revision) {
            self.logged.subtract(stretch.amount);
            self.in_log.pop_front();
        }
        self.compacted = self.compacted.max(revision);
    }

    /// The commits after `after` up to and with `upto`, or the newest [`Self::STRETCH`] of them, newest first.
    pub(crate) fn backwards(&self, after: Revision, upto: Revision) -> Result<Vec<Commit>, Revision> {
        if after < self.floor {
            return Err(self.floor);
        }
        let index = |revision: Revision| (revision.0 - self.floor.0) as usize;
        Ok(self.ring.range(index(after)..index(upto)).rev().take(Self::STRETCH).cloned().collect())
    }

    /// Registers a watcher of the events after `from`. Had it come a moment earlier, it would have been asked for progress with the
    /// others: whoever waits for that must not wait for ever because it comes only now.
    ///
    /// One that is `announced` tells its progress in any case, when it has caught up with the present.
    pub(crate) fn watch(&mut self, prefix: &str, from: Revision, announced: bool) -> WatcherId {
        let id = self.next_id;
        self.next_id += 1;
        let prefix: Arc<str> = prefix.into();
        self.by_prefix.entry(prefix.clone()).or_default().push(id);
        *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
        let unread = (from < self.newest).then_some(Revision(from.0 + 1));
        let until = if announced { self.newest } else { self.asked };
        let progress = (from < until).then_some(until);
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
            if unread <= self.floor {
                return Ok(Read::Log(unread, self.floor));
            }
            let start = (unread.0 - self.floor.0 - 1) as usize;
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

    /// A watcher has read the log, and has to read on from `next`.
    pub(crate) fn read_to(&mut self, id: WatcherId, next: Revision) {
        if let Some(cursor) = self.watchers.get_mut(&id) {
            cursor.unread = (next <= self.newest).then_some(next);
        }
    }

    /// Where a watcher stood who wanted what the log no longer has.
    pub(crate) fn gone(&self, wanted: Revision) -> Compacted {
        Compacted { asked: Revision(wanted.0 - 1), oldest: self.compacted }
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
