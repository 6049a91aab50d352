//! Services: from a frontend address to one endpoint, as kube-proxy does it.
//!
//! [`start`] follows Services, EndpointSlices, Nodes and pods' host ports, and keeps a [`ServiceTable`]: an immutable snapshot, rebuilt
//! level-triggered and swapped whole. [`Proxy::translator`] is what the switch asks once per new flow; later packets
//! never come here, because conntrack remembers their endpoint. [`Proxy::explain`] answers from the same table why a
//! flow goes where it goes.
//!
//! Not here: who is an endpoint and whether it is ready (`controllers`), names (`dns`), whether a flow may pass
//! (`policy`), and listening on the host's ports for NodePorts: [`Proxy::external_frontends`] says on which. Health check
//! ports are answered here, since only the table knows ([`Proxy::serve_health_checks`]), and so is the health of each node's proxy
//! ([`Proxy::serve_node_health`]).
//!
//! Follows kube-proxy's nftables mode and KEP-0752 (EndpointSlice), KEP-1669 (terminating endpoints), KEP-2086
//! (internalTrafficPolicy), KEP-3015 (traffic distribution), KEP-1860 (ipMode).

mod affinity;
mod endpoint;
mod explain;
mod health_check;
mod host_port;
mod http;
mod node;
mod node_health;
mod service;
mod sync;
mod table;
mod translator;

pub use explain::{EndpointReport, ExcludedReport, Explanation, FrontendReport};
pub use service::{ExternalFrontend, FrontendKind, ServiceName};
pub use sync::{Config, Proxy, Sources, start, start_with};
pub use table::{Addressing, ExternalFrontends, ServiceTable};
pub use translator::Translator;

/// Why a flow to a Service is refused: the reason codes that flows, traces and captures show.
pub mod reason {
    use netstack::Reason;

    /// No endpoint of the Service port is usable anywhere: rejected.
    pub const NO_ENDPOINTS_REJECT: Reason = Reason("NO_ENDPOINTS_REJECT");
    /// The traffic policy is `Local` and all usable endpoints are on other nodes: dropped.
    pub const LOCAL_POLICY_NO_LOCAL_ENDPOINT: Reason = Reason("LOCAL_POLICY_NO_LOCAL_ENDPOINT");
    /// `loadBalancerSourceRanges` does not hold the source: dropped.
    pub const LB_SOURCE_RANGE: Reason = Reason("LB_SOURCE_RANGE");
    /// The ClusterIP is a Service's, the port is not: rejected.
    pub const UNKNOWN_CLUSTERIP_PORT: Reason = Reason("UNKNOWN_CLUSTERIP_PORT");
    /// An address of the service range that no Service has: dropped.
    pub const UNALLOCATED_CLUSTERIP: Reason = Reason("UNALLOCATED_CLUSTERIP");
}
