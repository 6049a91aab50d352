//! The pcapng file format, as much of it as a capture of IP packets needs.
//!
//! Follows draft-ietf-opsawg-pcapng: Section Header, Interface Description and Enhanced Packet Blocks, little-endian. Interfaces are
//! described when they are first seen, which the format allows, so that a capture can be read while it is written.

use std::time::Duration;

/// LINKTYPE_RAW: packets begin with their IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const SHB_USERAPPL: u16 = 4;
const IF_TSRESOL: u16 = 9;
/// Timestamps count nanoseconds: 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// Writes blocks, and remembers which interfaces it has described.
#[derive(Debug, Default)]
pub(super) struct Writer {
    interfaces: Vec<String>,
}

impl Writer {
    /// The beginning of a file.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend([1u16.to_le_bytes(), 0u16.to_le_bytes()].concat());
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, SHB_USERAPPL, concat!("coracle ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, END_OF_OPTIONS, &[]);
        block(SECTION_HEADER, &body)
    }

    /// A packet seen on `interface` at `time` since the Unix epoch, with a comment if there is something to say.
    pub(super) fn packet(&mut self, interface: &str, time: Duration, packet: &[u8], comment: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(packet.len() + 64);
        let known = self.interfaces.iter().position(|known| known == interface);
        let index = known.unwrap_or_else(|| {
            out.extend(description(interface));
            self.interfaces.push(interface.to_owned());
            self.interfaces.len() - 1
        });
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let mut body = Vec::with_capacity(packet.len() + 48);
        body.extend(u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes());
        body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
        body.extend((nanoseconds as u32).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(length.to_le_bytes());
        padded(&mut body, packet);
        if let Some(comment) = comment {
            option(&mut body, COMMENT, comment.as_bytes());
            option(&mut body, END_OF_OPTIONS, &[]);
        }
        out.extend(block(ENHANCED_PACKET, &body));
        out
    }
}

fn description(interface: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LINKTYPE_RAW.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    // No packet is cut.
    body.extend(0u32.to_le_bytes());
    option(&mut body, IF_NAME, interface.as_bytes());
    option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
    option(&mut body, END_OF_OPTIONS, &[]);
    block(INTERFACE_DESCRIPTION, &body)
}

/// Type, length, body, and the length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    [&kind.to_le_bytes(), &length, body, &length].concat()
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

/// Everything is a multiple of 32 bits long.
fn padded(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_blocks_whose_lengths_agree() {
        let mut writer = Writer::default();
        let mut file = writer.header();
        for (interface, comment) in [("a", None), ("b", Some("dropped")), ("a", None)] {
            file.extend(writer.packet(interface, Duration::from_nanos(0x1_0000_0002), &[0x45; 21], comment));
        }
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let (mut at, mut kinds) = (0, Vec::new());
        while at < file.len() {
            let length = word(at + 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(at + length - 4) as usize, length, "the length stands at both ends");
            if word(at) == ENHANCED_PACKET {
                kinds.push(format!(
                    "packet on {} at {}:{}, {} bytes",
                    word(at + 8),
                    word(at + 12),
                    word(at + 16),
                    word(at + 20)
                ));
            } else {
                kinds.push(format!("block {:#x}", word(at)));
            }
            at += length;
        }
        assert_eq!(
            kinds,
            [
                "block 0xa0d0d0a",
                "block 0x1",
                "packet on 0 at 1:2, 21 bytes",
                "block 0x1",
                "packet on 1 at 1:2, 21 bytes",
                "packet on 0 at 1:2, 21 bytes"
            ]
        );
    }
}
