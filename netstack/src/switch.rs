//! The switch: a function from a packet and the port it came in by to what becomes of it.
//!
//! [`Switch::forward`] runs to completion on the caller's thread: flow table, or on a miss the hooks; then it rewrites the
//! packet and names the port to deliver it to. It knows no sockets and no queues: [`core`](crate::core) carries out what
//! it says. The destination's own answers (port unreachable, RST) come back in as packets of that port; errors about packets of a
//! known flow are [`icmp_error`](crate::icmp_error)'s.

use crate::answer::Refusal;
use crate::checksum;
use crate::default_route::DefaultRoute;
use crate::flow::{Filter, FiveTuple, Hooks, NewFlow, PortTag, Reason, Translate, Translation, Verdict};
use crate::flow_key::{Address, FlowKey, Map, Seeded, address, is_loopback, is_unicast, protocol};
use crate::flow_log::{FlowChange, Seen};
use crate::flow_table::{Direction, Flow, FlowId, FlowTable, Judgement};
use crate::packet::{self, Checksums, Header, Icmp, MARTIAN, Packet};
use crate::port::PortId;
use crate::rewrite::{clamp_mss, rewrite};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) const NO_ROUTE: Reason = Reason("NO_ROUTE");
pub(crate) const INVALID: Reason = Reason("INVALID");
const BAD_CHECKSUM: Reason = Reason("BAD_CHECKSUM");
const SPOOFED_SOURCE: Reason = Reason("SPOOFED_SOURCE");
const TABLE_FULL: Reason = Reason("CONNTRACK_FULL");
const NO_FREE_PORT: Reason = Reason("SNAT_PORTS_EXHAUSTED");
const FAMILY_MISMATCH: Reason = Reason("ADDRESS_FAMILY");

/// Source ports tried before a flow is refused: finds one unless nearly all are taken, and bounds what a packet can cost.
const SOURCE_PORT_ATTEMPTS: u32 = 1024;
/// Flows the table may hold.
const FLOWS: usize = 1 << 18;

/// Where a packet enters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ingress {
    pub(crate) port: PortId,
    pub(crate) tag: PortTag,
    pub(crate) trust: Trust,
}

/// How much is believed of what a port sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A stack of ours: no checksums, and any source address it chooses.
    Stack,
    /// Somebody else's packets: checksums are verified and the source must be an address of the port.
    Foreign,
    /// Somebody else's packets from anywhere.
    Promiscuous,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes, as rewritten, to this port.
    Deliver(PortId),
    /// It stays on the host that sent it.
    Local,
    /// It is dropped, and its sender is told.
    Refuse(Refusal, Reason),
    /// It is dropped.
    Drop(Reason),
}

/// The routes, the flows and the hooks.
pub(crate) struct Switch {
    routes: Map<Address, (PortId, PortTag)>,
    pub(crate) default_route: DefaultRoute,
    pub(crate) flows: FlowTable,
    hooks: Hooks,
    pub(crate) epoch: u64,
    mtu: usize,
    rng: SmallRng,
}

/// Hooks that pass and accept everything.
struct Open;

impl Translate for Open {
    fn translate(&self, _: &FiveTuple, _: PortTag, _: Instant) -> Translation {
        Translation::Pass
    }
}

impl Filter for Open {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

impl Switch {
    pub(crate) fn new(mtu: usize, rng: &mut SmallRng) -> Switch {
        Switch {
            routes: Map::with_hasher(Seeded(rng.random())),
            default_route: DefaultRoute::default(),
            flows: FlowTable::new(FLOWS, rng.random()),
            hooks: Hooks { translate: Arc::new(Open), filter: Arc::new(Open) },
            epoch: 0,
            mtu,
            rng: SmallRng::seed_from_u64(rng.random()),
        }
    }

    /// Swaps the hooks and begins a new epoch; the old hooks, to be dropped by the caller outside its lock.
    pub(crate) fn install(&mut self, hooks: Hooks) -> Hooks {
        self.epoch += 1;
        std::mem::replace(&mut self.hooks, hooks)
    }

    pub(crate) fn reevaluate(&mut self) {
        self.epoch += 1;
    }

    pub(crate) fn route(&self, to: Address) -> Option<PortId> {
        self.routes.get(&to).map(|(port, _)| *port)
    }

    pub(crate) fn attach(&mut self, address: Address, port: PortId, tag: PortTag) {
        self.routes.insert(address, (port, tag));
    }

    pub(crate) fn detach(&mut self, address: Address, port: PortId) {
        if self.route(address) == Some(port) {
            self.routes.remove(&address);
        }
    }

    fn exit(&self, to: Address) -> Option<(PortId, PortTag)> {
        match self.routes.get(&to) {
            Some(route) => Some(*route),
            // PortTag 0 is the gateway.
            None => self.default_route.port(to).map(|port| (port, PortTag(0))),
        }
    }

    /// Decides over one packet and rewrites it. The header describes the packet as it is afterwards.
    ///
    /// # Errors
    /// The reason to drop a packet whose headers make no sense.
    pub(crate) fn forward(
        &mut self,
        packet: &mut Packet,
        from: Ingress,
        now: Instant,
    ) -> Result<(Header, Outcome), Reason> {
        let mut header = packet::parse(packet.bytes())?;
        packet.truncate(header.end);
        if from.trust != Trust::Stack {
            self.check_foreign(packet, &header, from)?;
        } else if is_loopback(header.key.dst) {
            return Ok((header, Outcome::Local));
        }
        if header.key.protocol == protocol::TCP && header.flags & packet::flag::SYN != 0 {
            clamp_mss(packet, &header, self.mtu);
        }
        if header.is_icmp_error() {
            let outcome = self.related(packet, &mut header, from, now);
            return Ok((header, outcome));
        }
        let outcome = loop {
            let Some((id, direction)) = self.flows.lookup(&header.key, now) else {
                break self.open(packet, &mut header, from, now);
            };
            match self.follow(id, direction, packet, &mut header, now) {
                Some(outcome) => break outcome,
                // Dead or doubtful: forgotten, so that the next lookup misses.
                None => {
                    self.flows.remove(id);
                }
            }
        };
        Ok((header, outcome))
    }

    fn check_foreign(&self, packet: &Packet, header: &Header, from: Ingress) -> Result<(), Reason> {
        if is_loopback(header.key.dst) {
            return Err(MARTIAN);
        }
        if packet.checksums == Checksums::Complete && !checksum::is_valid(packet.bytes(), header) {
            return Err(BAD_CHECKSUM);
        }
        if from.trust == Trust::Foreign && self.route(header.key.src) != Some(from.port) {
            return Err(SPOOFED_SOURCE);
        }
        Ok(())
    }

    /// A packet of a known flow. `None` if the flow is to be forgotten and the packet to be seen as the first of a new one.
    fn follow(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &mut Packet,
        header: &mut Header,
        now: Instant,
    ) -> Option<Outcome> {
        let epoch = self.epoch;
        let flow = self.flows.get_mut(id)?;
        if flow.is_closing() && header.is_syn() {
            return None;
        }
        if flow.epoch != epoch {
            if !flow.was_accepted {
                return None;
            }
            let (original, translated) = (flow.original, flow.translated);
            let (tags, opened) = ((flow.from.1, flow.to.1), flow.opened);
            let judgement = self.judge(&original, &translated, tags, Some(opened));
            let flow = self.flows.get_mut(id)?;
            flow.judgement = judgement;
            flow.epoch = epoch;
        }
        let flow = self.flows.get_mut(id)?;
        let (judgement, flags) = (flow.judgement, header.flags);
        if let Judgement::Dropped(reason) | Judgement::Rejected(reason) = judgement {
            self.flows.tell(id, Seen { change: FlowChange::Dropped(reason), direction, flags });
            return Some(match judgement {
                Judgement::Rejected(_) => Outcome::Refuse(Refusal::Prohibited, reason),
                _ => Outcome::Drop(reason),
            });
        }
        let (key, rewritten) = flow.rewrite(direction);
        let (exit, _) = if direction == Direction::Original { flow.to } else { flow.from };
        let unanswered = direction == Direction::Original
            && (flow.original.protocol != protocol::TCP || (!flow.has_reply() && header.is_syn()));
        if !self.is_attached(exit, rewritten.dst) {
            return match self.exit(rewritten.dst) {
                // Nobody there any more, and nothing to lose: the translation may know somebody else.
                _ if unanswered => None,
                // Somebody else has the address now; whether that is allowed is another question.
                Some(exit) => {
                    let flow = self.flows.get_mut(id)?;
                    *(if direction == Direction::Original { &mut flow.to } else { &mut flow.from }) = exit;
                    flow.epoch = epoch.wrapping_sub(1);
                    self.follow(id, direction, packet, header, now)
                }
                None => {
                    self.flows.tell(id, Seen { change: FlowChange::Dropped(NO_ROUTE), direction, flags });
                    Some(Outcome::Drop(NO_ROUTE))
                }
            };
        }
        let flow = self.flows.get_mut(id)?;
        if let Some(change) = flow.see(direction, header, packet.len(), now) {
            self.flows.tell(id, Seen { change, direction, flags });
        }
        self.flows.reclassify(id);
        if key != rewritten {
            rewrite(packet, header, &rewritten);
        }
        Some(Outcome::Deliver(exit))
    }

    /// Tells that a host has not taken a packet which was delivered to it.
    pub(crate) fn not_taken(&mut self, header: &Header, reason: Reason, now: Instant) {
        // As it arrived: the key is the flow's translated one, whose reverse is that of the way back.
        if let Some((id, Direction::Reply)) = self.flows.lookup(&header.key.reversed(), now) {
            let seen =
                Seen { change: FlowChange::Dropped(reason), direction: Direction::Original, flags: header.flags };
            self.flows.tell(id, seen);
        }
    }

    /// Whether packets to `to` still leave by `port`.
    pub(crate) fn is_attached(&self, port: PortId, to: Address) -> bool {
        match self.routes.get(&to) {
            Some((at, _)) => *at == port,
            None => self.default_route.port == Some(port),
        }
    }

    /// `since`: when it was let in, if it has been.
    pub(crate) fn judge(
        &self,
        original: &FlowKey,
        translated: &FlowKey,
        (from, to): (PortTag, PortTag),
        since: Option<Instant>,
    ) -> Judgement {
        let flow = NewFlow { original: original.five_tuple(), translated: translated.five_tuple(), from, to };
        let filter = &self.hooks.filter;
        match since.map_or_else(|| filter.verdict(&flow), |since| filter.verdict_again(&flow, since)) {
            Verdict::Accept => Judgement::Accepted,
            Verdict::Drop(reason) => Judgement::Dropped(reason),
            Verdict::Reject(reason) => Judgement::Rejected(reason),
        }
    }

    /// The first packet of a flow, and what the log says of it.
    fn open(&mut self, packet: &mut Packet, header: &mut Header, from: Ingress, now: Instant) -> Outcome {
        let (original, flags) = (header.key, header.flags);
        let mut way = (original, None);
        let outcome = self.try_open(packet, header, from, &mut way, now);
        if let Outcome::Drop(reason) | Outcome::Refuse(_, reason) = outcome {
            self.flows.log.refused((original, way.0), (from.tag, way.1), reason, flags);
        }
        outcome
    }

    /// `way`: how far it came, as the destination would have seen it, and by which port it would have left.
    fn try_open(
        &mut self,
        packet: &mut Packet,
        header: &mut Header,
        from: Ingress,
        way: &mut (FlowKey, Option<PortTag>),
        now: Instant,
    ) -> Outcome {
        if from.trust == Trust::Stack && self.route(header.key.dst) == Some(from.port) {
            return Outcome::Local;
        }
        if header.is_reset() || header.icmp == Icmp::EchoReply {
            return Outcome::Drop(INVALID);
        }
        let original = header.key;
        let (mut translated, snat) = match self.hooks.translate.translate(&original.five_tuple(), from.tag, now) {
            Translation::Pass => (original, None),
            Translation::To { dst, snat } => {
                if dst.is_ipv4() != original.is_v4() || snat.is_some_and(|ip| ip.is_ipv4() != original.is_v4()) {
                    return Outcome::Drop(FAMILY_MISMATCH);
                }
                let mut key = FlowKey { dst: address(dst.ip()), ..original };
                if !header.is_icmp() {
                    key.dst_port = dst.port();
                }
                (key, snat.map(address))
            }
            Translation::Reject(reason) => return Outcome::Refuse(Refusal::Port, reason),
            Translation::Drop(reason) => return Outcome::Drop(reason),
        };
        if is_loopback(translated.dst) || !is_unicast(translated.dst) {
            return Outcome::Drop(MARTIAN);
        }
        way.0 = translated;
        let Some(exit) = self.exit(translated.dst) else {
            return Outcome::Drop(NO_ROUTE);
        };
        way.1 = Some(exit.1);
        if let Some(src) = snat {
            translated.src = src;
        }
        if !self.choose_source_port(&original, &mut translated, header.is_syn(), now) {
            // Unlike Linux, which drops: a client that is told tries again or says so, instead of hanging.
            return Outcome::Refuse(Refusal::Host, NO_FREE_PORT);
        }
        way.0 = translated;
        let mut flow = Flow::new(original, translated, (from.port, from.tag), exit, now);
        flow.judgement = self.judge(&original, &translated, (from.tag, exit.1), None);
        flow.epoch = self.epoch;
        flow.was_accepted = flow.judgement == Judgement::Accepted;
        let outcome = match flow.judgement {
            Judgement::Accepted => Outcome::Deliver(exit.0),
            Judgement::Dropped(reason) => Outcome::Drop(reason),
            Judgement::Rejected(reason) => Outcome::Refuse(Refusal::Prohibited, reason),
        };
        if flow.was_accepted {
            let _ = flow.see(Direction::Original, header, packet.len(), now);
            let flags = header.flags;
            let Some(id) = self.flows.insert(flow, now) else { return Outcome::Drop(TABLE_FULL) };
            self.flows.tell(id, Seen { change: FlowChange::Opened, direction: Direction::Original, flags });
            if original != translated {
                rewrite(packet, header, &translated);
            }
        } else {
            self.flows.insert(flow, now);
        }
        outcome
    }

    /// Gives `translated` a source port with which replies can be told from those of every other flow.
    ///
    /// The source's own port if it is free; otherwise a random one and, from there, the next that is (RFC 6056, 3.3.2). A new
    /// connection may also have that of one which has ended and is only remembered for late segments.
    fn choose_source_port(&mut self, original: &FlowKey, translated: &mut FlowKey, opens: bool, now: Instant) -> bool {
        // The reply of a hairpin without SNAT is the flow itself, reversed: only other flows are in the way.
        if !self.flows.is_taken(&translated.reversed(), now) {
            return true;
        }
        if original.src_port == 0 {
            return false;
        }
        let echo = matches!(original.protocol, protocol::ICMP | protocol::ICMPV6);
        let (first, count) = (1024u32, 64_512u32);
        let start = self.rng.random_range(0..count);
        for reuse in [false, true] {
            for step in 0..SOURCE_PORT_ATTEMPTS {
                let port = (first + (start + step) % count) as u16;
                translated.src_port = port;
                if echo {
                    translated.dst_port = port;
                }
                let reply = translated.reversed();
                if if reuse { self.flows.reuse(&reply, now) } else { !self.flows.is_taken(&reply, now) } {
                    return true;
                }
            }
            if !opens {
                break;
            }
        }
        false
    }
}
