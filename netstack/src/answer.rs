//! Packets that the network itself makes in answer to others: RST, ICMP unreachable, echo replies.
//!
//! Follows RFC 9293 (3.10.7.1), RFC 792, RFC 4443 and RFC 1122 (3.2.2): no error about an error.

use crate::flow_key::{FlowKey, protocol};
use crate::packet::{Header, Icmp, Packet, Pool, be32, build, flag, set16, set32};

/// Why a packet is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody listens on that port.
    Port,
    /// Nobody speaks that protocol.
    Protocol,
    /// It is forbidden.
    Prohibited,
    /// The destination cannot be reached.
    Host,
}

/// The answer to `packet`: RST for TCP, an ICMP error for others. `None` if nothing may be answered.
pub(crate) fn refuse(pool: &mut Pool, packet: &[u8], header: &Header, refusal: Refusal) -> Option<Packet> {
    if header.key.protocol == protocol::TCP && refusal != Refusal::Host {
        return reset(pool, packet, header);
    }
    if header.is_icmp_error() || header.icmp == Icmp::EchoReply || header.is_reset() {
        return None;
    }
    Some(unreachable(pool, packet, header, refusal))
}

/// RST in answer to `packet`.
pub(crate) fn reset(pool: &mut Pool, packet: &[u8], header: &Header) -> Option<Packet> {
    if header.is_reset() {
        return None;
    }
    let segment = header.segment(packet);
    let data = segment.len() - usize::from(segment[12] >> 4) * 4;
    let (mut answer, at) = build(pool, &header.key.reversed(), 20);
    let tcp = &mut answer.bytes_mut()[at..];
    tcp.fill(0);
    set16(tcp, 0, header.key.dst_port);
    set16(tcp, 2, header.key.src_port);
    tcp[12] = 5 << 4;
    if header.flags & flag::ACK != 0 {
        set32(tcp, 4, be32(segment, 8));
        tcp[13] = flag::RST;
    } else {
        let syn_fin = u32::from(header.flags & flag::SYN != 0) + u32::from(header.flags & flag::FIN != 0);
        set32(tcp, 8, be32(segment, 4).wrapping_add(data as u32).wrapping_add(syn_fin));
        tcp[13] = flag::RST | flag::ACK;
    }
    Some(answer)
}

/// The ACK that a connection in TIME-WAIT sends when the last FIN comes again (RFC 9293, 3.10.7.8).
pub(crate) fn acknowledge_again(pool: &mut Pool, packet: &[u8], header: &Header) -> Packet {
    let segment = header.segment(packet);
    let data = segment.len() - usize::from(segment[12] >> 4) * 4;
    let (mut answer, at) = build(pool, &header.key.reversed(), 20);
    let tcp = &mut answer.bytes_mut()[at..];
    tcp.fill(0);
    set16(tcp, 0, header.key.dst_port);
    set16(tcp, 2, header.key.src_port);
    set32(tcp, 4, be32(segment, 8));
    set32(tcp, 8, be32(segment, 4).wrapping_add(data as u32).wrapping_add(1));
    tcp[12] = 5 << 4;
    tcp[13] = flag::ACK;
    set16(tcp, 14, u16::MAX);
    answer
}

fn unreachable(pool: &mut Pool, packet: &[u8], header: &Header, refusal: Refusal) -> Packet {
    let v4 = header.key.is_v4();
    // RFC 1812, 4.3.2.3 and RFC 4443, 2.4 (c): as much as fits into 576 and 1280 bytes.
    let room = if v4 { 576 - 28 } else { 1280 - 48 };
    let quoted = &packet[..header.end.min(room)];
    let number = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let key = FlowKey { protocol: number, ..header.key.reversed() };
    let (mut answer, at) = build(pool, &key, 8 + quoted.len());
    let icmp = &mut answer.bytes_mut()[at..];
    icmp[..8].fill(0);
    (icmp[0], icmp[1]) = match (v4, refusal) {
        (true, Refusal::Host) => (3, 1),
        (true, Refusal::Protocol) => (3, 2),
        (true, Refusal::Port) => (3, 3),
        (true, Refusal::Prohibited) => (3, 13),
        (false, Refusal::Host) => (1, 3),
        (false, Refusal::Port | Refusal::Protocol) => (1, 4),
        (false, Refusal::Prohibited) => (1, 1),
    };
    icmp[8..].copy_from_slice(quoted);
    answer
}

/// Turns an echo request into its reply, in place.
pub(crate) fn echo(packet: &mut Packet, header: &Header) {
    let key = header.key.reversed();
    let bytes = packet.bytes_mut();
    if key.is_v4() {
        set32(bytes, 12, key.src as u32);
        set32(bytes, 16, key.dst as u32);
        bytes[8] = 64;
        bytes[header.transport] = 0;
    } else {
        bytes[8..24].copy_from_slice(&key.src.to_be_bytes());
        bytes[24..40].copy_from_slice(&key.dst.to_be_bytes());
        bytes[7] = 64;
        bytes[header.transport] = 129;
    }
    packet.checksums = crate::packet::Checksums::Absent;
}

/// An echo request of `payload` bytes.
pub(crate) fn echo_request(pool: &mut Pool, key: &FlowKey, sequence: u16, payload: usize) -> Packet {
    let (mut packet, at) = build(pool, key, 8 + payload);
    let icmp = &mut packet.bytes_mut()[at..];
    icmp[..8].fill(0);
    icmp[0] = if key.is_v4() { 8 } else { 128 };
    set16(icmp, 4, key.src_port);
    set16(icmp, 6, sequence);
    for (index, byte) in icmp[8..].iter_mut().enumerate() {
        *byte = index as u8;
    }
    packet
}
