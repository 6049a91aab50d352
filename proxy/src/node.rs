//! The nodes as the proxy knows them: whose address is it, and on which node is a pod.

use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use prefix_trie::joint::JointPrefixMap;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Internal addresses first, so that the first of a family is the one to masquerade as.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) zone: Option<String>,
    pod_cidrs: Vec<IpNet>,
}

impl Node {
    fn compile(node: &v1::Node) -> Node {
        let spec = node.spec.clone().unwrap_or_default();
        let of_type = |wanted: &str| -> Vec<IpAddr> {
            let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            addresses.filter(|address| address.type_ == wanted).filter_map(|a| a.address.parse().ok()).collect()
        };
        let mut addresses = of_type("InternalIP");
        for external in of_type("ExternalIP") {
            if !addresses.contains(&external) {
                addresses.push(external);
            }
        }
        let pod_cidrs = spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty()).or(spec.pod_cidr.map(|cidr| vec![cidr]));
        Node {
            name: node.metadata.name.clone().unwrap_or_default(),
            addresses,
            zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned(),
            pod_cidrs: pod_cidrs.unwrap_or_default().iter().filter_map(|cidr| cidr.parse().ok()).collect(),
        }
    }

    /// The address of `like`'s family that the node masquerades as.
    pub(crate) fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4()).copied()
    }
}

/// All nodes, by name, by own address and by the pod range they hand out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    all: Vec<Arc<Node>>,
    by_address: HashMap<IpAddr, Arc<Node>>,
    by_pod_cidr: JointPrefixMap<IpNet, Arc<Node>>,
}

impl PartialEq for Nodes {
    fn eq(&self, other: &Nodes) -> bool {
        self.all == other.all // the rest is derived from it
    }
}

impl Nodes {
    /// Compiles the nodes; of two that claim one address, the first by name has it.
    pub(crate) fn compile<'a>(nodes: impl IntoIterator<Item = &'a v1::Node>) -> Nodes {
        let mut compiled = Nodes::default();
        let by_name: BTreeMap<String, Arc<Node>> =
            nodes.into_iter().map(Node::compile).map(|node| (node.name.clone(), Arc::new(node))).collect();
        for node in by_name.into_values() {
            for address in &node.addresses {
                compiled.by_address.entry(*address).or_insert_with(|| node.clone());
            }
            for cidr in &node.pod_cidrs {
                compiled.by_pod_cidr.insert(cidr.trunc(), node.clone());
            }
            compiled.all.push(node);
        }
        compiled
    }

    /// Every node, by name.
    pub(crate) fn all(&self) -> &[Arc<Node>] {
        &self.all
    }

    /// The node whose own address this is.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.by_address.get(&address)
    }

    /// The node that hands out this pod address.
    pub(crate) fn of_pod(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.by_pod_cidr.get_lpm(&IpNet::from(address)).map(|(_, node)| node)
    }
}
