//! The one lock of a network and the pump behind it.
//!
//! Whoever calls in - a task that writes, the timer, a raw port - takes the lock, does its deed and pumps: every packet
//! that follows from it is forwarded and taken in by its destination before the lock is let go. There is no recursion:
//! packets wait in `inbox`, connections that may have something to send in `dirty`. Tasks are woken after the lock
//! is released. Nothing is queued between two hosts, so nothing is lost between them.

use crate::answer;
use crate::arena::Arena;
use crate::flow::{PortTag, Reason};
use crate::flow_key::Map;
use crate::gateway::GatewayState;
use crate::network::Config;
use crate::packet::{Packet, Pool};
use crate::port::{Kind, Port, PortId};
use crate::switch::{Ingress, Outcome, Switch, Trust};
use crate::tap::Taps;
use crate::tcp::{Connection, ConnectionId};
use crate::time_wait::TimeWait;
use crate::timers::Timers;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Wakers to be woken, and others to be dropped, once the lock is released.
#[derive(Default)]
pub(crate) struct Wakes {
    wake: Vec<Waker>,
    retired: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.wake.extend(waker);
    }

    pub(crate) fn wake_all(&mut self, wakers: &mut Vec<Waker>) {
        self.wake.append(wakers);
    }

    /// Remembers the waker of `cx` in `slot`. The one before is dropped later: dropping a waker may run a task's destructors.
    pub(crate) fn register(&mut self, slot: &mut Option<Waker>, waker: &Waker) {
        if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        self.retired.extend(slot.replace(waker.clone()));
    }

    pub(crate) fn retire(&mut self, waker: Option<Waker>) {
        self.retired.extend(waker);
    }

    fn is_empty(&self) -> bool {
        self.wake.is_empty() && self.retired.is_empty()
    }
}

/// Adds a waker to those of several tasks that wait for the same.
pub(crate) fn register_among(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|old| old.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

/// A packet on its way into the switch.
pub(crate) struct Queued {
    pub(crate) packet: Packet,
    pub(crate) from: PortId,
    /// The connection that sent it, to be held back when its destination is full.
    pub(crate) sender: Option<ConnectionId>,
}

/// Everything that the lock guards.
pub(crate) struct Core {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) config: Config,
    pub(crate) is_stopped: bool,
    pub(crate) switch: Switch,
    pub(crate) ports: Arena<Port>,
    pub(crate) connections: Arena<Connection>,
    pub(crate) time_wait: TimeWait,
    pub(crate) pool: Pool,
    pub(crate) inbox: VecDeque<Queued>,
    pub(crate) dirty: VecDeque<ConnectionId>,
    pub(crate) wakes: Wakes,
    pub(crate) timers: Timers,
    pub(crate) taps: Taps,
    pub(crate) gateway: Option<GatewayState>,
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// Packets delivered by the switch, and their bytes.
    pub(crate) forwarded: (u64, u64),
    pub(crate) rng: SmallRng,
    pub(crate) seed: u64,
}

/// A network: what all handles share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Told when a deadline comes earlier than the timer task expects.
    pub(crate) alarm: Arc<Notify>,
    pub(crate) runtime: Handle,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Shared {
    pub(crate) fn new(mut config: Config) -> Arc<Shared> {
        config.mtu = config.mtu.clamp(1280, 65_535);
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let now = Instant::now();
        let core = Core {
            now,
            start: now,
            is_stopped: false,
            switch: Switch::new(config.mtu, &mut rng),
            config,
            ports: Arena::new(),
            connections: Arena::new(),
            time_wait: TimeWait::new(rng.random()),
            pool: Pool::default(),
            inbox: VecDeque::new(),
            dirty: VecDeque::new(),
            wakes: Wakes::default(),
            timers: Timers::default(),
            taps: Taps::default(),
            gateway: None,
            drops: BTreeMap::new(),
            forwarded: (0, 0),
            seed: rng.random(),
            rng,
        };
        let shared =
            Arc::new(Shared { core: Mutex::new(core), alarm: Arc::new(Notify::new()), runtime: Handle::current() });
        crate::timers::spawn(&shared);
        shared
    }

    /// Takes the lock, does the deed and everything that follows from it.
    pub(crate) fn with<R>(&self, deed: impl FnOnce(&mut Core) -> R) -> R {
        let (result, is_earlier) = self.run(deed, |_, is_earlier| is_earlier);
        if is_earlier {
            self.alarm.notify_one();
        }
        result
    }

    /// Does what has fallen due; when to come again. `None` when the network has stopped.
    pub(crate) fn fire(&self) -> Option<Option<Instant>> {
        self.run(Core::fire, |core, _| (!core.is_stopped).then(|| core.timers.expected())).1
    }

    /// The deed, then `after` with the lock still held and whether the timer is due earlier than it was.
    fn run<R, S>(&self, deed: impl FnOnce(&mut Core) -> R, after: impl FnOnce(&Core, bool) -> S) -> (R, S) {
        let mut core = self.core.lock();
        let now = Instant::now();
        core.now = core.now.max(now);
        core.switch.flows.log.now = core.now;
        let result = deed(&mut core);
        core.pump();
        let Core { switch, wakes, .. } = &mut *core;
        switch.flows.log.collect(wakes);
        let is_earlier = core.arm();
        let outcome = after(&core, is_earlier);
        let wakes = if core.wakes.is_empty() { Wakes::default() } else { std::mem::take(&mut core.wakes) };
        drop(core);
        for waker in wakes.wake {
            waker.wake();
        }
        (result, outcome)
    }
}

impl Core {
    fn pump(&mut self) {
        loop {
            if let Some(queued) = self.inbox.pop_front() {
                self.forward(queued);
            } else if let Some(id) = self.dirty.pop_front() {
                self.transmit(id);
            } else {
                return;
            }
        }
    }

    /// Sees to it that the timer task comes in time; whether it has to be told.
    fn arm(&mut self) -> bool {
        if self.is_stopped {
            return false;
        }
        let table = [self.switch.flows.due(), self.time_wait.due()];
        self.timers.arm(table.into_iter().flatten().min())
    }

    /// A random number for one more generator.
    pub(crate) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    fn ingress(&self, port: PortId) -> Option<Ingress> {
        let entry = self.ports.get(port)?;
        let trust = match &entry.kind {
            Kind::Host(_) => Trust::Stack,
            Kind::Raw(_) if entry.addresses.is_empty() => Trust::Promiscuous,
            Kind::Raw(_) => Trust::Foreign,
        };
        Some(Ingress { port, tag: entry.tag, trust })
    }

    fn tag(&self, port: PortId) -> Option<PortTag> {
        self.ports.get(port).map(|port| port.tag)
    }

    fn forward(&mut self, queued: Queued) {
        let Queued { mut packet, from, sender } = queued;
        let Some(ingress) = self.ingress(from) else { return self.pool.put(packet) };
        let sent = self.taps.wants(ingress.tag).then(|| packet.bytes().to_vec());
        match self.switch.forward(&mut packet, ingress, self.now) {
            Ok((header, Outcome::Deliver(to))) => {
                self.forwarded.0 += 1;
                self.forwarded.1 += packet.len() as u64;
                if !self.taps.is_empty() {
                    let to = self.tag(to);
                    self.taps.delivered(ingress.tag, to, sent.as_deref(), &packet, &header, self.now, &mut self.wakes);
                }
                self.deliver(packet, &header, to, sender);
            }
            Ok((header, Outcome::Local)) => {
                if let Some(sent) = sent {
                    self.taps.local(ingress.tag, &sent, self.now, &mut self.wakes);
                }
                self.deliver(packet, &header, from, None);
            }
            Ok((header, Outcome::Refuse(refusal, reason))) => {
                self.count(reason);
                self.taps.dropped(ingress.tag, reason, packet.bytes(), self.now, &mut self.wakes);
                let answer = answer::refuse(&mut self.pool, packet.bytes(), &header, refusal);
                self.pool.put(packet);
                if let Some(answer) = answer {
                    // Straight back: the hooks have said what they had to say.
                    if let Ok(header) = crate::packet::parse(answer.bytes()) {
                        self.deliver(answer, &header, from, None);
                    }
                }
            }
            Ok((_, Outcome::Drop(reason))) | Err(reason) => {
                self.count(reason);
                self.taps.dropped(ingress.tag, reason, packet.bytes(), self.now, &mut self.wakes);
                self.pool.put(packet);
            }
        }
    }

    pub(crate) fn count(&mut self, reason: Reason) {
        *self.drops.entry(reason.0).or_insert(0) += 1;
    }

    fn deliver(&mut self, packet: Packet, header: &crate::packet::Header, to: PortId, sender: Option<ConnectionId>) {
        match self.ports.get_mut(to).map(|port| &mut port.kind) {
            Some(Kind::Host(_)) => self.host_input(to, packet, header),
            Some(Kind::Raw(raw)) => {
                let is_room = raw.push(&packet, header, self.config.mtu, &mut self.wakes);
                if !is_room {
                    self.count(crate::raw::QUEUE_FULL);
                }
                if let Some(connection) = sender.and_then(|id| self.connections.get_mut(id)) {
                    connection.exit = Some(to);
                }
                self.pool.put(packet);
            }
            None => self.pool.put(packet),
        }
    }

    /// Queues a packet that a port sends.
    pub(crate) fn send(&mut self, packet: Packet, from: PortId) {
        self.inbox.push_back(Queued { packet, from, sender: None });
    }

    /// Takes a port off the network, with everything on it.
    pub(crate) fn detach(&mut self, id: PortId) {
        let Some(mut port) = self.ports.remove(id) else { return };
        for address in &port.addresses {
            self.switch.detach(*address, id);
        }
        self.close_gateway(id);
        if let Some(host) = port.host_mut() {
            let connections: Vec<_> = host.connections.values().copied().collect();
            self.close_host(host);
            for connection in connections {
                self.forget(connection);
            }
        } else if let Some(raw) = port.raw_mut() {
            self.wakes.wake(raw.waker.take());
            for connection in std::mem::take(&mut raw.held).into_values() {
                self.touch(connection);
            }
        }
        // Connections that are no longer in the demultiplexer but still held by a program.
        let left: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.port == id).map(|(id, _)| id).collect();
        for connection in left {
            self.forget(connection);
        }
    }

    /// Closes everything.
    pub(crate) fn stop(&mut self) {
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        let ports: Vec<_> = self.ports.iter().map(|(id, _)| id).collect();
        for port in ports {
            self.detach(port);
        }
        // Aborts its tasks.
        self.gateway = None;
        self.taps.close(&mut self.wakes);
        self.switch.flows.log.close();
        self.timers.stop();
        self.inbox.clear();
        self.dirty.clear();
    }
}

/// A map seeded by the network.
pub(crate) fn seeded<K, V>(seed: u64) -> Map<K, V> {
    Map::with_hasher(crate::flow_key::Seeded(seed))
}
