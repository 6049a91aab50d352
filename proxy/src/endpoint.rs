//! The endpoints of one Service port, and which of them a node may use.
//!
//! [`Endpoints`] sorts them once, when a slice changes, so that a new flow only indexes. The rules are those of
//! kube-proxy's topology categorisation: ready ones that pass the hints, or else those that still serve while they
//! terminate (KEP-1669).

use crate::node::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// One endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) node: Option<String>,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// The pod behind it, for reports.
    pub(crate) target: Option<String>,
    for_nodes: Vec<String>,
    for_zones: Vec<String>,
}

impl Endpoint {
    /// KEP-1669: usable when nothing is ready.
    fn draining(&self) -> bool {
        self.serving && self.terminating && !self.ready
    }

    /// Of two records of one address, the more usable one counts.
    fn rank(&self) -> (bool, bool, bool) {
        (self.ready, self.serving, self.node.is_some())
    }
}

/// How the hints narrow the ready endpoints for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Everywhere,
    SameZone,
    SameNode,
}

/// The endpoints of one Service port in one address family, sorted by address; lists are indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    ready: Vec<u32>,
    draining: Vec<u32>,
    /// Ready ones per node, or else its draining ones.
    local: HashMap<String, Vec<u32>>,
    /// Per hinted node; only when every ready endpoint has node hints.
    hinted_nodes: HashMap<String, Vec<u32>>,
    /// Per hinted zone; only when every ready endpoint has zone hints.
    hinted_zones: HashMap<String, Vec<u32>>,
}

impl Endpoints {
    /// The union of what the slices say about the port `name`/`protocol`, one family each: (IPv4, IPv6). Nodes' own
    /// lists are made only if a traffic policy `Local` will ask for them.
    pub(crate) fn compile<'a>(
        slices: impl Iterator<Item = &'a EndpointSlice>,
        name: &str,
        protocol: &str,
        local: bool,
    ) -> (Endpoints, Endpoints) {
        let mut union: Vec<Endpoint> = Vec::new();
        for slice in slices.filter(|slice| matches!(slice.address_type.as_str(), "IPv4" | "IPv6")) {
            let ports = slice.ports.iter().flatten().filter(|port| {
                port.name.as_deref().unwrap_or("") == name && port.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
                union.extend(slice.endpoints.iter().flatten().filter_map(|endpoint| record(slice, endpoint, port)));
            }
        }
        // IPv4 sorts before IPv6, and of the records of one address the most usable one comes first.
        union.sort_by(|a, b| a.address.cmp(&b.address).then_with(|| b.rank().cmp(&a.rank())));
        union.dedup_by(|later, first| later.address == first.address);
        let v6 = union.split_off(union.partition_point(|endpoint| endpoint.address.is_ipv4()));
        (Endpoints::sort(union, local), Endpoints::sort(v6, local))
    }

    fn sort(all: Vec<Endpoint>, local: bool) -> Endpoints {
        let mut sorted = Endpoints::default();
        let indices = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<u32> {
            (0u32..).zip(&all).filter(|(_, endpoint)| wanted(endpoint)).map(|(index, _)| index).collect()
        };
        sorted.ready = indices(&|endpoint| endpoint.ready);
        sorted.draining = indices(&Endpoint::draining);
        let ready = |hinted: &mut HashMap<String, Vec<u32>>, hints: &dyn Fn(&Endpoint) -> &[String]| {
            // One ready endpoint without hints, and hints are ignored altogether.
            if sorted.ready.iter().any(|index| hints(&all[*index as usize]).is_empty()) {
                return;
            }
            for index in &sorted.ready {
                for hint in hints(&all[*index as usize]) {
                    let list = hinted.entry(hint.clone()).or_default();
                    if list.last() != Some(index) {
                        list.push(*index);
                    }
                }
            }
        };
        ready(&mut sorted.hinted_nodes, &|endpoint| &endpoint.for_nodes);
        ready(&mut sorted.hinted_zones, &|endpoint| &endpoint.for_zones);
        if local {
            sorted.local = by_node(&all, &sorted.ready);
            for (node, list) in by_node(&all, &sorted.draining) {
                sorted.local.entry(node).or_insert(list);
            }
        }
        sorted.all = all;
        sorted
    }

    /// Every endpoint, usable or not, by address.
    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    pub(crate) fn get(&self, index: u32) -> &Endpoint {
        &self.all[index as usize]
    }

    /// The endpoint at this address.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<(u32, &Endpoint)> {
        let index = self.all.binary_search_by_key(&address, |endpoint| endpoint.address).ok()?;
        Some((index as u32, &self.all[index]))
    }

    /// Whether any endpoint of the cluster could be used by some node.
    pub(crate) fn any_usable(&self) -> bool {
        !self.ready.is_empty() || !self.draining.is_empty()
    }

    /// What `node` uses under the traffic policy `Cluster`.
    pub(crate) fn cluster(&self, node: Option<&Node>) -> (&[u32], Topology) {
        let hinted_node = node.and_then(|node| self.hinted_nodes.get(&node.name));
        if let Some(list) = hinted_node {
            return (list, Topology::SameNode);
        }
        let zone = node.and_then(|node| node.zone.as_ref());
        if let Some(list) = zone.and_then(|zone| self.hinted_zones.get(zone)) {
            return (list, Topology::SameZone);
        }
        (if self.ready.is_empty() { &self.draining } else { &self.ready }, Topology::Everywhere)
    }

    /// What `node` uses under the traffic policy `Local`.
    pub(crate) fn local(&self, node: Option<&Node>) -> &[u32] {
        node.and_then(|node| self.local.get(&node.name)).map_or(&[], Vec::as_slice)
    }

    /// The ready endpoints of `node`: what its health check port counts. Known under a traffic policy `Local`.
    pub(crate) fn local_ready(&self, node: &str) -> impl Iterator<Item = &Endpoint> {
        let list = self.local.get(node).map_or(&[][..], Vec::as_slice);
        list.iter().map(|index| self.get(*index)).filter(|endpoint| endpoint.ready)
    }
}

fn by_node(all: &[Endpoint], indices: &[u32]) -> HashMap<String, Vec<u32>> {
    let mut lists: HashMap<String, Vec<u32>> = HashMap::new();
    for index in indices {
        if let Some(node) = &all[*index as usize].node {
            lists.entry(node.clone()).or_default().push(*index);
        }
    }
    lists
}

fn record(slice: &EndpointSlice, endpoint: &k8s_openapi::api::discovery::v1::Endpoint, port: u16) -> Option<Endpoint> {
    // The addresses of one endpoint are fungible: consumers take the first.
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    if address.is_ipv4() != (slice.address_type == "IPv4") {
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let nodes = hints.into_iter().flat_map(|hints| hints.for_nodes.iter().flatten()).map(|hint| hint.name.clone());
    let zones = hints.into_iter().flat_map(|hints| hints.for_zones.iter().flatten()).map(|hint| hint.name.clone());
    Some(Endpoint {
        address: SocketAddr::new(address, port),
        node: endpoint.node_name.clone(),
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        target: endpoint.target_ref.as_ref().and_then(|target| target.name.clone()),
        for_nodes: nodes.collect(),
        for_zones: zones.collect(),
    })
}
