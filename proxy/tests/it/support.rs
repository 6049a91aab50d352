//! A small cluster to send flows into.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netstack::{FiveTuple, PortTag, Protocol, Translate, Translation};
use proxy::{Addressing, Explanation, ServiceTable, Translator};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) const CLIENT: &str = "10.244.1.50"; // a pod on node-1
pub(crate) const OTHER_CLIENT: &str = "10.244.2.50"; // a pod on node-2
pub(crate) const NODE_1: &str = "172.18.0.2";
pub(crate) const NODE_2: &str = "172.18.0.3";
pub(crate) const OUTSIDE: &str = "203.0.113.7";
pub(crate) const VIP: &str = "10.96.0.20:80";

pub(crate) fn addressing() -> Addressing {
    Addressing {
        service_cidrs: vec![(IpAddr::from([10, 96, 0, 0]), 12)],
        cluster_cidrs: vec![(IpAddr::from([10, 244, 0, 0]), 16)],
        gateway_addresses: vec![IpAddr::from([172, 18, 0, 1])],
    }
}

pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("the test's YAML is well-formed");
    serde_json::from_value(value).expect("the test's YAML is of its kind")
}

/// A Service of namespace `default` with this `spec`.
pub(crate) fn service(name: &str, spec: &str) -> Service {
    yaml(&format!("{{ metadata: {{ namespace: default, name: {name} }}, spec: {spec} }}"))
}

/// The usual one: 10.96.0.20:80 to the endpoints' 8080, and what else `more` says.
pub(crate) fn web(more: &str) -> Service {
    service("web", &format!("{{ clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], ports: [{{ port: 80 }}] {more} }}"))
}

/// The same with nodePort 30080, external address 192.0.2.1 and load balancer address 192.0.2.2.
pub(crate) fn external_web(more: &str) -> Service {
    let mut service = service(
        "web",
        &format!(
            "{{ type: LoadBalancer, clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], externalIPs: [192.0.2.1], ports: [{{ port: 80, nodePort: 30080 }}] {more} }}"
        ),
    );
    service.status = Some(yaml("{ loadBalancer: { ingress: [{ ip: 192.0.2.2 }] } }"));
    service
}

/// A slice of `service` with one unnamed TCP port 8080 and these endpoints: `10.244.1.2@node-1 notready terminating
/// zone=a node=node-1`.
pub(crate) fn slice(service: &str, name: &str, endpoints: &[&str]) -> EndpointSlice {
    slice_with_ports(service, name, "[{ name: '', port: 8080, protocol: TCP }]", endpoints)
}

pub(crate) fn slice_with_ports(service: &str, name: &str, ports: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|text| {
            let mut words = text.split_whitespace();
            let (address, node) = words.next().expect("an address").split_once('@').expect("address@node");
            let has = |word: &str| text.split_whitespace().any(|other| other == word);
            let hints = |kind: &str| -> String {
                let of_kind = text.split_whitespace().filter_map(|word| word.strip_prefix(kind)?.strip_prefix('='));
                of_kind.map(|hint| format!("{{ name: {hint} }}")).collect::<Vec<_>>().join(", ")
            };
            let (ready, serving) = match (has("notready"), has("terminating")) {
                (true, _) => (false, false),
                (false, terminating) => (!terminating, true),
            };
            let node = if node.is_empty() { String::new() } else { format!("nodeName: {node}, ") };
            format!(
                "{{ addresses: ['{address}'], {node}conditions: {{ ready: {ready}, serving: {serving}, terminating: {} }}, hints: {{ forZones: [{}], forNodes: [{}] }} }}",
                has("terminating"),
                hints("zone"),
                hints("node"),
            )
        })
        .collect();
    let family = if endpoints.iter().any(|endpoint| endpoint.contains("::")) { "IPv6" } else { "IPv4" };
    yaml(&format!(
        "{{ metadata: {{ namespace: default, name: {name}, labels: {{ kubernetes.io/service-name: {service} }} }}, addressType: {family}, ports: {ports}, endpoints: [{}] }}",
        endpoints.join(", ")
    ))
}

/// A running pod on node-1 with one container port.
pub(crate) fn host_port_pod(name: &str, ip: &str, port: &str) -> Pod {
    yaml(&format!(
        "{{ metadata: {{ namespace: default, name: {name} }}, spec: {{ nodeName: node-1, containers: [{{ name: main, ports: [{port}] }}] }}, status: {{ phase: Running, podIP: {ip}, podIPs: [{{ ip: {ip} }}] }} }}"
    ))
}

pub(crate) fn node(name: &str, address: &str, cidr: &str, zone: &str) -> Node {
    yaml(&format!(
        "{{ metadata: {{ name: {name}, labels: {{ topology.kubernetes.io/zone: {zone} }} }}, spec: {{ podCIDR: {cidr}, podCIDRs: [{cidr}] }}, status: {{ addresses: [{{ type: Hostname, address: {name} }}, {{ type: InternalIP, address: {address} }}] }} }}"
    ))
}

pub(crate) fn two_nodes() -> Vec<Arc<Node>> {
    vec![Arc::new(node("node-1", NODE_1, "10.244.1.0/24", "a")), Arc::new(node("node-2", NODE_2, "10.244.2.0/24", "b"))]
}

pub(crate) struct Cluster {
    pub(crate) translator: Translator,
}

/// Two nodes (node-1 in zone a, node-2 in zone b), these Services and slices.
pub(crate) fn cluster(services: &[Service], slices: &[EndpointSlice]) -> Cluster {
    let services: Vec<Arc<Service>> = services.iter().cloned().map(Arc::new).collect();
    let slices: Vec<Arc<EndpointSlice>> = slices.iter().cloned().map(Arc::new).collect();
    let table = ServiceTable::build(&addressing(), &services, &slices, &two_nodes());
    Cluster { translator: Translator::new(table, 7) }
}

/// `web` with these endpoints.
pub(crate) fn web_cluster(more: &str, endpoints: &[&str]) -> Cluster {
    cluster(&[web(more)], &[slice("web", "web-1", endpoints)])
}

/// `external_web` with these endpoints.
pub(crate) fn external_cluster(more: &str, endpoints: &[&str]) -> Cluster {
    cluster(&[external_web(more)], &[slice("web", "web-1", endpoints)])
}

pub(crate) fn flow(protocol: Protocol, from: &str, to: &str) -> FiveTuple {
    FiveTuple {
        protocol,
        src: SocketAddr::new(from.parse().expect("an address"), 40_000),
        dst: to.parse().expect("a socket address"),
    }
}

impl Cluster {
    pub(crate) fn send_at(&self, protocol: Protocol, from: &str, to: &str, now: Instant) -> Translation {
        self.translator.translate(&flow(protocol, from, to), PortTag(1), now)
    }

    pub(crate) fn send(&self, from: &str, to: &str) -> Translation {
        self.send_at(Protocol::Tcp, from, to, Instant::now())
    }

    /// Whether a flow goes where it is addressed to, whatever its source becomes.
    pub(crate) fn as_addressed(&self, from: &str, to: &str) -> bool {
        match self.send(from, to) {
            Translation::Pass => true,
            Translation::To { dst, .. } => dst == to.parse().expect("a socket address"),
            _ => false,
        }
    }

    /// Where many flows go, sorted, without ports and without repetition.
    pub(crate) fn spread(&self, from: &str, to: &str) -> Vec<String> {
        self.counts(from, to, 64).into_keys().collect()
    }

    pub(crate) fn counts(&self, from: &str, to: &str, flows: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..flows {
            let Translation::To { dst, .. } = self.send(from, to) else { panic!("{:?}", self.send(from, to)) };
            *counts.entry(dst.ip().to_string()).or_default() += 1;
        }
        counts
    }

    /// The source address that the endpoint sees: `None` is the client's own.
    pub(crate) fn snat(&self, from: &str, to: &str) -> Option<String> {
        match self.send(from, to) {
            Translation::To { snat, .. } => snat.map(|address| address.to_string()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn explain(&self, from: &str, to: &str) -> Explanation {
        self.translator.explain(&flow(Protocol::Tcp, from, to), Instant::now())
    }
}
