//! The commit pipeline: queue → compare → assign revisions → append and sync → publish → acknowledge.
//!
//! Runs on a thread of its own, as a sync blocks. While one group is on its way to the disk the next one gathers in the
//! queue, so that many writers share a sync and a single one never waits for company. No answer leaves before the sync,
//! not even a refusal: it would show a state that is not durable yet.

use crate::core::Core;
use crate::snapshot::{Commit, Snapshot};
use crate::{Committed, Txn, TxnError};
use std::io;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::error;

/// A group takes no more transactions beyond this size.
const GROUP_BYTES: usize = 4 << 20;
/// Nor beyond this number.
const GROUP_TRANSACTIONS: usize = 1024;

/// Where groups become durable: the log, or what a test puts in its place.
pub(crate) trait Journal: Send + 'static {
    /// When this returns, `commits` are durable. It is not called again after an error.
    fn append(&mut self, commits: &[Commit]) -> io::Result<()>;
    /// The last group can be seen.
    fn published(&mut self) {}
}

/// A transaction which waits for its turn.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) txn: Txn,
    pub(crate) at: Instant,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What becomes of a transaction.
pub(crate) type Answer = Result<Committed, TxnError>;

/// Why the store has stopped, once it has.
pub(crate) type StopReason = Option<Arc<str>>;

#[derive(Default)]
struct Group {
    commits: Vec<Commit>,
    bytes: usize,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl Group {
    fn add(&mut self, tip: &mut Snapshot, queued: Queued) {
        let answer = tip.apply(queued.txn, queued.at).map(|commit| {
            if let Some(commit) = commit {
                self.bytes += commit.bytes();
                self.commits.push(commit);
            }
            Committed { revision: tip.revision }
        });
        self.answers.push((queued.reply, answer));
    }

    fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES || self.answers.len() >= GROUP_TRANSACTIONS
    }
}

/// Commits what comes out of `queue` until all its senders are gone or the journal fails.
pub(crate) fn run(
    mut queue: mpsc::Receiver<Queued>,
    mut journal: impl Journal,
    core: &Core,
    stopped: &watch::Sender<StopReason>,
) {
    let mut tip = Snapshot::clone(&core.snapshot());
    while let Some(first) = queue.blocking_recv() {
        let mut group = Group::default();
        group.add(&mut tip, first);
        while !group.is_full()
            && let Ok(next) = queue.try_recv()
        {
            group.add(&mut tip, next);
        }
        if !group.commits.is_empty() {
            if let Err(error) = journal.append(&group.commits) {
                // The kernel may have dropped the pages and forgotten the error: a second sync would lie.
                error!(%error, "the log cannot be written; the store stops");
                stopped.send_replace(Some(format!("cannot write the log: {error}").into()));
                // Nobody is to wait for what the journal may have to finish.
                drop((group, queue));
                return;
            }
            core.publish(tip.clone(), group.commits);
        }
        for (reply, answer) in group.answers {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
        journal.published();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{History, Retention};
    use crate::{Compare, Operation, Revision};
    use std::sync::mpsc as sync;

    /// A disk whose syncs end when, and as, the test says.
    struct Disk {
        syncing: sync::Sender<usize>,
        outcome: sync::Receiver<io::Result<()>>,
    }

    impl Journal for Disk {
        fn append(&mut self, commits: &[Commit]) -> io::Result<()> {
            self.syncing.send(commits.len()).expect("the test listens");
            self.outcome.recv().expect("the test answers")
        }
    }

    struct Pipeline {
        core: Arc<Core>,
        queue: mpsc::Sender<Queued>,
        syncing: sync::Receiver<usize>,
        outcome: sync::Sender<io::Result<()>>,
        stopped: watch::Receiver<StopReason>,
    }

    impl Pipeline {
        fn new() -> Self {
            let core = Core::new(Snapshot::default(), History::new(Retention::default(), Revision(0)), None);
            let (queue, receiver) = mpsc::channel(16);
            let ((syncing_sender, syncing), (outcome, outcome_receiver)) = (sync::channel(), sync::channel());
            let (stop, stopped) = watch::channel(None);
            let committed = core.clone();
            std::thread::spawn(move || {
                let disk = Disk { syncing: syncing_sender, outcome: outcome_receiver };
                run(receiver, disk, &committed, &stop);
            });
            Self { core, queue, syncing, outcome, stopped }
        }

        fn put(&self, key: &str, expected: u64) -> oneshot::Receiver<Answer> {
            let (reply, answer) = oneshot::channel();
            let txn = Txn {
                compares: vec![Compare { key: key.into(), mod_revision: Revision(expected) }],
                operations: vec![Operation::Put { key: key.into(), value: "value".into() }],
            };
            self.queue.try_send(Queued { txn, at: Instant::now(), reply }).expect("the queue has room");
            answer
        }
    }

    #[test]
    fn nothing_is_seen_or_answered_before_it_is_durable() {
        let store = Pipeline::new();
        let mut watch = store.core.watch("", Revision(0), false);
        let mut first = store.put("a", 0);
        assert_eq!(store.syncing.recv(), Ok(1));
        // These two gather while the first is being synced; the refusal depends on the put before it.
        let (mut second, mut refused) = (store.put("a", 1), store.put("a", 1));
        assert!(first.try_recv().is_err() && store.core.get("a").is_none());
        assert!(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut watch)).is_none());
        store.outcome.send(Ok(())).unwrap();

        assert_eq!(store.syncing.recv(), Ok(1), "a refused transaction is not written");
        assert_eq!(
            first.try_recv().unwrap().unwrap().revision,
            Revision(1),
            "answered before the next group is synced"
        );
        assert!(second.try_recv().is_err() && refused.try_recv().is_err());
        assert_eq!(store.core.get("a").unwrap().mod_revision, Revision(1));
        store.outcome.send(Ok(())).unwrap();
        assert_eq!(second.blocking_recv().unwrap().unwrap().revision, Revision(2));
        let Err(TxnError::Conflict { current: Some(current), .. }) = refused.blocking_recv().unwrap() else {
            panic!("the second compare does not hold")
        };
        assert_eq!(current.mod_revision, Revision(2));
    }

    #[test]
    fn what_queues_up_during_a_sync_shares_the_next() {
        let store = Pipeline::new();
        let first = store.put("first", 0);
        assert_eq!(store.syncing.recv(), Ok(1));
        let rest: Vec<_> = ["a", "b", "c"].map(|key| store.put(key, 0)).into();
        store.outcome.send(Ok(())).unwrap();
        assert_eq!(store.syncing.recv(), Ok(3));
        store.outcome.send(Ok(())).unwrap();
        for (answer, revision) in std::iter::once(first).chain(rest).zip(1..) {
            assert_eq!(answer.blocking_recv().unwrap().unwrap().revision, Revision(revision));
        }
    }

    #[test]
    fn a_failed_sync_stops_the_store_and_shows_nothing() {
        let store = Pipeline::new();
        let failed = store.put("a", 0);
        assert_eq!(store.syncing.recv(), Ok(1));
        let queued = store.put("b", 0);
        store.outcome.send(Err(io::Error::other("input/output error"))).unwrap();
        assert!(failed.blocking_recv().is_err() && queued.blocking_recv().is_err());
        assert_eq!(store.stopped.borrow().as_deref(), Some("cannot write the log: input/output error"));
        assert!(store.core.get("a").is_none() && store.core.revision() == Revision(0));
    }
}
