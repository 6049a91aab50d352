//! NetworkPolicy and ClusterNetworkPolicy compiled to verdicts with reasons.
//!
//! [`start`] follows policies, Namespaces, Pods and Nodes and keeps a [`PolicyTable`]: an immutable snapshot, swapped
//! whole. [`Policy::filter`] is what the switch asks once per new flow, and again for every flow after a swap (unless
//! [`Established::Keep`] is set); [`Policy::explain`] answers from the same compiled rules which policy decided, and what
//! nearly matched; [`PolicyTable::matrix`] asks them for all pairs at once.
//!
//! [`Policy::attach`] makes isolation exact from a pod's first packet: it returns when every policy that is older than
//! the pod is in force for it.
//!
//! The API is told how it fares with the administrator's policies: a condition in their status, and an Event about two
//! whose order is left open.
//!
//! Not here: where a Service's flow goes (`proxy`; policies judge what is behind it), and the validation of policies
//! (`apiserver`): what is invalid here matches nothing.
//!
//! Follows the NetworkPolicy v1 API with KEP-2079 (`endPort`), and KEP-2091 in the form of the network-policy-api
//! project: ClusterNetworkPolicy v1alpha2, and the policies of v1alpha1 read as such.

mod admin_network_policy;
mod answered_names;
mod cluster_network_policy;
mod conflict;
mod crowd;
mod domain_name;
mod endpoint;
mod engine;
mod explain;
mod filter;
mod group;
mod hash;
mod matrix;
mod peer;
mod ports;
mod remembered;
mod rule;
mod rule_set;
mod selector;
mod status;
mod sync;
mod table;

/// AdminNetworkPolicy, BaselineAdminNetworkPolicy and their parts, as they are on the wire.
pub mod v1alpha1 {
    pub use crate::admin_network_policy::*;
}

/// ClusterNetworkPolicy and its parts, as they are on the wire.
pub mod v1alpha2 {
    pub use crate::cluster_network_policy::*;
}

pub use answered_names::AnsweredNames;
pub use engine::{ClusterPolicies, Config, Policy, Sources, start, start_with};
pub use explain::{DirectionReport, Explanation, NearMiss, PartyReport, RuleReport, Ruling};
pub use filter::{Denial, Established};
pub use matrix::Destination;
pub use status::Reports;
pub use table::{NodeInfo, PodInfo, PolicyTable};

/// Why a flow is refused: the reason codes that flows, traces and captures show.
pub mod reason {
    use netstack::Reason;

    /// The destination is isolated for ingress, and no rule allows the flow.
    pub const POLICY_DENIED_INGRESS: Reason = Reason("POLICY_DENIED_INGRESS");
    /// The source is isolated for egress, and no rule allows the flow.
    pub const POLICY_DENIED_EGRESS: Reason = Reason("POLICY_DENIED_EGRESS");
    /// A rule of a ClusterNetworkPolicy for the destination denies the flow.
    pub const CNP_DENY_INGRESS: Reason = Reason("CNP_DENY_INGRESS");
    /// A rule of a ClusterNetworkPolicy for the source denies the flow.
    pub const CNP_DENY_EGRESS: Reason = Reason("CNP_DENY_EGRESS");

    /// The code as it is shown to users, beside the direction: that of a ClusterNetworkPolicy's denial is the same for both.
    pub fn code(reason: Reason) -> &'static str {
        match reason {
            CNP_DENY_INGRESS | CNP_DENY_EGRESS => "CNP_DENY",
            other => other.0,
        }
    }
}
