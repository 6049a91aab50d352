//! Recent snapshots that are kept for lists read in pages: every page is of the same state, however much is written
//! between them.
//!
//! A snapshot shares with the present what has not changed since. What it alone keeps is no more than what has been
//! replaced since it was taken; together with age that bounds how long it is pinned. A page of a snapshot that has been
//! let go is compacted, unless the history can still say what it was.

use crate::Revision;
use crate::snapshot::{Commit, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What pinned snapshots may keep alive together that nobody else needs.
const KEPT_BYTES: u64 = 64 << 20;
/// Most snapshots that are pinned.
const MOST: usize = 256;

/// The pinned snapshots, the oldest pin first.
pub(crate) struct Pins {
    age: Duration,
    pinned: VecDeque<Pinned>,
    /// Bytes replaced or deleted, ever.
    replaced: u64,
}

struct Pinned {
    snapshot: Arc<Snapshot>,
    /// Keys which do not begin so are not as they were.
    prefix: String,
    at: Instant,
    /// [`Pins::replaced`] when it was the newest snapshot, or later.
    replaced: u64,
}

impl Pins {
    /// None yet; each stays for `age` at most.
    pub(crate) fn new(age: Duration) -> Self {
        Self { age, pinned: VecDeque::new(), replaced: 0 }
    }

    /// The snapshot of revision `at`, if it is pinned and true for the keys with `prefix`.
    pub(crate) fn find(&self, at: Revision, prefix: &str) -> Option<Arc<Snapshot>> {
        let mut found = self.pinned.iter().filter(|pinned| pinned.snapshot.revision == at);
        found.find(|pinned| prefix.starts_with(&pinned.prefix)).map(|pinned| pinned.snapshot.clone())
    }

    /// Pins a snapshot that is true for the keys with `prefix`.
    pub(crate) fn pin(&mut self, snapshot: Arc<Snapshot>, prefix: &str, now: Instant) {
        if self.find(snapshot.revision, prefix).is_none() {
            let prefix = prefix.to_owned();
            self.pinned.push_back(Pinned { snapshot, prefix, at: now, replaced: self.replaced });
        }
    }

    /// These commits follow; the snapshots that are let go, to be dropped outside the lock.
    pub(crate) fn replaced(&mut self, commits: &[Commit], now: Instant) -> Vec<Arc<Snapshot>> {
        let previous = commits.iter().flat_map(|commit| &commit.events).filter_map(|event| event.previous.as_ref());
        self.replaced += previous.map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>();
        let mut unpinned = Vec::new();
        while let Some(oldest) = self.pinned.front() {
            let old = now.saturating_duration_since(oldest.at) > self.age;
            if !old && self.replaced - oldest.replaced <= KEPT_BYTES && self.pinned.len() <= MOST {
                break;
            }
            unpinned.extend(self.pinned.pop_front().map(|pinned| pinned.snapshot));
        }
        unpinned
    }

    /// Lets those before `revision` go.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Arc<Snapshot>> {
        let (gone, kept) =
            std::mem::take(&mut self.pinned).into_iter().partition(|pinned| pinned.snapshot.revision < revision);
        self.pinned = kept;
        let gone: VecDeque<Pinned> = gone;
        gone.into_iter().map(|pinned| pinned.snapshot).collect()
    }
}
