//! A naive reading of the API, written from the specification: every rule of every policy is looked at for every flow.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::{NewFlow, Protocol};
use policy::v1alpha1::{AdminNetworkPolicy, AdminPort, BaselineAdminNetworkPolicy};
use policy::v1alpha2::{ClusterNetworkPolicy, EgressPeer, PodPeer, ProtocolMatch};
use policy::{AnsweredNames, NodeInfo, PodInfo, PolicyTable};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

type Labels = BTreeMap<String, String>;

/// Everything that policies go by.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) namespaces: Vec<Namespace>,
    /// Those of the host network have their node's addresses.
    pub(crate) pods: Vec<(Pod, Vec<IpAddr>)>,
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) cluster_policies: Vec<ClusterNetworkPolicy>,
    pub(crate) admin_policies: Vec<AdminNetworkPolicy>,
    pub(crate) baseline: Option<BaselineAdminNetworkPolicy>,
    pub(crate) nodes: Vec<(IpAddr, NodeInfo)>,
    pub(crate) answers: Vec<Answer>,
    /// The compiled reading of the answers.
    pub(crate) names: Arc<AnsweredNames>,
}

/// What the cluster's DNS has said.
#[derive(Clone)]
pub(crate) struct Answer {
    name: String,
    address: IpAddr,
    pub(crate) from: Instant,
    until: Instant,
}

/// A rule of a tier: what it does, with whom, and by which ports.
type TierRule = (String, Vec<EgressPeer>, Ports);

/// A rule's ports, of either version.
enum Ports {
    New(Vec<ProtocolMatch>),
    Old(Vec<AdminPort>),
}

/// One end of a flow as the other's rules see it.
struct End<'w> {
    pod: Option<&'w Pod>,
    address: IpAddr,
    /// When the flow was let in, if it has been.
    since: Option<Instant>,
}

impl World {
    /// The compiled table of the same.
    pub(crate) fn table(&self) -> PolicyTable {
        let pods = self.pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
        let table = PolicyTable::build(&self.policies, &self.namespaces, pods, self.nodes.clone());
        let table = self.cluster_policies.iter().fold(table, |table, policy| table.with_cluster_policy(policy));
        let table = self.admin_policies.iter().fold(table, |table, policy| table.with_admin_policy(policy));
        let table = self.baseline.iter().fold(table, |table, policy| table.with_baseline_policy(policy));
        table.with_names(self.names.clone())
    }

    /// A pod is told that `name` has `address`.
    pub(crate) fn answer(&mut self, name: &str, address: IpAddr, ttl: u64) {
        self.names.add(name, address, Duration::from_secs(ttl));
        let from = Instant::now();
        let until = from + Duration::from_secs(ttl.max(1));
        self.answers.push(Answer { name: name.to_owned(), address, from, until });
    }

    /// Whether an address is that of a name, or was when the flow was let in.
    fn is_named(&self, wanted: &str, peer: &End<'_>) -> bool {
        let labels = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
        let is_meant = |name: &str| match wanted.strip_prefix("*.") {
            Some(base) => {
                let (name, base) = (labels(name), labels(base));
                name.len() > base.len() && name[name.len() - base.len()..] == base
            }
            None => name == wanted,
        };
        let answers: Vec<&Answer> =
            self.answers.iter().filter(|answer| answer.address == peer.address && is_meant(&answer.name)).collect();
        let now = Instant::now();
        let of_name = |name: &str, time: Instant| {
            let mut its = answers.iter().filter(|answer| answer.name == name);
            its.clone().any(|answer| answer.from <= time) && its.any(|answer| time < answer.until)
        };
        let at = |time: Instant| answers.iter().any(|answer| of_name(&answer.name, time));
        answers.iter().any(|answer| answer.from <= now && now < answer.until) || peer.since.is_some_and(at)
    }

    /// The pod that has an address for itself.
    fn pod(&self, address: IpAddr) -> Option<&Pod> {
        let own = |pod: &Pod| pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
        self.pods.iter().find(|(pod, ips)| own(pod) && ips.contains(&address)).map(|(pod, _)| pod)
    }

    /// Whether both directions allow the flow: (egress, ingress).
    pub(crate) fn allows(&self, flow: &NewFlow) -> (bool, bool) {
        self.judges(flow, None)
    }

    /// The same of a flow that was let in then.
    pub(crate) fn still_allows(&self, flow: &NewFlow, since: Instant) -> (bool, bool) {
        self.judges(flow, Some(since))
    }

    fn judges(&self, flow: &NewFlow, since: Option<Instant>) -> (bool, bool) {
        let (sent_from, seen_from) = (flow.original.src.ip(), flow.translated.src.ip());
        let arrives_at = flow.translated.dst.ip();
        let (source, destination) = (self.pod(sent_from), self.pod(arrives_at));
        let same_pod = match (source, destination) {
            (Some(source), Some(destination)) => std::ptr::eq(source, destination),
            _ => false,
        };
        let is_own =
            |address: IpAddr| self.pod(address).is_some_and(|pod| source.is_some_and(|me| std::ptr::eq(me, pod)));
        if same_pod && is_own(flow.original.dst.ip()) {
            return (true, true); // its own address
        }
        let to = End { pod: destination, address: arrives_at, since };
        let egress = source.is_none_or(|pod| self.direction(pod, "Egress", &to, flow, destination));
        let identity_shows = sent_from == seen_from || same_pod;
        let from = End { pod: source.filter(|_| identity_shows), address: seen_from, since };
        let own_node = destination.is_some_and(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            self.nodes.iter().any(|(ip, name)| *ip == sent_from && Some(&name.name) == node.as_ref())
        });
        let ingress =
            own_node || destination.is_none_or(|pod| self.direction(pod, "Ingress", &from, flow, destination));
        (egress, ingress)
    }

    fn direction(&self, pod: &Pod, direction: &str, peer: &End<'_>, flow: &NewFlow, destination: Option<&Pod>) -> bool {
        self.tier("Admin", pod, direction, peer, flow, destination)
            .or_else(|| self.network_policies(pod, direction, peer, flow, destination))
            .or_else(|| self.tier("Baseline", pod, direction, peer, flow, destination))
            .unwrap_or(true)
    }

    /// What a tier of the administrator's decides, if it does.
    fn tier(
        &self,
        tier: &str,
        pod: &Pod,
        direction: &str,
        peer: &End<'_>,
        flow: &NewFlow,
        destination: Option<&Pod>,
    ) -> Option<bool> {
        for (action, peers, ports) in self.tier_rules(tier, pod, direction == "Ingress") {
            let peer_matches = peers.iter().any(|allowed| match (&allowed.networks, &allowed.nodes) {
                _ if allowed.domain_names.is_some() => {
                    allowed.domain_names.iter().flatten().any(|wanted| self.is_named(wanted, peer))
                }
                (Some(networks), None) => {
                    networks.iter().any(|range| range.parse::<ipnet::IpNet>().expect("a range").contains(&peer.address))
                }
                (None, Some(selector)) => self
                    .nodes
                    .iter()
                    .any(|(ip, node)| *ip == peer.address && peer.pod.is_none() && selects(selector, &node.labels)),
                _ => peer.pod.is_some_and(|pod| self.is_of(&allowed.pod, pod)),
            });
            let port_matches = match &ports {
                Ports::New(list) => list.is_empty() || list.iter().any(|given| protocol(given, flow, destination)),
                Ports::Old(list) => list.is_empty() || list.iter().any(|given| admin_port(given, flow, destination)),
            };
            if peer_matches && port_matches {
                match action.as_str() {
                    "Accept" | "Allow" => return Some(true),
                    "Deny" => return Some(false),
                    "Pass" => return None,
                    other => panic!("no action {other}"),
                }
            }
        }
        None
    }

    /// The rules of a tier that are for a pod, in order.
    fn tier_rules(&self, tier: &str, pod: &Pod, ingress: bool) -> Vec<TierRule> {
        let wide = |peers: &[PodPeer]| -> Vec<EgressPeer> {
            peers.iter().map(|pod| EgressPeer { pod: pod.clone(), ..EgressPeer::default() }).collect()
        };
        let mut policies: Vec<(i32, String, Vec<TierRule>)> = Vec::new();
        for policy in self.cluster_policies.iter().filter(|policy| policy.spec.tier == tier) {
            let spec = &policy.spec;
            let received = spec
                .ingress
                .iter()
                .map(|rule| (rule.action.clone(), wide(&rule.from), Ports::New(rule.protocols.clone())));
            let sent = spec
                .egress
                .iter()
                .map(|rule| (rule.action.clone(), rule.to.clone(), Ports::New(rule.protocols.clone())));
            let rules = if ingress { received.collect() } else { sent.collect() };
            if self.is_of(&spec.subject, pod) {
                policies.push((spec.priority, policy.metadata.name.clone().expect("a name"), rules));
            }
        }
        let admin = self.admin_policies.iter().filter(|_| tier == "Admin").map(|policy| {
            let spec = &policy.spec;
            let name = format!("adminnetworkpolicy/{}", policy.metadata.name.as_deref().expect("a name"));
            (spec.priority, name, &spec.subject, &spec.ingress, &spec.egress)
        });
        let baseline = self.baseline.iter().filter(|_| tier == "Baseline").map(|policy| {
            let spec = &policy.spec;
            (0, "baselineadminnetworkpolicy/default".to_owned(), &spec.subject, &spec.ingress, &spec.egress)
        });
        for (priority, name, subject, received, sent) in admin.chain(baseline) {
            let received =
                received.iter().map(|rule| (rule.action.clone(), wide(&rule.from), Ports::Old(rule.ports.clone())));
            let sent = sent.iter().map(|rule| (rule.action.clone(), rule.to.clone(), Ports::Old(rule.ports.clone())));
            let rules = if ingress { received.collect() } else { sent.collect() };
            if self.is_of(subject, pod) {
                policies.push((priority, name, rules));
            }
        }
        policies.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        policies.into_iter().flat_map(|(_, _, rules)| rules).collect()
    }

    fn is_of(&self, peer: &PodPeer, pod: &Pod) -> bool {
        let (namespaces, pods) = match (&peer.namespaces, &peer.pods) {
            (Some(namespaces), None) => (namespaces.clone(), LabelSelector::default()),
            (None, Some(pods)) => (pods.namespace_selector.clone(), pods.pod_selector.clone()),
            other => panic!("not exactly one of {other:?}"),
        };
        selects(&namespaces, &self.namespace_labels(pod)) && selects(&pods, &labels_of(pod))
    }

    fn namespace_labels(&self, pod: &Pod) -> Labels {
        let name = pod.metadata.namespace.clone().unwrap_or_default();
        let object = self.namespaces.iter().find(|namespace| namespace.metadata.name.as_ref() == Some(&name));
        let mut labels = object.and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".into(), name);
        labels
    }

    /// What the namespace's policies decide, if any isolates the pod.
    fn network_policies(
        &self,
        pod: &Pod,
        direction: &str,
        peer: &End<'_>,
        flow: &NewFlow,
        destination: Option<&Pod>,
    ) -> Option<bool> {
        let mut isolated = false;
        for policy in &self.policies {
            let spec = policy.spec.as_ref().expect("a spec");
            let types = spec.policy_types.clone().unwrap_or_else(|| {
                let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
                if egress { vec!["Ingress".into(), "Egress".into()] } else { vec!["Ingress".into()] }
            });
            let selector = spec.pod_selector.clone().unwrap_or_default();
            if policy.metadata.namespace != pod.metadata.namespace
                || !types.iter().any(|kind| kind == direction)
                || !selects(&selector, &labels_of(pod))
            {
                continue;
            }
            isolated = true;
            let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> = if direction == "Ingress" {
                let rules = spec.ingress.clone().unwrap_or_default().into_iter();
                rules.map(|rule| (rule.from.unwrap_or_default(), rule.ports.unwrap_or_default())).collect()
            } else {
                let rules = spec.egress.clone().unwrap_or_default().into_iter();
                rules.map(|rule| (rule.to.unwrap_or_default(), rule.ports.unwrap_or_default())).collect()
            };
            for (peers, ports) in rules {
                let peer_matches = peers.is_empty() || peers.iter().any(|allowed| self.peer(policy, allowed, peer));
                let port_matches = ports.is_empty() || ports.iter().any(|allowed| port(allowed, flow, destination));
                if peer_matches && port_matches {
                    return Some(true);
                }
            }
        }
        isolated.then_some(false)
    }

    fn peer(&self, policy: &NetworkPolicy, allowed: &NetworkPolicyPeer, peer: &End<'_>) -> bool {
        if let Some(block) = &allowed.ip_block {
            let within = |range: &str| range.parse::<ipnet::IpNet>().expect("a range").contains(&peer.address);
            return within(&block.cidr) && !block.except.iter().flatten().any(|range| within(range));
        }
        let Some(pod) = peer.pod else { return false };
        let namespace_matches = match &allowed.namespace_selector {
            None => pod.metadata.namespace == policy.metadata.namespace,
            Some(selector) => selects(selector, &self.namespace_labels(pod)),
        };
        namespace_matches && allowed.pod_selector.as_ref().is_none_or(|selector| selects(selector, &labels_of(pod)))
    }
}

fn labels_of(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let actual = labels.get(&expression.key);
            let listed = actual.is_some_and(|actual| expression.values.iter().flatten().any(|value| value == actual));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => actual.is_some(),
                "DoesNotExist" => actual.is_none(),
                other => panic!("no operator {other}"),
            }
        })
}

fn port(allowed: &NetworkPolicyPort, flow: &NewFlow, destination: Option<&Pod>) -> bool {
    let name = match flow.translated.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        _ => return false,
    };
    let number = i32::from(flow.translated.dst.port());
    if allowed.protocol.as_deref().unwrap_or("TCP") != name {
        return false;
    }
    match &allowed.port {
        None => true,
        Some(IntOrString::Int(first)) => (*first..=allowed.end_port.unwrap_or(*first)).contains(&number),
        Some(IntOrString::String(wanted)) => {
            let spec = destination.and_then(|pod| pod.spec.as_ref());
            let main = spec.iter().flat_map(|spec| &spec.containers);
            let before = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let sidecars = before.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let containers = main.chain(sidecars);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let first = ports
                .find(|port| port.name.as_ref() == Some(wanted) && port.protocol.as_deref().unwrap_or("TCP") == name);
            first.is_some_and(|port| port.container_port == number)
        }
    }
}

fn protocol(given: &ProtocolMatch, flow: &NewFlow, destination: Option<&Pod>) -> bool {
    let number = i32::from(flow.translated.dst.port());
    if let Some(wanted) = &given.destination_named_port {
        let names = [(Protocol::Tcp, "TCP"), (Protocol::Udp, "UDP"), (Protocol::Sctp, "SCTP")];
        return names.iter().any(|(protocol, name)| {
            let port = NetworkPolicyPort {
                protocol: Some((*name).into()),
                port: Some(IntOrString::String(wanted.clone())),
                end_port: None,
            };
            flow.translated.protocol == *protocol && self::port(&port, flow, destination)
        });
    }
    let wanted = match flow.translated.protocol {
        Protocol::Tcp => &given.tcp,
        Protocol::Udp => &given.udp,
        Protocol::Sctp => &given.sctp,
        _ => return false,
    };
    let port = wanted.as_ref().and_then(|wanted| wanted.destination_port.as_ref());
    port.is_some_and(|port| match (&port.number, &port.range) {
        (Some(one), None) => *one == number,
        (None, Some(range)) => (range.start..=range.end).contains(&number),
        other => panic!("not exactly one of {other:?}"),
    })
}

fn admin_port(given: &AdminPort, flow: &NewFlow, destination: Option<&Pod>) -> bool {
    let number = i32::from(flow.translated.dst.port());
    let of = |protocol: &str| match flow.translated.protocol {
        Protocol::Tcp => protocol == "TCP",
        Protocol::Udp => protocol == "UDP",
        Protocol::Sctp => protocol == "SCTP",
        _ => false,
    };
    if let Some(one) = &given.port_number {
        return of(&one.protocol) && one.port == number;
    }
    if let Some(range) = &given.port_range {
        return of(&range.protocol) && (range.start..=range.end).contains(&number);
    }
    let named = ProtocolMatch { destination_named_port: given.named_port.clone(), ..ProtocolMatch::default() };
    protocol(&named, flow, destination)
}
