//! The link between smoltcp and the switch: a device that exists for as long as one call into smoltcp takes.
//!
//! What a stack sends goes into the inbox of [`core`](crate::core), in a buffer of the pool.

use crate::core::Queued;
use crate::packet::Pool;
use crate::port::PortId;
use crate::tcp::ConnectionId;
use smoltcp::iface::Interface;
use smoltcp::phy::{
    ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, SegmentationCapabilities, TxToken,
};
use smoltcp::wire::HardwareAddress;
use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// A host's link into the switch.
pub(crate) struct Link<'a> {
    pub(crate) received: Option<&'a [u8]>,
    pub(crate) pool: &'a mut Pool,
    pub(crate) inbox: &'a mut VecDeque<Queued>,
    pub(crate) from: PortId,
    pub(crate) sender: ConnectionId,
}

/// What stacks are told about the link: 64 KiB packets, no checksums, segmentation by others.
fn capabilities() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    // smoltcp 0.14 drops IPv6 segments longer than this even where it offloads their segmentation. The true MTU is
    // announced to the peer by the switch, which lowers the MSS option of every SYN.
    capabilities.max_transmission_unit = 65_535;
    capabilities.checksum = ChecksumCapabilities::ignored();
    let mut segmentation = SegmentationCapabilities::default();
    segmentation.tcpv4 = NonZeroUsize::new(65_535);
    segmentation.tcpv6 = NonZeroUsize::new(65_535);
    capabilities.segmentation = segmentation;
    capabilities
}

impl Device for Link<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let packet = self.received.take()?;
        let transmit = Transmit {
            pool: self.pool,
            inbox: self.inbox,
            from: self.from,
            sender: self.sender,
            meta: PacketMeta::default(),
        };
        Some((Received(packet), transmit))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Transmit<'_>> {
        Some(Transmit {
            pool: self.pool,
            inbox: self.inbox,
            from: self.from,
            sender: self.sender,
            meta: PacketMeta::default(),
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(crate) struct Transmit<'a> {
    pool: &'a mut Pool,
    inbox: &'a mut VecDeque<Queued>,
    from: PortId,
    sender: ConnectionId,
    meta: PacketMeta,
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = self.pool.take(length);
        packet.segment_size = self.meta.segmentation_offload_size;
        let result = f(packet.bytes_mut());
        self.inbox.push_back(Queued { packet, from: self.from, sender: Some(self.sender) });
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// A host's stack.
pub(crate) fn interface(seed: u64, now: smoltcp::time::Instant) -> Interface {
    struct Unplugged;
    impl Device for Unplugged {
        type RxToken<'a> = Received<'a>;
        type TxToken<'a> = Transmit<'a>;
        fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received<'_>, Transmit<'_>)> {
            None
        }
        fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Transmit<'_>> {
            None
        }
        fn capabilities(&self) -> DeviceCapabilities {
            capabilities()
        }
    }
    let mut config = smoltcp::iface::Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Unplugged, now);
    // Which addresses are the host's is the demultiplexer's business; the gateway speaks for all of them.
    interface.set_any_ip(true);
    interface
}
