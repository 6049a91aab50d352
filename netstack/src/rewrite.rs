//! What the switch changes in one packet's headers: addresses and ports, and the segment size that a SYN announces.

use crate::checksum;
use crate::flow_key::{FlowKey, protocol};
use crate::packet::{Checksums, Header, Packet, be16, set16};

/// Gives `packet` the addresses and ports of `to`, and keeps its checksums true if they are. `header` follows.
pub(crate) fn rewrite(packet: &mut Packet, header: &mut Header, to: &FlowKey) {
    let complete = packet.checksums == Checksums::Complete;
    let bytes = packet.bytes_mut();
    let from = header.key;
    let v4 = from.is_v4();
    let (addresses, width) = if v4 { (12, 4) } else { (8, 16) };
    let mut old = [0; 32];
    let mut new = [0; 32];
    for (index, (before, after)) in [(from.src, to.src), (from.dst, to.dst)].into_iter().enumerate() {
        let range = index * width..(index + 1) * width;
        old[range.clone()].copy_from_slice(&before.to_be_bytes()[16 - width..]);
        new[range].copy_from_slice(&after.to_be_bytes()[16 - width..]);
    }
    let (old, new) = (&old[..2 * width], &new[..2 * width]);
    bytes[addresses..addresses + 2 * width].copy_from_slice(new);
    if complete && v4 {
        let value = checksum::adjust(be16(bytes, 10), old, new);
        set16(bytes, 10, value);
    }
    let segment = &mut bytes[header.transport..header.end];
    let (field, pseudo, ports) = match from.protocol {
        protocol::TCP => (16, true, Some((0, 2))),
        protocol::UDP => (6, true, Some((0, 2))),
        protocol::ICMP => (2, false, None),
        protocol::ICMPV6 => (2, true, None),
        protocol::SCTP => (8, false, Some((0, 2))),
        _ => {
            header.key = *to;
            return;
        }
    };
    let update = |segment: &mut [u8], at: usize, value: u16| {
        let before = be16(segment, at);
        set16(segment, at, value);
        if complete && from.protocol != protocol::SCTP && !is_unchecked(segment, field, &from) {
            let sum = checksum::adjust(be16(segment, field), &before.to_be_bytes(), &value.to_be_bytes());
            set16(segment, field, sum);
        }
    };
    match ports {
        Some((src, dst)) => {
            update(segment, src, to.src_port);
            update(segment, dst, to.dst_port);
        }
        // The identifier of an echo.
        None if header.key.src_port != to.src_port => update(segment, 4, to.src_port),
        None => {}
    }
    if complete && pseudo && !is_unchecked(segment, field, &from) {
        let sum = checksum::adjust(be16(segment, field), old, new);
        set16(segment, field, sum);
    }
    header.key = *to;
    if complete && from.protocol == protocol::SCTP && (from.src_port, from.dst_port) != (to.src_port, to.dst_port) {
        checksum::complete(bytes, header);
    }
}

/// UDP over IPv4 without a checksum (RFC 768).
fn is_unchecked(segment: &[u8], field: usize, key: &FlowKey) -> bool {
    key.protocol == protocol::UDP && key.is_v4() && be16(segment, field) == 0
}

/// Lowers the maximum segment size that a SYN announces to what the wire takes: stacks here announce 64 KiB.
pub(crate) fn clamp_mss(packet: &mut Packet, header: &Header, mtu: usize) {
    let limit = (mtu - if header.key.is_v4() { 40 } else { 60 }) as u16;
    let complete = packet.checksums == Checksums::Complete;
    let segment = &mut packet.bytes_mut()[header.transport..header.end];
    let options = usize::from(segment[12] >> 4) * 4;
    let mut at = 20;
    while at + 4 <= options {
        match (segment[at], usize::from(segment[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) => {
                let announced = be16(segment, at + 2);
                if announced > limit {
                    set16(segment, at + 2, limit);
                    if complete {
                        // The option may sit at an odd offset, where an incremental update would need its neighbours.
                        let bytes = packet.bytes_mut();
                        checksum::complete(bytes, header);
                    }
                }
                return;
            }
            (_, length) if length >= 2 => at += length,
            _ => return,
        }
    }
}
