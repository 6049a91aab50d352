//! Packets: owned buffers from LIFO pools, and what one look at their headers says.
//!
//! A buffer keeps [`HEADROOM`] bytes before the IP header, so that a device's own header can be written in place.
//! Follows RFC 791, RFC 8200, RFC 9293 (3.1), RFC 768, RFC 792 and RFC 4443 as far as a switch needs to.

use crate::flow::Reason;
use crate::flow_key::{FlowKey, is_loopback, is_unicast, protocol};
use crate::sctp;
use std::num::NonZeroU16;

/// Bytes kept free before every packet.
pub(crate) const HEADROOM: usize = 16;
/// The largest IP packet: 64 KiB of IPv6 payload and its header.
pub(crate) const LARGEST: usize = 65_575;

const SMALL: usize = 2048;
const LARGE: usize = 66 * 1024;
/// Free buffers kept: enough for a burst, little enough to forget.
const SPARE: usize = 64;

pub(crate) const MALFORMED: Reason = Reason("MALFORMED");
pub(crate) const FRAGMENT: Reason = Reason("FRAGMENT");
pub(crate) const MARTIAN: Reason = Reason("MARTIAN");

/// What the checksum fields of a packet hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksums {
    /// Nothing: the packet has not left the process. Filled in when it does.
    Absent,
    /// The truth: rewriting keeps it.
    Complete,
}

/// An IP packet in a buffer of its own.
#[derive(Debug)]
pub(crate) struct Packet {
    buffer: Vec<u8>,
    end: usize,
    pub(crate) checksums: Checksums,
    /// TCP payload bytes per segment when a device has to cut it.
    pub(crate) segment_size: Option<NonZeroU16>,
}

impl Packet {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[HEADROOM..self.end]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - HEADROOM
    }

    /// Cuts off what follows the first `length` bytes, such as link-layer padding.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.end = self.end.min(HEADROOM + length);
    }

    /// The bytes of memory it holds.
    pub(crate) fn footprint(&self) -> usize {
        self.buffer.len()
    }
}

/// Recycled buffers, last in, first out: the next packet finds its buffer in the cache.
#[derive(Default)]
pub(crate) struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Pool {
    /// A packet of `length` bytes whose content is arbitrary.
    pub(crate) fn take(&mut self, length: usize) -> Packet {
        debug_assert!(length <= LARGEST);
        let (spare, size) =
            if length <= SMALL - HEADROOM { (&mut self.small, SMALL) } else { (&mut self.large, LARGE) };
        let buffer = spare.pop().unwrap_or_else(|| vec![0; size]);
        Packet { buffer, end: HEADROOM + length, checksums: Checksums::Absent, segment_size: None }
    }

    /// A copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8], checksums: Checksums) -> Packet {
        let mut packet = self.take(bytes.len());
        packet.bytes_mut().copy_from_slice(bytes);
        packet.checksums = checksums;
        packet
    }

    /// Takes a packet's buffer back.
    pub(crate) fn put(&mut self, packet: Packet) {
        let spare = if packet.buffer.len() == SMALL { &mut self.small } else { &mut self.large };
        if spare.len() < SPARE {
            spare.push(packet.buffer);
        }
    }
}

/// TCP control bits (RFC 9293, 3.1).
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const PSH: u8 = 8;
    pub(crate) const ACK: u8 = 16;
}

/// What an ICMP message is to the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icmp {
    EchoRequest,
    EchoReply,
    /// It speaks of another packet, which follows its 8-byte header.
    Error,
    Other,
}

/// What the switch and the hosts need of a packet's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) key: FlowKey,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// Where the IP packet ends; the buffer may be longer.
    pub(crate) end: usize,
    /// TCP's control bits; for SCTP those that mean the same (see [`sctp::flags`](crate::sctp::flags)); 0 for others.
    pub(crate) flags: u8,
    pub(crate) icmp: Icmp,
}

impl Header {
    /// A segment that opens a connection: TCP's SYN, SCTP's INIT.
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.flags & flag::RST != 0
    }

    pub(crate) fn is_icmp(&self) -> bool {
        matches!(self.key.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    pub(crate) fn is_icmp_error(&self) -> bool {
        self.is_icmp() && self.icmp == Icmp::Error
    }

    /// The bytes from the transport header on.
    pub(crate) fn segment<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        &packet[self.transport..self.end]
    }
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn set16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn set32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Reads the headers of a whole packet.
///
/// # Errors
/// The reason to drop it: truncated or contradictory headers, fragments, addresses that may not be on a wire.
pub(crate) fn parse(packet: &[u8]) -> Result<Header, Reason> {
    let header = network_header(packet, Whole::Yes)?;
    if !is_unicast(header.key.src) || !is_unicast(header.key.dst) {
        return Err(MARTIAN);
    }
    Ok(header)
}

/// Reads the headers of the packet inside an ICMP error: its end may be missing.
pub(crate) fn parse_quoted(packet: &[u8]) -> Option<Header> {
    network_header(packet, Whole::No).ok()
}

/// Whether a packet is expected to be there to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

fn network_header(packet: &[u8], whole: Whole) -> Result<Header, Reason> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(packet, whole),
        Some(6) => ipv6(packet, whole),
        _ => Err(MALFORMED),
    }
}

fn ipv4(packet: &[u8], whole: Whole) -> Result<Header, Reason> {
    if packet.len() < 20 {
        return Err(MALFORMED);
    }
    let transport = usize::from(packet[0] & 15) * 4;
    let mut end = usize::from(be16(packet, 2));
    if whole == Whole::No {
        end = end.min(packet.len());
    }
    if transport < 20 || end < transport || end > packet.len() {
        return Err(MALFORMED);
    }
    // More Fragments, or an offset: ports are missing from the later ones, and nobody here reassembles.
    if be16(packet, 6) & 0x3fff != 0 {
        return Err(FRAGMENT);
    }
    let mapped = |at| 0xffff_0000_0000 | u128::from(be32(packet, at));
    transport_header(packet, packet[9], mapped(12), mapped(16), transport, end, whole)
}

fn ipv6(packet: &[u8], whole: Whole) -> Result<Header, Reason> {
    if packet.len() < 40 {
        return Err(MALFORMED);
    }
    let mut end = 40 + usize::from(be16(packet, 4));
    if whole == Whole::No {
        end = end.min(packet.len());
    }
    if end > packet.len() {
        return Err(MALFORMED);
    }
    let address = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&packet[at..at + 16]);
        u128::from_be_bytes(bytes)
    };
    let (src, dst) = (address(8), address(24));
    // A mapped address on the wire (RFC 4291, 2.5.5.2) would be taken for IPv4 in the tables.
    if crate::flow_key::is_v4(src) || crate::flow_key::is_v4(dst) {
        return Err(MARTIAN);
    }
    let (mut next, mut at) = (packet[6], 40);
    // RFC 8200, 4.1: hop-by-hop, routing and destination options are all {next, length in 8 bytes − 1}.
    while matches!(next, 0 | 43 | 60) {
        if at + 8 > end {
            return Err(MALFORMED);
        }
        next = packet[at];
        at += 8 + usize::from(packet[at + 1]) * 8;
    }
    if next == 44 {
        return Err(FRAGMENT);
    }
    if at > end {
        return Err(MALFORMED);
    }
    transport_header(packet, next, src, dst, at, end, whole)
}

fn transport_header(
    packet: &[u8],
    number: u8,
    src: u128,
    dst: u128,
    at: usize,
    end: usize,
    whole: Whole,
) -> Result<Header, Reason> {
    let segment = &packet[at..end];
    let v4 = crate::flow_key::is_v4(src);
    let mut header = Header {
        key: FlowKey { src, dst, src_port: 0, dst_port: 0, protocol: number },
        transport: at,
        end,
        flags: 0,
        icmp: Icmp::Other,
    };
    let smallest = match number {
        // RFC 792: an error quotes at least the first 8 bytes, which is where the ports are.
        _ if whole == Whole::No => 8,
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        protocol::SCTP => 12,
        _ => 0,
    };
    if segment.len() < smallest {
        return Err(MALFORMED);
    }
    match number {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            header.key.src_port = be16(segment, 0);
            header.key.dst_port = be16(segment, 2);
            if header.key.src_port == 0 || header.key.dst_port == 0 {
                return Err(MALFORMED);
            }
        }
        protocol::ICMP if v4 => {
            header.icmp = match segment[0] {
                8 => Icmp::EchoRequest,
                0 => Icmp::EchoReply,
                3 | 4 | 5 | 11 | 12 => Icmp::Error,
                _ => Icmp::Other,
            };
        }
        protocol::ICMPV6 if !v4 => {
            header.icmp = match segment[0] {
                128 => Icmp::EchoRequest,
                129 => Icmp::EchoReply,
                0..=127 => Icmp::Error,
                _ => Icmp::Other,
            };
        }
        _ => {}
    }
    if matches!(header.icmp, Icmp::EchoRequest | Icmp::EchoReply) {
        header.key.src_port = be16(segment, 4);
        header.key.dst_port = header.key.src_port;
    }
    if whole == Whole::Yes {
        match number {
            protocol::TCP => {
                let length = usize::from(segment[12] >> 4) * 4;
                if length < 20 || length > segment.len() {
                    return Err(MALFORMED);
                }
                header.flags = segment[13];
            }
            protocol::SCTP => header.flags = sctp::flags(segment),
            protocol::UDP => {
                let length = usize::from(be16(segment, 4));
                if length < 8 || length > segment.len() {
                    return Err(MALFORMED);
                }
            }
            _ => {}
        }
        if is_loopback(src) != is_loopback(dst) {
            return Err(MARTIAN);
        }
    }
    Ok(header)
}

/// Makes a packet with an IP header and `payload` bytes of transport to be filled in: the packet and where they begin.
pub(crate) fn build(pool: &mut Pool, key: &FlowKey, payload: usize) -> (Packet, usize) {
    let at = if key.is_v4() { 20 } else { 40 };
    let mut packet = pool.take(at + payload);
    let bytes = packet.bytes_mut();
    if key.is_v4() {
        bytes[..20].fill(0);
        bytes[0] = 0x45;
        set16(bytes, 2, (at + payload) as u16);
        set16(bytes, 6, 0x4000); // Don't Fragment
        bytes[8] = 64;
        bytes[9] = key.protocol;
        set32(bytes, 12, key.src as u32);
        set32(bytes, 16, key.dst as u32);
    } else {
        bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, key.protocol, 64]);
        set16(bytes, 4, payload as u16);
        bytes[8..24].copy_from_slice(&key.src.to_be_bytes());
        bytes[24..40].copy_from_slice(&key.dst.to_be_bytes());
    }
    (packet, at)
}
