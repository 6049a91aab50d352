//! Programs: what runs in a virtual container. A built-in image and an in-process pod are the same thing.

use crate::files::Files;
use async_trait::async_trait;
use netstack::Host;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// A readable standard stream.
pub type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// A writable standard stream.
pub type Output = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What a program ends with: 0 is success, 128+n is death by signal n, 127 is command not found.
pub type ExitStatus = i32;

/// A terminal's size in characters; 0 by 0 is one that nobody has told, as with a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The world as a program in a container sees it.
pub struct Container {
    /// Command and arguments; `args[0]` is the program's name.
    pub args: Vec<String>,
    /// Environment, in order; later entries win.
    pub env: Vec<(String, String)>,
    /// Working directory inside `files`.
    pub cwd: String,
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// Whether the standard streams are a terminal.
    pub tty: bool,
    /// The terminal's size, as whoever brought the terminal said last.
    pub window: watch::Receiver<TerminalSize>,
    /// The pod's network: shared by its containers.
    pub host: Host,
    /// The container's file tree.
    pub files: Files,
    /// The pod's hostname.
    pub hostname: String,
    /// Programs that this container's commands can find by name (`sh` starts them).
    pub programs: Arc<dyn Programs>,
    /// The newest signal sent to it (0: none yet). SIGKILL (9) is not seen: the future is dropped. A program that does not care for
    /// SIGTERM is ended by the runtime with 143.
    pub signals: watch::Receiver<i32>,
}

/// A program compiled into the binary.
#[async_trait]
pub trait Program: Send + Sync {
    /// Runs to the end. Dropping the future is SIGKILL.
    async fn run(&self, container: Container) -> ExitStatus;

    /// Whether it watches `signals` itself; otherwise SIGTERM and SIGINT end it at once.
    fn handles_signals(&self) -> bool {
        false
    }

    /// The same program without the terminal line discipline that it brings along: for whoever runs on a terminal already, as the
    /// commands of an interactive shell do. `None`: it brings none.
    fn within_terminal(&self) -> Option<Arc<dyn Program>> {
        None
    }
}

/// Looks programs up by name, as a shell does with `PATH`.
pub trait Programs: Send + Sync {
    /// The program of that name or path (`curl`, `/bin/sh`).
    fn program(&self, name: &str) -> Option<Arc<dyn Program>>;
    /// All names, for `ls /bin` and for messages.
    fn names(&self) -> Vec<String>;
    /// Sends a signal to a process of the container that the caller did not start itself: process 1 is the container's program.
    ///
    /// # Errors
    /// `NotFound`: there is no such process.
    fn kill(&self, pid: u32, signal: i32) -> std::io::Result<()> {
        let _ = (pid, signal);
        Err(std::io::ErrorKind::NotFound.into())
    }
}
