//! Checkpoints: the whole state at one revision, so that the log need not go back to the beginning.
//!
//! A [`Checkpoint`] is a format; [`Generations`] keeps the two newest of a directory. A new one is written beside them,
//! synced, opened again and verified, and only then given its name. What is acknowledged never depends on it: as the
//! log goes back to the older generation, either may be lost.

use crate::error::OpenError;
use crate::snapshot::Snapshot;
use crate::{Revision, files, log};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tracing::warn;

/// A format for the whole state at one revision, in a directory of its own.
pub(crate) trait Checkpoint: Send + Sync + 'static {
    /// Writes `state` into the directory `path`, which does not exist yet. Need not sync. Lets go of what it has written:
    /// while the store goes on, the state of before is what costs memory.
    fn write(&self, path: &Path, state: Snapshot, work: &Work) -> Result<(), CheckpointError>;
    /// Reads it all, and fails unless it is exactly what was written. Changes nothing in it.
    fn load(&self, path: &Path, work: &Work) -> Result<Snapshot, CheckpointError>;
    /// As [`Self::load`], but only to know whether it would succeed.
    fn verify(&self, path: &Path, work: &Work) -> Result<Revision, CheckpointError>;
}

/// Something that takes long: whether it still moves, and whether it is still wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    steps: Arc<AtomicU64>,
    cancelled: Arc<AtomicBool>,
}

impl Work {
    /// As long as nobody sets `cancelled`.
    pub(crate) fn until(cancelled: Arc<AtomicBool>) -> Self {
        Self { cancelled, ..Self::default() }
    }

    /// It moves.
    pub(crate) fn step(&self) -> Result<(), CheckpointError> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if self.is_cancelled() { Err(CheckpointError::Cancelled) } else { Ok(()) }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Why a checkpoint was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("the store is closing")]
    Cancelled,
    #[error("{0} does not come back")]
    Stuck(&'static str),
    #[error("{0}")]
    Corrupt(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Engine(#[from] sled::Error),
}

/// Why a checkpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the checkpoint {}", .path.display())]
pub struct CheckpointFailed {
    path: PathBuf,
    source: Cause,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How a directory ends whose checkpoint is in the making.
const UNFINISHED: &str = "unfinished";

/// The checkpoints of a store, and the log segments which they make superfluous.
pub(crate) struct Generations {
    format: Arc<dyn Checkpoint>,
    dir: PathBuf,
    log_dir: PathBuf,
}

/// How many are kept.
const KEPT: usize = 2;

/// A format that has not moved for so long is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nor does a store that closes wait longer for it to notice.
const GRACE: Duration = Duration::from_secs(2);

impl Generations {
    pub(crate) fn new(format: Arc<dyn Checkpoint>, dir: PathBuf, log_dir: PathBuf) -> Self {
        Self { format, dir, log_dir }
    }

    /// Where the log is which follows them.
    pub(crate) fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// The checkpoints there are, the oldest first.
    pub(crate) fn list(&self) -> Result<Vec<(Revision, PathBuf)>, OpenError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(OpenError::io("read", &self.dir))? {
            let path = entry.map_err(OpenError::io("read", &self.dir))?.path();
            if let Some(revision) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) {
                found.push((Revision(revision), path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Reads the checkpoint at `path`.
    pub(crate) fn load(&self, path: &Path) -> Result<Snapshot, OpenError> {
        let loaded = self.apart(&Work::default(), path, |format, path, work| format.load(path, work));
        loaded.map_err(|error| OpenError::corrupt(path, 0, error))
    }

    /// Makes `state` the newest checkpoint, unless there is one as new, and drops what it supersedes.
    pub(crate) fn write(&self, state: Snapshot, cancelled: &Arc<AtomicBool>) -> Result<(), CheckpointFailed> {
        let path = self.dir.join(format!("{:020}", state.revision.0));
        let work = Work::until(cancelled.clone());
        let written = self.write_to(&path, state, &work).and_then(|()| self.prune(&work));
        written.map_err(|error| {
            // A full disk is not to stay full for that; what fails here is cleared away the next time.
            let _ = self.clear_unfinished();
            CheckpointFailed { path, source: error }
        })
    }

    fn write_to(&self, path: &Path, state: Snapshot, work: &Work) -> Result<(), Cause> {
        if self.list()?.last().is_some_and(|(newest, _)| *newest >= state.revision) {
            return Ok(());
        }
        let unfinished = path.with_extension(UNFINISHED);
        self.clear_unfinished()?;
        self.apart(work, &unfinished, move |format, path, work| format.write(path, state, work))?;
        files::secure_tree(&unfinished)?;
        self.apart(work, &unfinished, |format, path, work| format.verify(path, work))?;
        std::fs::rename(&unfinished, path)?;
        files::sync_dir(&self.dir)?;
        Ok(())
    }

    /// Lets the format work on a thread of its own, which is left alone if it does not come back: when the disk is full,
    /// sled may wait for ever, and neither the store nor whoever closes it is to wait with it.
    fn apart<T: Send + 'static>(
        &self,
        work: &Work,
        path: &Path,
        task: impl FnOnce(&dyn Checkpoint, &Path, &Work) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, Cause> {
        const LOOK: Duration = Duration::from_millis(50);
        let (done, outcome) = mpsc::channel();
        let (format, owned, own_work) = (self.format.clone(), path.to_owned(), work.clone());
        std::thread::Builder::new().name("store-format".into()).spawn(move || {
            // Nobody may be listening any more.
            let _ = done.send(task(&*format, &owned, &own_work));
        })?;
        // Real time: it is a disk that is waited for.
        let (mut steps, mut moved, mut cancelled) = (0, Instant::now(), None);
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(result) => return Ok(result?),
                Err(RecvTimeoutError::Disconnected) => return Err("the format panicked".into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = work.steps.load(Ordering::Relaxed);
            if now != steps {
                (steps, moved) = (now, Instant::now());
            }
            if work.is_cancelled() {
                cancelled.get_or_insert_with(Instant::now);
            }
            if moved.elapsed() > PATIENCE || cancelled.is_some_and(|since| since.elapsed() > GRACE) {
                warn!(path = %path.display(), "a checkpoint does not come back; it is left alone");
                return Err(CheckpointError::Stuck("the format").into());
            }
        }
    }

    /// Removes what a crash or a failure left half-written.
    pub(crate) fn clear_unfinished(&self) -> Result<(), OpenError> {
        for entry in std::fs::read_dir(&self.dir).map_err(OpenError::io("read", &self.dir))? {
            let path = entry.map_err(OpenError::io("read", &self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED || extension == files::SCRATCH) {
                std::fs::remove_dir_all(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn prune(&self, work: &Work) -> Result<(), Cause> {
        let mut generations = self.list()?;
        while generations.len() > KEPT {
            // The one before the newest becomes the one to fall back to: better know now that it still can be read.
            let fallback = generations.len() - KEPT;
            let path = &generations[fallback].1;
            let superseded = match self.apart(work, path, |format, path, work| format.verify(path, work)) {
                Ok(_) => 0,
                Err(error) if work.is_cancelled() => return Err(error),
                Err(error) => {
                    warn!(checkpoint = %path.display(), %error, "checkpoint has gone bad; dropping it");
                    fallback
                }
            };
            let (_, path) = generations.remove(superseded);
            std::fs::remove_dir_all(&path).map_err(OpenError::io("remove", &path))?;
        }
        files::sync_dir(&self.dir).map_err(OpenError::io("sync", &self.dir))?;
        match generations.as_slice() {
            [(older, _), .., _] => Ok(log::trim(&self.log_dir, *older)?),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A format that never comes back, as sled does not when the disk is full.
    struct Stuck;

    impl Checkpoint for Stuck {
        fn write(&self, _: &Path, _: Snapshot, _: &Work) -> Result<(), CheckpointError> {
            loop {
                std::thread::park();
            }
        }

        fn load(&self, _: &Path, _: &Work) -> Result<Snapshot, CheckpointError> {
            unreachable!("nothing has been written")
        }

        fn verify(&self, _: &Path, _: &Work) -> Result<Revision, CheckpointError> {
            unreachable!("nothing has been written")
        }
    }

    #[test]
    fn a_store_that_closes_does_not_wait_for_a_format_that_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let generations = Generations::new(Arc::new(Stuck), dir.path().to_owned(), dir.path().to_owned());
        let closing = Arc::new(AtomicBool::new(true));
        let state = Snapshot { revision: Revision(1), ..Snapshot::default() };
        let error = generations.write(state, &closing).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "the format does not come back");
    }
}
