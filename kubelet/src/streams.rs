//! What the API server asks of a node: exec, attach, logs, port-forward.

use crate::container_runner::State;
use crate::kubelet::Kubelet;
use crate::logs::{Log, Source};
use crate::program::{Input, Output, TerminalSize};
use crate::virtual_runtime::Instance;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use netstack::{Host, TcpStream};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How much of a log is taken at once.
const LOG_PIECE: usize = 64 << 10;

/// Why a request for a container was not met.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamError {
    /// No such pod on this node, or not yet.
    #[error("pod does not exist")]
    NoPod,
    /// No such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// What was asked for.
        container: String,
    },
    /// It does not run now.
    #[error("container not found ({container:?})")]
    NotRunning {
        /// The container.
        container: String,
    },
    /// It has not run, or not twice.
    #[error("{0}")]
    NoLog(String),
    /// The port did not accept.
    #[error("{0}")]
    Connect(String),
}

/// Which lines of a log.
#[derive(Clone, Debug, Default)]
pub struct LogRange {
    /// Go on with what comes.
    pub follow: bool,
    /// The previous run.
    pub previous: bool,
    /// Time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines since.
    pub since: Option<Timestamp>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only what went to one of the outputs.
    pub source: Option<Source>,
}

/// The streams of a command.
pub struct Exec {
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// The terminal's size, if there is a terminal.
    pub terminal: Option<watch::Receiver<TerminalSize>>,
}

/// The streams of one who joins a container's program.
pub struct Attached {
    /// What to pass to its standard input.
    pub stdin: Option<Input>,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error; with a terminal there is none.
    pub stderr: Output,
    /// The size of the joining one's terminal.
    pub terminal: watch::Receiver<TerminalSize>,
}

/// A terminal turns line feeds into CR LF (`stty onlcr`), a program's log does not.
struct Terminal(Output);

impl tokio::io::AsyncWrite for Terminal {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        // One line at a time, so that a partial write can be counted in bytes of `data`.
        let inner = std::pin::Pin::new(&mut self.0);
        match data.iter().position(|byte| *byte == b'\n') {
            Some(0) => match std::task::ready!(inner.poll_write(context, b"\r\n")) {
                Ok(2) => std::task::Poll::Ready(Ok(1)),
                // Only the CR went out: the LF follows by itself at the next call, since a terminal takes CR CR LF the same way.
                Ok(_) => {
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                Err(error) => std::task::Poll::Ready(Err(error)),
            },
            Some(at) => inner.poll_write(context, &data[..at]),
            None => inner.poll_write(context, data),
        }
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Passes a terminal's input on and turns Ctrl-C into SIGINT.
async fn terminal_input(mut from: Input, mut to: tokio::io::DuplexStream, signals: watch::Sender<i32>) {
    let mut buffer = vec![0; 4096];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if buffer[..length].contains(&3) {
                    signals.send_replace(2);
                }
                if to.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(to);
    // The sender stays until the command has ended: a closed channel is not a signal.
    std::future::pending::<()>().await;
}

impl Kubelet {
    fn instance(&self, namespace: &str, pod: &str, container: &str) -> Result<Arc<Instance>, StreamError> {
        let handle = self.shared.handle(namespace, pod).ok_or(StreamError::NoPod)?;
        let records = handle.records().ok_or(StreamError::NoPod)?;
        let found = records.read(container, |record| record.instance.clone());
        let found =
            found.ok_or_else(|| StreamError::NoContainer { pod: pod.to_owned(), container: container.to_owned() })?;
        found.ok_or_else(|| StreamError::NotRunning { container: container.to_owned() })
    }

    /// Output of a container that will not run again.
    fn finished(&self, namespace: &str, pod: &str, container: &str) -> Option<Log> {
        let records = self.shared.handle(namespace, pod)?.records()?;
        records.read(container, |record| match &record.state {
            State::Terminated(_) if record.finished => record.log.clone(),
            _ => None,
        })?
    }

    /// Whether a command could be run in a container now, or (`attach`) its program be joined.
    pub fn check(&self, (namespace, pod, container): (&str, &str, &str), attach: bool) -> Result<(), StreamError> {
        match self.instance(namespace, pod, container) {
            Err(StreamError::NotRunning { .. }) if attach && self.finished(namespace, pod, container).is_some() => {
                Ok(())
            }
            instance => instance.map(|_| ()),
        }
    }

    /// Runs a command in a container to its end. Dropping the future is SIGKILL.
    pub async fn exec(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        command: Vec<String>,
        streams: Exec,
    ) -> Result<i32, StreamError> {
        let instance = self.instance(namespace, pod, container)?;
        let (signals, received) = watch::channel(0);
        let Exec { stdin, stdout, stderr, terminal } = streams;
        if terminal.is_none() {
            let status = instance.exec(command, stdin, stdout, stderr, None, received).await;
            drop(signals);
            return Ok(status);
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (stdout, stderr): (Output, Output) = (Box::new(Terminal(stdout)), Box::new(Terminal(stderr)));
        let running = instance.exec(command, Box::new(theirs), stdout, stderr, terminal, received);
        tokio::select! {
            status = running => Ok(status),
            () = terminal_input(stdin, ours, signals) => Ok(137),
        }
    }

    /// Joins a container's own streams until it ends; what it has said so far comes first.
    ///
    /// How it ended is not told: a container runtime's attach is over when the container is, whatever its exit code, and who wants
    /// that (`kubectl run -i`) reads it in the pod's status.
    pub async fn attach(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        streams: Attached,
    ) -> Result<(), StreamError> {
        let Attached { stdin, stdout, stderr, mut terminal } = streams;
        let instance = match self.instance(namespace, pod, container) {
            // It was quicker than who wants to see it: what it said is shown all the same.
            Err(error @ StreamError::NotRunning { .. }) => {
                let log = self.finished(namespace, pod, container).ok_or(error)?;
                show(&log, stdout, stderr).await;
                return Ok(());
            }
            instance => instance?,
        };
        let input = async {
            if let Some(stdin) = stdin {
                pass_on(&instance, stdin).await;
            }
            std::future::pending::<()>().await
        };
        let resizing = async {
            while instance.tty && terminal.changed().await.is_ok() {
                let size = *terminal.borrow_and_update();
                instance.resize(size);
            }
            std::future::pending::<()>().await
        };
        let output = async {
            let stdout: Output = if instance.tty { Box::new(Terminal(stdout)) } else { stdout };
            if show(&instance.log, stdout, stderr).await {
                instance.wait().await;
            }
        };
        tokio::select! {
            () = output => {}
            () = input => {}
            () = resizing => {}
        }
        Ok(())
    }

    /// A container's output.
    pub fn logs(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        range: LogRange,
    ) -> Result<BoxStream<'static, Bytes>, StreamError> {
        let waiting = |why: &str| {
            StreamError::NoLog(format!("container {container:?} in pod {pod:?} is waiting to start: {why}"))
        };
        // Bound to this node, and not begun yet.
        let records = self.shared.handle(namespace, pod).and_then(|handle| handle.records());
        let records = records.ok_or_else(|| waiting("ContainerCreating"))?;
        let found = records.read(container, |record| {
            (if range.previous { record.previous_log.clone() } else { record.log.clone() }, record.state.clone())
        });
        let (log, state) =
            found.ok_or_else(|| StreamError::NoContainer { pod: pod.to_owned(), container: container.to_owned() })?;
        match (log, state) {
            (Some(log), _) => Ok(lines(log, range)),
            (None, _) if range.previous => {
                Err(StreamError::NoLog(format!("previous terminated container {container:?} in pod {pod:?} not found")))
            }
            (None, State::Waiting { reason: "ErrImagePull", .. }) => Err(waiting("image can't be pulled")),
            (None, State::Waiting { reason: "ImagePullBackOff", .. }) => {
                Err(waiting("trying and failing to pull image"))
            }
            (None, State::Waiting { reason, .. }) => Err(waiting(reason)),
            (None, _) => Err(waiting("ContainerCreating")),
        }
    }

    /// The place of a pod of this node on the network: to open connections as the pod does. `None` until its sandbox is made.
    pub fn pod_host(&self, namespace: &str, pod: &str) -> Option<Host> {
        Some(self.shared.handle(namespace, pod)?.sandbox()?.host.clone())
    }

    /// A connection to a port of the pod, from its own loopback.
    pub async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, StreamError> {
        let handle = self.shared.handle(namespace, pod).ok_or(StreamError::NoPod)?;
        let sandbox = handle.sandbox().ok_or(StreamError::NoPod)?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let connected = sandbox.host.tcp_connect(address).await;
        connected.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                _ => format!("connect: {error}"),
            };
            // As containerd says it.
            let text = format!("failed to connect to localhost:{port} inside namespace of pod {namespace}/{pod}");
            StreamError::Connect(format!("{text}, IPv4: dial tcp4 {address}: {why}"))
        })
    }
}

/// Passes a client's input on to the container's program, until its end. The client's end is the program's only if the container
/// says `stdinOnce`, and so is the client's going away.
async fn pass_on(instance: &Arc<Instance>, mut from: Input) {
    struct Ended(Arc<Instance>);
    impl Drop for Ended {
        fn drop(&mut self) {
            if self.0.stdin_once {
                self.0.end_stdin();
            }
        }
    }
    let Some(mut to) = instance.stdin() else { return };
    let _ended = Ended(instance.clone());
    let (signals, tty) = (instance.signaller(), instance.tty);
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if tty && buffer[..length].contains(&3) {
            signals.send_replace(2);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Writes what a container says to its end; `false` if nobody takes it any more.
async fn show(log: &Log, mut stdout: Output, mut stderr: Output) -> bool {
    let mut attached = log.attach();
    while let Some((source, piece)) = attached.next().await {
        let to = match source {
            Source::Stdout => &mut stdout,
            Source::Stderr => &mut stderr,
        };
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            return false;
        }
    }
    true
}

/// The lines of a log that are asked for, a piece at a time: whoever reads slowly makes nothing pile up.
fn lines(log: Log, range: LogRange) -> BoxStream<'static, Bytes> {
    struct Reading {
        log: Log,
        from: u64,
        end: u64,
        budget: u64,
        in_line: bool,
    }
    let (end, recent) = log.extent(range.since);
    log.mark_read();
    let wanted = range.tail_lines.map_or(recent, |tail| tail.min(recent));
    let budget = range.limit_bytes.unwrap_or(u64::MAX);
    let start = Reading { log, from: end - wanted, end, budget, in_line: false };
    let stream = futures::stream::unfold(start, move |mut reading| {
        let range = range.clone();
        async move {
            loop {
                if reading.budget == 0 || (!range.follow && reading.from >= reading.end) {
                    return None;
                }
                if range.follow {
                    reading.log.grown(reading.from).await;
                }
                let (lines, next, ended) = reading.log.lines(reading.from, LOG_PIECE);
                reading.from = next;
                if lines.is_empty() && (ended || !range.follow) {
                    return None;
                }
                let mut text = Vec::new();
                for line in lines.iter().filter(|line| range.source.is_none_or(|source| line.source == source)) {
                    // The parts of a line that was too long are one line again.
                    if range.timestamps && !reading.in_line {
                        let time = line.at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ ").to_string();
                        text.extend_from_slice(time.as_bytes());
                    }
                    text.extend_from_slice(&line.text);
                    reading.in_line = !line.text.ends_with(b"\n");
                }
                text.truncate(usize::try_from(reading.budget).unwrap_or(usize::MAX));
                reading.budget -= text.len() as u64;
                if !text.is_empty() {
                    return Some((Bytes::from(text), reading));
                }
            }
        }
    });
    stream.boxed()
}
