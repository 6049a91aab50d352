//! The server's front on the machine: UDP and TCP on sockets of the operating system, for `dig` and whoever else asks
//! from outside the cluster's network.
//!
//! The same [`Resolver`] answers as for pods, so the machine hears nothing else. What waits is answered together, and the
//! replies are sent with one system call.

use crate::front::{Asker, Begun};
use crate::resolver::Resolver;
use crate::serve::{Listener, serve_tcp};
use crate::wire::Transport;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

/// Datagrams that are answered before other tasks have their turn.
const BATCH: usize = 64;
/// How often a free port is looked for that is free for both protocols.
const ATTEMPTS: usize = 16;
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket and a TCP listener of the same address.
#[derive(Debug)]
pub struct MachineSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl MachineSockets {
    /// Opens both. Port 0 takes one that is free for both.
    ///
    /// # Errors
    /// The operating system's: the port is taken, or needs rights.
    pub async fn bind(address: SocketAddr) -> io::Result<MachineSockets> {
        let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(MachineSockets { udp, tcp }),
                Err(error) if attempts == 1 || error.kind() != io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => attempts -= 1,
            }
        }
    }

    /// Where they are bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// Serves until the future is dropped.
pub(crate) async fn serve(resolver: Arc<Resolver>, sockets: MachineSockets) -> io::Result<()> {
    resolver.serves(vec![sockets.local_addr()?]);
    tokio::try_join!(serve_udp(resolver.clone(), Arc::new(sockets.udp)), serve_tcp(resolver, sockets.tcp))?;
    Ok(())
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    const IS_INSIDE: bool = false;

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        loop {
            match TcpListener::accept(self).await {
                Ok((stream, from)) => return Ok((stream, from.ip())),
                // One client's connection, or all of the process's descriptors: neither ends the server.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

async fn serve_udp(resolver: Arc<Resolver>, socket: Arc<UdpSocket>) -> io::Result<()> {
    // Bounded: what the resolver cannot take at once ends at once.
    let mut forwarding = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut replies = Batch::default();
    loop {
        tokio::select! {
            ready = socket.readable() => ready?,
            Some(_) = forwarding.join_next() => continue,
        }
        for _ in 0..BATCH {
            let (length, from) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An asker has gone before its answer came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let request = &buffer[..length];
            let asker = Asker { from: Some(from.ip()), transport: Transport::Udp, is_inside: false };
            if replies.add(from, |reply| resolver.answer_at_once(request, asker, reply)) {
                continue;
            }
            match resolver.begin(request, asker) {
                Begun::Noise | Begun::Lost => {}
                Begun::Done(reply) => drop(socket.try_send_to(&reply.encode(), from)),
                Begun::Waiting(waiting) => {
                    let (resolver, socket) = (resolver.clone(), socket.clone());
                    forwarding.spawn(async move {
                        let reply = resolver.finish(*waiting).await.encode();
                        let _ = socket.send_to(&reply, from).await;
                    });
                }
            }
        }
        replies.send(&socket);
        consume_budget().await;
    }
}

/// Replies that are sent with one system call. Their buffers are used again.
#[derive(Default)]
struct Batch {
    replies: Vec<(Vec<u8>, SocketAddr)>,
    used: usize,
}

impl Batch {
    /// Adds the reply that `write` writes, if it writes one.
    fn add(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        if self.used == self.replies.len() {
            self.replies.push((Vec::new(), to));
        }
        let (reply, address) = &mut self.replies[self.used];
        *address = to;
        let written = write(reply);
        self.used += usize::from(written);
        written
    }

    /// Sends them all. A full socket loses datagrams, as the wire does: the asker asks again.
    fn send(&mut self, socket: &UdpSocket) {
        let replies = &self.replies[..std::mem::take(&mut self.used)];
        #[cfg(target_os = "linux")]
        linux::send(socket, replies);
        #[cfg(not(target_os = "linux"))]
        replies.iter().for_each(|(reply, to)| drop(socket.try_send_to(reply, *to)));
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::io::IoSlice;
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
    use std::net::SocketAddr;
    use tokio::net::UdpSocket;

    /// sendmmsg(2).
    pub(super) fn send(socket: &UdpSocket, replies: &[(Vec<u8>, SocketAddr)]) {
        let addresses: Vec<SocketAddrAny> = replies.iter().map(|(_, to)| SocketAddrAny::from(*to)).collect();
        let slices: Vec<[IoSlice<'_>; 1]> = replies.iter().map(|(reply, _)| [IoSlice::new(reply)]).collect();
        let mut control: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            replies.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let messages = addresses.iter().zip(&slices).zip(&mut control);
        let mut messages: Vec<MMsgHdr<'_>> =
            messages.map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control)).collect();
        let mut left = &mut messages[..];
        while !left.is_empty() {
            // An error is about the first of them: an asker that has gone, or a socket that is full.
            let sent = sendmmsg(socket, left, SendFlags::DONTWAIT).unwrap_or(1).max(1);
            left = &mut left[sent..];
        }
    }
}
