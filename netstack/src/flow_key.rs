//! The key of the flow table and of the hosts' demultiplexers: a 5-tuple in 40 bytes, and its hash.
//!
//! IPv4 addresses are kept IPv4-mapped (RFC 4291, 2.5.5.2), so that one table serves both families.

use crate::flow::{FiveTuple, Protocol};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// IANA protocol numbers that the switch knows.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
}

/// An address as the tables keep it.
pub(crate) type Address = u128;

const MAPPED: u128 = 0xffff_0000_0000;

/// The address as the tables keep it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => MAPPED | u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address as others know it.
pub(crate) fn ip(address: Address) -> IpAddr {
    if is_v4(address) { IpAddr::V4((address as u32).into()) } else { IpAddr::V6(Ipv6Addr::from(address)) }
}

/// Whether the address is an IPv4 address.
pub(crate) fn is_v4(address: Address) -> bool {
    address >> 32 == MAPPED >> 32
}

/// 127.0.0.0/8 or ::1.
pub(crate) fn is_loopback(address: Address) -> bool {
    if is_v4(address) { (address as u32) >> 24 == 127 } else { address == 1 }
}

/// Neither unspecified nor multicast nor the limited broadcast address.
pub(crate) fn is_unicast(address: Address) -> bool {
    if is_v4(address) {
        let first = (address as u32) >> 24;
        first != 0 && !(224..240).contains(&first) && address as u32 != u32::MAX
    } else {
        address != 0 && address >> 120 != 0xff
    }
}

/// Who talks to whom. For echo, both ports hold the identifier; 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub(crate) src: Address,
    pub(crate) dst: Address,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) protocol: u8,
}

impl FlowKey {
    pub(crate) fn new(protocol: u8, src: SocketAddr, dst: SocketAddr) -> FlowKey {
        FlowKey { src: address(src.ip()), dst: address(dst.ip()), src_port: src.port(), dst_port: dst.port(), protocol }
    }

    /// The same flow seen from its other end.
    pub(crate) fn reversed(self) -> FlowKey {
        FlowKey { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    pub(crate) fn is_v4(&self) -> bool {
        is_v4(self.src)
    }

    pub(crate) fn source(&self) -> SocketAddr {
        SocketAddr::new(ip(self.src), self.src_port)
    }

    pub(crate) fn destination(&self) -> SocketAddr {
        SocketAddr::new(ip(self.dst), self.dst_port)
    }

    /// As the hooks see it: echo has no ports.
    pub(crate) fn five_tuple(&self) -> FiveTuple {
        let protocol = match self.protocol {
            protocol::TCP => Protocol::Tcp,
            protocol::UDP => Protocol::Udp,
            protocol::SCTP => Protocol::Sctp,
            protocol::ICMP | protocol::ICMPV6 => Protocol::Icmp,
            other => Protocol::Other(other),
        };
        let (mut src, mut dst) = (self.source(), self.destination());
        if protocol == Protocol::Icmp {
            src.set_port(0);
            dst.set_port(0);
        }
        FiveTuple { protocol, src, dst }
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.src as u64);
        state.write_u64((self.src >> 64) as u64);
        state.write_u64(self.dst as u64);
        state.write_u64((self.dst >> 64) as u64);
        state.write_u64(u64::from(self.src_port) << 32 | u64::from(self.dst_port) << 16 | u64::from(self.protocol));
    }
}

/// A map with keys made of a few machine words, hashed by seeded multiplication.
pub(crate) type Map<K, V> = HashMap<K, V, Seeded>;

/// Builds [`Multiply`] hashers. The seed keeps outsiders from choosing keys that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Multiply;
    fn build_hasher(&self) -> Multiply {
        Multiply { state: self.0, seed: self.0 | 1 }
    }
}

/// A hash by folded 64×64→128-bit multiplication, one multiplication a word.
pub(crate) struct Multiply {
    state: u64,
    seed: u64,
}

impl Hasher for Multiply {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.state ^ value ^ self.seed) * 0x9e37_79b9_7f4a_7c15;
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_the_table() {
        for text in ["10.244.1.7", "127.0.0.1", "::1", "fd00::7"] {
            let there: IpAddr = text.parse().unwrap();
            assert_eq!(ip(address(there)), there);
            assert_eq!(is_v4(address(there)), there.is_ipv4());
            assert_eq!(is_loopback(address(there)), there.is_loopback());
        }
    }

    #[test]
    fn ports_spread_over_the_hash() {
        let key = |port| FlowKey::new(protocol::TCP, ([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into());
        let mut low = std::collections::HashSet::new();
        for port in 0..1024 {
            low.insert(Seeded(7).hash_one(key(port)) & 0xfff);
        }
        // 1024 balls in 4096 urns leave about 905 urns taken.
        assert!(low.len() > 850, "{} distinct", low.len());
    }
}
