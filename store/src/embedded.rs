//! The store on disk: a write-ahead log, checkpoints, and the state served from memory.
//!
//! [`EmbeddedStore`] puts the parts together: [`recovery`](crate::recovery) at the start, [`committer`] for writes,
//! [`core`](crate::core) for reads and watches, [`checkpoint`](crate::checkpoint) in the background. Saving and
//! restoring a whole state is [`archive`](crate::archive)'s and [`restore`](crate::restore())'s.
//!
//! ```text
//! <dir>/lock                      one process at a time
//! <dir>/log/<revision>.log        what was committed from that revision on
//! <dir>/checkpoints/<revision>/   everything at that revision: the two newest
//! ```

use crate::archive::Archive;
use crate::checkpoint::{CheckpointFailed, Generations};
use crate::committer::{self, Journal, Queued, StopReason};
use crate::core::Core;
use crate::error::OpenError;
use crate::history::Retention;
use crate::lock::DirectoryLock;
use crate::log::{self, Log};
use crate::recovery::recover;
use crate::sled_checkpoint::SledCheckpoint;
use crate::snapshot::{Commit, Snapshot};
use crate::{Committed, KeyValue, Page, Range, RangeError, Revision, Store, Txn, TxnError, Unavailable, Watch, files};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

/// How an [`EmbeddedStore`] is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much history can be watched.
    pub retention: Retention,
    /// How much of it is kept in memory, and can be read at its revisions too; a watcher that has fallen further behind
    /// reads the log, which reaches back to the older checkpoint at least.
    pub ring_bytes: usize,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// A checkpoint is made when so much has been logged since the last, or as much as there is live data, whichever is
    /// more.
    pub checkpoint_bytes: u64,
}

impl Default for Options {
    /// History of up to 256 MiB, 16 MiB of it in memory; segments of 16 MiB, a checkpoint every 64 MiB.
    fn default() -> Self {
        Self {
            retention: Retention { bytes: 256 << 20, ..Retention::default() },
            ring_bytes: 16 << 20,
            segment_bytes: 16 << 20,
            checkpoint_bytes: 64 << 20,
        }
    }
}

/// Transactions which may wait for the committer before their senders do.
const QUEUE: usize = 1024;

/// A durable store in a directory. Clones are the same store; it closes when the last is dropped.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    queue: Mutex<Option<mpsc::Sender<Queued>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    stopped: watch::Receiver<StopReason>,
    generations: Arc<Mutex<Generations>>,
    closing: Arc<AtomicBool>,
    lock: Mutex<Option<DirectoryLock>>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EmbeddedStore").field("revision", &self.shared.core.revision()).finish_non_exhaustive()
    }
}

/// Locks the directory and makes it ready, with the places of its parts.
pub(crate) fn occupy(dir: &Path) -> Result<(DirectoryLock, Generations, PathBuf), OpenError> {
    files::create_private_dir(dir).map_err(OpenError::io("create", dir))?;
    let lock = DirectoryLock::acquire(dir)?;
    let (log_dir, checkpoint_dir) = (dir.join("log"), dir.join("checkpoints"));
    for part in [&log_dir, &checkpoint_dir] {
        files::create_private_dir(part).map_err(OpenError::io("create", part))?;
    }
    for parent in [Some(dir), dir.parent().filter(|parent| !parent.as_os_str().is_empty())].into_iter().flatten() {
        files::sync_dir(parent).map_err(OpenError::io("sync", parent))?;
    }
    Ok((lock, Generations::new(Arc::new(SledCheckpoint::default()), checkpoint_dir, log_dir.clone()), log_dir))
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is created if need be. Blocks while it reads the state.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if somebody has it open, [`OpenError::Corrupt`] if acknowledged data is damaged,
    /// [`OpenError::Io`] if the file system refuses.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        let (lock, generations, log_dir) = occupy(dir)?;
        let recovered = recover(&generations, &log_dir, (options.retention, options.ring_bytes))?;
        let next = Revision(recovered.snapshot.revision.0 + 1);
        let backlog = Arc::new(recovered.backlog);
        let log = Log::begin(&log_dir, next, options.segment_bytes, backlog.clone());
        let log = log.map_err(OpenError::io("write to", &log_dir))?;
        let live_bytes = live_bytes(&recovered.snapshot);
        let core = Core::new(recovered.snapshot, recovered.history, Some(backlog));

        let generations = Arc::new(Mutex::new(generations));
        let closing = Arc::new(AtomicBool::new(false));
        let checkpoints = Checkpoints {
            core: core.clone(),
            generations: generations.clone(),
            closing: closing.clone(),
            least: options.checkpoint_bytes,
            live_bytes: Arc::new(AtomicU64::new(live_bytes)),
            logged: recovered.log_bytes,
            running: None,
        };
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(None);
        let committed = core.clone();
        let committer = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer::run(receiver, Disk { log, checkpoints }, &committed, &stop))
            .map_err(OpenError::io("start the committer of", dir))?;
        Ok(Self {
            shared: Arc::new(Shared {
                core,
                queue: Mutex::new(Some(queue)),
                committer: Mutex::new(Some(committer)),
                stopped,
                generations,
                closing,
                lock: Mutex::new(Some(lock)),
            }),
        })
    }

    /// Commits what is queued, ends the watches, and gives the directory free.
    pub async fn close(&self) {
        let shared = self.shared.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || shared.end()).await {
            warn!(%error, "closing the store failed");
        }
    }

    /// Waits until the store stops by itself, which it does when the log cannot be written, and says why. Pending for
    /// as long as it runs, and after [`Self::close`].
    pub async fn stopped(&self) -> Arc<str> {
        let mut stopped = self.shared.stopped.clone();
        if let Ok(reason) = stopped.wait_for(Option::is_some).await
            && let Some(reason) = reason.clone()
        {
            return reason;
        }
        std::future::pending().await
    }

    /// Makes a checkpoint now. One is made in the background whenever the log has grown enough.
    ///
    /// # Errors
    /// [`CheckpointFailed`]: the store goes on as before, with a longer log.
    pub async fn checkpoint(&self) -> Result<(), CheckpointFailed> {
        let Shared { core, generations, closing, .. } = &*self.shared;
        let (core, generations, closing) = (core.clone(), generations.clone(), closing.clone());
        let written = tokio::task::spawn_blocking(move || {
            let generations = generations.lock();
            write_checkpoint(&core, &generations, Snapshot::clone(&core.snapshot()), &closing)
        });
        written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// The newest state as the bytes of one file, which [`restore`](crate::restore()) reads. Writers go on meanwhile.
    pub fn archive(&self) -> Archive {
        Archive::new(Snapshot::clone(&self.shared.core.snapshot()))
    }
}

/// Makes a checkpoint; the log is shorter then, and what is gone from it can no longer be watched.
fn write_checkpoint(
    core: &Core,
    generations: &Generations,
    state: Snapshot,
    closing: &Arc<AtomicBool>,
) -> Result<(), CheckpointFailed> {
    generations.write(state, closing)?;
    if let Ok(segments) = log::segments(generations.log_dir())
        && let Some((first, _)) = segments.first()
    {
        core.log_begins(*first);
    }
    Ok(())
}

impl Shared {
    fn stop_reason(&self) -> TxnError {
        TxnError::Stopped(self.stopped.borrow().clone().unwrap_or_else(|| "it has been closed".into()))
    }

    fn end(&self) {
        drop(self.queue.lock().take());
        self.closing.store(true, Ordering::Relaxed);
        if let Some(committer) = self.committer.lock().take()
            && committer.join().is_err()
        {
            warn!("the committer panicked");
        }
        self.core.close();
        // A checkpoint in the making gives up soon; the directory stays ours until then.
        let _no_checkpoint_is_running = self.generations.lock();
        drop(self.lock.lock().take());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn txn(&self, txn: Txn) -> Result<Committed, TxnError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.shared.queue.lock().clone().ok_or_else(|| self.shared.stop_reason())?;
        let queued = Queued { txn, at: Instant::now(), reply };
        queue.send(queued).await.map_err(|_| self.shared.stop_reason())?;
        drop(queue);
        answer.await.unwrap_or_else(|_| Err(self.shared.stop_reason()))
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

/// The log, with checkpoints following it.
struct Disk {
    log: Log,
    checkpoints: Checkpoints,
}

impl Journal for Disk {
    fn append(&mut self, commits: &[Commit]) -> io::Result<()> {
        let appended = self.log.append(commits);
        let name = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.log.dir().display()));
        self.checkpoints.logged += appended.map_err(name)?;
        Ok(())
    }

    fn published(&mut self) {
        self.checkpoints.begin_if_due();
    }
}

/// Decides when to make a checkpoint, and owns the thread which does.
struct Checkpoints {
    core: Arc<Core>,
    generations: Arc<Mutex<Generations>>,
    closing: Arc<AtomicBool>,
    least: u64,
    /// At the last checkpoint.
    live_bytes: Arc<AtomicU64>,
    /// Since the last checkpoint was begun.
    logged: u64,
    running: Option<JoinHandle<()>>,
}

impl Checkpoints {
    fn begin_if_due(&mut self) {
        let running = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if running || self.logged < self.least.max(self.live_bytes.load(Ordering::Relaxed)) {
            return;
        }
        self.logged = 0;
        let (core, generations) = (self.core.clone(), self.generations.clone());
        let (closing, live) = (self.closing.clone(), self.live_bytes.clone());
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            let generations = generations.lock();
            let snapshot = Snapshot::clone(&core.snapshot());
            let revision = snapshot.revision.0;
            live.store(live_bytes(&snapshot), Ordering::Relaxed);
            match write_checkpoint(&core, &generations, snapshot, &closing) {
                Ok(()) => debug!(revision, "checkpoint made"),
                Err(_) if closing.load(Ordering::Relaxed) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, cause = error.source(), "no checkpoint made; the log stays longer");
                }
            }
        });
        match thread {
            Ok(thread) => self.running = Some(thread),
            Err(error) => warn!(%error, "no thread for a checkpoint; the log stays longer"),
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take()
            && running.join().is_err()
        {
            warn!("the checkpoint thread panicked");
        }
    }
}

fn live_bytes(snapshot: &Snapshot) -> u64 {
    snapshot.keys.iter().map(|(key, kv)| (key.len() + kv.value.len()) as u64).sum()
}
