//! A store's directory made from an [`Archive`](crate::Archive)'s file.
//!
//! The file is verified before anything is touched. The new store is made beside the directory and takes its place in
//! one step, so that a crash leaves the old one or the new one.

use crate::archive::{self, ArchiveError};
use crate::checkpoint::Generations;
use crate::embedded::occupy;
use crate::error::OpenError;
use crate::history::Retention;
use crate::lock::DirectoryLock;
use crate::recovery::recover;
use crate::sled_checkpoint::SledCheckpoint;
use crate::{Revision, files, log};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;

/// What may happen to a store that is in the directory already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is restored.
    Keep,
    /// It is replaced.
    Replace,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision that was saved.
    pub saved: Revision,
    /// The revision from which the store goes on.
    pub revision: Revision,
    /// How many keys it has.
    pub keys: usize,
}

/// Revisions go on so far above the saved one and whatever the directory had reached. What was written after the state
/// was saved may have been seen elsewhere: nobody who saw it may take a new revision for an old one. Their watches are
/// told that the past is gone, and list anew. etcd's restore can be told to do the same, and suggests this number.
const JUMP: u64 = 1_000_000_000;

/// Makes a store in `dir` from the file at `path`. `progress` is told of how many bytes how many have been verified.
/// Blocks.
///
/// # Errors
/// [`OpenError::Occupied`] if `dir` holds a store which is to be kept, [`OpenError::Locked`] if it is in use, and what
/// is wrong with the file. The directory is then as it was.
pub fn restore(
    path: &Path,
    dir: &Path,
    existing: Existing,
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored, ArchiveError> {
    let mut state = archive::load(path, &mut progress)?;
    let saved = state.revision;
    let mut newest = saved;
    let _old = if dir.exists() {
        let lock = DirectoryLock::acquire(dir)?;
        if is_occupied(dir)? {
            if existing == Existing::Keep {
                return Err(OpenError::Occupied { path: dir.to_owned() }.into());
            }
            newest = newest.max(newest_revision(dir));
        }
        Some(lock)
    } else {
        None
    };
    let keys = state.keys.len();
    let jumped = newest.0.checked_add(JUMP);
    state.revision = Revision(jumped.ok_or_else(|| OpenError::corrupt(path, 0, "its revision is too large"))?);
    let revision = state.revision;

    let beside = beside(dir);
    remove(&beside)?;
    let made = occupy(&beside).map_err(ArchiveError::from).and_then(|(lock, generations, _)| {
        generations.write(state, &Arc::default())?;
        replace(&beside, dir).map_err(ArchiveError::io("replace", dir))?;
        Ok(lock)
    });
    // What is there now was either not finished or has been replaced.
    let removed = remove(&beside);
    let _new = made?;
    removed?;
    Ok(Restored { saved, revision, keys })
}

fn is_occupied(dir: &Path) -> Result<bool, OpenError> {
    let (checkpoints, log_dir) = (dir.join("checkpoints"), dir.join("log"));
    let has_log = log_dir.exists() && !log::segments(&log_dir)?.is_empty();
    let generations = Generations::new(Arc::new(SledCheckpoint::default()), checkpoints.clone(), log_dir);
    Ok(has_log || checkpoints.exists() && !generations.list()?.is_empty())
}

/// What a store that is to be replaced had reached. One that cannot be read is what a restore may be for.
fn newest_revision(dir: &Path) -> Revision {
    let (checkpoints, log_dir) = (dir.join("checkpoints"), dir.join("log"));
    let generations = Generations::new(Arc::new(SledCheckpoint::default()), checkpoints, log_dir.clone());
    match recover(&generations, &log_dir, (Retention::default(), 0)) {
        Ok(recovered) => recovered.snapshot.revision,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "the store that is replaced cannot be read; its revision is unknown");
            Revision(0)
        }
    }
}

fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".restoring");
    name.into()
}

fn remove(dir: &Path) -> Result<(), ArchiveError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ArchiveError::io("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Gives the directory `new` the name `dir`, and what had it the other name.
fn replace(new: &Path, dir: &Path) -> io::Result<()> {
    if dir.exists() {
        exchange(new, dir)?;
    } else {
        std::fs::rename(new, dir)?;
    }
    files::sync_dir(dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

#[cfg(target_os = "linux")]
fn exchange(new: &Path, dir: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, new, CWD, dir, RenameFlags::EXCHANGE) {
        // Not every file system can.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => exchange_in_steps(new, dir),
        result => Ok(result?),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(new: &Path, dir: &Path) -> io::Result<()> {
    exchange_in_steps(new, dir)
}

/// The best there is where names cannot be exchanged at once. The old store is not removed before the new one is there.
fn exchange_in_steps(new: &Path, dir: &Path) -> io::Result<()> {
    let mut old = dir.as_os_str().to_owned();
    old.push(".replaced");
    std::fs::rename(dir, &old)?;
    std::fs::rename(new, dir)?;
    std::fs::rename(&old, new)
}
