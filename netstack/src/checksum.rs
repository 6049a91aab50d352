//! Internet checksums: computed when a packet leaves the process, kept up incrementally when it is rewritten, verified
//! when it comes in; and the cutting of large TCP segments for those who cannot take them whole.
//!
//! Inside the process packets carry no checksum at all. Follows RFC 1071, RFC 1624 and RFC 9260 (appendix A, CRC32c).

use crate::flow_key::{FlowKey, is_v4, protocol};
use crate::packet::{Header, be16, be32, flag, set16, set32};
use bytes::{Bytes, BytesMut};

/// The one's complement sum, not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    total + u64::from(u32::from_be_bytes(tail))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn pseudo_header(key: &FlowKey, length: usize) -> u64 {
    let addresses = if is_v4(key.src) {
        sum(&(key.src as u32).to_be_bytes()) + sum(&(key.dst as u32).to_be_bytes())
    } else {
        sum(&key.src.to_be_bytes()) + sum(&key.dst.to_be_bytes())
    };
    addresses + u64::from(key.protocol) + length as u64
}

/// Where the checksum is in the transport header, and whether it covers the pseudo-header.
fn field(number: u8) -> Option<(usize, bool)> {
    match number {
        protocol::TCP => Some((16, true)),
        protocol::UDP => Some((6, true)),
        protocol::ICMP => Some((2, false)),
        protocol::ICMPV6 => Some((2, true)),
        _ => None,
    }
}

/// Fills in every checksum of a packet.
pub(crate) fn complete(packet: &mut [u8], header: &Header) {
    if header.key.is_v4() {
        let length = usize::from(packet[0] & 15) * 4;
        set16(packet, 10, 0);
        let value = !fold(sum(&packet[..length]));
        set16(packet, 10, value);
    }
    let segment = &mut packet[header.transport..header.end];
    if header.key.protocol == protocol::SCTP {
        set32(segment, 8, 0);
        let value = crc32c(segment).swap_bytes();
        set32(segment, 8, value);
    } else if let Some((at, with_pseudo)) = field(header.key.protocol) {
        set16(segment, at, 0);
        let pseudo = if with_pseudo { pseudo_header(&header.key, segment.len()) } else { 0 };
        let mut value = !fold(sum(segment) + pseudo);
        if value == 0 && header.key.protocol == protocol::UDP {
            value = 0xffff; // RFC 768: zero means that there is none.
        }
        set16(segment, at, value);
    }
}

/// Fills in the IP header's checksum and, of TCP and UDP, the pseudo-header's sum, to which a device adds the rest: where in the
/// transport header that stands. `None` for other protocols, of which nothing is changed.
pub(crate) fn begin(packet: &mut [u8], header: &Header) -> Option<usize> {
    let (at, _) = field(header.key.protocol).filter(|_| !header.is_icmp())?;
    if header.key.is_v4() {
        let length = usize::from(packet[0] & 15) * 4;
        set16(packet, 10, 0);
        let value = !fold(sum(&packet[..length]));
        set16(packet, 10, value);
    }
    let length = header.end - header.transport;
    set16(packet, header.transport + at, fold(pseudo_header(&header.key, length)));
    Some(at)
}

/// Whether every checksum of a packet from outside is right.
pub(crate) fn is_valid(packet: &[u8], header: &Header) -> bool {
    if header.key.is_v4() {
        let length = usize::from(packet[0] & 15) * 4;
        if fold(sum(&packet[..length])) != 0xffff {
            return false;
        }
    }
    let segment = header.segment(packet);
    if header.key.protocol == protocol::SCTP {
        let mut copy = segment.to_vec();
        set32(&mut copy, 8, 0);
        return crc32c(&copy).swap_bytes() == be32(segment, 8);
    }
    match field(header.key.protocol) {
        Some((at, _)) if header.key.protocol == protocol::UDP && header.key.is_v4() && be16(segment, at) == 0 => true,
        Some((_, with_pseudo)) => {
            let pseudo = if with_pseudo { pseudo_header(&header.key, segment.len()) } else { 0 };
            fold(sum(segment) + pseudo) == 0xffff
        }
        None => true,
    }
}

/// RFC 1624, equation 3: the checksum after `old` became `new`. Both begin at an even offset of the packet.
pub(crate) fn adjust(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let removed: u64 = old.chunks(2).map(|word| u64::from(!be16(word, 0))).sum();
    !fold(u64::from(!checksum) + removed + sum(new))
}

/// CRC-32C (Castagnoli), bit by bit: SCTP is rare here.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// A whole packet as it would be on a wire: checksums complete.
pub(crate) fn exported(packet: &[u8], header: &Header) -> Bytes {
    let mut copy = BytesMut::from(&packet[..header.end]);
    complete(&mut copy, header);
    copy.freeze()
}

/// Cuts a TCP segment longer than `mtu` into packets of at most `payload` bytes of data each, checksums complete.
pub(crate) fn segments(packet: &[u8], header: &Header, payload: usize) -> impl Iterator<Item = Bytes> {
    let data = header.transport + usize::from(packet[header.transport + 12] >> 4) * 4;
    let sequence = be32(packet, header.transport + 4);
    let identification = be16(packet, 4);
    let total = header.end - data;
    let payload = payload.max(1);
    let count = total.div_ceil(payload).max(1);
    (0..count).map(move |index| {
        let (from, to) = (index * payload, total.min((index + 1) * payload));
        let mut bytes = BytesMut::with_capacity(data + to - from);
        bytes.extend_from_slice(&packet[..data]);
        bytes.extend_from_slice(&packet[data + from..data + to]);
        let length = bytes.len();
        if header.key.is_v4() {
            set16(&mut bytes, 2, length as u16);
            set16(&mut bytes, 4, identification.wrapping_add(index as u16));
        } else {
            set16(&mut bytes, 4, (length - 40) as u16);
        }
        set32(&mut bytes, header.transport + 4, sequence.wrapping_add(from as u32));
        if index + 1 < count {
            bytes[header.transport + 13] &= !(flag::FIN | flag::PSH);
        }
        complete(&mut bytes, &Header { end: length, ..*header });
        bytes.freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Pool, build, parse};

    #[test]
    fn an_incremental_update_equals_a_new_computation() {
        let mut pool = Pool::default();
        let key = FlowKey::new(17, "10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
        let (mut packet, at) = build(&mut pool, &key, 8 + 5);
        let bytes = packet.bytes_mut();
        set16(bytes, at, 1000);
        set16(bytes, at + 2, 53);
        set16(bytes, at + 4, 13);
        bytes[at + 8..].copy_from_slice(b"hello");
        let header = parse(bytes).unwrap();
        complete(bytes, &header);
        assert!(is_valid(bytes, &header));
        let updated = adjust(be16(bytes, at + 6), &53u16.to_be_bytes(), &8053u16.to_be_bytes());
        set16(bytes, at + 2, 8053);
        set16(bytes, at + 6, updated);
        assert!(is_valid(bytes, &parse(bytes).unwrap()));
    }

    #[test]
    fn crc32c_has_the_check_value_of_its_definition() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
