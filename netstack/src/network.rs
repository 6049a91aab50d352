//! The network: the switch and all that is attached to it.

use crate::core::Shared;
use crate::flow::{FiveTuple, Hooks, PortTag, Reason};
use crate::flow_key::protocol;
use crate::flow_log::FlowEvents;
use crate::gateway::{Gateway, GatewayConfig};
use crate::host::Host;
use crate::life::Life;
use crate::port::Kind;
use crate::raw::{RawPort, RawState};
use crate::tap::Tap;
use crate::timeouts::Timeouts;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a [`Network`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest IP packet on the wire, in bytes (1280 to 65,535); in-process pairs exchange segments up to 64 KiB (TSO).
    pub mtu: usize,
    /// Seed of every choice made here: ephemeral ports, initial sequence numbers, SNAT ports.
    pub seed: u64,
}

/// The switch with its ports, flow table and hooks. Cheap to clone: all clones are one network.
///
/// Lives on the tokio runtime it was made on; ends when [`Network::stop`] is called or the last handle - of the network or
/// of anything attached to it - is dropped.
///
/// Hooks and the closures given to [`Network::retain_flows`] run with the network's lock held: they must not call back into it.
#[derive(Clone, Debug)]
pub struct Network {
    shared: Arc<Shared>,
    life: Arc<Life>,
}

/// Why a host or port could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another port has this address.
    #[error("address {0} is already attached")]
    AddressInUse(IpAddr),
    /// There is a gateway already.
    #[error("a gateway is already attached")]
    SecondGateway,
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}

/// One flow of the conntrack table.
#[derive(Clone, Debug)]
pub struct FlowInfo {
    /// As the source sent it.
    pub original: FiveTuple,
    /// As the destination sees it.
    pub translated: FiveTuple,
    /// The port it came in by.
    pub from: PortTag,
    /// The port it leaves by.
    pub to: PortTag,
    /// `None`: accepted. Otherwise why its packets are dropped.
    pub dropped: Option<Reason>,
    /// Packets and bytes, there and back.
    pub packets: [u64; 2],
    /// Bytes of IP packets, there and back.
    pub bytes: [u64; 2],
    /// Time since the last packet.
    pub idle: Duration,
}

/// What a network has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets the switch has delivered.
    pub forwarded_packets: u64,
    /// Their bytes.
    pub forwarded_bytes: u64,
    /// Flows that were let through.
    pub flows_opened: u64,
    /// First packets of flows that were not.
    pub flows_refused: u64,
    /// Flows in the table now.
    pub flows: u64,
    /// Flows that the table may hold.
    pub flow_limit: u64,
    /// Events the flow log has told.
    pub events: u64,
}

/// A packet seen by a [`Tap`].
#[derive(Clone, Debug)]
pub struct Captured {
    /// The port that sent it.
    pub from: PortTag,
    /// The port it went to, if it was delivered.
    pub to: Option<PortTag>,
    /// Why it was not.
    pub dropped: Option<Reason>,
    /// The whole IP packet with correct checksums.
    pub packet: Bytes,
    /// When, on the network's clock.
    pub at: tokio::time::Instant,
}

impl Network {
    /// An empty network whose hooks pass and accept everything.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: Config) -> Network {
        let shared = Shared::new(config);
        let life = Arc::new(Life(shared.clone()));
        Network { shared, life }
    }

    /// Attaches an in-process host. Dropping the last handle of the [`Host`] and its sockets detaches it.
    ///
    /// # Errors
    /// An address is taken, or the network has stopped.
    pub fn attach_host(&self, addresses: &[IpAddr], tag: PortTag) -> Result<Host, AttachError> {
        let port = self.shared.with(|core| {
            let host = core.new_host();
            core.attach(addresses, tag, host)
        })?;
        Ok(Host::new(&self.shared, &self.life, port, tag, addresses))
    }

    /// Attaches a port without a stack: whoever holds it sends and receives IP packets (a TUN device, a fuzzer).
    ///
    /// With no address it is promiscuous: it may send from any, and receives nothing.
    ///
    /// # Errors
    /// An address is taken, or the network has stopped.
    pub fn attach_raw(&self, addresses: &[IpAddr], tag: PortTag) -> Result<RawPort, AttachError> {
        let port = self.shared.with(|core| core.attach(addresses, tag, Kind::Raw(Box::default())))?;
        Ok(RawPort::new(&self.shared, &self.life, port))
    }

    /// Attaches a port for a device that computes checksums and cuts TCP segments itself: each packet, in and out, has a virtio-net header
    /// of ten bytes before it (VIRTIO 1.2, 5.1.6, native byte order), as Linux's TUN driver has it with `IFF_VNET_HDR`.
    ///
    /// # Errors
    /// An address is taken, or the network has stopped.
    pub fn attach_offloading(&self, addresses: &[IpAddr], tag: PortTag) -> Result<RawPort, AttachError> {
        let kind = Kind::Raw(Box::new(RawState::offloading()));
        let port = self.shared.with(|core| core.attach(addresses, tag, kind))?;
        Ok(RawPort::new(&self.shared, &self.life, port))
    }

    /// Attaches the gateway: at most one.
    ///
    /// # Errors
    /// There is one, an address is taken, or the network has stopped.
    pub fn attach_gateway(&self, config: GatewayConfig) -> Result<Gateway, AttachError> {
        let port = self.shared.with(|core| {
            if core.gateway.is_some() {
                return Err(AttachError::SecondGateway);
            }
            let host = core.new_host();
            let port = core.attach(&config.addresses, PortTag(0), host)?;
            core.open_gateway(port, &config, &self.shared);
            Ok(port)
        })?;
        Ok(Gateway::new(Host::new(&self.shared, &self.life, port, PortTag(0), &config.addresses)))
    }

    /// Swaps the hooks. Flows are judged again at their next packet.
    pub fn install(&self, hooks: Hooks) {
        let old = self.shared.with(|core| core.switch.install(hooks));
        // Outside the lock: what the hooks hold may be dropped with them.
        drop(old);
    }

    /// Begins a new epoch: every flow's verdict (not its translation) is asked again at its next packet.
    pub fn reevaluate(&self) {
        self.shared.with(|core| core.switch.reevaluate());
    }

    /// Forgets the flows for which `keep` is false; their next packet makes a new flow.
    pub fn retain_flows(&self, keep: impl FnMut(&FlowInfo) -> bool) {
        self.shared.with(|core| core.switch.flows.retain(None, core.now, keep));
    }

    /// The same for UDP flows only: others are not even looked at.
    pub fn retain_udp_flows(&self, keep: impl FnMut(&FlowInfo) -> bool) {
        self.shared.with(|core| core.switch.flows.retain(Some(protocol::UDP), core.now, keep));
    }

    /// Forgets the flows whose packets are dropped: their next one is judged as the first of a new flow.
    pub fn forget_dropped_flows(&self) {
        self.shared.with(|core| core.switch.flows.forget_dropped());
    }

    /// Changes how long flows are remembered, at once and for those that are there too.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        self.shared.with(|core| core.switch.flows.set_timeouts(timeouts, core.now));
    }

    /// Changes how many flows may be remembered (262,144 unless told otherwise), an eighth of them refused ones. When that many are
    /// there, a new one takes the place of one that is over or that nobody has answered; when all are alive, it is dropped with the
    /// reason `CONNTRACK_FULL`. Flows that are there already stay.
    pub fn limit_flows(&self, flows: usize) {
        self.shared.with(|core| core.switch.flows.set_limit(flows));
    }

    /// All live flows.
    pub fn flows(&self) -> Vec<FlowInfo> {
        self.shared.with(|core| core.switch.flows.infos(core.now))
    }

    /// How many packets have been dropped, by reason.
    pub fn drops(&self) -> Vec<(Reason, u64)> {
        self.shared.with(|core| core.drops.iter().map(|(reason, count)| (Reason(reason), *count)).collect())
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.shared.with(|core| {
            let log = &core.switch.flows.log;
            let (flows_opened, flows_refused) = log.counts();
            Counters {
                forwarded_packets: core.forwarded.0,
                forwarded_bytes: core.forwarded.1,
                flows_opened,
                flows_refused,
                flows: core.switch.flows.len() as u64,
                flow_limit: core.switch.flows.limit() as u64,
                events: log.told(),
            }
        })
    }

    /// Follows what happens to flows: from the newest `last` events on that are still kept. `only_drops`: what was not delivered.
    pub fn flow_events(&self, only_drops: bool, last: usize) -> FlowEvents {
        self.shared.with(|core| core.switch.flows.log.events(only_drops, last))
    }

    /// How many events the flow log keeps (4096 unless told otherwise); 0 turns it off.
    pub fn keep_flow_log(&self, events: usize) {
        self.shared.with(|core| core.switch.flows.log.keep(events));
    }

    /// Captures packets of one port, or of all.
    pub fn tap(&self, port: Option<PortTag>) -> Tap {
        Tap::new(&self.shared, &self.life, port)
    }

    /// Closes every host and ends every task.
    pub fn stop(&self) {
        self.shared.with(|core| core.stop());
    }
}
