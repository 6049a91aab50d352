//! The plain types that the switch shares with those who decide over flows: who, whither, and the two hooks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

/// A transport protocol, by its IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 132: forwarded by port, payload opaque.
    Sctp,
    /// 1 and 58: echo is a flow, errors belong to the flow they speak of.
    Icmp,
    /// Any other.
    Other(u8),
}

/// Who talks to whom. Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
}

/// The number its owner gave to a port of the switch; opaque here. 0 is the gateway: traffic from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortTag(pub u64);

/// Why a packet was not delivered: a constant code such as `NO_ROUTE`, given by whoever decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub &'static str);

/// Where a new flow really goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// As addressed.
    Pass,
    /// To another destination (DNAT), with the source replaced by `snat` if given (the switch picks a free port).
    To {
        /// The real destination.
        dst: SocketAddr,
        /// The source address the destination sees.
        snat: Option<IpAddr>,
    },
    /// Answer with ICMP port unreachable, or RST for TCP: clients fail at once.
    Reject(Reason),
    /// Say nothing: clients time out.
    Drop(Reason),
}

/// A new flow as the [`Filter`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// As the source sent it.
    pub original: FiveTuple,
    /// As the destination will see it, after DNAT and SNAT.
    pub translated: FiveTuple,
    /// The port it came in by.
    pub from: PortTag,
    /// The port it would leave by.
    pub to: PortTag,
}

/// Whether a flow may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver it and what follows, both ways.
    Accept,
    /// Say nothing.
    Drop(Reason),
    /// Answer with ICMP administratively prohibited, or RST for TCP.
    Reject(Reason),
}

/// Destination and source translation, asked once per new flow.
pub trait Translate: Send + Sync + 'static {
    /// Where `flow`, coming in by `from`, goes.
    fn translate(&self, flow: &FiveTuple, from: PortTag, now: Instant) -> Translation;
}

/// Admission of flows, asked once per new flow and again after [`Network::reevaluate`](crate::Network).
pub trait Filter: Send + Sync + 'static {
    /// Whether `flow` may pass.
    fn verdict(&self, flow: &NewFlow) -> Verdict;

    /// Whether a flow that was let in at `since` may go on.
    fn verdict_again(&self, flow: &NewFlow, since: Instant) -> Verdict {
        let _ = since;
        self.verdict(flow)
    }
}

/// What decides over new flows; swapped whole.
#[derive(Clone)]
pub struct Hooks {
    /// Where they go.
    pub translate: Arc<dyn Translate>,
    /// Whether they may.
    pub filter: Arc<dyn Filter>,
}
