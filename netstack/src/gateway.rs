//! The gateway to the operating system's sockets.
//!
//! It is a host at its own addresses ([`Gateway::host`]) and, beyond that, speaks for every address outside. A TCP
//! client's SYN waits until the operating system has connected to the real destination: so refusal is refusal, and
//! silence is silence. Then two connections are spliced, half-close included. UDP gets one operating system socket per flow.
//! Echo to the outside is not forwarded: it would need privileges.

use crate::answer::{self, Refusal};
use crate::core::{Core, Shared};
use crate::default_route::DefaultRoute;
use crate::flow::Reason;
use crate::flow_key::{Address, FlowKey, Map, address, ip, protocol};
use crate::host::Host;
use crate::packet::{Header, Packet, be16, build, parse, set16};
use crate::port::PortId;
use crate::stream::Socket;
use crate::tcp::Role;
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const FULL: Reason = Reason("GATEWAY_FULL");

/// Flows to the outside at one time.
const FLOWS: usize = 8192;
/// Bytes of each of the two copy buffers of a spliced connection.
const COPY: usize = 64 * 1024;
/// Datagrams waiting for the operating system, per flow.
const DATAGRAMS: usize = 128;
/// How long a UDP flow may be silent before and after its first answer: as conntrack counts.
const UNREPLIED: Duration = Duration::from_secs(30);
const STREAM: Duration = Duration::from_secs(120);

/// Where traffic to addresses that nobody in the network has goes: out through the operating system's sockets.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The gateway's own addresses inside the network (a [`Host`] for the host side: [`Gateway::host`]).
    pub addresses: Vec<IpAddr>,
    /// Addresses inside the network that mean another address of the operating system's, for example one that means its loopback.
    pub aliases: Vec<(IpAddr, IpAddr)>,
    /// Ranges that are never forwarded outside (prefix, length); to them: no route.
    pub inside: Vec<(IpAddr, u8)>,
    /// Whether other addresses are forwarded at all.
    pub forward: bool,
}

/// The gateway to the operating system. Dropping its last handle and those of its host takes it off the network.
#[derive(Clone, Debug)]
pub struct Gateway {
    host: Host,
}

impl Gateway {
    pub(crate) fn new(host: Host) -> Gateway {
        Gateway { host }
    }

    /// The in-process host at the gateway's addresses: how host programs reach in (it dials hosts and frontends, and listens for them).
    pub fn host(&self) -> Host {
        self.host.clone()
    }
}

/// What the gateway keeps behind the lock.
pub(crate) struct GatewayState {
    pub(crate) port: PortId,
    aliases: Vec<(Address, IpAddr)>,
    shared: Weak<Shared>,
    runtime: Handle,
    /// The SYNs of connections that are being dialled.
    dialling: Map<FlowKey, (Packet, Header)>,
    datagrams: Map<FlowKey, mpsc::Sender<Bytes>>,
    /// One task per flow; aborted with the gateway.
    tasks: JoinSet<()>,
}

impl GatewayState {
    /// The real destination.
    fn outside(&self, key: &FlowKey) -> SocketAddr {
        let to = match self.aliases.iter().find(|(inside, _)| *inside == key.dst) {
            Some((_, outside)) => *outside,
            None => ip(key.dst),
        };
        SocketAddr::new(to, key.dst_port)
    }

    /// Whether there is room for one more flow.
    fn has_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len() < FLOWS
    }
}

impl Core {
    /// Makes the port of a host the gateway.
    pub(crate) fn open_gateway(&mut self, port: PortId, config: &GatewayConfig, shared: &Arc<Shared>) {
        self.switch.default_route = DefaultRoute {
            port: Some(port),
            aliases: config.aliases.iter().map(|(inside, _)| address(*inside)).collect(),
            inside: config.inside.clone(),
            forward: config.forward,
        };
        self.gateway = Some(GatewayState {
            port,
            aliases: config.aliases.iter().map(|(inside, outside)| (address(*inside), *outside)).collect(),
            shared: Arc::downgrade(shared),
            runtime: shared.runtime.clone(),
            dialling: crate::core::seeded(self.seed),
            datagrams: crate::core::seeded(self.seed),
            tasks: JoinSet::new(),
        });
    }

    /// The gateway's port is gone.
    pub(crate) fn close_gateway(&mut self, port: PortId) {
        if self.gateway.as_ref().is_some_and(|gateway| gateway.port == port) {
            self.gateway = None;
            self.switch.default_route = DefaultRoute::default();
        }
    }

    /// A SYN to an address outside.
    pub(crate) fn gateway_syn(&mut self, port: PortId, packet: Packet, header: &Header) {
        let Some(gateway) = self.gateway.as_mut().filter(|gateway| gateway.port == port) else {
            return self.refuse(port, packet, header, Refusal::Port);
        };
        let key = header.key;
        if gateway.dialling.contains_key(&key) {
            // Its retransmission.
            return self.pool.put(packet);
        }
        if !gateway.has_room() {
            self.pool.put(packet);
            return self.count(FULL);
        }
        let (to, shared) = (gateway.outside(&key), gateway.shared.clone());
        gateway.dialling.insert(key, (packet, *header));
        gateway.tasks.spawn_on(splice(shared, port, key, to), &gateway.runtime);
    }

    /// The real destination has answered the dial for `key`, or not.
    fn gateway_dialled(
        &mut self,
        port: PortId,
        key: FlowKey,
        error: Option<io::ErrorKind>,
        shared: &Arc<Shared>,
    ) -> Option<Socket> {
        let (packet, header) = self.gateway.as_mut()?.dialling.remove(&key)?;
        match error {
            None => Some(Socket::new(shared, self.open_passively(port, Role::Direct, packet, &header))),
            Some(error) => {
                match error {
                    io::ErrorKind::ConnectionRefused => self.refuse(port, packet, &header, Refusal::Port),
                    io::ErrorKind::TimedOut => self.pool.put(packet),
                    _ => self.refuse(port, packet, &header, Refusal::Host),
                }
                None
            }
        }
    }

    /// A datagram to an address outside.
    pub(crate) fn gateway_udp(&mut self, port: PortId, packet: Packet, header: &Header) {
        let Some(gateway) = self.gateway.as_mut().filter(|gateway| gateway.port == port) else {
            return self.refuse(port, packet, header, Refusal::Port);
        };
        let key = header.key;
        let end = header.transport + usize::from(be16(packet.bytes(), header.transport + 4));
        let payload = Bytes::copy_from_slice(&packet.bytes()[header.transport + 8..end]);
        self.pool.put(packet);
        if let Some(flow) = gateway.datagrams.get(&key) {
            if flow.try_send(payload).is_err() {
                self.count(FULL);
            }
            return;
        }
        if !gateway.has_room() {
            return self.count(FULL);
        }
        let (to, shared) = (gateway.outside(&key), gateway.shared.clone());
        let (sender, receiver) = mpsc::channel(DATAGRAMS);
        // An empty channel has room.
        let _ = sender.try_send(payload);
        gateway.datagrams.insert(key, sender);
        gateway.tasks.spawn_on(relay(shared, port, key, to, receiver), &gateway.runtime);
    }

    /// Port unreachable from outside, for the client that sent to it.
    fn gateway_refused(&mut self, port: PortId, key: &FlowKey) {
        let (mut quoted, at) = build(&mut self.pool, key, 8);
        let udp = &mut quoted.bytes_mut()[at..];
        udp.fill(0);
        set16(udp, 0, key.src_port);
        set16(udp, 2, key.dst_port);
        set16(udp, 4, 8);
        if let Ok(header) = parse(quoted.bytes())
            && let Some(answer) = answer::refuse(&mut self.pool, quoted.bytes(), &header, Refusal::Port)
        {
            self.send(answer, port);
        }
        self.pool.put(quoted);
    }
}

/// One TCP connection to the outside.
async fn splice(shared: Weak<Shared>, port: PortId, key: FlowKey, to: SocketAddr) {
    // No timeout of ours: the operating system has one, and the client has its own.
    let dialled = TcpStream::connect(to).await;
    let error = dialled.as_ref().err().map(io::Error::kind);
    let Some(socket) =
        shared.upgrade().and_then(|shared| shared.with(|core| core.gateway_dialled(port, key, error, &shared)))
    else {
        return;
    };
    let (mut inside, Ok(mut outside)) = (socket, dialled) else { return };
    if poll_fn(|cx| inside.poll_connected(cx)).await.is_err() {
        return;
    }
    let _ = outside.set_nodelay(true);
    if tokio::io::copy_bidirectional_with_sizes(&mut inside, &mut outside, COPY, COPY).await.is_err() {
        // One side has been reset: so is the other.
        inside.abort();
        let _ = outside.set_zero_linger();
    }
}

/// One UDP flow to the outside.
async fn relay(shared: Weak<Shared>, port: PortId, key: FlowKey, to: SocketAddr, mut datagrams: mpsc::Receiver<Bytes>) {
    let result = relay_until_silent(&shared, port, key, to, &mut datagrams).await;
    let Some(shared) = shared.upgrade() else { return };
    shared.with(|core| {
        if let Some(gateway) = &mut core.gateway {
            gateway.datagrams.remove(&key);
        }
        if result.is_err() {
            core.gateway_refused(port, &key);
        }
    });
}

async fn relay_until_silent(
    shared: &Weak<Shared>,
    port: PortId,
    key: FlowKey,
    to: SocketAddr,
    datagrams: &mut mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    debug_assert_eq!(key.protocol, protocol::UDP);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    let mut buffer = vec![0; 65_536];
    let mut patience = UNREPLIED;
    loop {
        let step = async {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => socket.send(&datagram).await.map(|_| None),
                    None => Err(io::ErrorKind::BrokenPipe.into()),
                },
                received = socket.recv(&mut buffer) => received.map(Some),
            }
        };
        match timeout(patience, step).await {
            Err(_) => return Ok(()),
            Ok(Ok(None)) => {}
            Ok(Ok(Some(length))) => {
                patience = STREAM;
                let Some(shared) = shared.upgrade() else { return Ok(()) };
                let payload = &buffer[..length.min(65_507)];
                shared.with(|core| core.send_datagram(port, key.destination(), key.source(), payload));
            }
            Ok(Err(error)) => return Err(error),
        }
    }
}
