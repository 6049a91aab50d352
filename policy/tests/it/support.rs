//! A small cluster to ask questions of.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, NewFlow, PortTag, Protocol};
use policy::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use policy::v1alpha2::ClusterNetworkPolicy;
use policy::{AnsweredNames, Explanation, NodeInfo, PodInfo, PolicyTable};
use serde::de::DeserializeOwned;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Accept,
    /// The source's policies say no.
    DenyEgress,
    /// The destination's policies say no.
    DenyIngress,
    /// A policy of the whole cluster says no.
    DenyCluster,
}
pub(crate) use Want::{Accept, DenyCluster, DenyEgress, DenyIngress};

#[derive(Default)]
pub(crate) struct Cluster {
    namespaces: Vec<Namespace>,
    pods: Vec<(Pod, Vec<IpAddr>)>,
    policies: Vec<NetworkPolicy>,
    cluster_policies: Vec<ClusterNetworkPolicy>,
    admin_policies: Vec<AdminNetworkPolicy>,
    baseline: Option<BaselineAdminNetworkPolicy>,
    nodes: Vec<(IpAddr, NodeInfo)>,
    names: Arc<AnsweredNames>,
}

pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("the test's YAML is well-formed");
    serde_json::from_value(value).expect("the test's YAML is of its kind")
}

fn labels(text: &str) -> serde_json::Value {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (key.to_owned(), value.into())).collect::<serde_json::Map<_, _>>().into()
}

/// Nodes node-1 (172.18.0.2) and node-2 (172.18.0.3), namespaces `default` and `web` (label `team=web`), and pods:
///
/// | pod             | labels              | address    | node   | ports                    |
/// |-----------------|---------------------|------------|--------|--------------------------|
/// | default/db      | app=db              | 10.244.1.2 | node-1 | postgres=5432            |
/// | default/api     | app=api tier=back   | 10.244.1.3 | node-1 | http=8080, dns=53/UDP    |
/// | default/api-2   | app=api tier=back   | 10.244.2.3 | node-2 | http=9090                |
/// | web/front       | app=front           | 10.244.2.4 | node-2 |                          |
/// | web/api         | app=api             | 10.244.2.5 | node-2 |                          |
pub(crate) fn cluster() -> Cluster {
    Cluster::default()
        .node("node-1", "172.18.0.2")
        .node("node-2", "172.18.0.3")
        .namespace("default", "")
        .namespace("web", "team=web")
        .pod("default/db", "app=db", "10.244.1.2", "node-1", "postgres=5432")
        .pod("default/api", "app=api tier=back", "10.244.1.3", "node-1", "http=8080 dns=53/UDP")
        .pod("default/api-2", "app=api tier=back", "10.244.2.3", "node-2", "http=9090")
        .pod("web/front", "app=front", "10.244.2.4", "node-2", "")
        .pod("web/api", "app=api", "10.244.2.5", "node-2", "")
}

pub(crate) fn pod(full_name: &str, labels_: &str, node: &str, ports: &str) -> Pod {
    let (namespace, name) = full_name.split_once('/').expect("namespace/name");
    let ports: Vec<serde_json::Value> = ports
        .split_whitespace()
        .map(|port| {
            let (name, number) = port.split_once('=').expect("name=number");
            let (number, protocol) = number.split_once('/').unwrap_or((number, "TCP"));
            serde_json::json!({ "name": name, "protocol": protocol, "containerPort": number.parse::<u16>().expect("a number") })
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "metadata": { "namespace": namespace, "name": name, "labels": labels(labels_) },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "ports": ports }] },
    }))
    .expect("a Pod")
}

pub(crate) fn namespace(name: &str, labels_: &str) -> Namespace {
    serde_json::from_value(serde_json::json!({ "metadata": { "name": name, "labels": labels(labels_) } }))
        .expect("a Namespace")
}

impl Cluster {
    pub(crate) fn node(self, name: &str, address: &str) -> Self {
        self.labelled_node(name, address, "")
    }

    pub(crate) fn labelled_node(mut self, name: &str, address: &str, labels_: &str) -> Self {
        let labels = serde_json::from_value(labels(labels_)).expect("labels");
        self.nodes.push((address.parse().expect("an address"), NodeInfo { name: name.into(), labels }));
        self
    }

    pub(crate) fn namespace(mut self, name: &str, labels: &str) -> Self {
        self.namespaces.push(namespace(name, labels));
        self
    }

    pub(crate) fn pod(mut self, full_name: &str, labels: &str, ips: &str, node: &str, ports: &str) -> Self {
        let ips = ips.split(',').map(|ip| ip.parse().expect("an address")).collect();
        self.pods.push((pod(full_name, labels, node, ports), ips));
        self
    }

    pub(crate) fn host_network_pod(mut self, full_name: &str, labels: &str, ip: &str) -> Self {
        let mut pod = pod(full_name, labels, "node-1", "");
        pod.spec.as_mut().expect("a spec").host_network = Some(true);
        self.pods.push((pod, vec![ip.parse().expect("an address")]));
        self
    }

    /// A policy of namespace `default` with this name and this `spec`.
    pub(crate) fn policy(self, name: &str, spec: &str) -> Self {
        self.policy_in("default", name, spec)
    }

    pub(crate) fn policy_in(mut self, namespace: &str, name: &str, spec: &str) -> Self {
        let mut policy = NetworkPolicy { spec: Some(yaml(spec)), ..NetworkPolicy::default() };
        policy.metadata.namespace = Some(namespace.into());
        policy.metadata.name = Some(name.into());
        self.policies.push(policy);
        self
    }

    /// A policy of the whole cluster with this name and this `spec`.
    pub(crate) fn cluster_policy(mut self, name: &str, spec: &str) -> Self {
        let text = format!("{{ metadata: {{ name: {name} }}, spec: {spec} }}");
        self.cluster_policies.push(yaml(&text));
        self
    }

    pub(crate) fn admin_policy(mut self, name: &str, spec: &str) -> Self {
        self.admin_policies.push(yaml(&format!("{{ metadata: {{ name: {name} }}, spec: {spec} }}")));
        self
    }

    pub(crate) fn baseline_policy(mut self, spec: &str) -> Self {
        self.baseline = Some(yaml(&format!("{{ metadata: {{ name: default }}, spec: {spec} }}")));
        self
    }

    /// The NetworkPolicy that was given last.
    pub(crate) fn only_policy(mut self) -> NetworkPolicy {
        self.policies.pop().expect("a policy")
    }

    pub(crate) fn table(&self) -> PolicyTable {
        let pods = self.pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
        let table = PolicyTable::build(&self.policies, &self.namespaces, pods, self.nodes.clone());
        let table = self.cluster_policies.iter().fold(table, |table, policy| table.with_cluster_policy(policy));
        let table = self.admin_policies.iter().fold(table, |table, policy| table.with_admin_policy(policy));
        let table = self.baseline.iter().fold(table, |table, policy| table.with_baseline_policy(policy));
        table.with_names(self.names.clone())
    }

    /// A pod is told that a name has this address, for a minute.
    pub(crate) fn answered(self, name: &str, address: &str) -> Self {
        self.names.add(name, address.parse().expect("an address"), Duration::from_secs(60));
        self
    }

    /// `default/db`, or an address.
    fn address(&self, of: &str) -> IpAddr {
        of.parse().unwrap_or_else(|_| {
            let (namespace, name) = of.split_once('/').expect("namespace/name or an address");
            let named = |pod: &Pod| {
                pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
            };
            self.pods.iter().find(|(pod, _)| named(pod)).unwrap_or_else(|| panic!("no pod {of}")).1[0]
        })
    }

    /// The flow from a pod or address to `default/db:5432`, `default/db:53/UDP` or `default/db:ICMP`, as it is sent and
    /// seen without Services.
    pub(crate) fn flow(&self, from: &str, to: &str) -> NewFlow {
        let (to, port) = to.rsplit_once(':').expect("a port or ICMP after the colon");
        let (port, protocol) = match port.split_once('/') {
            _ if port == "ICMP" => ("0", Protocol::Icmp),
            Some((port, "UDP")) => (port, Protocol::Udp),
            Some((port, "SCTP")) => (port, Protocol::Sctp),
            Some((_, other)) => panic!("no protocol {other}"),
            None => (port, Protocol::Tcp),
        };
        let src = SocketAddr::new(self.address(from), 40_000);
        let dst = SocketAddr::new(self.address(to), port.parse().expect("a port"));
        let tuple = FiveTuple { protocol, src, dst };
        NewFlow { original: tuple, translated: tuple, from: PortTag(1), to: PortTag(2) }
    }

    pub(crate) fn outcome(&self, flow: &NewFlow) -> Want {
        match self.table().allows(flow) {
            Ok(()) => Accept,
            Err(policy::reason::POLICY_DENIED_EGRESS) => DenyEgress,
            Err(policy::reason::POLICY_DENIED_INGRESS) => DenyIngress,
            Err(policy::reason::CNP_DENY_INGRESS | policy::reason::CNP_DENY_EGRESS) => DenyCluster,
            Err(other) => panic!("no such reason: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn check(&self, want: Want, from: &str, to: &str) {
        let flow = self.flow(from, to);
        assert_eq!(self.outcome(&flow), want, "{from} → {to}: {:#?}", self.table().explain(&flow));
    }

    pub(crate) fn explain(&self, from: &str, to: &str) -> Explanation {
        self.table().explain(&self.flow(from, to))
    }
}

/// The flow went to this Service address before it was translated.
pub(crate) fn via(mut flow: NewFlow, frontend: &str) -> NewFlow {
    flow.original.dst = frontend.parse().expect("a socket address");
    flow
}

/// The destination sees this address as the source.
pub(crate) fn masqueraded(mut flow: NewFlow, seen: &str) -> NewFlow {
    flow.translated.src = SocketAddr::new(seen.parse().expect("an address"), 50_000);
    flow
}
