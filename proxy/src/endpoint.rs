//! The endpoints of one Service port, and which of them a node may use.
//!
//! [`Endpoints`] sorts them once, when a slice changes, so that a new flow only indexes. The rules are those of
//! kube-proxy's topology categorisation: ready ones that pass the hints, or else those that still serve while they
//! terminate (KEP-1669).

use crate::node::Node;
use k8s_openapi::api::discovery::v1::{self, EndpointSlice};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One endpoint of a Service port. What only reports and lists by name need stands in its slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// Which of the slices, and which record of it.
    slice: u32,
    record: u32,
}

impl Endpoint {
    /// KEP-1669: usable when nothing is ready.
    fn draining(&self) -> bool {
        self.serving && self.terminating && !self.ready
    }

    fn state(&self) -> (SocketAddr, bool, bool, bool) {
        (self.address, self.ready, self.serving, self.terminating)
    }
}

/// How the hints narrow the ready endpoints for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Everywhere,
    SameZone,
    SameNode,
}

/// The slices of a Service, which its endpoints point into.
pub(crate) type Slices = Arc<[Arc<EndpointSlice>]>;

/// The endpoints of one Service port in one address family, sorted by address; lists are indices.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    slices: Slices,
    all: Vec<Endpoint>,
    ready: Vec<u32>,
    draining: Vec<u32>,
    /// Most Services have none.
    narrowed: Option<Box<Narrowed>>,
}

/// Lists for some nodes or zones only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Narrowed {
    /// Ready ones per node, or else its draining ones.
    local: HashMap<String, Vec<u32>>,
    /// Per hinted node; only when every ready endpoint has node hints.
    hinted_nodes: HashMap<String, Vec<u32>>,
    /// Per hinted zone; only when every ready endpoint has zone hints.
    hinted_zones: HashMap<String, Vec<u32>>,
}

impl PartialEq for Endpoints {
    /// By what they say, whichever slices say it.
    fn eq(&self, other: &Endpoints) -> bool {
        let say = |endpoints: &Endpoints, one: &Endpoint| {
            let record = endpoints.record(one);
            (one.state(), record.node_name.clone(), record.target_ref.clone())
        };
        self.all.len() == other.all.len()
            && self.narrowed == other.narrowed
            && self
                .all
                .iter()
                .zip(&other.all)
                .all(|(one, two)| one.state() == two.state() && say(self, one) == say(other, two))
    }
}

impl Eq for Endpoints {}

impl Endpoints {
    /// The union of what the slices say about the port `name`/`protocol`, one family each: (IPv4, IPv6). Nodes' own
    /// lists are made only if a traffic policy `Local` will ask for them.
    pub(crate) fn compile(slices: &Slices, name: &str, protocol: &str, local: bool) -> (Endpoints, Endpoints) {
        let most = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum();
        let mut union: Vec<Endpoint> = Vec::with_capacity(most);
        for (number, slice) in (0u32..).zip(slices.iter()) {
            let is_v4 = match slice.address_type.as_str() {
                "IPv4" => true,
                "IPv6" => false,
                _ => continue,
            };
            let ports = slice.ports.iter().flatten().filter(|port| {
                port.name.as_deref().unwrap_or("") == name && port.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
                let records = (0u32..).zip(slice.endpoints.iter().flatten());
                union.extend(records.filter_map(|(record, said)| endpoint(is_v4, said, port, (number, record))));
            }
        }
        // IPv4 sorts before IPv6, and of the records of one address the most usable one comes first.
        let rank = |one: &Endpoint| (one.ready, one.serving, record(slices, one).node_name.is_some());
        union.sort_by(|a, b| a.address.cmp(&b.address).then_with(|| rank(b).cmp(&rank(a))));
        union.dedup_by(|later, first| later.address == first.address);
        let v6 = union.split_off(union.partition_point(|endpoint| endpoint.address.is_ipv4()));
        (Endpoints::sort(slices, union, local), Endpoints::sort(slices, v6, local))
    }

    fn sort(slices: &Slices, all: Vec<Endpoint>, local: bool) -> Endpoints {
        let indices = |wanted: fn(&Endpoint) -> bool| -> Vec<u32> {
            (0u32..).zip(&all).filter(|(_, endpoint)| wanted(endpoint)).map(|(index, _)| index).collect()
        };
        let (ready, draining) = (indices(|endpoint| endpoint.ready), indices(Endpoint::draining));
        let mut sorted = Endpoints { slices: slices.clone(), all, ready, draining, narrowed: None };
        let mut narrowed = Narrowed {
            hinted_nodes: sorted.hinted(|hints| hints.for_nodes.iter().flatten().map(|hint| &hint.name).collect()),
            hinted_zones: sorted.hinted(|hints| hints.for_zones.iter().flatten().map(|hint| &hint.name).collect()),
            local: HashMap::new(),
        };
        if local {
            narrowed.local = sorted.by_node(&sorted.ready);
            for (node, list) in sorted.by_node(&sorted.draining) {
                narrowed.local.entry(node).or_insert(list);
            }
        }
        if narrowed != Narrowed::default() {
            sorted.narrowed = Some(Box::new(narrowed));
        }
        sorted
    }

    /// The ready endpoints by what their hints name; none if one ready endpoint has no hints: then they are ignored altogether.
    fn hinted(&self, names: fn(&v1::EndpointHints) -> Vec<&String>) -> HashMap<String, Vec<u32>> {
        let mut hinted: HashMap<String, Vec<u32>> = HashMap::new();
        for index in &self.ready {
            let hints = self.record(self.get(*index)).hints.as_ref().map(names).unwrap_or_default();
            if hints.is_empty() {
                return HashMap::new();
            }
            for hint in hints {
                let list = hinted.entry(hint.clone()).or_default();
                if list.last() != Some(index) {
                    list.push(*index);
                }
            }
        }
        hinted
    }

    fn by_node(&self, indices: &[u32]) -> HashMap<String, Vec<u32>> {
        let mut lists: HashMap<String, Vec<u32>> = HashMap::new();
        for index in indices {
            if let Some(node) = self.node(self.get(*index)) {
                lists.entry(node.to_owned()).or_default().push(*index);
            }
        }
        lists
    }

    fn record(&self, endpoint: &Endpoint) -> &v1::Endpoint {
        record(&self.slices, endpoint)
    }

    /// The node of an endpoint, if it is known.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Option<&str> {
        self.record(endpoint).node_name.as_deref()
    }

    /// The pod behind an endpoint, if it is known.
    pub(crate) fn target(&self, endpoint: &Endpoint) -> Option<&str> {
        self.record(endpoint).target_ref.as_ref()?.name.as_deref()
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
        if let (Some(node), Some(narrowed)) = (node, &self.narrowed) {
            if let Some(list) = narrowed.hinted_nodes.get(&node.name) {
                return (list, Topology::SameNode);
            }
            if let Some(list) = node.zone.as_ref().and_then(|zone| narrowed.hinted_zones.get(zone)) {
                return (list, Topology::SameZone);
            }
        }
        (if self.ready.is_empty() { &self.draining } else { &self.ready }, Topology::Everywhere)
    }

    /// What `node` uses under the traffic policy `Local`.
    pub(crate) fn local(&self, node: Option<&Node>) -> &[u32] {
        node.map_or(&[], |node| self.at_node(&node.name))
    }

    fn at_node(&self, node: &str) -> &[u32] {
        self.narrowed.as_ref().and_then(|narrowed| narrowed.local.get(node)).map_or(&[], Vec::as_slice)
    }

    /// The ready endpoints of `node`: what its health check port counts. Known under a traffic policy `Local`.
    pub(crate) fn local_ready(&self, node: &str) -> impl Iterator<Item = &Endpoint> {
        self.at_node(node).iter().map(|index| self.get(*index)).filter(|endpoint| endpoint.ready)
    }
}

fn record<'s>(slices: &'s Slices, endpoint: &Endpoint) -> &'s v1::Endpoint {
    let records = slices[endpoint.slice as usize].endpoints.as_deref().unwrap_or_default();
    &records[endpoint.record as usize]
}

fn endpoint(is_v4: bool, said: &v1::Endpoint, port: u16, (slice, record): (u32, u32)) -> Option<Endpoint> {
    // The addresses of one endpoint are fungible: consumers take the first.
    let address: IpAddr = said.addresses.first()?.parse().ok()?;
    if address.is_ipv4() != is_v4 {
        return None;
    }
    let conditions = said.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    Some(Endpoint {
        address: SocketAddr::new(address, port),
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        slice,
        record,
    })
}
