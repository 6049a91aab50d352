//! Policies, compiled one by one: what they select and their rules in both directions.

use crate::peer::Peer;
use crate::ports::PortMatch;
use crate::rule_set::PortView;
use crate::selector::{Scope, Selector};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::Protocol;

/// Which way a rule looks, from the pod that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// Which policies are judged first: an earlier tier's decision is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    Admin,
    NetworkPolicy,
    Baseline,
}

impl Tier {
    /// In the order of their judgement.
    pub(crate) const ALL: [Tier; 3] = [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Admin => "Admin",
            Tier::NetworkPolicy => "NetworkPolicy",
            Tier::Baseline => "Baseline",
        }
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The flow may pass: all that NetworkPolicies can say.
    Accept,
    /// It may not.
    Deny,
    /// The next tier decides.
    Pass,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompiledPolicy {
    pub(crate) tier: Tier,
    /// Lower comes first within a tier; 0 for NetworkPolicies, whose order does not matter.
    pub(crate) priority: i32,
    /// Empty for policies of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The pods it is for.
    pub(crate) subject: Scope,
    /// `None`: says nothing about this direction.
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

/// One rule: peers and ports must both match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// For reports.
    pub(crate) name: Option<String>,
    pub(crate) action: Action,
    /// `None`: everybody.
    pub(crate) peers: Option<Vec<Peer>>,
    /// Empty: every port of every protocol.
    pub(crate) ports: Vec<PortMatch>,
}

impl CompiledPolicy {
    pub(crate) fn compile(policy: &NetworkPolicy) -> CompiledPolicy {
        let default = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&default);
        let (ingress, egress) = directions(spec);
        let ingress_rules = spec.ingress.iter().flatten().map(|rule| Rule::compile(&rule.from, &rule.ports));
        let egress_rules = spec.egress.iter().flatten().map(|rule| Rule::compile(&rule.to, &rule.ports));
        let pods = spec.pod_selector.as_ref().map(Selector::compile).unwrap_or_default();
        CompiledPolicy {
            tier: Tier::NetworkPolicy,
            priority: 0,
            namespace: policy.metadata.namespace.clone().unwrap_or_default(),
            name: policy.metadata.name.clone().unwrap_or_default(),
            subject: Scope { namespaces: None, pods },
            ingress: ingress.then(|| ingress_rules.collect()),
            egress: egress.then(|| egress_rules.collect()),
        }
    }

    /// `namespace/name`, or the name of a policy of the whole cluster.
    pub(crate) fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// Its rules for a direction, if it has anything to say about it.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Whether a policy isolates for ingress and for egress.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        Some(types) => (types.iter().any(|kind| kind == "Ingress"), types.iter().any(|kind| kind == "Egress")),
    }
}

impl Rule {
    /// Whether it speaks of that port: by itself, where rules are too few to be compiled together.
    pub(crate) fn has_port(&self, port: PortView<'_>) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|of| of.matches(port.protocol, port.port, port.named))
    }

    fn compile(peers: &Option<Vec<NetworkPolicyPeer>>, ports: &Option<Vec<NetworkPolicyPort>>) -> Rule {
        let given = ports.as_deref().unwrap_or_default();
        let mut compiled: Vec<PortMatch> = given.iter().filter_map(port_match).collect();
        if compiled.is_empty() && !given.is_empty() {
            // Ports that the API would not have let through: they must not turn into "every port".
            compiled.push(PortMatch::Named(Protocol::Tcp, String::new()));
        }
        let peers = peers.as_ref().filter(|peers| !peers.is_empty());
        Rule {
            name: None,
            action: Action::Accept,
            peers: peers.map(|peers| peers.iter().map(Peer::compile).collect()),
            ports: compiled,
        }
    }
}

fn port_match(port: &NetworkPolicyPort) -> Option<PortMatch> {
    let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return None,
    };
    match &port.port {
        None => Some(PortMatch::Range(protocol, 0, u16::MAX)),
        Some(IntOrString::String(name)) => Some(PortMatch::Named(protocol, name.clone())),
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?;
            (first <= last).then_some(PortMatch::Range(protocol, first, last))
        }
    }
}
