//! What the API server asks of a node: exec, attach, logs, port-forward.

use crate::container_runner::State;
use crate::kubelet::Kubelet;
use crate::logs::Log;
use crate::program::{Input, Output};
use crate::virtual_runtime::Instance;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use netstack::{Host, TcpStream};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{broadcast, watch};

/// Why a request for a container was not met.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StreamError {
    /// No such pod on this node, or not yet.
    #[error("pod {0} is not running on this node")]
    NoPod(String),
    /// No such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// What was asked for.
        container: String,
    },
    /// It does not run now.
    #[error("container not found ({container:?}): it is not running")]
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
        let whole = format!("{namespace}/{pod}");
        let handle = self.shared.handle(namespace, pod).ok_or_else(|| StreamError::NoPod(whole.clone()))?;
        let records = handle.records().ok_or(StreamError::NoPod(whole))?;
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

    /// Runs a command in a container to its end.
    pub async fn exec(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        command: Vec<String>,
        stdin: Input,
        stdout: Output,
        stderr: Output,
        tty: bool,
    ) -> Result<i32, StreamError> {
        let instance = self.instance(namespace, pod, container)?;
        let (signals, received) = watch::channel(0);
        if !tty {
            let status = instance.exec(command, stdin, stdout, stderr, false, received).await;
            drop(signals);
            return Ok(status);
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let stdout: Output = Box::new(Terminal(stdout));
        let running = instance.exec(command, Box::new(theirs), stdout, Box::new(Terminal(stderr)), true, received);
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
        stdin: Option<Input>,
        mut stdout: Output,
    ) -> Result<(), StreamError> {
        let instance = match self.instance(namespace, pod, container) {
            // It was quicker than who wants to see it: what it said is shown all the same.
            Err(error @ StreamError::NotRunning { .. }) => {
                let log = self.finished(namespace, pod, container).ok_or(error)?;
                let _ = stdout.write_all(&log.attach().0).await;
                let _ = stdout.flush().await;
                return Ok(());
            }
            instance => instance?,
        };
        if instance.tty {
            stdout = Box::new(Terminal(stdout));
        }
        let (signals, tty) = (instance.signaller(), instance.tty);
        let input = async {
            let (Some(mut from), Some(mut to)) = (stdin, instance.take_stdin()) else {
                return std::future::pending::<()>().await;
            };
            let mut buffer = vec![0; 4096];
            loop {
                match from.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => {
                        if tty && buffer[..length].contains(&3) {
                            signals.send_replace(2);
                        }
                        if to.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                    }
                }
            }
            if instance.stdin_once {
                drop(to)
            } else {
                instance.return_stdin(to)
            }
            std::future::pending::<()>().await
        };
        let output = async {
            let (past, mut live) = instance.log.attach();
            let mut failed = stdout.write_all(&past).await.is_err();
            loop {
                tokio::select! {
                    biased;
                    piece = live.recv() => match piece {
                        Ok(piece) => failed |= stdout.write_all(&piece).await.is_err(),
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => break,
                    },
                    _ = instance.wait() => {
                        while let Ok(piece) = live.try_recv() {
                            if stdout.write_all(&piece).await.is_err() {
                                break;
                            }
                        }
                        let _ = stdout.flush().await;
                        return;
                    }
                }
                if failed {
                    return;
                }
            }
            instance.wait().await;
        };
        tokio::select! {
            () = output => {}
            () = input => {}
        }
        Ok(())
    }

    /// A container's output.
    pub fn logs(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        range: LogRange,
    ) -> Result<BoxStream<'static, Bytes>, StreamError> {
        let whole = format!("{namespace}/{pod}");
        let handle = self.shared.handle(namespace, pod).ok_or_else(|| StreamError::NoPod(whole.clone()))?;
        let records = handle.records().ok_or(StreamError::NoPod(whole))?;
        let found = records.read(container, |record| {
            (if range.previous { record.previous_log.clone() } else { record.log.clone() }, record.state.clone())
        });
        let (log, state) =
            found.ok_or_else(|| StreamError::NoContainer { pod: pod.to_owned(), container: container.to_owned() })?;
        match log {
            Some(log) => Ok(lines(log, range)),
            None if range.previous => {
                Err(StreamError::NoLog(format!("previous terminated container {container:?} in pod {pod:?} not found")))
            }
            None => {
                let why = match state {
                    State::Waiting { reason, .. } => reason,
                    _ => "ContainerCreating",
                };
                Err(StreamError::NoLog(format!("container {container:?} in pod {pod:?} is waiting to start: {why}")))
            }
        }
    }

    /// The place of a pod of this node on the network: to open connections as the pod does. `None` until its sandbox is made.
    pub fn pod_host(&self, namespace: &str, pod: &str) -> Option<Host> {
        Some(self.shared.handle(namespace, pod)?.sandbox()?.host.clone())
    }

    /// A connection to a port of the pod, from inside it.
    pub async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, StreamError> {
        let whole = format!("{namespace}/{pod}");
        let handle = self.shared.handle(namespace, pod).ok_or_else(|| StreamError::NoPod(whole.clone()))?;
        let sandbox = handle.sandbox().ok_or(StreamError::NoPod(whole))?;
        let address = SocketAddr::new(sandbox.ip, port);
        let connected = sandbox.host.tcp_connect(address).await;
        connected
            .map_err(|error| StreamError::Connect(format!("failed to connect to {address} inside the pod: {error}")))
    }
}

fn lines(log: Log, range: LogRange) -> BoxStream<'static, Bytes> {
    let (kept, end, _) = log.lines(0);
    log.mark_read();
    let recent = kept.iter().filter(|line| range.since.is_none_or(|since| line.at >= since)).count() as u64;
    let wanted = range.tail_lines.map_or(recent, |tail| tail.min(recent));
    let budget = range.limit_bytes.unwrap_or(u64::MAX);
    let start = (log, end - wanted, budget, true);
    let stream = futures::stream::unfold(start, move |(log, from, budget, first)| {
        let range = range.clone();
        async move {
            if budget == 0 || (!first && !range.follow) {
                return None;
            }
            if range.follow {
                log.grown(from).await;
            }
            let (lines, next, ended) = log.lines(from);
            if lines.is_empty() && (ended || !range.follow) {
                return None;
            }
            let mut text = Vec::new();
            for line in &lines {
                if range.timestamps {
                    text.extend_from_slice(line.at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ ").to_string().as_bytes());
                }
                text.extend_from_slice(&line.text);
            }
            text.truncate(usize::try_from(budget).unwrap_or(usize::MAX));
            let left = budget - text.len() as u64;
            Some((Bytes::from(text), (log, next, left, false)))
        }
    });
    stream.boxed()
}
