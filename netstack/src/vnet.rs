//! The virtio-net header before each packet of a device that offloads: checksums and segmentation are left to whoever has the hardware.
//!
//! Follows VIRTIO 1.2, 5.1.6, in the legacy form that Linux's TUN driver speaks with `IFF_VNET_HDR`: ten bytes, native byte order.

use crate::checksum;
use crate::flow_key::protocol;
use crate::packet::{Checksums, Header, Packet};
use bytes::{Bytes, BytesMut};
use std::num::NonZeroU16;

/// Bytes of the header.
pub(crate) const LENGTH: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
/// Set beside the type when the segments use ECN.
const ECN: u8 = 0x80;

/// A frame taken apart: the packet, what its checksums hold, and the TCP payload per segment if it has to be cut.
pub(crate) fn read(frame: &[u8]) -> Option<(&[u8], Checksums, Option<NonZeroU16>)> {
    let (header, packet) = frame.split_at_checked(LENGTH)?;
    // Left out, or known to be right by whoever has verified it: neither is worth another look.
    let checksums =
        if header[0] & (NEEDS_CHECKSUM | CHECKSUM_VALID) != 0 { Checksums::Absent } else { Checksums::Complete };
    let segment_size = match header[1] & !ECN {
        TCP_V4 | TCP_V6 => NonZeroU16::new(u16::from_ne_bytes([header[4], header[5]])),
        _ => None,
    };
    Some((packet, checksums, segment_size))
}

/// A packet as the device takes it: TCP and UDP checksums begun only, TCP segments longer than `mtu` whole.
pub(crate) fn write(packet: &Packet, header: &Header, mtu: usize) -> Bytes {
    let bytes = &packet.bytes()[..header.end];
    let mut frame = BytesMut::with_capacity(LENGTH + bytes.len());
    frame.resize(LENGTH, 0);
    frame.extend_from_slice(bytes);
    let (vnet, out) = frame.split_at_mut(LENGTH);
    if packet.checksums == Checksums::Absent {
        match checksum::begin(out, header) {
            Some(offset) => {
                vnet[0] = NEEDS_CHECKSUM;
                vnet[6..8].copy_from_slice(&(header.transport as u16).to_ne_bytes());
                vnet[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
            }
            None => checksum::complete(out, header),
        }
        if header.key.protocol == protocol::TCP && out.len() > mtu {
            let headers = header.transport + usize::from(out[header.transport + 12] >> 4) * 4;
            let room = mtu - headers.min(mtu - 1);
            let payload = packet.segment_size.map_or(room, |size| usize::from(size.get()).min(room));
            vnet[1] = if header.key.is_v4() { TCP_V4 } else { TCP_V6 };
            vnet[2..4].copy_from_slice(&(headers as u16).to_ne_bytes());
            vnet[4..6].copy_from_slice(&(payload as u16).to_ne_bytes());
        }
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_key::FlowKey;
    use crate::packet::{Pool, build, parse};

    fn segment(payload: usize) -> (Packet, Header) {
        let mut pool = Pool::default();
        let key =
            FlowKey::new(6, "10.0.0.1:1000".parse().expect("an address"), "10.0.0.2:80".parse().expect("an address"));
        let (mut packet, at) = build(&mut pool, &key, 20 + payload);
        let bytes = packet.bytes_mut();
        bytes[at..].fill(7);
        bytes[at..at + 4].copy_from_slice(&[0x03, 0xe8, 0, 80]);
        bytes[at + 12] = 5 << 4;
        bytes[at + 13] = 16;
        let header = parse(packet.bytes()).expect("a packet");
        (packet, header)
    }

    #[test]
    fn a_long_segment_goes_out_whole_and_says_how_it_is_to_be_cut() {
        let (packet, header) = segment(10_000);
        let frame = write(&packet, &header, 1500);
        assert_eq!(frame.len(), LENGTH + 10_040);
        assert_eq!(frame[..2], [NEEDS_CHECKSUM, TCP_V4]);
        let numbers: Vec<u16> = frame[2..LENGTH].chunks(2).map(|two| u16::from_ne_bytes([two[0], two[1]])).collect();
        assert_eq!(numbers, [40, 1460, 20, 16]);
        let (inside, checksums, size) = read(&frame).expect("a frame");
        assert_eq!((inside.len(), checksums, size), (10_040, Checksums::Absent, NonZeroU16::new(1460)));
    }

    #[test]
    fn a_checksum_that_is_begun_is_right_when_the_rest_is_added() {
        let (packet, header) = segment(100);
        let mut bytes = write(&packet, &header, 1500)[LENGTH..].to_vec();
        // What the hardware does: the one's complement sum from the start on, the begun value included.
        let sum = bytes[20..]
            .chunks(2)
            .fold(0u32, |sum, two| sum + u32::from(two[0]) * 256 + two.get(1).map_or(0, |b| u32::from(*b)));
        let folded = (sum & 0xffff) + (sum >> 16);
        let value = !(((folded & 0xffff) + (folded >> 16)) as u16);
        bytes[36..38].copy_from_slice(&value.to_be_bytes());
        assert!(checksum::is_valid(&bytes, &header));
    }

    #[test]
    fn a_frame_that_claims_no_offload_is_verified() {
        let (mut packet, header) = segment(8);
        checksum::complete(packet.bytes_mut(), &header);
        packet.checksums = Checksums::Complete;
        let frame = write(&packet, &header, 1500);
        assert_eq!(frame[..LENGTH], [0; LENGTH]);
        assert_eq!(read(&frame).map(|(_, checksums, _)| checksums), Some(Checksums::Complete));
        assert!(read(&frame[..9]).is_none());
    }
}
