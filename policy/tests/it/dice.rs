//! Random clusters, policies and flows, from a seed.

use crate::naive::World;
use crate::support::{namespace, pod};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, NewFlow, PortTag, Protocol};
use policy::NodeInfo;
use policy::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use policy::v1alpha2::ClusterNetworkPolicy;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

pub(crate) const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];

/// Chance.
pub(crate) struct Dice(SmallRng);

impl Dice {
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.0).expect("something to choose from")
    }

    pub(crate) fn up_to(&mut self, most: usize) -> usize {
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
            let cidrs =
                ["10.244.0.0/16", "10.244.1.0/24", "10.244.0.0/22", "0.0.0.0/0", "203.0.113.0/24", "::/0", "fd00::/64"];
            let cidr = *self.pick(&cidrs);
            let mut block = json!({ "cidr": cidr });
            if self.one_in(2) {
                let within: &[&str] = if cidr.contains('.') {
                    &["10.244.1.0/28", "10.244.1.4/32", "10.244.2.0/24", "203.0.113.8/29"]
                } else {
                    &["fd00::/125", "fd00::4/128", "2001:db8::/32", "fd00::/124"]
                };
                let count = 1 + self.up_to(2);
                block["except"] = (0..count).map(|_| Value::from(*self.pick(within))).collect();
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

    pub(crate) fn policy(&mut self, number: usize) -> NetworkPolicy {
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

    fn destination(&mut self) -> Value {
        match self.up_to(5) {
            0 | 1 => {
                let ranges = ["10.244.0.0/16", "10.244.1.0/24", "203.0.113.0/29", "0.0.0.0/0", "::/0", "fd00::/124"];
                json!({ "networks": [*self.pick(&ranges), *self.pick(&ranges)] })
            }
            2 => json!({ "nodes": self.selector() }),
            _ => self.pod_peer(),
        }
    }

    /// Destinations of a rule; those that let in may go by names.
    fn destinations(&mut self, action: &str) -> Vec<Value> {
        let count = 1 + self.up_to(1);
        (0..count)
            .map(|_| {
                if matches!(action, "Accept" | "Allow") && self.one_in(3) {
                    let names = ["example.com", "a.example.com", "*.example.com", "*.b.example.com", "other.org"];
                    return json!({ "domainNames": [*self.pick(&names), *self.pick(&names)] });
                }
                self.destination()
            })
            .collect()
    }

    /// A pod is told an address of a name.
    pub(crate) fn answer(&mut self, world: &mut World, ttl: u64) {
        let name = *self.pick(&["example.com", "a.example.com", "a.b.example.com", "other.org", "c.other.org"]);
        let of_pods = world.pods.iter().flat_map(|(_, ips)| ips.clone());
        let address = *self.pick(&outside().into_iter().chain(of_pods).collect::<Vec<_>>());
        world.answer(name, address, ttl);
    }

    fn admin_rule(&mut self, peers: &str, actions: &[&str]) -> Value {
        let action = *self.pick(actions);
        let mut rule = json!({ "action": action });
        let count = 1 + self.up_to(1);
        rule[peers] = match peers {
            "to" => self.destinations(action).into(),
            _ => (0..count).map(|_| self.pod_peer()).collect(),
        };
        if self.one_in(2) {
            let count = 1 + self.up_to(1);
            rule["ports"] = (0..count)
                .map(|_| {
                    let protocol = *self.pick(&["TCP", "TCP", "UDP", "SCTP"]);
                    match self.up_to(2) {
                        0 => json!({ "portNumber": { "protocol": protocol, "port": *self.pick(&[53, 80, 8080]) } }),
                        1 => {
                            json!({ "portRange": { "protocol": protocol, "start": 50, "end": *self.pick(&[80, 90]) } })
                        }
                        _ => json!({ "namedPort": *self.pick(&["http", "dns"]) }),
                    }
                })
                .collect();
        }
        rule
    }

    fn admin_spec(&mut self, actions: &[&str]) -> Value {
        let mut spec = json!({ "priority": self.up_to(3) });
        spec["subject"] = if self.one_in(2) { json!({ "namespaces": {} }) } else { self.pod_peer() };
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            let count = self.up_to(2);
            spec[field] = (0..count).map(|_| self.admin_rule(peers, actions)).collect();
        }
        spec
    }

    pub(crate) fn admin_policy(&mut self, number: usize) -> AdminNetworkPolicy {
        let spec = self.admin_spec(&["Allow", "Deny", "Pass"]);
        serde_json::from_value(json!({ "metadata": { "name": format!("admin-{number}") }, "spec": spec }))
            .expect("an AdminNetworkPolicy")
    }

    pub(crate) fn baseline(&mut self) -> BaselineAdminNetworkPolicy {
        let spec = self.admin_spec(&["Allow", "Deny"]);
        serde_json::from_value(json!({ "metadata": { "name": "default" }, "spec": spec }))
            .expect("a BaselineAdminNetworkPolicy")
    }

    fn cluster_rule(&mut self, peers: &str) -> Value {
        let action = *self.pick(&["Accept", "Deny", "Pass"]);
        let mut rule = json!({ "action": action });
        let count = 1 + self.up_to(1);
        rule[peers] = match peers {
            "to" => self.destinations(action).into(),
            _ => (0..count).map(|_| self.pod_peer()).collect(),
        };
        if self.one_in(2) {
            let count = 1 + self.up_to(1);
            rule["protocols"] = (0..count).map(|_| self.protocol_match()).collect();
        }
        rule
    }

    pub(crate) fn cluster_policy(&mut self, number: usize) -> ClusterNetworkPolicy {
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

    pub(crate) fn labels(&mut self) -> String {
        let a = *self.pick(&["", "a=1 ", "a=2 "]);
        let b = *self.pick(&["", "b=1 ", "b=2 "]);
        format!("{a}{b}")
    }

    /// A pod of this number: some have addresses of both families, some those of their node.
    pub(crate) fn pod(&mut self, number: u8) -> (Pod, Vec<IpAddr>) {
        let node = 1 + number % 2;
        let name = format!("{}/pod-{number}", *self.pick(&NAMESPACES));
        let ports = *self.pick(&["", "http=80", "http=8080 dns=53/UDP", "dns=53 dns=53/UDP http=80/UDP"]);
        let mut pod = pod(&name, &self.labels(), &format!("node-{node}"), ports);
        let spec = pod.spec.as_mut().expect("a spec");
        if self.one_in(4) {
            // A sidecar has ports too; another init container has ended when they would count.
            let policy = if self.one_in(2) { json!("Always") } else { Value::Null };
            let container =
                json!({ "name": "first", "restartPolicy": policy, "ports": [{ "name": "dns", "containerPort": 90 }] });
            spec.init_containers = Some(vec![serde_json::from_value(container).expect("a Container")]);
        }
        if self.one_in(8) {
            spec.host_network = Some(true);
            return (pod, vec![IpAddr::from([172, 18, 0, 1 + node])]);
        }
        let mut ips = vec![IpAddr::from([10, 244, node, 2 + number])];
        if self.one_in(2) {
            ips.push(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(2 + number)]));
        }
        (pod, ips)
    }

    pub(crate) fn node(&mut self, number: u8) -> (IpAddr, NodeInfo) {
        let labels = self.labels();
        let pairs = labels.split_whitespace().filter_map(|pair| pair.split_once('='));
        let labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        (IpAddr::from([172, 18, 0, 1 + number]), NodeInfo { name: format!("node-{number}"), labels })
    }

    pub(crate) fn world(&mut self) -> World {
        let namespaces = NAMESPACES.iter().map(|name| namespace(name, &self.labels())).collect();
        let nodes = vec![self.node(1), self.node(2)];
        let pods = (0..8u8).map(|number| self.pod(number)).collect();
        let count = self.up_to(6);
        let policies = (0..count).map(|number| self.policy(number)).collect();
        let count = if self.one_in(2) { 0 } else { self.up_to(4) };
        let cluster_policies = (0..count).map(|number| self.cluster_policy(number)).collect();
        let count = if self.one_in(3) { self.up_to(2) } else { 0 };
        let admin_policies = (0..count).map(|number| self.admin_policy(number)).collect();
        let baseline = self.one_in(4).then(|| self.baseline());
        let mut world =
            World { namespaces, pods, policies, cluster_policies, admin_policies, baseline, nodes, ..World::default() };
        for _ in 0..8 {
            self.answer(&mut world, 3600);
        }
        world
    }

    pub(crate) fn flow(&mut self, world: &World) -> NewFlow {
        let outside = outside();
        let of_pods: Vec<IpAddr> = world.pods.iter().flat_map(|(_, ips)| ips.clone()).collect();
        let mut address = || if self.one_in(4) { *self.pick(&outside) } else { *self.pick(&of_pods) };
        let src = address();
        let dst = std::iter::repeat_with(address).find(|dst| dst.is_ipv4() == src.is_ipv4()).expect("without end");
        let protocol = *self.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp]);
        let port = if protocol == Protocol::Icmp { 0 } else { *self.pick(&[49, 50, 53, 80, 81, 90, 91, 8080, 8081]) };
        let sent = FiveTuple { protocol, src: SocketAddr::new(src, 40_000), dst: SocketAddr::new(dst, port) };
        let mut flow = NewFlow { original: sent, translated: sent, from: PortTag(1), to: PortTag(2) };
        if self.one_in(3) {
            flow.original.dst =
                if src.is_ipv4() { "10.96.0.7:80" } else { "[fd00:96::7]:80" }.parse().expect("an address");
            if src == dst || self.one_in(2) {
                let gateways: [[u8; 4]; 2] = [[172, 18, 0, 2], [172, 18, 0, 3]];
                let seen = if src.is_ipv4() {
                    IpAddr::from(*self.pick(&gateways))
                } else {
                    "fd00:18::2".parse().expect("an address")
                };
                flow.translated.src = SocketAddr::new(seen, 50_000);
            }
        }
        flow
    }
}

/// Addresses of no pod.
fn outside() -> Vec<IpAddr> {
    ["203.0.113.7", "203.0.113.9", "172.18.0.2", "172.18.0.3", "10.244.1.200", "2001:db8::9", "fd00::99"]
        .map(|address| address.parse().expect("an address"))
        .to_vec()
}
