//! The gateway to the operating system's sockets.

use crate::answer::Refusal;
use crate::core::Core;
use crate::host::Host;
use crate::packet::{Header, Packet};
use crate::port::PortId;
use crate::tcp::ConnectionId;
use std::net::IpAddr;

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

/// What the gateway keeps behind the lock.
pub(crate) struct GatewayState {}

/// The gateway to the operating system.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(crate) host: Host,
}

impl Gateway {
    /// The in-process host at the gateway's addresses: how host programs reach in (it dials pods and Services, and listens for them).
    pub fn host(&self) -> Host {
        self.host.clone()
    }
}

impl Core {
    /// A SYN to an address outside.
    pub(crate) fn gateway_syn(&mut self, port: PortId, packet: Packet, header: &Header) {
        self.refuse(port, packet, header, Refusal::Port);
    }

    /// The connection of a client inside is established.
    pub(crate) fn gateway_established(&mut self, _port: PortId, _id: ConnectionId) {}

    /// A datagram to an address outside.
    pub(crate) fn gateway_udp(&mut self, port: PortId, packet: Packet, header: &Header) {
        self.refuse(port, packet, header, Refusal::Port);
    }
}
