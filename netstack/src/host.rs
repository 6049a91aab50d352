//! In-process machines: the demultiplexer in front of the stack, and the handle that programs hold.
//!
//! A packet that the switch delivers to a host ends in [`Core::host_input`]: at a connection, a listener, a UDP port, a
//! waiting ping, or - nobody being there - in the answer that says so.

use crate::answer::{self, Refusal};
use crate::core::{Core, Shared, Wakes, register_among, seeded};
use crate::flow::{PortTag, Reason};
use crate::flow_key::{Address, FlowKey, Map, address, ip, is_loopback, protocol};
use crate::life::Life;
use crate::link;
use crate::network::AttachError;
use crate::packet::{Header, Icmp, Packet, flag, parse_quoted};
use crate::ping::PingState;
use crate::port::{Kind, Port, PortId};
use crate::sctp;
use crate::stream::{TcpListener, TcpStream};
use crate::tcp::{ConnectionId, Role};
use crate::udp::{UdpSocket, UdpState};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use smoltcp::iface::Interface;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Connections waiting to be accepted, and as many on their way there, per listener.
const BACKLOG: usize = 4096;
/// The listener has no room for one more.
const QUEUE_FULL: Reason = Reason("LISTEN_QUEUE_FULL");
/// The ports that connect and bind choose from (Linux' default range).
const EPHEMERAL: std::ops::Range<u16> = 32_768..61_000;

/// What a host keeps behind the lock.
pub(crate) struct HostState {
    pub(crate) interface: Interface,
    /// By the key of the peer's segments.
    pub(crate) connections: Map<FlowKey, ConnectionId>,
    pub(crate) listeners: HashMap<u16, ListenerState>,
    pub(crate) udp: HashMap<u16, UdpState>,
    pub(crate) pings: HashMap<u16, PingState>,
    rng: SmallRng,
    /// No handle is left; it stays until its last connection has ended.
    pub(crate) is_released: bool,
}

/// A listening port.
#[derive(Default)]
pub(crate) struct ListenerState {
    pub(crate) ready: VecDeque<ConnectionId>,
    half_open: usize,
    pub(crate) wakers: Vec<Waker>,
}

impl HostState {
    /// A connection is established: the listener gets it. `false` if there is none any more.
    pub(crate) fn is_established(&mut self, local: u16, id: ConnectionId, wakes: &mut Wakes) -> bool {
        let Some(listener) = self.listeners.get_mut(&local) else { return false };
        listener.half_open = listener.half_open.saturating_sub(1);
        listener.ready.push_back(id);
        wakes.wake_all(&mut listener.wakers);
        true
    }

    /// A connection has ended before it was established.
    pub(crate) fn is_gone(&mut self, local: u16) {
        if let Some(listener) = self.listeners.get_mut(&local) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    /// A free port, from a random one on.
    pub(crate) fn free_port(&mut self, is_free: impl Fn(&HostState, u16) -> bool) -> io::Result<u16> {
        let count = EPHEMERAL.end - EPHEMERAL.start;
        let start = self.rng.random_range(0..count);
        (0..count)
            .map(|step| EPHEMERAL.start + (start + step) % count)
            .find(|port| is_free(self, *port))
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "no free port is left"))
    }

    /// `port`, or a free one if it is 0.
    pub(crate) fn claim(&mut self, port: u16, is_free: impl Fn(&HostState, u16) -> bool) -> io::Result<u16> {
        if port == 0 {
            return self.free_port(is_free);
        }
        if !is_free(self, port) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("port {port} is in use")));
        }
        Ok(port)
    }
}

/// The error for everything on a host that has been taken off the network.
pub(crate) fn is_down() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "the host is off the network")
}

impl Core {
    pub(crate) fn host(&self, port: PortId) -> io::Result<&HostState> {
        self.ports.get(port).and_then(|port| port.host()).ok_or_else(is_down)
    }

    pub(crate) fn host_mut(&mut self, port: PortId) -> io::Result<&mut HostState> {
        self.ports.get_mut(port).and_then(|port| port.host_mut()).ok_or_else(is_down)
    }

    /// Attaches a port.
    pub(crate) fn attach(&mut self, addresses: &[IpAddr], tag: PortTag, kind: Kind) -> Result<PortId, AttachError> {
        if self.is_stopped {
            return Err(AttachError::Stopped);
        }
        let mut wanted: Vec<Address> = Vec::with_capacity(addresses.len());
        for ip in addresses {
            if wanted.contains(&address(*ip)) {
                return Err(AttachError::AddressInUse(*ip));
            }
            wanted.push(address(*ip));
        }
        for at in &wanted {
            let Some(owner) = self.switch.route(*at) else { continue };
            // A host that nobody holds only lingers to deliver its last data: it gives way.
            if self.host(owner).is_ok_and(|host| host.is_released) {
                self.detach(owner);
            } else {
                return Err(AttachError::AddressInUse(ip(*at)));
            }
        }
        let id = self.ports.insert(Port { tag, addresses: wanted.clone(), kind });
        for at in wanted {
            self.switch.attach(at, id, tag);
        }
        Ok(id)
    }

    pub(crate) fn new_host(&mut self) -> Kind {
        let (seed, time) = (self.random(), self.stack_time());
        Kind::Host(Box::new(HostState {
            interface: link::interface(seed, time),
            connections: seeded(self.seed),
            listeners: HashMap::new(),
            udp: HashMap::new(),
            pings: HashMap::new(),
            rng: SmallRng::seed_from_u64(seed),
            is_released: false,
        }))
    }

    /// Wakes everything that waits on a host which is no more.
    pub(crate) fn close_host(&mut self, host: &mut HostState) {
        for listener in host.listeners.values_mut() {
            self.wakes.wake_all(&mut listener.wakers);
        }
        for udp in host.udp.values_mut() {
            udp.close(&mut self.pool, &mut self.wakes);
        }
        for ping in host.pings.values_mut() {
            self.wakes.wake(ping.waker.take());
        }
    }

    fn is_own(&self, port: PortId, to: Address) -> bool {
        is_loopback(to) || self.ports.get(port).is_some_and(|port| port.addresses.contains(&to))
    }

    /// The address from which a host speaks to `to`.
    pub(crate) fn source(&self, port: PortId, to: IpAddr) -> io::Result<IpAddr> {
        let addresses = &self.ports.get(port).ok_or_else(is_down)?.addresses;
        let at = address(to);
        if is_loopback(at) || addresses.contains(&at) {
            return Ok(to);
        }
        addresses.iter().map(|own| ip(*own)).find(|own| own.is_ipv4() == to.is_ipv4()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                format!("the host has no address from which to reach {to}"),
            )
        })
    }

    /// Takes in a packet that the switch has delivered to a host.
    pub(crate) fn host_input(&mut self, port: PortId, mut packet: Packet, header: &Header) {
        let own = self.is_own(port, header.key.dst);
        match header.key.protocol {
            protocol::TCP => self.tcp_input(port, packet, header, own),
            protocol::UDP if own => self.udp_input(port, packet, header),
            protocol::UDP => self.gateway_udp(port, packet, header),
            protocol::ICMP | protocol::ICMPV6 => match header.icmp {
                Icmp::EchoRequest if own => {
                    answer::echo(&mut packet, header);
                    self.send(packet, port);
                }
                Icmp::EchoReply => self.echo_reply(port, packet, header),
                Icmp::Error => self.icmp_error(port, packet, header),
                _ => self.pool.put(packet),
            },
            protocol::SCTP if own => {
                let answer = sctp::answer(&mut self.pool, packet.bytes(), header);
                self.pool.put(packet);
                if let Some(answer) = answer {
                    self.send(answer, port);
                }
            }
            _ => self.refuse(port, packet, header, Refusal::Protocol),
        }
    }

    /// Answers with an error, from the host.
    pub(crate) fn refuse(&mut self, port: PortId, packet: Packet, header: &Header, refusal: Refusal) {
        let answer = answer::refuse(&mut self.pool, packet.bytes(), header, refusal);
        self.pool.put(packet);
        if let Some(answer) = answer {
            self.send(answer, port);
        }
    }

    fn tcp_input(&mut self, port: PortId, packet: Packet, header: &Header, own: bool) {
        let now = self.now;
        let Ok(host) = self.host_mut(port) else { return self.pool.put(packet) };
        if let Some(id) = host.connections.get(&header.key).copied() {
            return self.segment_arrives(id, packet, header);
        }
        if self.time_wait.contains(port, header.key, now) {
            if header.is_syn() {
                // RFC 1122, 4.2.2.13 allows to reopen; the switch has already begun a new flow.
                self.time_wait.remove(port, header.key);
            } else {
                if header.flags & flag::FIN != 0 {
                    let again = answer::acknowledge_again(&mut self.pool, packet.bytes(), header);
                    self.send(again, port);
                }
                return self.pool.put(packet);
            }
        }
        if header.is_syn() && !own {
            return self.gateway_syn(port, packet, header);
        }
        let local = header.key.dst_port;
        let Ok(host) = self.host_mut(port) else { return self.pool.put(packet) };
        match host.listeners.get_mut(&local) {
            Some(listener) if header.is_syn() => {
                if listener.ready.len() >= BACKLOG || listener.half_open >= BACKLOG {
                    // Silence: the client tries again in a second, when there may be room.
                    self.count(QUEUE_FULL);
                    self.switch.not_taken(header, QUEUE_FULL, now);
                    return self.pool.put(packet);
                }
                listener.half_open += 1;
                self.open_passively(port, Role::Pending(local), packet, header);
            }
            _ => self.refuse(port, packet, header, Refusal::Port),
        }
    }

    /// An error about something that this host has sent: whoever sent it learns.
    fn icmp_error(&mut self, port: PortId, packet: Packet, header: &Header) {
        let message = header.segment(packet.bytes());
        let kind = match (header.key.is_v4(), message[0], message[1]) {
            (true, 3, 2 | 3 | 9 | 10 | 13) | (false, 1, 1 | 4 | 5 | 6) => io::ErrorKind::ConnectionRefused,
            (true, 3, 0 | 6 | 11) | (false, 1, 0) => io::ErrorKind::NetworkUnreachable,
            (true, 3, 1 | 5 | 7 | 12) | (false, 1, _) => io::ErrorKind::HostUnreachable,
            _ => return self.pool.put(packet),
        };
        let quoted = parse_quoted(&message[8..]);
        self.pool.put(packet);
        let Some(quoted) = quoted else { return };
        let Ok(host) = self.host_mut(port) else { return };
        match quoted.key.protocol {
            protocol::TCP => {
                if let Some(id) = host.connections.get(&quoted.key.reversed()).copied() {
                    self.unreachable(id, kind);
                }
            }
            protocol::UDP => {
                if let Some(udp) = host.udp.get_mut(&quoted.key.src_port) {
                    udp.refused(quoted.key.destination());
                    let mut wakers = std::mem::take(&mut udp.wakers);
                    self.wakes.wake_all(&mut wakers);
                }
            }
            protocol::ICMP | protocol::ICMPV6 => {
                if let Some(ping) = host.pings.get_mut(&quoted.key.src_port) {
                    let waker = ping.failed(quoted.key.dst, kind);
                    self.wakes.wake(waker);
                }
            }
            _ => {}
        }
    }
}

/// The last handle of a host lets it go.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    port: PortId,
    tag: PortTag,
    addresses: Vec<IpAddr>,
    _life: Arc<Life>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|core| {
            let Ok(host) = core.host_mut(self.port) else { return };
            host.is_released = true;
            let connections: Vec<_> = host.connections.values().copied().collect();
            if connections.is_empty() {
                core.detach(self.port);
            }
            for connection in connections {
                core.touch(connection);
            }
        });
    }
}

/// One in-process machine: addresses and real TCP/IP. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host(Arc<Handle>);

impl Host {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        life: &Arc<Life>,
        port: PortId,
        tag: PortTag,
        addresses: &[IpAddr],
    ) -> Host {
        Host(Arc::new(Handle { shared: shared.clone(), port, tag, addresses: addresses.to_vec(), _life: life.clone() }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn port(&self) -> PortId {
        self.0.port
    }

    /// The host's addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.addresses.clone()
    }

    /// Largest packet on the wire, in bytes.
    pub fn mtu(&self) -> usize {
        self.shared().with(|core| core.config.mtu)
    }

    /// The tag it was attached with.
    pub fn tag(&self) -> PortTag {
        self.0.tag
    }

    /// Listens on a TCP port of every address (0: a free one). Loopback (127.0.0.0/8, ::1) of the same host reaches it too.
    ///
    /// # Errors
    /// `AddrInUse`; `NetworkDown` when the host has been shut down.
    pub fn tcp_listen(&self, port: u16) -> io::Result<TcpListener> {
        let local = self.shared().with(|core| {
            let host = core.host_mut(self.port())?;
            let local = host.claim(port, |host, port| !host.listeners.contains_key(&port))?;
            host.listeners.insert(local, ListenerState::default());
            io::Result::Ok(local)
        })?;
        Ok(TcpListener::new(self.clone(), local))
    }

    /// Connects. `ConnectionRefused` on RST or port unreachable, `TimedOut` after the SYN's retries (31 s).
    ///
    /// # Errors
    /// Those, `NetworkUnreachable` when the host has no address of the family of `to`, `NetworkDown`.
    pub async fn tcp_connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = concrete(to);
        let stream = self.shared().with(|core| {
            let source = core.source(self.port(), to.ip())?;
            let host = core.host_mut(self.port())?;
            let key = |port| FlowKey::new(protocol::TCP, to, SocketAddr::new(source, port));
            let port = host.free_port(|host, port| {
                let key = key(port);
                // A connection to itself would be a simultaneous open (RFC 9293, 3.5).
                !host.connections.contains_key(&key) && !host.listeners.contains_key(&port) && key != key.reversed()
            })?;
            if to.port() == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot connect to port 0"));
            }
            core.time_wait.remove(self.port(), key(port));
            let id = core.open(self.port(), key(port))?;
            Ok((id, SocketAddr::new(source, port)))
        });
        let (id, local) = stream?;
        let stream = TcpStream::new(self.clone(), id, local, to);
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// Binds a UDP port of every address (0: a free one).
    ///
    /// # Errors
    /// `AddrInUse`; `NetworkDown` when the host has been shut down.
    pub fn udp_bind(&self, port: u16) -> io::Result<UdpSocket> {
        let local = self.shared().with(|core| {
            let host = core.host_mut(self.port())?;
            let local = host.claim(port, |host, port| !host.udp.contains_key(&port))?;
            host.udp.insert(local, UdpState::default());
            io::Result::Ok(local)
        })?;
        Ok(UdpSocket::new(self.clone(), local))
    }

    /// Takes the host off the network at once: its sockets fail, its peers get no more answers.
    pub fn shutdown(&self) {
        self.shared().with(|core| core.detach(self.port()));
    }
}

/// The unspecified address means this host, as on Linux.
pub(crate) fn concrete(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, to.port())
}

/// Waits among others.
pub(crate) fn wait<T>(wakers: &mut Vec<Waker>, cx: &Context<'_>) -> Poll<T> {
    register_among(wakers, cx.waker());
    Poll::Pending
}
