//! The server's front: UDP and TCP port 53 of an in-process host.
//!
//! What is known is answered by the loop itself; what has to be asked elsewhere waits in a task of its own, so that no
//! query holds up another. TCP answers come in the order in which they are ready (RFC 7766 6.2.1.1).

use crate::config::PORT;
use crate::front::{Asker, Begun};
use crate::resolver::Resolver;
use crate::wire::{Reply, Transport};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use netstack::{Host, UdpSocket};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout, timeout_at};

/// Datagrams that are answered before other tasks have their turn.
const BATCH: usize = 64;
/// TCP connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// Queries of one connection that wait for upstreams; more are not read.
const MAX_PIPELINED: usize = 64;
/// How long a TCP connection may be silent (RFC 7766 6.2.3: some seconds), or not take its answers.
const IDLE: Duration = Duration::from_secs(10);

/// Serves the host until it is shut down.
pub(crate) async fn serve(resolver: Arc<Resolver>, host: Host) -> io::Result<()> {
    let socket = Arc::new(host.udp_bind(PORT)?);
    let listener = host.tcp_listen(PORT)?;
    resolver.serves(host.addresses().into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect());
    tokio::try_join!(serve_udp(resolver.clone(), socket), serve_tcp(resolver, listener))?;
    Ok(())
}

async fn serve_udp(resolver: Arc<Resolver>, socket: Arc<UdpSocket>) -> io::Result<()> {
    // Bounded: what the resolver cannot take at once ends at once.
    let mut forwarding = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut reply = Vec::new();
    loop {
        let mut received = tokio::select! {
            received = socket.recv_from(&mut buffer) => Some(received),
            Some(_) = forwarding.join_next() => None,
        };
        for _ in 0..BATCH {
            let (length, from) = match received {
                Some(Ok(received)) => received,
                // An asker has gone before its answer came.
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                Some(Err(error)) => return Err(error),
                None => break,
            };
            let asker = Asker { from: Some(from.ip()), transport: Transport::Udp, is_inside: true };
            if resolver.answer_at_once(&buffer[..length], asker, &mut reply) {
                send(&socket, &reply, from).await;
            } else {
                match resolver.begin(&buffer[..length], asker) {
                    Begun::Noise | Begun::Lost => {}
                    Begun::Done(reply) => send(&socket, &reply.encode(), from).await,
                    Begun::Waiting(waiting) => {
                        let (resolver, socket) = (resolver.clone(), socket.clone());
                        forwarding.spawn(async move {
                            send(&socket, &resolver.finish(*waiting).await.encode(), from).await;
                        });
                    }
                }
            }
            received = waiting(&socket, &mut buffer).await;
        }
        consume_budget().await;
    }
}

/// A datagram that is there already.
async fn waiting(socket: &UdpSocket, buffer: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
    std::future::poll_fn(|cx| match socket.poll_recv_from(cx, buffer) {
        Poll::Ready(received) => Poll::Ready(Some(received)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    let sent = socket.send_to(reply, to).await;
    // That was about an earlier answer to the same port, whose new owner asks now.
    if sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = socket.send_to(reply, to).await;
    }
}

/// What TCP connections come from.
pub(crate) trait Listener {
    type Stream: AsyncRead + AsyncWrite + Send + 'static;
    /// Whether its clients are on the cluster's network.
    const IS_INSIDE: bool;

    /// The next connection, and who it is from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, IpAddr)>> + Send;
}

impl Listener for netstack::TcpListener {
    type Stream = netstack::TcpStream;
    const IS_INSIDE: bool = true;

    async fn accept(&self) -> io::Result<(Self::Stream, IpAddr)> {
        let (stream, from) = netstack::TcpListener::accept(self).await?;
        Ok((stream, from.ip()))
    }
}

/// Serves a listener's connections until it fails.
pub(crate) async fn serve_tcp<L: Listener>(resolver: Arc<Resolver>, listener: L) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let (stream, from) = accepted?;
                let asker = Asker { from: Some(from), transport: Transport::Tcp, is_inside: L::IS_INSIDE };
                connections.spawn(serve_connection(resolver.clone(), stream, asker));
            }
            Some(_) = connections.join_next() => {}
        }
        consume_budget().await;
    }
}

/// Answers one connection's queries until the client closes it, or is silent for too long.
async fn serve_connection(
    resolver: Arc<Resolver>,
    stream: impl AsyncRead + AsyncWrite,
    asker: Asker,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut received, mut at_once) = (Vec::new(), Vec::new());
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    let mut idle_at = Instant::now() + IDLE;
    while open || !waiting.is_empty() {
        let reply: Option<Reply> = tokio::select! {
            read = timeout_at(idle_at, reader.read_buf(&mut received)), if open && waiting.len() < MAX_PIPELINED => {
                match read {
                    Ok(Ok(0)) => open = false,
                    Ok(Ok(_)) => idle_at = Instant::now() + IDLE,
                    Ok(Err(error)) => return Err(error),
                    Err(_) if waiting.is_empty() => return Ok(()),
                    Err(_) => idle_at = Instant::now() + IDLE,
                }
                None
            }
            Some(reply) = waiting.next() => Some(reply),
        };
        if let Some(reply) = reply {
            write(&mut writer, &reply.encode()).await?;
        }
        while waiting.len() < MAX_PIPELINED
            && let Some(request) = next_frame(&mut received)
        {
            if resolver.answer_at_once(&request, asker, &mut at_once) {
                write(&mut writer, &at_once).await?;
                consume_budget().await;
                continue;
            }
            match resolver.begin(&request, asker) {
                // Whoever sends that on a stream is no DNS client.
                Begun::Noise => return Ok(()),
                Begun::Done(reply) => write(&mut writer, &reply.encode()).await?,
                Begun::Lost => {}
                Begun::Waiting(request) => {
                    let resolver = resolver.clone();
                    waiting.push(async move { resolver.finish(*request).await });
                }
            }
            consume_budget().await;
        }
    }
    timeout(IDLE, writer.shutdown()).await?
}

/// Takes one message off the front (RFC 1035 4.2.2: two bytes of length), if it is there as a whole.
fn next_frame(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*received.first()?, *received.get(1)?]));
    let frame = received.get(2..2 + length)?.to_vec();
    received.drain(..2 + length);
    Some(frame)
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), reply: &[u8]) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    timeout(IDLE, writer.write_all(&[&length.to_be_bytes(), reply].concat())).await?
}
