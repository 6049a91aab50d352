//! The nodes as the API server sees them, and the gate through which every pod passes before its first packet.

use crate::residents::Residents;
use apiserver::pod_streams::{ContainerRef, Duplex, ExecStreams, LogOptions, LogStream, PodStreams};
use apiserver::status::Status;
use async_trait::async_trait;
use bytes::Bytes;
use dns::Dns;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kubelet::program::{Input, Output, TerminalSize};
use kubelet::resolv_conf::{ClusterDns, resolv_conf};
use kubelet::{Attached, Exec, Kubelet, LogRange, SandboxHooks, Source, StreamError};
use netstack::{Host, PortTag};
use parking_lot::{Mutex, RwLock};
use policy::Policy;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// All kubelets of the cluster.
pub(crate) struct Nodes {
    kubelets: RwLock<Vec<Arc<Kubelet>>>,
    gateway: Host,
}

/// Makes a stream `Sync` that is used by one task at a time anyway.
struct Exclusive<T>(Mutex<T>);

impl<T: AsyncRead + Unpin> AsyncRead for Exclusive<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Exclusive<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write(context, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_shutdown(context)
    }
}

fn exclusive<T>(stream: T) -> Exclusive<T> {
    Exclusive(Mutex::new(stream))
}

impl Nodes {
    pub(crate) fn new(kubelets: Vec<Kubelet>, gateway: Host) -> Self {
        Nodes { kubelets: RwLock::new(kubelets.into_iter().map(Arc::new).collect()), gateway }
    }

    fn kubelet(&self, container: &ContainerRef) -> Result<Arc<Kubelet>, Status> {
        let kubelets = self.kubelets.read();
        let found = kubelets.iter().find(|kubelet| kubelet.node_name() == container.node).cloned();
        found.ok_or_else(|| Status::not_found("", "nodes", &container.node))
    }

    /// The place of a pod on the network, to open connections as the pod does; `None` if it does not run.
    pub(crate) fn pod_host(&self, pod: &Pod) -> Option<Host> {
        let node = pod.spec.as_ref()?.node_name.as_deref()?;
        let kubelets = self.kubelets.read();
        let kubelet = kubelets.iter().find(|kubelet| kubelet.node_name() == node)?;
        kubelet.pod_host(pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?)
    }

    /// The ports of the nodes themselves, by name.
    pub(crate) fn node_ports(&self) -> Vec<(PortTag, String)> {
        let kubelets = self.kubelets.read();
        kubelets.iter().map(|kubelet| (kubelet.host().tag(), kubelet.node_name().to_owned())).collect()
    }

    /// Ends all pods.
    pub(crate) async fn stop(&self) {
        let kubelets = std::mem::take(&mut *self.kubelets.write());
        for kubelet in kubelets {
            kubelet.stop().await;
        }
    }
}

fn names(container: &ContainerRef) -> (&str, &str, &str) {
    (&container.namespace, &container.pod, &container.container)
}

fn status(error: StreamError) -> Status {
    match &error {
        StreamError::NoContainer { .. } | StreamError::NoLog(_) => Status::bad_request(error.to_string()),
        StreamError::NoPod | StreamError::NotRunning { .. } | StreamError::Connect(_) => {
            Status::failure(500, "InternalError", error.to_string())
        }
    }
}

/// What the API server says when a node refuses a stream that has begun already.
fn not_upgraded(error: StreamError) -> Status {
    Status::internal(format!("unable to upgrade connection: {error}"))
}

fn output(stream: Option<Box<dyn AsyncWrite + Send + Unpin>>) -> Output {
    match stream {
        Some(stream) => Box::new(exclusive(stream)),
        None => Box::new(tokio::io::sink()),
    }
}

/// The newest size of a terminal, and the work of keeping it up to date, which has no end.
fn window(
    mut resize: mpsc::Receiver<apiserver::pod_streams::TerminalSize>,
) -> (watch::Receiver<TerminalSize>, impl Future<Output = Infallible> + Send) {
    let (sender, window) = watch::channel(TerminalSize::default());
    let following = async move {
        while let Some(size) = resize.recv().await {
            sender.send_replace(TerminalSize { rows: size.height, columns: size.width });
        }
        std::future::pending().await
    };
    (window, following)
}

#[async_trait]
impl PodStreams for Nodes {
    async fn check(&self, container: &ContainerRef, attach: bool) -> Result<(), Status> {
        self.kubelet(container)?.check(names(container), attach).map_err(status)
    }

    async fn exec(&self, container: &ContainerRef, command: Vec<String>, streams: ExecStreams) -> Result<i32, Status> {
        let kubelet = self.kubelet(container)?;
        let stdin: Input = match streams.stdin {
            Some(stdin) => Box::new(exclusive(stdin)),
            None => Box::new(tokio::io::empty()),
        };
        let (stdout, stderr) = if streams.tty {
            // A terminal is one device: both outputs go to it in the order of their writes.
            shared_terminal(output(streams.stdout))
        } else {
            (output(streams.stdout), output(streams.stderr))
        };
        let tty = streams.tty;
        let (window, resizing) = window(streams.resize);
        let streams = Exec { stdin, stdout, stderr, terminal: tty.then_some(window) };
        tokio::select! {
            biased;
            never = resizing => match never {},
            ended = kubelet.exec(names(container), command, streams) => ended.map_err(not_upgraded),
        }
    }

    async fn attach(&self, container: &ContainerRef, streams: ExecStreams) -> Result<i32, Status> {
        let kubelet = self.kubelet(container)?;
        let stdin = streams.stdin.map(|stdin| Box::new(exclusive(stdin)) as Input);
        let (stdout, stderr) = (output(streams.stdout), output(streams.stderr));
        let (terminal, resizing) = window(streams.resize);
        let streams = Attached { stdin, stdout, stderr, terminal };
        tokio::select! {
            biased;
            never = resizing => match never {},
            ended = kubelet.attach(names(container), streams) => ended.map(|()| 0).map_err(not_upgraded),
        }
    }

    async fn logs(&self, container: &ContainerRef, options: LogOptions) -> Result<BoxStream<'static, Bytes>, Status> {
        let kubelet = self.kubelet(container)?;
        let range = LogRange {
            follow: options.follow,
            previous: options.previous,
            timestamps: options.timestamps,
            tail_lines: options.tail_lines,
            since: options.since,
            limit_bytes: options.limit_bytes,
            source: options.stream.map(|stream| match stream {
                LogStream::Stdout => Source::Stdout,
                LogStream::Stderr => Source::Stderr,
            }),
        };
        kubelet.logs(names(container), range).map_err(status)
    }

    async fn port_forward(&self, container: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Status> {
        let kubelet = self.kubelet(container)?;
        let stream = kubelet.port_forward(&container.namespace, &container.pod, port).await.map_err(status)?;
        Ok(Box::new(stream))
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Duplex>, Status> {
        let stream = self.gateway.tcp_connect(address).await;
        let stream = stream.map_err(|error| {
            Status::failure(503, "ServiceUnavailable", format!("error trying to reach {address}: {error}"))
        })?;
        Ok(Box::new(stream))
    }
}

struct Shared(Arc<Mutex<Output>>);

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(context, data)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(context)
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // The other half may still write; the terminal closes when both are dropped.
        Pin::new(&mut *self.0.lock()).poll_flush(context)
    }
}

fn shared_terminal(output: Output) -> (Output, Output) {
    let shared = Arc::new(Mutex::new(output));
    (Box::new(Shared(shared.clone())), Box::new(Shared(shared)))
}

/// Puts every pod under its policies before its first program runs, and into the books of who has which address.
pub(crate) struct PolicyGate {
    pub(crate) policy: Arc<Policy>,
    pub(crate) residents: Arc<Residents>,
    pub(crate) dns: Arc<Dns>,
    pub(crate) cluster_dns: ClusterDns,
}

#[async_trait]
impl SandboxHooks for PolicyGate {
    async fn before_start(&self, pod: &Pod, addresses: &[IpAddr]) {
        self.residents.arrive(pod, addresses);
        self.dns.attach(pod, addresses, &resolv_conf(pod, &self.cluster_dns).text);
        self.policy.attach(pod, addresses).await;
    }

    fn removed(&self, addresses: &[IpAddr]) {
        self.residents.depart(addresses, Instant::now());
        self.dns.detach(addresses);
        self.policy.detach(addresses);
    }
}
