//! The network: the switch and all that is attached to it.

use crate::flow::{FiveTuple, Hooks, PortTag, Reason};
use bytes::Bytes;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Settings of a [`Network`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest IP packet on the wire, in bytes; in-process pairs exchange segments up to 64 KiB (TSO).
    pub mtu: usize,
    /// Seed of every choice made here: ephemeral ports, initial sequence numbers, SNAT ports.
    pub seed: u64,
}

/// The switch with its ports, flow table and hooks. Cheap to clone: all clones are one network.
///
/// Lives on the tokio runtime it was made on; ends when [`Network::stop`] is called or the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Network {}

/// Why a host or port could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another port has this address.
    #[error("address {0} is already attached")]
    AddressInUse(IpAddr),
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}

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

/// The gateway to the operating system.
#[derive(Clone, Debug)]
pub struct Gateway {}

/// One flow of the conntrack table.
#[derive(Clone, Debug)]
pub struct FlowInfo {
    /// As the source sent it.
    pub original: FiveTuple,
    /// As the destination sees it.
    pub translated: FiveTuple,
    /// The port it came in by.
    pub from: PortTag,
    /// The port it leaves by.
    pub to: PortTag,
    /// `None`: accepted. Otherwise why its packets are dropped.
    pub dropped: Option<Reason>,
    /// Packets and bytes, there and back.
    pub packets: [u64; 2],
    /// Bytes of IP packets, there and back.
    pub bytes: [u64; 2],
    /// Time since the last packet.
    pub idle: Duration,
}

/// A packet seen by a [`Tap`].
#[derive(Clone, Debug)]
pub struct Captured {
    /// The port that sent it.
    pub from: PortTag,
    /// The port it went to, if it was delivered.
    pub to: Option<PortTag>,
    /// Why it was not.
    pub dropped: Option<Reason>,
    /// The whole IP packet with correct checksums.
    pub packet: Bytes,
    /// When, on the network's clock.
    pub at: tokio::time::Instant,
}

/// A running capture; a full queue drops the newest and counts it.
#[derive(Debug)]
pub struct Tap {}

impl Network {
    /// An empty network whose hooks pass and accept everything.
    pub fn new(config: Config) -> Network {
        todo!("{config:?}")
    }
    /// Attaches an in-process host. Dropping the last handle of the [`Host`] and its sockets detaches it.
    pub fn attach_host(&self, addresses: &[IpAddr], tag: PortTag) -> Result<Host, AttachError> {
        todo!("{addresses:?} {tag:?}")
    }
    /// Attaches a port without a stack: whoever holds it sends and receives IP packets (a TUN device, a fuzzer).
    pub fn attach_raw(&self, addresses: &[IpAddr], tag: PortTag) -> Result<RawPort, AttachError> {
        todo!("{addresses:?} {tag:?}")
    }
    /// Attaches the gateway: at most one.
    pub fn attach_gateway(&self, config: GatewayConfig) -> Result<Gateway, AttachError> {
        todo!("{config:?}")
    }
    /// Swaps the hooks. Flows are judged again at their next packet.
    pub fn install(&self, hooks: Hooks) {
        let _ = hooks;
        todo!()
    }
    /// Begins a new epoch: every flow's verdict (not its translation) is asked again at its next packet.
    pub fn reevaluate(&self) {
        todo!()
    }
    /// Forgets the flows for which `keep` is false; their next packet makes a new flow.
    pub fn retain_flows(&self, keep: impl FnMut(&FlowInfo) -> bool) {
        let _ = keep;
        todo!()
    }
    /// All live flows.
    pub fn flows(&self) -> Vec<FlowInfo> {
        todo!()
    }
    /// Captures packets of one port, or of all.
    pub fn tap(&self, port: Option<PortTag>) -> Tap {
        todo!("{port:?}")
    }
    /// Closes every host and ends every task.
    pub fn stop(&self) {
        todo!()
    }
}

impl Tap {
    /// The next packet; `None` when the network has stopped.
    pub async fn next(&mut self) -> Option<Captured> {
        todo!()
    }
}

impl Gateway {
    /// The in-process host at the gateway's addresses: how host programs reach in (it dials pods and Services, and listens for them).
    pub fn host(&self) -> Host {
        todo!()
    }
}

/// A port without a stack.
#[derive(Debug)]
pub struct RawPort {}

impl RawPort {
    /// Hands an IP packet to the switch. Garbage is counted and dropped.
    pub fn send(&self, packet: &[u8]) {
        todo!("{packet:?}")
    }
    /// The next IP packet for this port; `None` when the network has stopped.
    pub async fn recv(&mut self) -> Option<Bytes> {
        todo!()
    }
}

/// One in-process machine: addresses and real TCP/IP. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {}

impl Host {
    /// The host's addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        todo!()
    }
    /// The tag it was attached with.
    pub fn tag(&self) -> PortTag {
        todo!()
    }
    /// Listens on a TCP port of every address (0: a free one). Loopback (127.0.0.0/8, ::1) of the same host reaches it too.
    pub fn tcp_listen(&self, port: u16) -> io::Result<TcpListener> {
        todo!("{port}")
    }
    /// Connects. `ConnectionRefused` on RST or port unreachable, `TimedOut` after the SYN's retries.
    pub async fn tcp_connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        todo!("{to}")
    }
    /// Binds a UDP port of every address (0: a free one).
    pub fn udp_bind(&self, port: u16) -> io::Result<UdpSocket> {
        todo!("{port}")
    }
    /// One ICMP echo: the round-trip time.
    pub async fn ping(&self, to: IpAddr, payload: usize, timeout: Duration) -> io::Result<Duration> {
        todo!("{to} {payload} {timeout:?}")
    }
    /// Takes the host off the network at once: its sockets fail, its peers get no more answers.
    pub fn shutdown(&self) {
        todo!()
    }
}

/// Accepts TCP connections; dropping it stops listening.
#[derive(Debug)]
pub struct TcpListener {}

impl TcpListener {
    /// The next connection and the peer's address as this host sees it.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        todo!()
    }
    /// The port listened on.
    pub fn local_port(&self) -> u16 {
        todo!()
    }
}

/// A TCP connection: tokio's `AsyncRead` and `AsyncWrite`; `shutdown` sends FIN, drop closes.
#[derive(Debug)]
pub struct TcpStream {}

impl TcpStream {
    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// The other side's address, as this host addresses it.
    pub fn peer_addr(&self) -> SocketAddr {
        todo!()
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

/// A bound UDP port.
#[derive(Debug)]
pub struct UdpSocket {}

impl UdpSocket {
    /// Sends one datagram. `ConnectionRefused` if an earlier one to `to` met a closed port.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        todo!("{payload:?} {to}")
    }
    /// The next datagram and its sender. `ConnectionRefused` when one sent earlier met a closed port (ICMP port unreachable).
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        todo!("{buffer:?}")
    }
    /// The port.
    pub fn local_port(&self) -> u16 {
        todo!()
    }
}
