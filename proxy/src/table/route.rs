//! The decision for one new flow: which frontend, decided where, and who may answer.

use super::ServiceTable;
use crate::endpoint::{Endpoints, Topology};
use crate::host_port::HostPort;
use crate::node::Node;
use crate::reason;
use crate::service::{Frontend, FrontendKind};
use ipnet::IpNet;
use netstack::{FiveTuple, Reason};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a flow enters the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'t> {
    /// A pod, on this node if it is known.
    Pod(Option<&'t Node>),
    /// The node itself.
    Node(&'t Node),
    /// Anybody else.
    Outside,
}

/// What is to become of a flow.
#[derive(Debug)]
pub(crate) struct Route<'t> {
    pub(crate) source: Source<'t>,
    pub(crate) frontend: Option<&'t Frontend>,
    /// The node whose proxy decides.
    pub(crate) node: Option<&'t Node>,
    pub(crate) outcome: Outcome<'t>,
}

#[derive(Debug)]
pub(crate) enum Outcome<'t> {
    /// No Service's.
    Pass,
    /// No Service's, and from a pod to somewhere outside of the cluster: in the name of its node, since nobody there knows pods.
    Leaves,
    /// Refused, with an answer if `reject`.
    Refused { reject: bool, reason: Reason },
    /// One of these.
    Balanced(Balanced<'t>),
    /// A pod's host port.
    HostPort(&'t HostPort),
}

#[derive(Debug)]
pub(crate) struct Balanced<'t> {
    pub(crate) endpoints: &'t Endpoints,
    /// Indices into `endpoints`; never empty.
    pub(crate) list: &'t [u32],
    pub(crate) local: bool,
    pub(crate) topology: Topology,
    pub(crate) masquerade: bool,
}

impl ServiceTable {
    /// Where a source is, by its address.
    pub(crate) fn source(&self, address: IpAddr) -> Source<'_> {
        if self.ranges.gateway.contains(&address) {
            Source::Outside
        } else if let Some(node) = self.nodes.owner(address) {
            Source::Node(node)
        } else if contains(&self.ranges.cluster, address) {
            Source::Pod(self.nodes.of_pod(address).map(|node| &**node))
        } else {
            Source::Outside
        }
    }

    /// What becomes of a new flow. `pick` chooses one of so many nodes where the flow may enter at any.
    pub(crate) fn route(&self, flow: &FiveTuple, pick: &mut dyn FnMut(usize) -> usize) -> Route<'_> {
        let source = self.source(flow.src.ip());
        let Some(frontend) = self.frontend(flow) else {
            let outcome = match self.host_port(flow) {
                Some(host_port) => Outcome::HostPort(host_port),
                None => self.unclaimed(source, flow.dst.ip()),
            };
            let node = match (&outcome, source) {
                (Outcome::Leaves, Source::Pod(node)) => node,
                _ => self.nodes.owner(flow.dst.ip()).map(|node| &**node),
            };
            return Route { source, frontend: None, node, outcome };
        };
        let node = self.entry(frontend, source, flow.dst.ip(), pick);
        let outcome = self.balance(frontend, source, node, flow);
        Route { source, frontend: Some(frontend), node, outcome }
    }

    /// The node whose proxy sees the flow first.
    fn entry<'t>(
        &'t self,
        frontend: &'t Frontend,
        source: Source<'t>,
        dst: IpAddr,
        pick: &mut dyn FnMut(usize) -> usize,
    ) -> Option<&'t Node> {
        if frontend.kind == FrontendKind::NodePort {
            return self.nodes.owner(dst).map(|node| &**node);
        }
        match source {
            Source::Pod(node) => node,
            Source::Node(node) => Some(node),
            Source::Outside => {
                // A load balancer sends to any node, or with a traffic policy `Local` to one whose health check passes:
                // it has a local endpoint.
                let all = self.nodes.all();
                if frontend.local_policy() {
                    let endpoints = frontend.port.endpoints(dst);
                    let healthy: Vec<&Arc<Node>> =
                        all.iter().filter(|node| endpoints.local_ready(&node.name).next().is_some()).collect();
                    let serving = || all.iter().filter(|node| !endpoints.local(Some(node)).is_empty()).collect();
                    let healthy: Vec<&Arc<Node>> = if healthy.is_empty() { serving() } else { healthy };
                    if !healthy.is_empty() {
                        return Some(healthy[pick(healthy.len())]);
                    }
                }
                if all.is_empty() { None } else { Some(&all[pick(all.len())]) }
            }
        }
    }

    fn balance<'t>(
        &'t self,
        frontend: &'t Frontend,
        source: Source<'t>,
        node: Option<&'t Node>,
        flow: &FiveTuple,
    ) -> Outcome<'t> {
        let service = &frontend.service;
        if frontend.kind == FrontendKind::LoadBalancer && !admitted(&service.source_ranges, flow, node) {
            return Outcome::Refused { reject: false, reason: reason::LB_SOURCE_RANGE };
        }
        let from_pod = matches!(source, Source::Pod(_));
        let from_this_node = matches!((source, node), (Source::Node(from), Some(here)) if from.name == here.name);
        let internal = frontend.kind == FrontendKind::ClusterIp;
        let local_policy = frontend.local_policy();
        // Who is in the cluster already need not be sent away from an external address.
        let local = local_policy && (internal || !(from_pod || from_this_node));
        let masquerade = if internal { !from_pod } else { !service.external_local || from_this_node };
        let endpoints = frontend.port.endpoints(flow.dst.ip());
        let (list, topology) =
            if local { (endpoints.local(node), Topology::Everywhere) } else { endpoints.cluster(node) };
        if !list.is_empty() {
            return Outcome::Balanced(Balanced { endpoints, list, local, topology, masquerade });
        }
        if endpoints.any_usable() {
            Outcome::Refused { reject: false, reason: reason::LOCAL_POLICY_NO_LOCAL_ENDPOINT }
        } else {
            Outcome::Refused { reject: true, reason: reason::NO_ENDPOINTS_REJECT }
        }
    }

    fn unclaimed(&self, source: Source<'_>, dst: IpAddr) -> Outcome<'_> {
        if self.cluster_ips.contains_key(&dst) {
            Outcome::Refused { reject: true, reason: reason::UNKNOWN_CLUSTERIP_PORT }
        } else if contains(&self.ranges.service, dst) {
            Outcome::Refused { reject: false, reason: reason::UNALLOCATED_CLUSTERIP }
        } else if matches!(source, Source::Pod(_)) && matches!(self.source(dst), Source::Outside) {
            // Nodes and the gateway, through which the API is reached, are of the cluster: they see pods as they are.
            if self.ranges.gateway.contains(&dst) { Outcome::Pass } else { Outcome::Leaves }
        } else {
            Outcome::Pass
        }
    }

    /// The source address that the endpoint `dst` sees, if not the flow's own: the deciding node's, or else the
    /// gateway's. A pod that reaches itself must be masqueraded, or it would answer itself directly.
    pub(crate) fn snat(
        &self,
        flow: &FiveTuple,
        route: &Route<'_>,
        dst: SocketAddr,
        masquerade: bool,
    ) -> Option<IpAddr> {
        if !masquerade && dst.ip() != flow.src.ip() {
            return None;
        }
        let gateway = || self.ranges.gateway.iter().find(|address| address.is_ipv4() == dst.is_ipv4()).copied();
        route.node.and_then(|node| node.address(dst.ip())).or_else(gateway)
    }
}

/// Whether `loadBalancerSourceRanges` admits the source. A node that is admitted may also come by the load balancer's
/// own address, which it owns as far as routing is concerned.
fn admitted(ranges: &[IpNet], flow: &FiveTuple, node: Option<&Node>) -> bool {
    let node_admitted = || node.is_some_and(|node| node.addresses.iter().any(|address| contains(ranges, *address)));
    ranges.is_empty() || contains(ranges, flow.src.ip()) || (flow.src.ip() == flow.dst.ip() && node_admitted())
}

fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}
