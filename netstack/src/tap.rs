//! Captures: copies of packets with their checksums filled in.
//!
//! A tap on a port sees what the port sends as it sent it, and what it receives as it receives it: before and after translation. A
//! tap on everything sees each packet once: as delivered, or as sent if it is dropped. Segments between
//! in-process hosts are up to 64 KiB long, as captures on a machine with segmentation offload are.

use crate::checksum;
use crate::core::{Shared, Wakes, register_among};
use crate::flow::{PortTag, Reason};
use crate::life::Life;
use crate::network::Captured;
use crate::packet::{Header, Packet, parse};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::time::Instant;

/// Bytes a capture may hold before it drops the newest.
const LIMIT: usize = 16 << 20;
/// What a captured packet costs beside its bytes.
const OVERHEAD: usize = 128;

#[derive(Default)]
struct Queue {
    packets: VecDeque<Captured>,
    bytes: usize,
    lost: u64,
    is_closed: bool,
    wakers: Vec<Waker>,
}

struct Entry {
    port: Option<PortTag>,
    queue: Arc<Mutex<Queue>>,
}

/// The running captures of a network.
#[derive(Default)]
pub(crate) struct Taps {
    entries: Vec<Entry>,
}

impl Taps {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether somebody wants to see packets as that port sends them.
    pub(crate) fn wants(&self, from: PortTag) -> bool {
        !self.entries.is_empty() && self.entries.iter().any(|tap| tap.port == Some(from) || tap.port.is_none())
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn delivered(
        &mut self,
        from: PortTag,
        to: Option<PortTag>,
        sent: Option<&[u8]>,
        packet: &Packet,
        header: &Header,
        at: Instant,
        wakes: &mut Wakes,
    ) {
        for tap in &self.entries {
            if tap.port == Some(from)
                && let Some(sent) = sent
            {
                tap.push(Captured { from, to, dropped: None, packet: whole(sent), at }, wakes);
            }
            if tap.port.is_none() || tap.port == to {
                let packet = checksum::exported(packet.bytes(), header);
                tap.push(Captured { from, to, dropped: None, packet, at }, wakes);
            }
        }
    }

    pub(crate) fn local(&mut self, port: PortTag, sent: &[u8], at: Instant, wakes: &mut Wakes) {
        for tap in self.entries.iter().filter(|tap| tap.port.is_none_or(|tag| tag == port)) {
            tap.push(Captured { from: port, to: Some(port), dropped: None, packet: whole(sent), at }, wakes);
        }
    }

    pub(crate) fn dropped(&mut self, from: PortTag, reason: Reason, packet: &[u8], at: Instant, wakes: &mut Wakes) {
        for tap in self.entries.iter().filter(|tap| tap.port.is_none_or(|tag| tag == from)) {
            tap.push(Captured { from, to: None, dropped: Some(reason), packet: whole(packet), at }, wakes);
        }
    }

    pub(crate) fn close(&mut self, wakes: &mut Wakes) {
        for tap in self.entries.drain(..) {
            let mut queue = tap.queue.lock();
            queue.is_closed = true;
            wakes.wake_all(&mut queue.wakers);
        }
    }
}

/// The packet with its checksums; garbage as it is.
fn whole(packet: &[u8]) -> Bytes {
    match parse(packet) {
        Ok(header) => checksum::exported(packet, &header),
        Err(_) => Bytes::copy_from_slice(packet),
    }
}

impl Entry {
    fn push(&self, captured: Captured, wakes: &mut Wakes) {
        let mut queue = self.queue.lock();
        let size = captured.packet.len() + OVERHEAD;
        if queue.bytes + size > LIMIT {
            queue.lost += 1;
            return;
        }
        queue.bytes += size;
        queue.packets.push_back(captured);
        wakes.wake_all(&mut queue.wakers);
    }
}

/// A running capture; a full queue drops the newest and counts it.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    queue: Arc<Mutex<Queue>>,
    _life: Arc<Life>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} packets, {} lost", self.packets.len(), self.lost)
    }
}

impl Tap {
    pub(crate) fn new(shared: &Arc<Shared>, life: &Arc<Life>, port: Option<PortTag>) -> Tap {
        let queue = Arc::new(Mutex::new(Queue::default()));
        shared.with(|core| {
            if core.is_stopped {
                queue.lock().is_closed = true;
            } else {
                core.taps.entries.push(Entry { port, queue: queue.clone() });
            }
        });
        Tap { shared: shared.clone(), queue, _life: life.clone() }
    }

    /// The next packet; `None` when the network has stopped.
    pub async fn next(&mut self) -> Option<Captured> {
        poll_fn(|cx| {
            let mut queue = self.queue.lock();
            if let Some(captured) = queue.packets.pop_front() {
                queue.bytes -= captured.packet.len() + OVERHEAD;
                return Poll::Ready(Some(captured));
            }
            if queue.is_closed {
                return Poll::Ready(None);
            }
            register_among(&mut queue.wakers, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Packets lost because the queue was full.
    pub fn lost(&self) -> u64 {
        self.queue.lock().lost
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.with(|core| core.taps.entries.retain(|tap| !Arc::ptr_eq(&tap.queue, &self.queue)));
    }
}
