//! TIME-WAIT without sockets: who may still send a last FIN again, and for how long (RFC 9293, 3.10.7.8).

use crate::flow_key::{FlowKey, Map};
use crate::port::PortId;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Twice the maximum segment lifetime, as smoltcp counts it.
const TIME_WAIT: Duration = Duration::from_secs(10);
/// Entries of TIME-WAIT kept.
const TIME_WAIT_ENTRIES: usize = 1 << 16;

/// Connections in TIME-WAIT: remembered without a socket.
pub(crate) struct TimeWait {
    entries: Map<(PortId, FlowKey), Instant>,
    order: VecDeque<(Instant, (PortId, FlowKey))>,
}

impl TimeWait {
    pub(crate) fn new(seed: u64) -> TimeWait {
        TimeWait { entries: crate::core::seeded(seed), order: VecDeque::new() }
    }

    pub(crate) fn insert(&mut self, port: PortId, key: FlowKey, now: Instant) {
        if self.order.len() >= TIME_WAIT_ENTRIES {
            self.pop();
        }
        self.entries.insert((port, key), now);
        self.order.push_back((now, (port, key)));
    }

    fn pop(&mut self) {
        if let Some((since, key)) = self.order.pop_front()
            && self.entries.get(&key) == Some(&since)
        {
            self.entries.remove(&key);
        }
    }

    /// Whether the connection is in TIME-WAIT.
    pub(crate) fn contains(&self, port: PortId, key: FlowKey, now: Instant) -> bool {
        self.entries.get(&(port, key)).is_some_and(|since| now.saturating_duration_since(*since) < TIME_WAIT)
    }

    pub(crate) fn remove(&mut self, port: PortId, key: FlowKey) {
        self.entries.remove(&(port, key));
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= TIME_WAIT) {
            self.pop();
        }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + TIME_WAIT + Duration::from_secs(1))
    }
}
