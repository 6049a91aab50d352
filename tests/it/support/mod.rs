//! A cluster with the real kubectl beside it, and ways to say what commands are expected to print.

pub(crate) mod http;
pub(crate) mod pty;
pub(crate) mod tools;
pub(crate) mod transcript;

use coracle::{Builder, Cluster};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// No single command takes longer, unless something hangs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) command: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// As a shell has it: 128+n for death by signal n.
    pub(crate) code: i32,
}

impl Ran {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}{}[exit {}]", self.command, self.stdout, self.stderr, self.code)
    }
}

/// A shell in a directory of its own, with tools on its path: what a user's terminal is.
pub(crate) struct Terminal {
    dir: TempDir,
    path: OsString,
    environment: Vec<(String, OsString)>,
}

impl Terminal {
    /// Its home, working and XDG directories are temporary; `tools` stand first on its path.
    pub(crate) fn new(tools: &[&Path]) -> Terminal {
        let dir = tempfile::Builder::new().prefix("coracle-it-").tempdir().expect("a temporary directory");
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let parts = tools.iter().map(|tool| tool.parent().expect("a tool is in a directory").to_owned());
        let path = std::env::join_paths(parts.chain(std::env::split_paths(&inherited))).expect("a path list");
        let mut terminal = Terminal { dir, path, environment: Vec::new() };
        for (variable, sub) in [("XDG_DATA_HOME", "data"), ("XDG_RUNTIME_DIR", "run"), ("HOME", "home")] {
            let sub = terminal.dir.path().join(sub);
            std::fs::create_dir(&sub).expect("a directory");
            terminal.set(variable, sub);
        }
        terminal
    }

    /// Another terminal of the same user, with the same home and tools, in a directory of its own.
    pub(crate) fn beside(&self) -> Terminal {
        let dir = tempfile::Builder::new().prefix("coracle-it-").tempdir().expect("a temporary directory");
        Terminal { dir, path: self.path.clone(), environment: self.environment.clone() }
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the working directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Sets a variable of its environment; the last value counts.
    pub(crate) fn set(&mut self, variable: &str, value: impl Into<OsString>) {
        self.environment.push((variable.to_owned(), value.into()));
    }

    /// A program in this environment. Ends with its handle.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for variable in ["KUBECONFIG", "CORACLE_NAME", "CORACLE_SOCKET", "CORACLE_LOG"] {
            command.env_remove(variable);
        }
        command.env("PATH", &self.path).env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs the commands of a transcript and compares what they print; see [`transcript`].
    #[track_caller]
    pub(crate) fn transcript(&self, text: &str) -> impl Future<Output = ()> {
        transcript::check(self, text, std::panic::Location::caller())
    }

    /// Runs a line of shell.
    pub(crate) async fn sh(&self, line: &str) -> Ran {
        let mut command = self.command("sh");
        command.args(["-c", line]).process_group(0);
        run(command, line).await
    }
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command, shown: &str) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("`{shown}` has not ended after {COMMAND_TIMEOUT:?}"));
    let output = output.unwrap_or_else(|error| panic!("`{shown}` cannot be run: {error}"));
    Ran {
        command: shown.to_owned(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
    }
}

/// A cluster in this process and a terminal whose kubectl is the real one, pointed at it.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) terminal: Terminal,
}

impl Bench {
    /// A cluster with the defaults.
    pub(crate) async fn start() -> Bench {
        Bench::with(Cluster::builder()).await
    }

    /// A cluster as `builder` has it, with an API on a free port of the machine.
    pub(crate) async fn with(builder: Builder) -> Bench {
        Bench::with_kubectl(builder, "1.36").await
    }

    /// The same with another minor version of kubectl.
    pub(crate) async fn with_kubectl(builder: Builder, minor: &str) -> Bench {
        let kubectl = tools::kubectl(minor).await;
        let mut terminal = Terminal::new(&[&kubectl]);
        let socket = terminal.dir().join("api.sock");
        let builder = builder.seed(SEED).unix_socket(socket).api(([127, 0, 0, 1], 0).into());
        let cluster = builder.start().await.unwrap_or_else(|error| panic!("the cluster does not start: {error:#}"));
        let kubeconfig = terminal.write("kubeconfig", &cluster.kubeconfig("it").expect("the API has an address"));
        terminal.set("KUBECONFIG", kubeconfig);
        Bench { cluster, terminal }
    }

    /// Runs a line of shell; its `kubectl` speaks to the cluster.
    pub(crate) async fn sh(&self, line: &str) -> Ran {
        self.terminal.sh(line).await
    }

    /// Runs a line that must succeed; its standard output.
    #[track_caller]
    pub(crate) fn ok<'a>(&'a self, line: &str) -> impl Future<Output = String> + use<'a> {
        let at = std::panic::Location::caller();
        let line = line.to_owned();
        async move {
            let ran = self.terminal.sh(&line).await;
            assert!(ran.code == 0, "at {at}\n{ran}");
            ran.stdout
        }
    }

    /// As [`Terminal::transcript`].
    #[track_caller]
    pub(crate) fn transcript(&self, text: &str) -> impl Future<Output = ()> {
        self.terminal.transcript(text)
    }

    /// Ends the cluster, and waits for it.
    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// Seed of every cluster under test.
const SEED: u64 = 7;

/// The rows of a table as kubectl prints them, without the header, cells split where two spaces or more stand.
pub(crate) fn rows(table: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
    table.lines().skip(1).map(cells).collect()
}

/// The lines of a text as a sorted set.
pub(crate) fn line_set(text: &str) -> std::collections::BTreeSet<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
