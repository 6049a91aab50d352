//! UDP: a queue of datagrams per port.
//!
//! Datagrams stay whole inside the process, up to 64 KiB; nothing fragments. A full queue drops the newest, as a kernel's
//! receive buffer does. Follows RFC 768 and RFC 1122 (4.1.3.3: errors reach the program).

use crate::answer::Refusal;
use crate::core::{Core, Wakes};
use crate::flow::Reason;
use crate::flow_key::{FlowKey, protocol};
use crate::host::{Host, concrete, is_down, wait};
use crate::packet::{Header, Packet, Pool, be16, build, set16};
use crate::port::PortId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

const BUFFER_FULL: Reason = Reason("UDP_BUFFER_FULL");
/// Bytes of memory that waiting datagrams may hold.
const LIMIT: usize = 1 << 20;
/// Unreported errors kept.
const ERRORS: usize = 16;
/// Peers whose chosen local address is remembered, on hosts that have several.
const PEERS: usize = 1024;

struct Datagram {
    packet: Packet,
    from: SocketAddr,
    /// Where the payload lies.
    range: std::ops::Range<usize>,
}

/// A bound port.
#[derive(Default)]
pub(crate) struct UdpState {
    queue: VecDeque<Datagram>,
    bytes: usize,
    /// Peers at which a datagram met a closed port.
    errors: VecDeque<SocketAddr>,
    pub(crate) wakers: Vec<Waker>,
    /// The address that each peer spoke to, so that answers come from there.
    local: VecDeque<(SocketAddr, IpAddr)>,
}

impl UdpState {
    pub(crate) fn refused(&mut self, peer: SocketAddr) {
        if self.errors.len() < ERRORS && !self.errors.contains(&peer) {
            self.errors.push_back(peer);
        }
    }

    pub(crate) fn close(&mut self, pool: &mut Pool, wakes: &mut Wakes) {
        for datagram in self.queue.drain(..) {
            pool.put(datagram.packet);
        }
        wakes.wake_all(&mut self.wakers);
    }
}

impl Core {
    /// A datagram for one of the host's own addresses.
    pub(crate) fn udp_input(&mut self, port: PortId, packet: Packet, header: &Header) {
        let Core { ports, wakes, pool, .. } = self;
        let Some(entry) = ports.get_mut(port) else { return pool.put(packet) };
        let has_several = entry.addresses.len() > 1;
        let Some(udp) = entry.host_mut().and_then(|host| host.udp.get_mut(&header.key.dst_port)) else {
            return self.refuse(port, packet, header, Refusal::Port);
        };
        if udp.bytes + packet.footprint() > LIMIT {
            pool.put(packet);
            return self.count(BUFFER_FULL);
        }
        let from = header.key.source();
        if has_several {
            let local = header.key.destination().ip();
            if udp.local.back() != Some(&(from, local)) {
                udp.local.retain(|(peer, _)| *peer != from);
                udp.local.push_back((from, local));
                if udp.local.len() > PEERS {
                    udp.local.pop_front();
                }
            }
        }
        let start = header.transport + 8;
        let end = header.transport + usize::from(be16(packet.bytes(), header.transport + 4));
        udp.bytes += packet.footprint();
        udp.queue.push_back(Datagram { packet, from, range: start..end });
        wakes.wake_all(&mut udp.wakers);
    }

    /// Builds and sends a datagram from `src` to `dst`, out of `port`.
    pub(crate) fn send_datagram(&mut self, port: PortId, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        let key = FlowKey::new(protocol::UDP, src, dst);
        let (mut packet, at) = build(&mut self.pool, &key, 8 + payload.len());
        let udp = &mut packet.bytes_mut()[at..];
        set16(udp, 0, src.port());
        set16(udp, 2, dst.port());
        set16(udp, 4, (8 + payload.len()) as u16);
        set16(udp, 6, 0);
        udp[8..].copy_from_slice(payload);
        self.send(packet, port);
    }
}

/// A bound UDP port.
#[derive(Debug)]
pub struct UdpSocket {
    host: Host,
    local: u16,
}

impl UdpSocket {
    pub(crate) fn new(host: Host, local: u16) -> UdpSocket {
        UdpSocket { host, local }
    }

    /// Sends one datagram. `ConnectionRefused` if an earlier one to `to` met a closed port.
    ///
    /// # Errors
    /// That; `InvalidInput` for more than 65,507 bytes or port 0; `NetworkUnreachable`, `NetworkDown`.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        let to = concrete(to);
        if payload.len() > 65_507 || to.port() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes to {to}: at most 65507 fit, and port 0 is nobody's", payload.len()),
            ));
        }
        self.host.shared().with(|core| {
            let mut source = core.source(self.host.port(), to.ip())?;
            let host = core.host_mut(self.host.port())?;
            let udp = host.udp.get_mut(&self.local).ok_or_else(is_down)?;
            if let Some(at) = udp.errors.iter().position(|peer| *peer == to) {
                udp.errors.remove(at);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if let Some((_, local)) = udp.local.iter().rev().find(|(peer, _)| *peer == to) {
                source = *local;
            }
            core.send_datagram(self.host.port(), SocketAddr::new(source, self.local), to, payload);
            Ok(payload.len())
        })
    }

    /// The next datagram and its sender. `ConnectionRefused` when one sent earlier met a closed port (ICMP port unreachable).
    ///
    /// What does not fit into `buffer` is lost, as with a kernel's socket.
    ///
    /// # Errors
    /// That; `NetworkDown` when the host has been shut down.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv_from(cx, buffer)).await
    }

    /// As [`recv_from`](Self::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.host.shared().with(|core| {
            let Ok(host) = core.host_mut(self.host.port()) else { return Poll::Ready(Err(is_down())) };
            let Some(udp) = host.udp.get_mut(&self.local) else { return Poll::Ready(Err(is_down())) };
            if udp.errors.pop_front().is_some() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            let Some(datagram) = udp.queue.pop_front() else { return wait(&mut udp.wakers, cx) };
            udp.bytes -= datagram.packet.footprint();
            let payload = &datagram.packet.bytes()[datagram.range];
            let length = payload.len().min(buffer.len());
            buffer[..length].copy_from_slice(&payload[..length]);
            core.pool.put(datagram.packet);
            Poll::Ready(Ok((length, datagram.from)))
        })
    }

    /// The port.
    pub fn local_port(&self) -> u16 {
        self.local
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.host.shared().with(|core| {
            if let Ok(host) = core.host_mut(self.host.port())
                && let Some(mut udp) = host.udp.remove(&self.local)
            {
                udp.close(&mut core.pool, &mut core.wakes);
            }
        });
    }
}
