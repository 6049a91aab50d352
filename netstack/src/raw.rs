//! Raw ports: packets in and out without a stack, for devices and fuzzers.
//!
//! What goes in is verified like a wire's: headers, checksums and, if the port has addresses, that the source is one
//! of them. What comes out has complete checksums; TCP segments longer than the MTU are cut, datagrams are delivered whole up to
//! 64 KiB. The queue is bounded in bytes: senders inside the process are held back when it is full (see
//! [`tcp`](crate::tcp)); others' packets are dropped and counted.

use crate::core::{Shared, Wakes};
use crate::flow::Reason;
use crate::flow_key::protocol;
use crate::life::Life;
use crate::packet::{Checksums, Header, LARGEST, Packet};
use crate::port::PortId;
use crate::tcp::ConnectionId;
use crate::{checksum, packet, vnet};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

pub(crate) const QUEUE_FULL: Reason = Reason("QUEUE_FULL");

/// Above this connections are held back.
const HIGH_WATER: usize = 1 << 20;
/// Above this packets are dropped.
const LIMIT: usize = 4 << 20;

/// The queue of a raw port.
#[derive(Default)]
pub(crate) struct RawState {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Whether packets go in and out with a virtio-net header, checksums and segmentation left out.
    offloads: bool,
    pub(crate) waker: Option<Waker>,
    /// Connections that wait for room, by their rank.
    pub(crate) held: BTreeMap<(u32, u32), ConnectionId>,
}

impl RawState {
    /// The queue of a port whose device offloads.
    pub(crate) fn offloading() -> RawState {
        RawState { offloads: true, ..RawState::default() }
    }

    /// Queues a packet as it would be on the wire. `false` if it did not fit.
    pub(crate) fn push(&mut self, packet: &Packet, header: &Header, mtu: usize, wakes: &mut Wakes) -> bool {
        if self.bytes + packet.len() > LIMIT {
            return false;
        }
        let bytes = packet.bytes();
        if self.offloads {
            let frame = vnet::write(packet, header, mtu);
            self.bytes += frame.len();
            self.queue.push_back(frame);
        } else if header.key.protocol == protocol::TCP && packet.len() > mtu {
            let headers = header.transport + usize::from(bytes[header.transport + 12] >> 4) * 4;
            let room = mtu - headers.min(mtu - 1);
            let payload = packet.segment_size.map_or(room, |size| usize::from(size.get()).min(room));
            for segment in checksum::segments(bytes, header, payload) {
                self.bytes += segment.len();
                self.queue.push_back(segment);
            }
        } else {
            let whole = match packet.checksums {
                Checksums::Absent => checksum::exported(bytes, header),
                Checksums::Complete => Bytes::copy_from_slice(bytes),
            };
            self.bytes += whole.len();
            self.queue.push_back(whole);
        }
        wakes.wake(self.waker.take());
        true
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= HIGH_WATER
    }

    fn pop(&mut self) -> Option<Bytes> {
        let packet = self.queue.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

/// A port without a stack.
#[derive(Debug)]
pub struct RawPort {
    shared: Arc<Shared>,
    port: PortId,
    life: Arc<Life>,
}

/// The sending half of a [`RawPort`], for another task. Useless once the port is dropped.
#[derive(Clone, Debug)]
pub struct RawSender {
    shared: Arc<Shared>,
    port: PortId,
    _life: Arc<Life>,
}

impl RawSender {
    /// As [`RawPort::send`].
    pub fn send(&self, packet: &[u8]) {
        send(&self.shared, self.port, packet);
    }
}

fn send(shared: &Shared, port: PortId, packet: &[u8]) {
    shared.with(|core| {
        let Some(raw) = core.ports.get_mut(port).and_then(|port| port.raw_mut()) else { return };
        let taken = if raw.offloads { vnet::read(packet) } else { Some((packet, Checksums::Complete, None)) };
        let Some((bytes, checksums, segment_size)) = taken.filter(|(bytes, ..)| bytes.len() <= LARGEST) else {
            return core.count(packet::MALFORMED);
        };
        let mut packet = core.pool.copy(bytes, checksums);
        packet.segment_size = segment_size;
        core.send(packet, port);
    });
}

impl RawPort {
    pub(crate) fn new(shared: &Arc<Shared>, life: &Arc<Life>, port: PortId) -> RawPort {
        RawPort { shared: shared.clone(), port, life: life.clone() }
    }

    /// Hands an IP packet to the switch. Garbage is counted and dropped.
    pub fn send(&self, packet: &[u8]) {
        send(&self.shared, self.port, packet);
    }

    /// A second way in, so that one task may send while another receives.
    pub fn sender(&self) -> RawSender {
        RawSender { shared: self.shared.clone(), port: self.port, _life: self.life.clone() }
    }

    /// The next IP packet for this port; `None` when the network has stopped.
    pub async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|cx| {
            self.shared.with(|core| {
                let Some(raw) = core.ports.get_mut(self.port).and_then(|port| port.raw_mut()) else {
                    return Poll::Ready(None);
                };
                let Some(packet) = raw.pop() else {
                    core.wakes.register(&mut raw.waker, cx.waker());
                    return Poll::Pending;
                };
                if raw.bytes < HIGH_WATER / 2 {
                    for connection in std::mem::take(&mut raw.held).into_values() {
                        core.touch(connection);
                    }
                }
                Poll::Ready(Some(packet))
            })
        })
        .await
    }
}

impl Drop for RawPort {
    fn drop(&mut self) {
        self.shared.with(|core| core.detach(self.port));
    }
}
