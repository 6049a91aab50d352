//! Why a store on disk cannot be opened, saved or restored.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has it open.
    #[error("{} is in use by {}", .path.display(), holder_name(.holder))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process which holds it, where known.
        holder: Option<u32>,
    },
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{} is corrupt at byte {offset}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// [`restore`](crate::restore()) found something where it would write.
    #[error("{} already holds a store", .path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
}

fn holder_name(holder: &Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl OpenError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, reason: reason.to_string() }
    }
}
