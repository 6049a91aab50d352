//! `snapshot save` and `snapshot restore`: the cluster's whole state in one file, and back.
//!
//! Saving asks the running cluster's API ([`coracle::SNAPSHOT_PATH`]); restoring writes into the directory of a stopped
//! one. The file's format and checksum are the store's.

use super::remote::{self, Remote};
use super::{ClusterName, Hint, paths, say};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{ArchiveError, Existing, OpenError};
use tokio::io::AsyncWriteExt;

/// Save the cluster's whole state into a file, or make a cluster's state of one
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Save the state of a running cluster, which goes on meanwhile
    Save(Save),
    /// Make a stopped cluster's state of a saved one
    Restore(Restore),
}

/// Save the state of a running cluster, which goes on meanwhile
#[derive(Clone, Debug, Args)]
pub(crate) struct Save {
    /// The file to write; it holds every Secret of the cluster
    file: PathBuf,
    #[command(flatten)]
    cluster: ClusterName,
}

/// Make a stopped cluster's state of a saved one
#[derive(Clone, Debug, Args)]
pub(crate) struct Restore {
    /// The file that `coracle snapshot save` has written
    file: PathBuf,
    #[command(flatten)]
    cluster: ClusterName,
    /// Where the cluster's state is kept [default: $XDG_DATA_HOME/coracle/NAME]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Replace a state that is there already
    #[arg(long)]
    force: bool,
}

impl Snapshot {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Snapshot::Save(save) => save.run().await,
            Snapshot::Restore(restore) => tokio::task::spawn_blocking(move || restore.run()).await?,
        }
    }
}

impl Save {
    async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.cluster)?;
        let unfinished = Unfinished::beside(&self.file);
        let saved = async {
            download(&remote, &unfinished.0).await?;
            // What has been written is read again: a disk may have lost some of it.
            let path = unfinished.0.clone();
            Ok::<_, anyhow::Error>(tokio::task::spawn_blocking(move || store::verify_archive(&path, |_, _| {})).await??)
        };
        let contents = saved.await.with_context(|| format!("cannot save to {}", self.file.display()))?;
        std::fs::rename(&unfinished.0, &self.file).with_context(|| format!("cannot create {}", self.file.display()))?;
        let dir = self.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("cannot sync {}", dir.display()))?;
        let (keys, length) = (contents.keys, size(contents.length));
        say(&format!("saved {keys} objects at revision {} ({length}) to {}", contents.revision.0, self.file.display()));
        Ok(())
    }
}

/// The file under its provisional name; gone unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".unfinished");
        Unfinished(name.into())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn download(remote: &Remote, path: &Path) -> Result<()> {
    let request = Request::get(coracle::SNAPSHOT_PATH).body(Body::empty())?;
    let response = remote.client.send(request).await.map_err(remote::explain)?;
    let status = response.status();
    let total =
        response.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    if !status.is_success() {
        let said = body.collect().await?.to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&said).ok();
        let message = message.as_ref().and_then(|status| status["message"].as_str()).unwrap_or("no reason given");
        bail!("Error from server ({status}): {message}");
    }
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.write(true).create(true).truncate(true).open(path);
    let mut file = tokio::fs::File::from_std(opened.with_context(|| format!("cannot create {}", path.display()))?);
    let mut progress = Progress::new("saving");
    let mut done = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the cluster has ended the answer early")?;
        let Some(piece) = frame.data_ref() else { continue };
        file.write_all(piece).await.with_context(|| format!("cannot write {}", path.display()))?;
        done += piece.len() as u64;
        progress.at(done, total.unwrap_or(done));
    }
    file.flush().await.with_context(|| format!("cannot write {}", path.display()))?;
    file.sync_all().await.with_context(|| format!("cannot sync {}", path.display()))
}

impl Restore {
    fn run(self) -> Result<()> {
        let data = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => {
                paths::check_name(&self.cluster.name)?;
                paths::data(&self.cluster.name)?
            }
        };
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        let mut progress = Progress::new("verifying");
        let restored =
            store::restore(&self.file, &data.join("store"), existing, |done, total| progress.at(done, total));
        drop(progress);
        let restored = restored.map_err(|error| hinted(error, &self.cluster.name))?;
        say(&format!(
            "restored {} objects of revision {} into {}; revisions go on from {}",
            restored.keys,
            restored.saved.0,
            data.display(),
            restored.revision.0
        ));
        let which = match (&self.data_dir, self.cluster.name.as_str()) {
            (Some(dir), _) => format!(" --data-dir {}", dir.display()),
            (None, "coracle") => String::new(),
            (None, name) => format!(" --name {name}"),
        };
        say(&format!("\nnext: coracle up{which}"));
        Ok(())
    }
}

fn hinted(error: ArchiveError, name: &str) -> anyhow::Error {
    let hint = match &error {
        ArchiveError::Directory(OpenError::Locked { .. }) => {
            format!("stop the cluster with `coracle down --name {name}`")
        }
        ArchiveError::Directory(OpenError::Occupied { .. }) => "`--force` replaces it".to_owned(),
        ArchiveError::Foreign { .. } => "`coracle snapshot save` writes such files".to_owned(),
        ArchiveError::CutShort { .. } | ArchiveError::Corrupt { .. } => {
            "nothing has been changed; another copy of the file may be whole".to_owned()
        }
        _ => return error.into(),
    };
    anyhow::Error::new(Hint(hint)).context(error.to_string())
}

/// How far something long has come, on a terminal.
struct Progress {
    what: &'static str,
    shown: bool,
    terminal: bool,
    last: Instant,
}

impl Progress {
    /// Often enough for an eye.
    const PAUSE: Duration = Duration::from_millis(100);

    fn new(what: &'static str) -> Self {
        Progress { what, shown: false, terminal: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    fn at(&mut self, done: u64, total: u64) {
        if self.terminal && self.last.elapsed() >= Self::PAUSE {
            self.last = Instant::now();
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r{} {} of {}  ", self.what, size(done), size(total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{:60}\r", "");
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
