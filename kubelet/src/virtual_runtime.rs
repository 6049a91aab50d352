//! The virtual runtime: containers whose program is compiled into the binary, on the pod's in-process host.
//!
//! Built-in images run their own programs ([`crate::programs`]); an in-process pod runs a function of the embedding
//! program ([`Functions`]); every other image is represented by a stand-in that listens on the declared ports.

use crate::files::Files;
use crate::logs::{Log, Source};
use crate::program::{Container, ExitStatus, Input, Output, Program, Programs, TerminalSize};
use crate::programs::stdio::SharedOutput;
use crate::programs::{images, launch, standin};
use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use netstack::Host;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// Prefix of the image name of an in-process pod; the rest is the function's name in [`Functions`].
pub const FUNCTION_IMAGE: &str = "coracle.dev/function/";

/// Functions of the embedding program that run as pods, by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Functions(Arc<RwLock<BTreeMap<String, Arc<dyn Program>>>>);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.read().keys()).finish()
    }
}

impl Functions {
    /// Makes `program` the image `coracle.dev/function/<name>`.
    pub fn insert(&self, name: &str, program: Arc<dyn Program>) {
        self.0.write().insert(name.to_owned(), program);
    }

    /// Forgets a function; running pods go on.
    pub fn remove(&self, name: &str) {
        self.0.write().remove(name);
    }

    fn find(&self, name: &str) -> Option<Arc<dyn Program>> {
        self.0.read().get(name).cloned()
    }
}

/// What an image turned out to be.
pub(crate) struct Resolved {
    pub(crate) program: Arc<dyn Program>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) files: Vec<(String, Bytes)>,
    /// The image is not run: a stand-in takes its place.
    pub(crate) stand_in: bool,
}

/// Why a container cannot be started: reason and message of its waiting state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Finds what to run for a container. `class` is the pod's runtimeClassName.
pub(crate) fn resolve(
    container: &core::Container,
    class: Option<&str>,
    functions: &Functions,
    programs: &Arc<dyn Programs>,
) -> Result<Resolved, StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    if let Some(name) = image.strip_prefix(FUNCTION_IMAGE) {
        let program = functions.find(name).ok_or_else(|| StartError {
            reason: "ErrImagePull",
            message: format!("no in-process function is registered as {name:?}"),
        })?;
        let args = container.command.iter().chain(&container.args).flatten().cloned();
        let args = std::iter::once(name.to_owned()).chain(args).collect();
        return Ok(Resolved { program, args, env: Vec::new(), files: Vec::new(), stand_in: false });
    }
    let known = if class == Some("standin") { None } else { images::lookup(image) };
    let Some(known) = known else {
        if class == Some("virtual") {
            let message =
                format!("image {image:?} is not built in; runtimeClassName virtual runs built-in images only");
            return Err(StartError { reason: "ErrImagePull", message });
        }
        let args = standin::arguments(container);
        return Ok(Resolved { program: standin::program(), args, env: Vec::new(), files: Vec::new(), stand_in: true });
    };
    let command = container.command.clone().filter(|command| !command.is_empty());
    let given = container.args.clone().filter(|args| !args.is_empty());
    let mut args = command.clone().unwrap_or_else(|| known.entrypoint.clone());
    args.extend(given.unwrap_or_else(|| if command.is_some() { Vec::new() } else { known.cmd.clone() }));
    let name = args.first().cloned().unwrap_or_default();
    let program = programs.program(&name).ok_or_else(|| StartError {
        reason: "RunContainerError",
        message: format!("exec: {name:?}: executable file not found in $PATH"),
    })?;
    Ok(Resolved { program, args, env: known.env.clone(), files: known.files.clone(), stand_in: false })
}

/// What all programs of one container share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) host: Host,
    pub(crate) files: Files,
    pub(crate) hostname: String,
    pub(crate) programs: Arc<dyn Programs>,
}

/// One run of a container.
pub(crate) struct Instance {
    surroundings: Surroundings,
    signals: Arc<watch::Sender<i32>>,
    exited: watch::Receiver<Option<ExitStatus>>,
    task: tokio::task::AbortHandle,
    /// The writing end of its standard input, for everybody who attaches.
    stdin: Mutex<Option<SharedOutput>>,
    window: watch::Sender<TerminalSize>,
    pub(crate) tty: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: Log,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Instance {
    pub(crate) fn start(
        resolved: Resolved,
        surroundings: Surroundings,
        spec: &core::Container,
        now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
    ) -> Instance {
        let log = Log::default();
        let tty = spec.tty == Some(true);
        let (stdin, input): (_, Input) = if spec.stdin == Some(true) {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            (Some(SharedOutput::new(ours)), Box::new(theirs))
        } else {
            (None, Box::new(tokio::io::empty()))
        };
        let (signals, received) = watch::channel(0);
        let (window, size) = watch::channel(TerminalSize::default());
        // A terminal is one device.
        let errors = if tty { Source::Stdout } else { Source::Stderr };
        let container = surroundings.container(
            resolved.args,
            input,
            (Box::new(log.writer(Source::Stdout, now.clone())), Box::new(log.writer(errors, now))),
            tty.then_some(size),
            received,
        );
        let (exit, exited) = watch::channel(None);
        let ending = log.clone();
        let task = tokio::spawn(async move {
            let status = run(resolved.program, container).await;
            ending.end();
            exit.send_replace(Some(status));
        });
        Instance {
            surroundings,
            signals: Arc::new(signals),
            exited,
            task: task.abort_handle(),
            stdin: Mutex::new(stdin),
            window,
            tty,
            stdin_once: spec.stdin_once == Some(true),
            log,
        }
    }

    /// Waits for the program's end. 137 if it was killed.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut exited = self.exited.clone();
        match exited.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(137),
            Err(_) => 137,
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        self.signals.send_replace(signal);
    }

    /// For who sends signals on behalf of a terminal.
    pub(crate) fn signaller(&self) -> Arc<watch::Sender<i32>> {
        self.signals.clone()
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.task.abort();
        self.log.end();
    }

    /// Runs one more command in the container, on a terminal if there is one.
    pub(crate) async fn exec(
        &self,
        command: Vec<String>,
        stdin: Input,
        stdout: Output,
        stderr: Output,
        terminal: Option<watch::Receiver<TerminalSize>>,
        signals: watch::Receiver<i32>,
    ) -> ExitStatus {
        let name = command.first().cloned().unwrap_or_default();
        let mut container = self.surroundings.container(command, stdin, (stdout, stderr), terminal, signals);
        let mut args = std::mem::take(&mut container.args);
        let program = launch::find(&container, &mut args);
        container.args = args;
        match program {
            Some(program) => {
                let mut exited = self.exited.clone();
                tokio::select! {
                    status = run(program, container) => status,
                    // The container's end is the end of everything in it.
                    _ = exited.wait_for(Option::is_some) => 137,
                }
            }
            None => {
                // What a container runtime says, and the exit statuses of a shell.
                let is_there = name.contains('/') && container.files.kind(&container.path(&name)).is_some();
                let (why, status) = match (is_there, name.contains('/')) {
                    (true, _) => ("permission denied", 126),
                    (false, true) => ("no such file or directory", 127),
                    (false, false) => ("executable file not found in $PATH", 127),
                };
                let text = format!("exec: {name:?}: {why}\n");
                let _ = container.stderr.write_all(text.as_bytes()).await;
                let _ = container.stderr.flush().await;
                status
            }
        }
    }

    /// The writing end of the container's standard input; none without `stdin: true`, or once it has ended.
    pub(crate) fn stdin(&self) -> Option<SharedOutput> {
        self.stdin.lock().clone()
    }

    /// Ends the container's standard input, when nobody who is attached holds it any longer.
    pub(crate) fn end_stdin(&self) {
        self.stdin.lock().take();
    }

    /// Tells the size of the container's terminal.
    pub(crate) fn resize(&self, size: TerminalSize) {
        self.window.send_replace(size);
    }
}

impl Surroundings {
    fn container(
        &self,
        args: Vec<String>,
        stdin: Input,
        (stdout, stderr): (Output, Output),
        terminal: Option<watch::Receiver<TerminalSize>>,
        signals: watch::Receiver<i32>,
    ) -> Container {
        Container {
            args,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            stdin,
            stdout,
            stderr,
            tty: terminal.is_some(),
            window: terminal.unwrap_or_else(|| watch::channel(TerminalSize::default()).1),
            host: self.host.clone(),
            files: self.files.clone(),
            hostname: self.hostname.clone(),
            programs: self.programs.clone(),
            signals,
        }
    }
}

/// Runs a program to its end, or to the first SIGTERM, SIGINT or SIGHUP if it does not care for signals. A panic is death by SIGABRT.
async fn run(program: Arc<dyn Program>, container: Container) -> ExitStatus {
    let mut signals = container.signals.clone();
    let cares = program.handles_signals();
    let running = AssertUnwindSafe(program.run(container)).catch_unwind();
    tokio::select! {
        status = running => status.unwrap_or(134),
        signal = async {
            let signal = signals.wait_for(|signal| matches!(signal, 1 | 2 | 15)).await.map(|signal| *signal);
            match signal {
                Ok(signal) => signal,
                Err(_) => std::future::pending().await,
            }
        }, if !cares => 128 + signal,
    }
}
