//! SCTP, as far as a network without an SCTP stack speaks it: hosts here know no associations, and say so.
//!
//! The switch forwards SCTP by port, its payload opaque. A host answers as one without any association (RFC 9260, 8.4):
//! whoever tries to open one is refused at once instead of waiting for an answer that cannot come.

use crate::flow_key::protocol;
use crate::packet::{Header, Packet, Pool, be16, be32, build, flag, set16, set32};

const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// The T bit: the verification tag is the receiver's own, reflected.
const REFLECTED: u8 = 1;
/// Ports, verification tag, checksum.
const COMMON: usize = 12;

/// TCP's control bits that mean the same: SYN for INIT, RST for what ends an association at once.
pub(crate) fn flags(segment: &[u8]) -> u8 {
    match segment.get(COMMON) {
        Some(&INIT) => flag::SYN,
        Some(&ABORT | &SHUTDOWN_COMPLETE) => flag::RST,
        _ => 0,
    }
}

/// What a host without the association says; `None` if it must keep quiet.
pub(crate) fn answer(pool: &mut Pool, packet: &[u8], header: &Header) -> Option<Packet> {
    let segment = header.segment(packet);
    let first = *segment.get(COMMON)?;
    if matches!(first, SHUTDOWN_COMPLETE | COOKIE_ACK | ERROR) || has_abort(segment) {
        return None;
    }
    let tag = be32(segment, 4);
    let (kind, flags, tag) = match first {
        // RFC 9260, 3.3.2: the initiate tag follows the chunk's header.
        INIT if segment.len() >= COMMON + 8 => (ABORT, 0, be32(segment, COMMON + 4)),
        INIT => return None,
        SHUTDOWN_ACK => (SHUTDOWN_COMPLETE, REFLECTED, tag),
        _ => (ABORT, REFLECTED, tag),
    };
    debug_assert_eq!(header.key.protocol, protocol::SCTP);
    let (mut answer, at) = build(pool, &header.key.reversed(), COMMON + 4);
    let bytes = &mut answer.bytes_mut()[at..];
    set16(bytes, 0, header.key.dst_port);
    set16(bytes, 2, header.key.src_port);
    set32(bytes, 4, tag);
    set32(bytes, 8, 0); // filled in when it leaves the process
    bytes[COMMON..].copy_from_slice(&[kind, flags, 0, 4]);
    Some(answer)
}

/// Whether any chunk is an ABORT: to such a packet nothing is answered.
fn has_abort(segment: &[u8]) -> bool {
    let mut at = COMMON;
    while at + 4 <= segment.len() {
        if segment[at] == ABORT {
            return true;
        }
        // Chunks are padded to four bytes; one shorter than its own header ends the walk.
        match usize::from(be16(segment, at + 2)) {
            length @ 4.. => at += length.next_multiple_of(4),
            _ => return false,
        }
    }
    false
}
