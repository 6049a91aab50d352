//! The flow log: what has happened to flows, kept for a while and told to whoever follows.
//!
//! One event when a flow opens, is answered, and ends, and one per packet that is not delivered: an established connection
//! costs nothing. Events stand in two rings of bounded size, all of them and the drops alone, so that drops are not pushed
//! out by what goes well. Writing never waits: a [`FlowEvents`] that is too slow loses the oldest and learns how many.
//!
//! Written by the [`switch`](crate::switch) and the [`flow_table`](crate::flow_table), under the network's lock. The rings have a
//! lock of their own, held for a copy of [`BATCH`] events at most, so that reading does not stop packets.

use crate::core::{Wakes, register_among};
use crate::flow::{FiveTuple, PortTag, Reason};
use crate::flow_key::FlowKey;
use crate::flow_table::{Direction, Flow};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::time::Instant;

/// Events of each ring, unless [`Network::keep_flow_log`](crate::Network::keep_flow_log) says otherwise: about 800 KiB, taken as needed.
pub(crate) const KEPT: usize = 4096;
/// Events a reader takes at a time.
const BATCH: usize = 64;

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowChange {
    /// Its first packet was let through.
    Opened,
    /// The first packet came back.
    Answered,
    /// It is over.
    Ended(FlowEnd),
    /// A packet of it, or its first, was not delivered.
    Dropped(Reason),
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// Both ends said so (FIN).
    Closed,
    /// One end broke it off, or refused it (RST).
    Reset,
    /// It was silent for too long, or its ports have gone.
    Forgotten,
}

/// One entry of the flow log.
#[derive(Clone, Debug)]
pub struct FlowEvent {
    /// Counts from 0; the two rings count on their own.
    pub number: u64,
    /// When, on the network's clock.
    pub at: Instant,
    /// What.
    pub change: FlowChange,
    /// The flow as its source sent it.
    pub original: FiveTuple,
    /// The flow as the destination sees it; as sent, if it did not get so far.
    pub translated: FiveTuple,
    /// The port it came in by.
    pub from: PortTag,
    /// The port it leaves by, if that was found.
    pub to: Option<PortTag>,
    /// Whether the packet went back to the flow's source.
    pub is_reply: bool,
    /// TCP control bits of the packet (RFC 9293, 3.1); 0 without one.
    pub flags: u8,
    /// Packets of the flow so far, there and back.
    pub packets: [u64; 2],
    /// Bytes of IP packets so far, there and back.
    pub bytes: [u64; 2],
}

/// What an event says of the packet that made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) change: FlowChange,
    pub(crate) direction: Direction,
    pub(crate) flags: u8,
}

#[derive(Clone, Copy)]
struct Entry {
    at: Instant,
    original: FlowKey,
    translated: FlowKey,
    from: PortTag,
    to: Option<PortTag>,
    packets: [u64; 2],
    bytes: [u64; 2],
    seen: Seen,
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// The number of the next event.
    next: u64,
    wakers: Vec<Waker>,
    is_closed: bool,
}

type SharedRing = Arc<Mutex<Ring>>;

impl Ring {
    fn push(&mut self, entry: Entry, kept: usize) {
        if self.entries.len() >= kept {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.next += 1;
    }

    fn oldest(&self) -> u64 {
        self.next - self.entries.len() as u64
    }
}

/// The writing end, owned by the flow table.
pub(crate) struct FlowLog {
    all: SharedRing,
    drops: SharedRing,
    kept: usize,
    /// The time of what is being done.
    pub(crate) now: Instant,
    /// Something was written since the readers were last woken.
    has_news: bool,
    opened: u64,
    denied: u64,
}

impl FlowLog {
    pub(crate) fn new() -> FlowLog {
        FlowLog {
            all: SharedRing::default(),
            drops: SharedRing::default(),
            kept: KEPT,
            now: Instant::now(),
            has_news: false,
            opened: 0,
            denied: 0,
        }
    }

    /// Keeps this many events in each ring; 0 keeps and tells none.
    pub(crate) fn keep(&mut self, events: usize) {
        self.kept = events;
        for ring in [&self.all, &self.drops] {
            let mut ring = ring.lock();
            while ring.entries.len() > events {
                ring.entries.pop_front();
            }
            ring.entries.shrink_to_fit();
        }
    }

    /// Flows let through, and flows whose first packet was not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.opened, self.denied)
    }

    /// Events told so far.
    pub(crate) fn told(&self) -> u64 {
        self.all.lock().next
    }

    /// Something happened to a flow of the table.
    pub(crate) fn flow(&mut self, flow: &Flow, seen: Seen) {
        let (original, translated) = (flow.original, flow.translated);
        self.opened += u64::from(seen.change == FlowChange::Opened);
        self.push(Entry {
            at: self.now,
            original,
            translated,
            from: flow.from.1,
            to: Some(flow.to.1),
            packets: flow.packets,
            bytes: flow.bytes,
            seen,
        });
    }

    /// The first packet of a flow was not delivered.
    pub(crate) fn refused(
        &mut self,
        (original, translated): (FlowKey, FlowKey),
        (from, to): (PortTag, Option<PortTag>),
        reason: Reason,
        flags: u8,
    ) {
        self.denied += 1;
        let seen = Seen { change: FlowChange::Dropped(reason), direction: Direction::Original, flags };
        self.push(Entry { at: self.now, original, translated, from, to, packets: [0; 2], bytes: [0; 2], seen });
    }

    fn push(&mut self, entry: Entry) {
        if self.kept == 0 {
            return;
        }
        if matches!(entry.seen.change, FlowChange::Dropped(_)) {
            self.drops.lock().push(entry, self.kept);
        }
        self.all.lock().push(entry, self.kept);
        self.has_news = true;
    }

    /// Hands over who waits for what has been written.
    pub(crate) fn collect(&mut self, wakes: &mut Wakes) {
        if std::mem::take(&mut self.has_news) {
            for ring in [&self.all, &self.drops] {
                wakes.wake_all(&mut ring.lock().wakers);
            }
        }
    }

    pub(crate) fn close(&mut self) {
        for ring in [&self.all, &self.drops] {
            ring.lock().is_closed = true;
        }
        self.has_news = true;
    }

    pub(crate) fn events(&self, only_drops: bool, last: usize) -> FlowEvents {
        let ring = if only_drops { &self.drops } else { &self.all };
        let (oldest, next) = {
            let ring = ring.lock();
            (ring.oldest(), ring.next)
        };
        let from = next.saturating_sub(last as u64).max(oldest);
        FlowEvents { ring: ring.clone(), next: from, lost: 0, batch: VecDeque::new() }
    }
}

/// A reader of the flow log. It holds nothing up: when it is too slow, events are lost to it.
pub struct FlowEvents {
    ring: SharedRing,
    next: u64,
    lost: u64,
    batch: VecDeque<(u64, Entry)>,
}

impl std::fmt::Debug for FlowEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FlowEvents at {}, {} lost", self.next, self.lost)
    }
}

impl FlowEvents {
    /// The next event; `None` when the network has stopped.
    pub async fn next(&mut self) -> Option<FlowEvent> {
        poll_fn(|cx| match self.take() {
            Some(event) => Poll::Ready(Some(event)),
            None => {
                let mut ring = self.ring.lock();
                // Between the two locks something may have come.
                if ring.next > self.next {
                    cx.waker().wake_by_ref();
                } else if ring.is_closed {
                    return Poll::Ready(None);
                } else {
                    register_among(&mut ring.wakers, cx.waker());
                }
                Poll::Pending
            }
        })
        .await
    }

    /// The next event if there is one already.
    pub fn take(&mut self) -> Option<FlowEvent> {
        if self.batch.is_empty() {
            let ring = self.ring.lock();
            let oldest = ring.oldest();
            self.lost += oldest.saturating_sub(self.next);
            self.next = self.next.max(oldest);
            let skip = (self.next - oldest) as usize;
            self.batch.extend((self.next..).zip(ring.entries.iter().skip(skip).take(BATCH).copied()));
            self.next += self.batch.len() as u64;
        }
        self.batch.pop_front().map(|(number, entry)| entry.event(number))
    }

    /// Events lost so far because this reader was too slow.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Entry {
    fn event(&self, number: u64) -> FlowEvent {
        FlowEvent {
            number,
            at: self.at,
            change: self.seen.change,
            original: self.original.five_tuple(),
            translated: self.translated.five_tuple(),
            from: self.from,
            to: self.to,
            is_reply: self.seen.direction == Direction::Reply,
            flags: self.seen.flags,
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}
