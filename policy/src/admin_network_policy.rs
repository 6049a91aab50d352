//! AdminNetworkPolicy and BaselineAdminNetworkPolicy (`policy.networking.k8s.io/v1alpha1`): what ClusterNetworkPolicy was before.
//!
//! The types as they are on the wire, and how they are read as [ClusterNetworkPolicies](crate::cluster_network_policy):
//! the first is of tier Admin, the second of tier Baseline with priority 0, `Allow` is `Accept`, and ports become
//! protocols. In reports they have their resource's name before their own, as `adminnetworkpolicy/NAME`.

use crate::cluster_network_policy::{
    ClusterNetworkPolicySpec, ClusterNetworkPolicyStatus, DestinationPort, EgressPeer, EgressRule, IngressRule,
    PodPeer, Port, PortRange, ProtocolMatch, compile,
};
use crate::rule::CompiledPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// A policy of the administrator's, judged before the NetworkPolicies of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminNetworkPolicy {
    /// Standard metadata; there is no namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: AdminNetworkPolicySpec,
    /// What was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ClusterNetworkPolicyStatus>,
}

/// What an AdminNetworkPolicy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminNetworkPolicySpec {
    /// 0 to 1000; lower comes first.
    pub priority: i32,
    /// The pods it is for.
    pub subject: PodPeer,
    /// Rules for what they receive, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for what they send, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminEgressRule>,
}

/// The policy for what no NetworkPolicy speaks of; there is one, called `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineAdminNetworkPolicy {
    /// Standard metadata; there is no namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BaselineAdminNetworkPolicySpec,
    /// What was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ClusterNetworkPolicyStatus>,
}

/// What a BaselineAdminNetworkPolicy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineAdminNetworkPolicySpec {
    /// The pods it is for.
    pub subject: PodPeer,
    /// Rules for what they receive, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for what they send, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminEgressRule>,
}

/// A rule for what pods receive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminIngressRule {
    /// For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Allow`, `Deny` or, in an AdminNetworkPolicy, `Pass`.
    pub action: String,
    /// Who sends.
    pub from: Vec<PodPeer>,
    /// To which ports; empty: all of all protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<AdminPort>,
}

/// A rule for what pods send.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminEgressRule {
    /// For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Allow`, `Deny` or, in an AdminNetworkPolicy, `Pass`.
    pub action: String,
    /// Who receives.
    pub to: Vec<EgressPeer>,
    /// At which ports; empty: all of all protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<AdminPort>,
}

/// Ports, by exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminPort {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_number: Option<AdminPortNumber>,
    /// From one to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<AdminPortRange>,
    /// The destination pod's container port of this name, whatever its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_port: Option<String>,
}

/// One port of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminPortNumber {
    /// `TCP`, `UDP` or `SCTP`; empty: TCP.
    #[serde(default)]
    pub protocol: String,
    /// Which.
    pub port: i32,
}

/// Ports of a protocol; both ends are included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdminPortRange {
    /// `TCP`, `UDP` or `SCTP`; empty: TCP.
    #[serde(default)]
    pub protocol: String,
    /// The first port.
    pub start: i32,
    /// The last port.
    pub end: i32,
}

/// What stands before an AdminNetworkPolicy's name.
const ADMIN: &str = "adminnetworkpolicy";
/// What stands before a BaselineAdminNetworkPolicy's name.
const BASELINE: &str = "baselineadminnetworkpolicy";

impl AdminNetworkPolicy {
    /// What it is called in reports.
    pub fn full_name(&self) -> String {
        format!("{ADMIN}/{}", self.metadata.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn compile(&self) -> Option<CompiledPolicy> {
        let AdminNetworkPolicySpec { priority, subject, ingress, egress } = &self.spec;
        compile(self.full_name(), &spec("Admin", *priority, subject, ingress, egress))
    }
}

impl BaselineAdminNetworkPolicy {
    /// What it is called in reports.
    pub fn full_name(&self) -> String {
        format!("{BASELINE}/{}", self.metadata.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn compile(&self) -> Option<CompiledPolicy> {
        let BaselineAdminNetworkPolicySpec { subject, ingress, egress } = &self.spec;
        compile(self.full_name(), &spec("Baseline", 0, subject, ingress, egress))
    }
}

fn spec(
    tier: &str,
    priority: i32,
    subject: &PodPeer,
    ingress: &[AdminIngressRule],
    egress: &[AdminEgressRule],
) -> ClusterNetworkPolicySpec {
    let ingress = ingress.iter().map(|rule| IngressRule {
        name: rule.name.clone(),
        action: action(tier, &rule.action),
        from: rule.from.clone(),
        protocols: rule.ports.iter().map(protocol).collect(),
    });
    let egress = egress.iter().map(|rule| EgressRule {
        name: rule.name.clone(),
        action: action(tier, &rule.action),
        to: rule.to.clone(),
        protocols: rule.ports.iter().map(protocol).collect(),
    });
    ClusterNetworkPolicySpec {
        tier: tier.to_owned(),
        priority,
        subject: subject.clone(),
        ingress: ingress.collect(),
        egress: egress.collect(),
    }
}

fn action(tier: &str, action: &str) -> String {
    match (tier, action) {
        (_, "Allow") => "Accept",
        // There is nothing behind the baseline to pass to.
        ("Admin", "Pass") => "Pass",
        _ => "Deny",
    }
    .to_owned()
}

/// What this version does not know becomes a protocol without a field, which fails closed.
fn protocol(port: &AdminPort) -> ProtocolMatch {
    let of = |protocol: &str, port: Port| {
        let port = Some(DestinationPort { destination_port: Some(port) });
        match protocol {
            "TCP" | "" => ProtocolMatch { tcp: port, ..ProtocolMatch::default() },
            "UDP" => ProtocolMatch { udp: port, ..ProtocolMatch::default() },
            "SCTP" => ProtocolMatch { sctp: port, ..ProtocolMatch::default() },
            _ => ProtocolMatch::default(),
        }
    };
    match port {
        AdminPort { port_number: Some(AdminPortNumber { protocol, port }), port_range: None, named_port: None } => {
            of(protocol, Port { number: Some(*port), range: None })
        }
        AdminPort { port_number: None, port_range: Some(range), named_port: None } => {
            let AdminPortRange { protocol, start, end } = range;
            of(protocol, Port { number: None, range: Some(PortRange { start: *start, end: *end }) })
        }
        AdminPort { port_number: None, port_range: None, named_port } => {
            ProtocolMatch { destination_named_port: named_port.clone(), ..ProtocolMatch::default() }
        }
        _ => ProtocolMatch::default(),
    }
}

impl k8s_openapi::Resource for AdminNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha1";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "AdminNetworkPolicy";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "adminnetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for AdminNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl k8s_openapi::Resource for BaselineAdminNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha1";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "BaselineAdminNetworkPolicy";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "baselineadminnetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for BaselineAdminNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
