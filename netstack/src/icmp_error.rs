//! ICMP errors in the [`switch`](crate::switch): each belongs to the flow of the packet that it quotes, and is translated with it.
//!
//! Follows RFC 5508, 4.2.

use crate::checksum;
use crate::flow_key::{FlowKey, protocol};
use crate::flow_table::{Direction, Judgement};
use crate::packet::{self, Checksums, Header, Icmp, Packet, be16, parse_quoted, set16};
use crate::rewrite::rewrite;
use crate::switch::{INVALID, Ingress, NO_ROUTE, Outcome, Switch, Trust};
use tokio::time::Instant;

impl Switch {
    /// An ICMP error: it belongs to the flow of the packet it quotes, and is translated with it.
    pub(crate) fn related(&mut self, packet: &mut Packet, header: &mut Header, from: Ingress, now: Instant) -> Outcome {
        let at = header.transport + 8;
        let Some(quoted) = packet.bytes().get(at..header.end).and_then(parse_quoted) else {
            return Outcome::Drop(packet::MALFORMED);
        };
        // The quoted packet went the other way than the error goes.
        let Some((id, direction)) = self.flows.lookup(&quoted.key.reversed(), now) else {
            let own = from.trust == Trust::Stack && self.route(header.key.dst) == Some(from.port);
            return if own { Outcome::Local } else { Outcome::Drop(INVALID) };
        };
        let epoch = self.epoch;
        let Some(flow) = self.flows.get_mut(id) else { return Outcome::Drop(INVALID) };
        match flow.judgement {
            Judgement::Accepted => {}
            Judgement::Dropped(reason) | Judgement::Rejected(reason) => return Outcome::Drop(reason),
        }
        if flow.epoch != epoch {
            let (original, translated, tags) = (flow.original, flow.translated, (flow.from.1, flow.to.1));
            let opened = flow.opened;
            let judgement = self.judge(&original, &translated, tags, Some(opened));
            if let Judgement::Dropped(reason) | Judgement::Rejected(reason) = judgement {
                return Outcome::Drop(reason);
            }
        }
        let Some(flow) = self.flows.get_mut(id) else { return Outcome::Drop(INVALID) };
        let (key, rewritten) = flow.rewrite(direction);
        let (exit, _) = if direction == Direction::Original { flow.to } else { flow.from };
        if header.key.dst != key.dst && from.trust != Trust::Stack {
            return Outcome::Drop(INVALID);
        }
        if !self.is_attached(exit, rewritten.dst) {
            return Outcome::Drop(NO_ROUTE);
        }
        if key != rewritten {
            // The inner packet goes back to what its sender sent; the outer one comes from where it was sent to.
            let mut inner = quoted;
            let complete = packet.checksums == Checksums::Complete;
            rewrite_quoted(packet, at, &mut inner, &rewritten.reversed());
            let src = if header.key.src == key.src { rewritten.src } else { header.key.src };
            let outer = FlowKey { src, dst: rewritten.dst, ..header.key };
            rewrite(packet, header, &outer);
            if complete {
                checksum::complete(packet.bytes_mut(), header);
            }
        }
        Outcome::Deliver(exit)
    }
}

/// Translates the packet quoted at `at`. Its transport checksum stays as quoted: it cannot be verified anyway.
fn rewrite_quoted(packet: &mut Packet, at: usize, inner: &mut Header, to: &FlowKey) {
    let v4 = inner.key.is_v4();
    let bytes = &mut packet.bytes_mut()[at..];
    if v4 {
        let (mut old, mut new) = ([0; 8], [0; 8]);
        old.copy_from_slice(&bytes[12..20]);
        new[..4].copy_from_slice(&(to.src as u32).to_be_bytes());
        new[4..].copy_from_slice(&(to.dst as u32).to_be_bytes());
        bytes[12..20].copy_from_slice(&new);
        let sum = checksum::adjust(be16(bytes, 10), &old, &new);
        set16(bytes, 10, sum);
    } else {
        bytes[8..24].copy_from_slice(&to.src.to_be_bytes());
        bytes[24..40].copy_from_slice(&to.dst.to_be_bytes());
    }
    match inner.key.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            set16(bytes, inner.transport, to.src_port);
            set16(bytes, inner.transport + 2, to.dst_port);
        }
        protocol::ICMP | protocol::ICMPV6 if inner.icmp != Icmp::Other => {
            set16(bytes, inner.transport + 4, to.src_port);
        }
        _ => {}
    }
    inner.key = *to;
}
