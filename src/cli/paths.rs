//! Where a cluster's files are: its data directory (XDG), and its run directory while it runs.
//!
//! The run directory holds the unix socket, the kubeconfig, the owner's token and `cluster.json`; it goes with the cluster.

use super::Hint;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(crate) const KUBECONFIG: &str = "kubeconfig";
pub(crate) const TOKEN: &str = "token";
pub(crate) const SOCKET: &str = "api.sock";
const STATE: &str = "cluster.json";

/// What is written down of a running cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) api: String,
    pub(crate) socket: PathBuf,
    /// Where DNS answers on the machine, if it does.
    #[serde(default)]
    pub(crate) dns: Option<std::net::SocketAddr>,
    /// Absent: everything is in memory.
    pub(crate) data: Option<PathBuf>,
    /// The kubeconfig its context was merged into.
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// A name is part of paths and of a kubeconfig: a DNS label.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    ensure!(good, "--name: invalid value {name:?}: must be lower-case letters, digits and '-', at most 63 characters");
    Ok(())
}

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")
}

/// Where a cluster's state is kept.
pub(crate) fn data(name: &str) -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => home()?.join(".local/share"),
    };
    Ok(base.join("coracle").join(name))
}

/// Where all run directories are.
fn run_base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()) {
        Some(dir) => PathBuf::from(dir).join("coracle"),
        None => std::env::temp_dir().join(format!("coracle-{}", rustix::process::getuid().as_raw())),
    }
}

/// Where a cluster's files are while it runs.
pub(crate) fn run(name: &str) -> PathBuf {
    run_base().join(name)
}

/// The names of all clusters that have a run directory.
pub(crate) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(run_base()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Makes a private run directory that nobody else has put there.
pub(crate) fn make_run(name: &str) -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let dir = run(name);
    for dir in [run_base(), dir.clone()] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let metadata = std::fs::symlink_metadata(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let owner = rustix::process::getuid().as_raw();
        ensure!(metadata.is_dir() && metadata.uid() == owner, "{} belongs to somebody else", dir.display());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(dir)
}

/// Writes down that a cluster runs.
pub(crate) fn write_state(state: &State) -> Result<()> {
    let path = run(&state.name).join(STATE);
    std::fs::write(&path, serde_json::to_vec_pretty(state)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The running cluster of that name; one whose process has gone does not count.
pub(crate) fn state(name: &str) -> Result<Option<State>> {
    check_name(name)?;
    let path = run(name).join(STATE);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let state: State = serde_json::from_str(&text).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(alive(state.pid).then_some(state))
}

/// The running cluster of that name, or an error that says how to start it.
pub(crate) fn running(name: &str) -> Result<State> {
    match state(name)? {
        Some(state) => Ok(state),
        None => {
            let suffix = if name == "coracle" { String::new() } else { format!(" --name {name}") };
            let error = anyhow::Error::new(Hint(format!("start it with `coracle up{suffix}`")));
            bail!(error.context(format!("no cluster named {name:?} is running")))
        }
    }
}

/// Whether the process is there, and not only as an entry that its parent has yet to read (a zombie, proc(5)).
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
        return false;
    }
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// A file of a running cluster.
pub(crate) fn read_private(name: &str, file: &str) -> Result<String> {
    running(name)?;
    let path = run(name).join(file);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
