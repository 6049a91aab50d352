//! What the API server asks of the nodes: to run a command in a container, read its logs, dial its ports.
//!
//! The API server knows no kubelet; the wiring implements [`PodStreams`] over them.

use crate::status::Status;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// One container of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The node it is bound to.
    pub node: String,
    /// The container's name; the API server has filled in the default.
    pub container: String,
}

/// The terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The standard streams of an exec or attach. A missing one is not wanted.
pub struct ExecStreams {
    /// What the client types; its end is the client's half-close.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard output.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard error; with a TTY everything goes to `stdout`.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Whether the client has a terminal.
    pub tty: bool,
    /// Changes of the terminal's size.
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// `GET …/log` parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// The container's previous run.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines after this time.
    pub since: Option<jiff::Timestamp>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only what went to one of the outputs.
    pub stream: Option<LogStream>,
}

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The nodes, as the API server sees them.
#[async_trait]
pub trait PodStreams: Send + Sync + 'static {
    /// Whether [`exec`](Self::exec) or [`attach`](Self::attach) would find the container, for protocols that tell before they begin.
    async fn check(&self, container: &ContainerRef, attach: bool) -> Result<(), Status> {
        let _ = (container, attach);
        Ok(())
    }
    /// Runs a command; the exit code when it has ended. Dropping the future ends the command.
    async fn exec(&self, container: &ContainerRef, command: Vec<String>, streams: ExecStreams) -> Result<i32, Status>;
    /// Joins the container's own standard streams; returns the exit code when the container has ended.
    async fn attach(&self, container: &ContainerRef, streams: ExecStreams) -> Result<i32, Status>;
    /// The container's output.
    async fn logs(&self, container: &ContainerRef, options: LogOptions) -> Result<BoxStream<'static, Bytes>, Status>;
    /// A TCP connection to the pod's port, from the pod's own loopback.
    async fn port_forward(&self, container: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Status>;
    /// A TCP connection to an address of the cluster's network (for the proxy subresources).
    async fn dial(&self, address: std::net::SocketAddr) -> Result<Box<dyn Duplex>, Status>;
}
