//! Connection tracking: every flow with its translation, its verdict and its timeout, found by the key of either direction.
//!
//! Lookups are exact about time: an expired flow is never found. Memory is given back by [`FlowTable::expire`], which
//! walks queues of flows in the order in which they fall due, so nothing ever scans the table. Whether a flow may pass
//! is decided by the [`switch`](crate::switch), which owns the table.

use crate::arena::{Arena, Id};
use crate::flow::{PortTag, Reason};
use crate::flow_key::{FlowKey, Map, Seeded, protocol};
use crate::flow_log::{FlowChange, FlowEnd, FlowLog, Seen};
use crate::network::FlowInfo;
use crate::packet::{Header, flag};
use crate::port::PortId;
use crate::timeouts::{CLASSES, Class, EVICTABLE, Timeouts};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The key of a flow in the table.
pub(crate) type FlowId = Id<Flow>;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// As the flow's first packet.
    Original = 0,
    /// Back.
    Reply = 1,
}

/// What is kept of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Accepted,
    /// Dropped in silence.
    Dropped(Reason),
    /// Answered with an error.
    Rejected(Reason),
}

/// Lookups are exact about time; giving memory back may wait for company.
const SLACK: Duration = Duration::from_secs(1);

/// Entries of a queue whose flow has moved on are swept out when there are more of them than of live ones and this.
const STALE: usize = 1024;

/// One tracked flow.
#[derive(Debug)]
pub(crate) struct Flow {
    /// As the source sends it.
    pub(crate) original: FlowKey,
    /// As the destination sees it.
    pub(crate) translated: FlowKey,
    pub(crate) from: (PortId, PortTag),
    pub(crate) to: (PortId, PortTag),
    pub(crate) judgement: Judgement,
    /// Whether it ever passed: then its translation outlives a denial.
    pub(crate) was_accepted: bool,
    /// The epoch of the judgement.
    pub(crate) epoch: u64,
    pub(crate) opened: Instant,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) last_seen: Instant,
    fins: [bool; 2],
    reset: bool,
    replied: bool,
    /// The opener has spoken again after the reply.
    confirmed: bool,
    class: Class,
}

impl Flow {
    pub(crate) fn new(
        original: FlowKey,
        translated: FlowKey,
        from: (PortId, PortTag),
        to: (PortId, PortTag),
        now: Instant,
    ) -> Flow {
        Flow {
            original,
            translated,
            from,
            to,
            judgement: Judgement::Accepted,
            was_accepted: false,
            epoch: 0,
            opened: now,
            packets: [0; 2],
            bytes: [0; 2],
            last_seen: now,
            fins: [false; 2],
            reset: false,
            replied: false,
            confirmed: false,
            class: Class::Unreplied,
        }
    }

    /// What the key of a packet going that way is, and what it becomes.
    pub(crate) fn rewrite(&self, direction: Direction) -> (FlowKey, FlowKey) {
        match direction {
            Direction::Original => (self.original, self.translated),
            Direction::Reply => (self.translated.reversed(), self.original.reversed()),
        }
    }

    /// Whether a SYN on it opens a new connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.reset || self.fins == [true; 2]
    }

    /// Whether the destination has ever answered.
    pub(crate) fn has_reply(&self) -> bool {
        self.replied
    }

    /// Counts a packet and follows the protocol's state (RFC 9293, 3.3.2, as seen from outside). What that is for the flow, if
    /// it is anything.
    pub(crate) fn see(
        &mut self,
        direction: Direction,
        header: &Header,
        length: usize,
        now: Instant,
    ) -> Option<FlowChange> {
        let was_closing = self.is_closing();
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += length as u64;
        self.last_seen = now;
        if header.flags & flag::FIN != 0 {
            self.fins[direction as usize] = true;
        }
        if header.flags & flag::RST != 0 {
            self.reset = true;
        }
        let was_replied = self.replied;
        match direction {
            Direction::Reply => self.replied = true,
            Direction::Original if self.replied => self.confirmed = true,
            Direction::Original => {}
        }
        if self.is_closing() != was_closing {
            Some(FlowChange::Ended(if self.reset { FlowEnd::Reset } else { FlowEnd::Closed }))
        } else {
            (self.replied != was_replied).then_some(FlowChange::Answered)
        }
    }

    fn class(&self) -> Class {
        if !self.was_accepted {
            return Class::Denied;
        }
        match self.original.protocol {
            protocol::TCP | protocol::SCTP if self.is_closing() => Class::Closing,
            protocol::TCP if !self.replied => Class::SynSent,
            protocol::TCP if !self.confirmed => Class::Handshake,
            protocol::TCP if self.fins != [false; 2] => Class::HalfClosed,
            protocol::TCP => Class::Established,
            protocol::ICMP | protocol::ICMPV6 => Class::Echo,
            _ if !self.replied => Class::Unreplied,
            protocol::SCTP => Class::Sctp,
            _ => Class::Stream,
        }
    }

    fn is_expired(&self, now: Instant, timeouts: &Timeouts) -> bool {
        now.saturating_duration_since(self.last_seen) >= timeouts.of(self.class)
    }

    pub(crate) fn info(&self, now: Instant) -> FlowInfo {
        FlowInfo {
            original: self.original.five_tuple(),
            translated: self.translated.five_tuple(),
            from: self.from.1,
            to: self.to.1,
            dropped: match self.judgement {
                Judgement::Accepted => None,
                Judgement::Dropped(reason) | Judgement::Rejected(reason) => Some(reason),
            },
            packets: self.packets,
            bytes: self.bytes,
            idle: now.saturating_duration_since(self.last_seen),
        }
    }
}

/// All flows.
pub(crate) struct FlowTable {
    flows: Arena<Flow>,
    keys: Map<FlowKey, (FlowId, Direction)>,
    /// Per class, flows in the order of the time at which they were last looked at. A flow that moves on to another class
    /// leaves its entry behind.
    queues: [VecDeque<(Instant, FlowId)>; CLASSES.len()],
    /// How many flows each class has.
    live: [usize; CLASSES.len()],
    timeouts: Timeouts,
    /// When the first flow may fall due.
    earliest: Option<Instant>,
    capacity: usize,
    denied: usize,
    pub(crate) log: FlowLog,
}

impl FlowTable {
    pub(crate) fn new(capacity: usize, seed: u64) -> FlowTable {
        FlowTable {
            flows: Arena::new(),
            keys: Map::with_hasher(Seeded(seed)),
            queues: Default::default(),
            live: [0; CLASSES.len()],
            timeouts: Timeouts::default(),
            earliest: None,
            capacity,
            denied: 0,
            log: FlowLog::new(),
        }
    }

    /// The live flow that has `key` in one of its directions.
    pub(crate) fn lookup(&mut self, key: &FlowKey, now: Instant) -> Option<(FlowId, Direction)> {
        let (id, direction) = *self.keys.get(key)?;
        if self.flows.get(id)?.is_expired(now, &self.timeouts) {
            self.remove(id);
            return None;
        }
        Some((id, direction))
    }

    /// Changes how long flows are remembered, those that are there included.
    pub(crate) fn set_timeouts(&mut self, timeouts: Timeouts, now: Instant) {
        self.timeouts = timeouts;
        self.expire(now);
    }

    /// How many flows there may be.
    pub(crate) fn limit(&self) -> usize {
        self.capacity
    }

    pub(crate) fn set_limit(&mut self, flows: usize) {
        self.capacity = flows;
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id)
    }

    /// Whether a live flow has that key.
    pub(crate) fn is_taken(&mut self, key: &FlowKey, now: Instant) -> bool {
        self.lookup(key, now).is_some()
    }

    /// Makes room for a new connection where one has ended (RFC 6191): forgets it. Whether `key` is free now.
    pub(crate) fn reuse(&mut self, key: &FlowKey, now: Instant) -> bool {
        let Some((id, _)) = self.lookup(key, now) else { return true };
        let is_over = self.flows.get(id).is_some_and(Flow::is_closing);
        if is_over {
            self.remove(id);
        }
        is_over
    }

    /// Installs both directions. `None` if the table is full of flows that are alive.
    ///
    /// Denied flows may take an eighth of the table; beyond that they are not remembered but judged packet by packet.
    pub(crate) fn insert(&mut self, mut flow: Flow, now: Instant) -> Option<FlowId> {
        let is_denied = !flow.was_accepted;
        if is_denied && self.denied >= self.capacity / 8 {
            return None;
        }
        if self.flows.len() >= self.capacity && !self.evict() {
            return None;
        }
        flow.class = flow.class();
        let (class, original, reply) = (flow.class, flow.original, flow.translated.reversed());
        let id = self.flows.insert(flow);
        self.keys.insert(original, (id, Direction::Original));
        if !is_denied {
            // A denied flow has no way back that could be taken.
            self.keys.insert(reply, (id, Direction::Reply));
        }
        self.denied += usize::from(is_denied);
        self.enqueue(class, now, id);
        Some(id)
    }

    fn enqueue(&mut self, class: Class, since: Instant, id: FlowId) {
        let due = since + self.timeouts.of(class) + SLACK;
        if self.earliest.is_none_or(|earliest| due < earliest) {
            self.earliest = Some(due);
        }
        let (live, queue) = (&mut self.live[class as usize], &mut self.queues[class as usize]);
        *live += 1;
        queue.push_back((since, id));
        if queue.len() > 2 * *live + STALE {
            // Behind one idle connection the entries of all that came and went would wait for a day.
            let flows = &self.flows;
            queue.retain(|(_, id)| flows.get(*id).is_some_and(|flow| flow.class == class));
        }
    }

    /// Puts a flow that changed its state into the queue of its new timeout.
    pub(crate) fn reclassify(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(id) {
            let class = flow.class();
            if class != flow.class {
                let before = std::mem::replace(&mut flow.class, class);
                let since = flow.last_seen;
                self.live[before as usize] -= 1;
                self.enqueue(class, since, id);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(id)?;
        for key in [flow.original, flow.translated.reversed()] {
            if self.keys.get(&key).is_some_and(|(owner, _)| *owner == id) {
                self.keys.remove(&key);
            }
        }
        self.denied -= usize::from(!flow.was_accepted);
        self.live[flow.class as usize] -= 1;
        if flow.was_accepted && !flow.is_closing() {
            let change = FlowChange::Ended(FlowEnd::Forgotten);
            self.log.flow(&flow, Seen { change, direction: Direction::Original, flags: 0 });
        }
        Some(flow)
    }

    /// How many flows there are, live or not given back yet.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Tells what happened to a flow.
    pub(crate) fn tell(&mut self, id: FlowId, seen: Seen) {
        if let Some(flow) = self.flows.get(id) {
            self.log.flow(flow, seen);
        }
    }

    /// Forgets what has been silent for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for (index, class) in CLASSES.iter().enumerate() {
            while let Some((since, id)) = self.queues[index].front().copied() {
                let Some(flow) = self.flows.get(id).filter(|flow| flow.class == *class) else {
                    self.queues[index].pop_front();
                    continue;
                };
                if flow.is_expired(now, &self.timeouts) {
                    self.remove(id);
                } else if now.saturating_duration_since(since) >= self.timeouts.of(*class) {
                    let seen = flow.last_seen;
                    self.queues[index].push_back((seen, id));
                } else {
                    break;
                }
                self.queues[index].pop_front();
            }
        }
        let due = |(index, class): (usize, &Class)| {
            self.queues[index].front().map(|(since, _)| *since + self.timeouts.of(*class) + SLACK)
        };
        self.earliest = CLASSES.iter().enumerate().filter_map(due).min();
    }

    /// When to call [`expire`](Self::expire).
    pub(crate) fn due(&self) -> Option<Instant> {
        self.earliest
    }

    fn evict(&mut self) -> bool {
        for (index, class) in CLASSES.iter().enumerate().take(EVICTABLE) {
            while let Some((_, id)) = self.queues[index].pop_front() {
                if self.flows.get(id).is_some_and(|flow| flow.class == *class) {
                    self.remove(id);
                    return true;
                }
            }
        }
        false
    }

    /// Forgets the flows, or those of a protocol (its IANA number), for which `keep` is false.
    pub(crate) fn retain(&mut self, protocol: Option<u8>, now: Instant, mut keep: impl FnMut(&FlowInfo) -> bool) {
        let of_protocol =
            self.flows.iter().filter(|(_, flow)| protocol.is_none_or(|only| flow.original.protocol == only));
        let ids: Vec<_> = of_protocol.filter(|(_, flow)| !keep(&flow.info(now))).map(|(id, _)| id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Forgets the flows whose packets are dropped.
    pub(crate) fn forget_dropped(&mut self) {
        let dropped = self.flows.iter().filter(|(_, flow)| flow.judgement != Judgement::Accepted);
        let ids: Vec<_> = dropped.map(|(id, _)| id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// All live flows.
    pub(crate) fn infos(&self, now: Instant) -> Vec<FlowInfo> {
        self.flows
            .iter()
            .filter(|(_, flow)| !flow.is_expired(now, &self.timeouts))
            .map(|(_, flow)| flow.info(now))
            .collect()
    }
}

#[cfg(test)]
mod tests;
