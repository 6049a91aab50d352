//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`): the administrator's tiers around NetworkPolicy.
//!
//! The types as they are on the wire, and their compilation. What this version does not know fails closed, as the API
//! asks: an `Accept` rule with it matches nothing, any other denies everything. `domainNames` are known in `Accept` rules only.

use crate::domain_name::DomainName;
use crate::peer::{Block, Peer};
use crate::ports::PortMatch;
use crate::rule::{Action, CompiledPolicy, Rule, Tier};
use crate::selector::{Scope, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use netstack::Protocol;
use serde::{Deserialize, Serialize};

/// A policy of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicy {
    /// Standard metadata; there is no namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ClusterNetworkPolicySpec,
    /// What was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ClusterNetworkPolicyStatus>,
}

/// What a policy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000; lower comes first within the tier.
    pub priority: i32,
    /// The pods it is for.
    pub subject: PodPeer,
    /// Rules for what they receive, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Rules for what they send, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// What was made of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicyStatus {
    /// Whether it is accepted.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Pods, by exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods by their own labels and those of their namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Empty: all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Empty: all pods.
    #[serde(default)]
    pub pod_selector: LabelSelector,
}

/// A rule for what pods receive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IngressRule {
    /// For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Who sends.
    pub from: Vec<PodPeer>,
    /// By which protocols and ports; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ProtocolMatch>,
}

/// A rule for what pods send.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EgressRule {
    /// For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Who receives.
    pub to: Vec<EgressPeer>,
    /// By which protocols and ports; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ProtocolMatch>,
}

/// A destination, by exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeer {
    /// `namespaces` or `pods`.
    #[serde(flatten)]
    pub pod: PodPeer,
    /// Address ranges; pods' addresses count too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Nodes, by their labels: the addresses in their status. Experimental upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Names, by the addresses that the cluster's DNS has answered them with. `*.` in front: one or more labels. In `Accept`
    /// rules only. Experimental upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
}

/// Ports of a protocol, by exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolMatch {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<DestinationPort>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<DestinationPort>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<DestinationPort>,
    /// The destination pod's container port of this name, whatever its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationPort {
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// A number or a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    /// From one to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// Both ends are included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub start: i32,
    /// The last port.
    pub end: i32,
}

impl k8s_openapi::Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for ClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Something that this version does not know, or that validation would have rejected.
struct Unknown;

impl ClusterNetworkPolicy {
    pub(crate) fn compile(&self) -> Option<CompiledPolicy> {
        compile(self.metadata.name.clone().unwrap_or_default(), &self.spec)
    }
}

/// `None`: it is of no tier that exists, or has no subject.
pub(crate) fn compile(name: String, spec: &ClusterNetworkPolicySpec) -> Option<CompiledPolicy> {
    let tier = match spec.tier.as_str() {
        "Admin" => Tier::Admin,
        "Baseline" => Tier::Baseline,
        _ => return None,
    };
    let subject = scope(&spec.subject).ok()?;
    let ingress = spec.ingress.iter().map(|given| {
        let peers = given.from.iter().map(|peer| scope(peer).map(Peer::Pods)).collect();
        rule(given.name.as_ref(), &given.action, peers, &given.protocols)
    });
    let egress = spec.egress.iter().map(|given| {
        // A name may have addresses that nobody has asked for: a rule that denies would not hold (NPEP-133).
        let is_known = |peer: &EgressPeer| peer.domain_names.is_none() || given.action == "Accept";
        let known = |peer| if is_known(peer) { destination(peer) } else { Err(Unknown) };
        let peers: Result<Vec<Vec<Peer>>, Unknown> = given.to.iter().map(known).collect();
        rule(given.name.as_ref(), &given.action, peers.map(|peers| peers.concat()), &given.protocols)
    });
    // Without rules in a direction it has nothing to say about it.
    let some = |rules: Vec<Rule>| (!rules.is_empty()).then_some(rules);
    Some(CompiledPolicy {
        tier,
        priority: spec.priority,
        namespace: String::new(),
        name,
        subject,
        ingress: some(ingress.collect()),
        egress: some(egress.collect()),
    })
}

fn rule(name: Option<&String>, action: &str, peers: Result<Vec<Peer>, Unknown>, protocols: &[ProtocolMatch]) -> Rule {
    let action = match action {
        "Accept" => Action::Accept,
        "Pass" => Action::Pass,
        _ => Action::Deny,
    };
    let ports: Result<Vec<Vec<PortMatch>>, Unknown> = protocols.iter().map(ports).collect();
    let name = name.cloned();
    match (peers, ports) {
        (Ok(peers), Ok(ports)) if !peers.is_empty() => Rule { name, action, peers: Some(peers), ports: ports.concat() },
        _ if action == Action::Accept => Rule { name, action, peers: Some(vec![Peer::Nothing]), ports: Vec::new() },
        _ => Rule { name, action: Action::Deny, peers: None, ports: Vec::new() },
    }
}

fn scope(peer: &PodPeer) -> Result<Scope, Unknown> {
    match (&peer.namespaces, &peer.pods) {
        (Some(namespaces), None) => {
            Ok(Scope { namespaces: Some(Selector::compile(namespaces)), pods: Selector::default() })
        }
        (None, Some(pods)) => Ok(Scope {
            namespaces: Some(Selector::compile(&pods.namespace_selector)),
            pods: Selector::compile(&pods.pod_selector),
        }),
        _ => Err(Unknown),
    }
}

fn destination(peer: &EgressPeer) -> Result<Vec<Peer>, Unknown> {
    match peer {
        EgressPeer { pod, networks: None, nodes: None, domain_names: None } => Ok(vec![Peer::Pods(scope(pod)?)]),
        EgressPeer { pod: PodPeer { namespaces: None, pods: None }, networks, nodes, domain_names } => {
            match (networks, nodes, domain_names) {
                (Some(networks), None, None) => {
                    networks.iter().map(|range| Block::whole(range).map(Peer::Block).ok_or(Unknown)).collect()
                }
                (None, Some(nodes), None) => Ok(vec![Peer::Nodes(Selector::compile(nodes))]),
                (None, None, Some(names)) => {
                    names.iter().map(|name| DomainName::compile(name).map(Peer::Name).ok_or(Unknown)).collect()
                }
                _ => Err(Unknown),
            }
        }
        _ => Err(Unknown),
    }
}

fn ports(given: &ProtocolMatch) -> Result<Vec<PortMatch>, Unknown> {
    let ProtocolMatch { tcp, udp, sctp, destination_named_port } = given;
    match (tcp, udp, sctp, destination_named_port) {
        (Some(port), None, None, None) => Ok(vec![range(Protocol::Tcp, port)?]),
        (None, Some(port), None, None) => Ok(vec![range(Protocol::Udp, port)?]),
        (None, None, Some(port), None) => Ok(vec![range(Protocol::Sctp, port)?]),
        (None, None, None, Some(name)) => {
            let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            Ok(protocols.map(|protocol| PortMatch::Named(protocol, name.clone())).to_vec())
        }
        _ => Err(Unknown),
    }
}

fn range(protocol: Protocol, port: &DestinationPort) -> Result<PortMatch, Unknown> {
    let number = |number: i32| u16::try_from(number).map_err(|_| Unknown);
    let (first, last) = match &port.destination_port {
        Some(Port { number: Some(one), range: None }) => (number(*one)?, number(*one)?),
        Some(Port { number: None, range: Some(range) }) => (number(range.start)?, number(range.end)?),
        _ => return Err(Unknown),
    };
    if first <= last { Ok(PortMatch::Range(protocol, first, last)) } else { Err(Unknown) }
}
