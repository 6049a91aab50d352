//! The compiled rules beside a naive reading of the API, on random clusters, policies and flows.

use crate::support::{namespace, pod};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::{FiveTuple, NewFlow, PortTag, Protocol};
use policy::v1alpha2::{ClusterNetworkPolicy, EgressPeer, PodPeer, ProtocolMatch};
use policy::{PodInfo, PolicyTable, Ruling};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const CLUSTERS: u64 = 250;
const FLOWS: usize = 100;
const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];

type Labels = BTreeMap<String, String>;

// ── the naive reading ──────────────────────────────────────────────────────────────────────────────────────────────

struct World {
    namespaces: Vec<Namespace>,
    pods: Vec<(Pod, IpAddr)>,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
    nodes: Vec<(IpAddr, String)>,
}

struct End<'w> {
    pod: Option<&'w Pod>,
    address: IpAddr,
}

impl World {
    fn pod(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.iter().find(|(_, ip)| *ip == address).map(|(pod, _)| pod)
    }

    /// Whether both directions allow the flow: (egress, ingress).
    fn allows(&self, flow: &NewFlow) -> (bool, bool) {
        let (sent_from, seen_from) = (flow.original.src.ip(), flow.translated.src.ip());
        let arrives_at = flow.translated.dst.ip();
        let (source, destination) = (self.pod(sent_from), self.pod(arrives_at));
        if source.is_some() && sent_from == flow.original.dst.ip() && sent_from == arrives_at {
            return (true, true); // its own address
        }
        let to = End { pod: destination, address: arrives_at };
        let egress = source.is_none_or(|pod| self.direction(pod, "Egress", &to, flow, destination));
        let hairpin = source.is_some() && sent_from == arrives_at;
        let identity_shows = sent_from == seen_from || hairpin;
        let from = End { pod: source.filter(|_| identity_shows), address: seen_from };
        let own_node = destination.is_some_and(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            self.nodes.iter().any(|(ip, name)| *ip == sent_from && Some(name) == node.as_ref())
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
        let mut policies: Vec<&ClusterNetworkPolicy> =
            self.cluster_policies.iter().filter(|policy| policy.spec.tier == tier).collect();
        policies.sort_by_key(|policy| (policy.spec.priority, policy.metadata.name.clone()));
        let of_subject = policies.into_iter().filter(|policy| self.is_of(&policy.spec.subject, pod));
        let rules: Vec<(String, Vec<EgressPeer>, Vec<ProtocolMatch>)> = of_subject
            .flat_map(|policy| {
                let spec = policy.spec.clone();
                if direction == "Ingress" {
                    let wide = |pod| EgressPeer { pod, ..EgressPeer::default() };
                    let rules = spec.ingress.into_iter();
                    rules
                        .map(|rule| (rule.action, rule.from.into_iter().map(wide).collect(), rule.protocols))
                        .collect::<Vec<_>>()
                } else {
                    spec.egress.into_iter().map(|rule| (rule.action, rule.to, rule.protocols)).collect()
                }
            })
            .collect();
        for (action, peers, protocols) in rules {
            let peer_matches = peers.iter().any(|allowed| match &allowed.networks {
                Some(networks) => {
                    networks.iter().any(|range| range.parse::<ipnet::IpNet>().expect("a range").contains(&peer.address))
                }
                None => peer.pod.is_some_and(|pod| self.is_of(&allowed.pod, pod)),
            });
            let protocol_matches =
                protocols.is_empty() || protocols.iter().any(|given| protocol(given, flow, destination));
            if peer_matches && protocol_matches {
                match action.as_str() {
                    "Accept" => return Some(true),
                    "Deny" => return Some(false),
                    "Pass" => return None,
                    other => panic!("no action {other}"),
                }
            }
        }
        None
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
            let containers = destination.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
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

// ── random worlds ──────────────────────────────────────────────────────────────────────────────────────────────────

struct Dice(SmallRng);

impl Dice {
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.0).expect("something to choose from")
    }

    fn up_to(&mut self, most: usize) -> usize {
        self.0.random_range(0..=most)
    }

    fn selector(&mut self) -> Value {
        let mut selector = json!({});
        if self.one_in(2) {
            let key = *self.pick(&["a", "b"]);
            selector["matchLabels"] = json!({ key: *self.pick(&["1", "2"]) });
        }
        if self.one_in(4) {
            let operator = *self.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
            let mut expression = json!({ "key": *self.pick(&["a", "b", "c"]), "operator": operator });
            if operator.ends_with("In") {
                expression["values"] = json!([*self.pick(&["1", "2"]), "3"]);
            }
            selector["matchExpressions"] = json!([expression]);
        }
        selector
    }

    fn namespace_selector(&mut self) -> Value {
        if self.one_in(3) {
            return json!({ "matchLabels": { "kubernetes.io/metadata.name": *self.pick(&NAMESPACES) } });
        }
        self.selector()
    }

    fn peer(&mut self) -> Value {
        if self.one_in(3) {
            let cidrs = ["10.244.0.0/16", "10.244.1.0/24", "10.244.0.0/22", "0.0.0.0/0", "203.0.113.0/24", "::/0"];
            let cidr = *self.pick(&cidrs);
            let mut block = json!({ "cidr": cidr });
            if self.one_in(2) && cidr.contains('.') {
                let within = ["10.244.1.0/28", "10.244.1.4/32", "10.244.2.0/24", "203.0.113.8/29"];
                let count = 1 + self.up_to(1);
                block["except"] = (0..count).map(|_| Value::from(*self.pick(&within))).collect();
            }
            return json!({ "ipBlock": block });
        }
        let mut peer = json!({});
        let kinds = self.up_to(2);
        if kinds != 0 {
            peer["namespaceSelector"] = self.namespace_selector();
        }
        if kinds != 1 {
            peer["podSelector"] = self.selector();
        }
        peer
    }

    fn port(&mut self) -> Value {
        let mut port = json!({});
        if self.one_in(2) {
            port["protocol"] = (*self.pick(&["TCP", "UDP", "SCTP"])).into();
        }
        match self.up_to(4) {
            0 => {}
            1 => port["port"] = (*self.pick(&["http", "dns"])).into(),
            2 => {
                port["port"] = (*self.pick(&[50, 80])).into();
                port["endPort"] = (*self.pick(&[80, 90, 8080])).into();
            }
            _ => port["port"] = (*self.pick(&[53, 80, 8080])).into(),
        }
        port
    }

    fn rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({});
        if !self.one_in(5) {
            let count = self.up_to(3);
            rule[peers] = (0..count).map(|_| self.peer()).collect();
        }
        if !self.one_in(3) {
            let count = self.up_to(2);
            rule["ports"] = (0..count).map(|_| self.port()).collect();
        }
        rule
    }

    fn policy(&mut self, number: usize) -> NetworkPolicy {
        let mut spec = json!({ "podSelector": self.selector() });
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            if !self.one_in(4) {
                let count = self.up_to(2);
                spec[field] = (0..count).map(|_| self.rule(peers)).collect();
            }
        }
        let types = *self.pick(&["", "Ingress", "Egress", "Ingress Egress"]);
        if !types.is_empty() {
            spec["policyTypes"] = types.split(' ').map(Value::from).collect();
        }
        let namespace = *self.pick(&NAMESPACES);
        serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": format!("policy-{number}") },
            "spec": spec,
        }))
        .expect("a NetworkPolicy")
    }

    fn pod_peer(&mut self) -> Value {
        if self.one_in(2) {
            return json!({ "namespaces": self.namespace_selector() });
        }
        json!({ "pods": { "namespaceSelector": self.namespace_selector(), "podSelector": self.selector() } })
    }

    fn protocol_match(&mut self) -> Value {
        if self.one_in(4) {
            return json!({ "destinationNamedPort": *self.pick(&["http", "dns"]) });
        }
        let protocol = *self.pick(&["tcp", "tcp", "udp", "sctp"]);
        let port = if self.one_in(2) {
            json!({ "number": *self.pick(&[53, 80, 8080]) })
        } else {
            json!({ "range": { "start": 50, "end": *self.pick(&[80, 90, 8080]) } })
        };
        json!({ protocol: { "destinationPort": port } })
    }

    fn cluster_rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({ "action": *self.pick(&["Accept", "Deny", "Pass"]) });
        let count = 1 + self.up_to(1);
        rule[peers] = (0..count)
            .map(|_| {
                if peers == "to" && self.one_in(2) {
                    let ranges = ["10.244.0.0/16", "10.244.1.0/24", "203.0.113.0/29", "0.0.0.0/0", "::/0"];
                    return json!({ "networks": [*self.pick(&ranges), *self.pick(&ranges)] });
                }
                self.pod_peer()
            })
            .collect();
        if self.one_in(2) {
            let count = 1 + self.up_to(1);
            rule["protocols"] = (0..count).map(|_| self.protocol_match()).collect();
        }
        rule
    }

    fn cluster_policy(&mut self, number: usize) -> ClusterNetworkPolicy {
        let mut spec = json!({
            "tier": *self.pick(&["Admin", "Baseline"]),
            "priority": self.up_to(3),
            "subject": if self.one_in(2) { json!({ "namespaces": {} }) } else { self.pod_peer() },
        });
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            let count = self.up_to(4);
            spec[field] = (0..count).map(|_| self.cluster_rule(peers)).collect();
        }
        serde_json::from_value(json!({ "metadata": { "name": format!("cluster-{number}") }, "spec": spec }))
            .expect("a ClusterNetworkPolicy")
    }

    fn labels(&mut self) -> String {
        let a = *self.pick(&["", "a=1 ", "a=2 "]);
        let b = *self.pick(&["", "b=1 ", "b=2 "]);
        format!("{a}{b}")
    }

    fn world(&mut self) -> World {
        let namespaces = NAMESPACES.iter().map(|name| namespace(name, &self.labels())).collect();
        let nodes = vec![
            (IpAddr::from([172, 18, 0, 2]), "node-1".to_owned()),
            (IpAddr::from([172, 18, 0, 3]), "node-2".to_owned()),
        ];
        let pods = (0..8u8)
            .map(|n| {
                let node = 1 + n % 2;
                let name = format!("{}/pod-{n}", *self.pick(&NAMESPACES));
                let ports = *self.pick(&["", "http=80", "http=8080 dns=53/UDP", "dns=53 dns=53/UDP http=80/UDP"]);
                let address = IpAddr::from([10, 244, node, 2 + n]);
                (pod(&name, &self.labels(), &format!("node-{node}"), ports), address)
            })
            .collect();
        let count = self.up_to(6);
        let policies = (0..count).map(|number| self.policy(number)).collect();
        let count = if self.one_in(2) { 0 } else { self.up_to(4) };
        let cluster_policies = (0..count).map(|number| self.cluster_policy(number)).collect();
        World { namespaces, pods, policies, cluster_policies, nodes }
    }

    fn flow(&mut self, world: &World) -> NewFlow {
        let outside = [[203, 0, 113, 7], [203, 0, 113, 9], [172, 18, 0, 2], [172, 18, 0, 3], [10, 244, 1, 200]]
            .map(Ipv4Addr::from);
        let mut address =
            || -> IpAddr { if self.one_in(4) { IpAddr::from(*self.pick(&outside)) } else { self.pick(&world.pods).1 } };
        let (src, dst) = (address(), address());
        let protocol = *self.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp]);
        let port = if protocol == Protocol::Icmp { 0 } else { *self.pick(&[49, 50, 53, 80, 81, 90, 91, 8080, 8081]) };
        let sent = FiveTuple { protocol, src: SocketAddr::new(src, 40_000), dst: SocketAddr::new(dst, port) };
        let mut flow = NewFlow { original: sent, translated: sent, from: PortTag(1), to: PortTag(2) };
        if self.one_in(3) {
            flow.original.dst = "10.96.0.7:80".parse().expect("an address");
            if src == dst || self.one_in(2) {
                flow.translated.src =
                    SocketAddr::new(*self.pick(&[[172, 18, 0, 2].into(), [172, 18, 0, 3].into()]), 50_000);
            }
        }
        flow
    }
}

#[test]
fn the_compiled_rules_and_their_explanation_agree_with_a_naive_reading() {
    let mut denied = 0;
    for seed in 0..CLUSTERS {
        let mut dice = Dice(SmallRng::seed_from_u64(seed));
        let world = dice.world();
        let pods: Vec<(&Pod, [IpAddr; 1])> = world.pods.iter().map(|(pod, ip)| (pod, [*ip])).collect();
        let infos = pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
        let table = PolicyTable::build(&world.policies, &world.namespaces, infos, world.nodes.clone());
        let table = world.cluster_policies.iter().fold(table, |table, policy| table.with_cluster_policy(policy));
        for number in 0..FLOWS {
            let flow = dice.flow(&world);
            let (egress, ingress) = world.allows(&flow);
            let explanation = table.explain(&flow);
            let context = || {
                format!(
                    "seed {seed}, flow {number}: {flow:?}\n{:#?}\n{:#?}\n{explanation:#?}",
                    world.policies, world.cluster_policies
                )
            };
            assert_eq!(table.allows(&flow).is_ok(), egress && ingress, "{}", context());
            assert_eq!(explanation.allowed, egress && ingress, "{}", context());
            assert_eq!(explanation.egress.ruling != Ruling::Denied, egress, "{}", context());
            assert_eq!(explanation.ingress.ruling != Ruling::Denied, ingress, "{}", context());
            let (side, code) = if egress {
                (&explanation.ingress, policy::reason::POLICY_DENIED_INGRESS)
            } else {
                (&explanation.egress, policy::reason::POLICY_DENIED_EGRESS)
            };
            let reason = match side.tier {
                _ if egress && ingress => None,
                Some("NetworkPolicy") => Some(code),
                _ => Some(policy::reason::CNP_DENY),
            };
            assert_eq!(table.allows(&flow).err(), reason, "{}", context());
            denied += usize::from(reason.is_some());
        }
    }
    // The dice must not be loaded: both outcomes are common.
    let all = CLUSTERS as usize * FLOWS;
    assert!((all / 10..all * 9 / 10).contains(&denied), "{denied} of {all} denied");
}

#[test]
fn a_policy_that_comes_and_goes_leaves_no_trace() {
    for seed in 0..50 {
        let mut dice = Dice(SmallRng::seed_from_u64(seed));
        let mut world = dice.world();
        let pods: Vec<(Pod, [IpAddr; 1])> = world.pods.iter().map(|(pod, ip)| (pod.clone(), [*ip])).collect();
        let infos = pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
        let mut table = PolicyTable::build(&world.policies, &world.namespaces, infos, world.nodes.clone());
        for policy in &world.cluster_policies {
            table = table.with_cluster_policy(policy);
        }
        for step in 0..10 {
            for _ in 0..10 {
                let flow = dice.flow(&world); // fills the caches that the next step must not believe
                let (egress, ingress) = world.allows(&flow);
                assert_eq!(table.allows(&flow).is_ok(), egress && ingress, "seed {seed}, step {step}: {flow:?}");
            }
            if dice.one_in(3) {
                let number = dice.up_to(4);
                let policy = dice.cluster_policy(number); // perhaps another state of one that is known
                world.cluster_policies.retain(|known| known.metadata.name != policy.metadata.name);
                if dice.one_in(2) {
                    table = table.with_cluster_policy(&policy);
                    world.cluster_policies.push(policy);
                } else {
                    table = table.without_cluster_policy(&policy.metadata.name.expect("set"));
                }
            } else if dice.one_in(2) && !world.policies.is_empty() {
                let gone = world.policies.swap_remove(dice.up_to(world.policies.len() - 1));
                let metadata = gone.metadata;
                table = table.without_policy(&metadata.namespace.expect("set"), &metadata.name.expect("set"));
            } else {
                let policy = dice.policy(100 + step);
                table = table.with_policy(&policy);
                world.policies.push(policy);
            }
        }
    }
}
