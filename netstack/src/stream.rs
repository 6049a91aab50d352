//! TCP as programs see it: [`TcpListener`] and [`TcpStream`], with tokio's `AsyncRead` and `AsyncWrite`.

use crate::core::{Core, Shared};
use crate::host::{Host, is_down, wait};
use crate::tcp::ConnectionId;
use smoltcp::socket::tcp::{RecvError, State};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Accepts TCP connections; dropping it stops listening.
#[derive(Debug)]
pub struct TcpListener {
    host: Host,
    local: u16,
}

impl TcpListener {
    pub(crate) fn new(host: Host, local: u16) -> TcpListener {
        TcpListener { host, local }
    }

    /// The next connection and the peer's address as this host sees it.
    ///
    /// # Errors
    /// `NetworkDown` when the host has been shut down.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.host.shared().with(|core| {
            let Ok(host) = core.host_mut(self.host.port()) else { return Poll::Ready(Err(is_down())) };
            let Some(listener) = host.listeners.get_mut(&self.local) else { return Poll::Ready(Err(is_down())) };
            let Some(id) = listener.ready.pop_front() else { return wait(&mut listener.wakers, cx) };
            Poll::Ready(core.connections.get(id).map(|connection| (id, connection.key)).ok_or_else(is_down))
        });
        accepted.map_ok(|(id, key)| {
            let peer = key.source();
            (TcpStream::new(self.host.clone(), id, key.destination(), peer), peer)
        })
    }

    /// The port listened on.
    pub fn local_port(&self) -> u16 {
        self.local
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.host.shared().with(|core| {
            let Ok(host) = core.host_mut(self.host.port()) else { return };
            let Some(listener) = host.listeners.remove(&self.local) else { return };
            for waker in listener.wakers {
                core.wakes.retire(Some(waker));
            }
            for id in listener.ready {
                if let Some(connection) = core.connections.get_mut(id) {
                    connection.socket_mut().abort();
                }
                core.release(id);
            }
        });
    }
}

/// A connection as its holder has it: dropping it closes, and what was written before is still delivered.
#[derive(Debug)]
pub(crate) struct Socket {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Socket {
    pub(crate) fn new(shared: &Arc<Shared>, id: ConnectionId) -> Socket {
        Socket { shared: shared.clone(), id }
    }

    fn with<R>(&self, deed: impl FnOnce(&mut Core, ConnectionId) -> R) -> R {
        self.shared.with(|core| deed(core, self.id))
    }

    /// Ends it with RST.
    pub(crate) fn abort(&self) {
        self.with(|core, id| {
            if let Some(connection) = core.connections.get_mut(id) {
                connection.socket_mut().abort();
                core.touch(id);
            }
        });
    }

    /// Whether the handshake is over.
    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            let Core { connections, wakes, .. } = core;
            let Some(connection) = connections.get_mut(id) else { return Poll::Ready(Err(is_down())) };
            match connection.socket().state() {
                State::SynSent | State::SynReceived if connection.error.is_none() => {
                    wakes.register(&mut connection.writer, cx.waker());
                    Poll::Pending
                }
                State::Closed | State::Listen | State::SynSent | State::SynReceived => {
                    Poll::Ready(Err(connection.error.unwrap_or(io::ErrorKind::ConnectionAborted).into()))
                }
                _ => Poll::Ready(Ok(())),
            }
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            let Core { connections, wakes, .. } = core;
            let Some(connection) = connections.get_mut(id) else { return Poll::Ready(Err(is_down())) };
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            let mut end = None;
            // The ring's content may be in two pieces.
            for _ in 0..2 {
                let piece = connection.socket_mut().recv(|data| {
                    let length = data.len().min(buffer.remaining());
                    buffer.put_slice(&data[..length]);
                    (length, ())
                });
                end = piece.err();
            }
            let length = buffer.filled().len() - before;
            if length > 0 {
                if connection.has_read(length) {
                    core.touch(id);
                }
                return Poll::Ready(Ok(()));
            }
            match (end, connection.error) {
                (None, _) => {
                    wakes.register(&mut connection.reader, cx.waker());
                    if connection.owes_ack {
                        core.touch(id);
                    }
                    Poll::Pending
                }
                // After a FIN it is the end of the stream, whatever came later.
                (Some(RecvError::Finished), _) | (_, None) => Poll::Ready(Ok(())),
                (_, Some(error)) => Poll::Ready(Err(error.into())),
            }
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|core, id| {
            let Core { connections, wakes, now, .. } = core;
            let Some(connection) = connections.get_mut(id) else { return Poll::Ready(Err(is_down())) };
            if let Some(error) = connection.error {
                return Poll::Ready(Err(error.into()));
            }
            if connection.socket().send_queue() == 0 {
                connection.has_written(*now);
            }
            match connection.socket_mut().send_slice(data) {
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Ok(0) if !data.is_empty() => {
                    wakes.register(&mut connection.writer, cx.waker());
                    Poll::Pending
                }
                Ok(length) => {
                    core.touch(id);
                    Poll::Ready(Ok(length))
                }
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing waits here: every write is on its way as far as the peer's window allows.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            if let Some(connection) = core.connections.get_mut(id) {
                connection.socket_mut().close();
                core.touch(id);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.with(|core, id| core.release(id));
    }
}

/// A TCP connection: tokio's `AsyncRead` and `AsyncWrite`; `shutdown` sends FIN, drop closes.
///
/// What was written before the drop is still delivered, as long as the peer takes some of it every three minutes.
#[derive(Debug)]
pub struct TcpStream {
    // Before the host: the connection is released while the host is still held.
    socket: Socket,
    local: SocketAddr,
    peer: SocketAddr,
    _host: Host,
}

impl TcpStream {
    pub(crate) fn new(host: Host, id: ConnectionId, local: SocketAddr, peer: SocketAddr) -> TcpStream {
        TcpStream { socket: Socket::new(host.shared(), id), local, peer, _host: host }
    }

    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The other side's address, as this host addresses it.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_connected(cx)
    }

    /// Ends it with RST.
    pub(crate) fn abort(&self) {
        self.socket.abort();
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
