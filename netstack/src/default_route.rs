//! Where packets go that no port has the address of: the default route of the [`switch`](crate::switch).

use crate::flow_key::{Address, address, is_v4};
use crate::port::PortId;
use std::net::IpAddr;

/// Where packets for addresses outside go.
#[derive(Clone, Debug, Default)]
pub(crate) struct DefaultRoute {
    /// By which port.
    pub(crate) port: Option<PortId>,
    /// Addresses that go there although they look like inside ones.
    pub(crate) aliases: Vec<Address>,
    /// Ranges that do not.
    pub(crate) inside: Vec<(IpAddr, u8)>,
    /// Whether all others go there.
    pub(crate) forward: bool,
}

impl DefaultRoute {
    /// The port by which packets to `to` leave, if by any.
    pub(crate) fn port(&self, to: Address) -> Option<PortId> {
        let port = self.port?;
        if self.aliases.contains(&to) {
            return Some(port);
        }
        let inside = self.inside.iter().any(|(base, length)| contains(*base, *length, to));
        (self.forward && !inside).then_some(port)
    }
}

fn contains(base: IpAddr, length: u8, to: Address) -> bool {
    let bits = if base.is_ipv4() { 96 + u32::from(length.min(32)) } else { u32::from(length.min(128)) };
    base.is_ipv4() == is_v4(to) && (bits == 0 || (address(base) ^ to) >> (128 - bits) == 0)
}
