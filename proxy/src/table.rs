//! The service table: every frontend of the cluster. What it decides for one new flow is in [`route`].
//!
//! A [`ServiceTable`] is immutable and cheap to clone; [`ServiceTable::with_service`] makes the next one and shares all
//! other Services with it, so that one change costs O(log n). The decision costs the same with one Service as with ten
//! thousand. What needs chance or memory (the choice among equals, session affinity) is in
//! [`crate::translator`].

use crate::endpoint::Slices;
use crate::host_port::{HostPort, HostPortKey};
use crate::node::Nodes;
use crate::service::{CompiledService, Frontend, FrontendKey, ServiceName};
use foldhash::fast::RandomState;
use imbl::hashmap::Entry;
use imbl::shared_ptr::DefaultSharedPtr;
use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netstack::{FiveTuple, Protocol};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

mod external;
mod route;

pub use external::ExternalFrontends;
pub(crate) use route::{Balanced, Outcome, Route, Source};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The address plan, as far as Services need it.
#[derive(Clone, Debug, Default)]
pub struct Addressing {
    /// Where ClusterIPs are allocated from: addresses in it that no Service has are dropped.
    pub service_cidrs: Vec<(IpAddr, u8)>,
    /// Where pods are: who is inside keeps its address towards ClusterIPs.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// The gateway's own addresses: it is outside of the cluster.
    pub gateway_addresses: Vec<IpAddr>,
}

/// [`Addressing`] with its ranges checked.
#[derive(Debug, Default)]
struct Ranges {
    service: Vec<IpNet>,
    cluster: Vec<IpNet>,
    gateway: Vec<IpAddr>,
}

/// A map that shares what it has in common with the one it was made from. Its hash is a fast one: what is hashed are the cluster's own
/// addresses and names.
type Map<K, V> = imbl::GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// Who claims a frontend, the senior first: only that one is served.
type Claims = Arc<[Frontend]>;

/// An immutable snapshot of all Services.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    ranges: Arc<Ranges>,
    nodes: Arc<Nodes>,
    services: Map<ServiceName, Arc<CompiledService>>,
    frontends: Map<FrontendKey, Claims>,
    node_ports: Map<(bool, Protocol, u16), Claims>,
    cluster_ips: Map<IpAddr, u32>,
    pods: Map<ServiceName, Arc<Vec<(HostPortKey, HostPort)>>>,
    host_ports: Map<HostPortKey, Vec<HostPort>>,
}

impl ServiceTable {
    /// A table without Services and nodes.
    pub fn new(addressing: &Addressing) -> ServiceTable {
        let nets = |ranges: &[(IpAddr, u8)]| -> Vec<IpNet> {
            ranges.iter().filter_map(|(address, length)| Some(IpNet::new(*address, *length).ok()?.trunc())).collect()
        };
        let ranges = Ranges {
            service: nets(&addressing.service_cidrs),
            cluster: nets(&addressing.cluster_cidrs),
            gateway: addressing.gateway_addresses.clone(),
        };
        ServiceTable { ranges: Arc::new(ranges), ..ServiceTable::default() }
    }

    /// The table of exactly these objects.
    pub fn build(
        addressing: &Addressing,
        services: &[Arc<v1::Service>],
        slices: &[Arc<EndpointSlice>],
        nodes: &[Arc<v1::Node>],
    ) -> ServiceTable {
        let mut of_service: HashMap<(&str, &str), Vec<Arc<EndpointSlice>>, RandomState> = HashMap::default();
        for slice in slices {
            if let Some(name) = service_label(slice) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                of_service.entry((namespace, name)).or_default().push(slice.clone());
            }
        }
        let mut table = ServiceTable::new(addressing).with_nodes(nodes.iter().map(|node| &**node));
        for service in services {
            let metadata = &service.metadata;
            let name =
                (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
            table.set_service(service, of_service.remove(&name).unwrap_or_default().into());
        }
        table
    }

    /// The next table, with these nodes.
    pub fn with_nodes<'a>(&self, nodes: impl IntoIterator<Item = &'a v1::Node>) -> ServiceTable {
        ServiceTable { nodes: Arc::new(Nodes::compile(nodes)), ..self.clone() }
    }

    /// The next table, with this state of a Service and its slices.
    pub fn with_service<'a>(
        &self,
        service: &v1::Service,
        slices: impl IntoIterator<Item = &'a Arc<EndpointSlice>>,
    ) -> ServiceTable {
        let mut table = self.clone();
        table.set_service(service, slices.into_iter().cloned().collect());
        table
    }

    /// The next table, without a Service.
    pub fn without_service(&self, name: &ServiceName) -> ServiceTable {
        let mut table = self.clone();
        table.remove_service(name);
        table
    }

    /// [`ServiceTable::with_service`] on a table that nobody else has yet.
    pub(crate) fn set_service(&mut self, service: &v1::Service, slices: Slices) {
        let name = ServiceName::of(service);
        match CompiledService::compile(service, &slices) {
            Some(compiled) if self.services.get(&name).is_some_and(|known| **known == compiled) => {}
            Some(compiled) => {
                self.remove_service(&name);
                self.insert(Arc::new(compiled));
            }
            None => self.remove_service(&name),
        }
    }

    pub(crate) fn remove_service(&mut self, name: &ServiceName) {
        let Some(gone) = self.services.remove(name) else { return };
        for (key, _) in &gone.frontends {
            release(&mut self.frontends, key, name);
        }
        for (key, _) in &gone.node_ports {
            release(&mut self.node_ports, key, name);
        }
        for ip in &gone.cluster_ips {
            match self.cluster_ips.get(ip).copied() {
                Some(claims) if claims > 1 => self.cluster_ips.insert(*ip, claims - 1),
                _ => self.cluster_ips.remove(ip),
            };
        }
    }

    fn insert(&mut self, compiled: Arc<CompiledService>) {
        for (key, frontend) in &compiled.frontends {
            claim(&mut self.frontends, *key, frontend);
        }
        for (key, frontend) in &compiled.node_ports {
            claim(&mut self.node_ports, *key, frontend);
        }
        for ip in &compiled.cluster_ips {
            let claims = self.cluster_ips.get(ip).copied().unwrap_or(0);
            self.cluster_ips.insert(*ip, claims + 1);
        }
        self.services.insert(compiled.service.name.clone(), compiled);
    }

    /// The next table, with this state of a pod: its host ports.
    pub fn with_pod(&self, pod: &v1::Pod) -> ServiceTable {
        let name = ServiceName::of_object(&pod.metadata);
        let compiled = HostPort::compile(pod);
        if self.pods.get(&name).map_or(&[][..], |known| known) == compiled {
            return self.clone();
        }
        let mut table = self.without_pod(&name);
        for (key, host_port) in &compiled {
            table.host_ports.entry(key.clone()).or_default().push(host_port.clone());
        }
        if !compiled.is_empty() {
            table.pods.insert(name, Arc::new(compiled));
        }
        table
    }

    /// The next table, without a pod.
    pub fn without_pod(&self, name: &ServiceName) -> ServiceTable {
        let mut table = self.clone();
        for (key, _) in table.pods.remove(name).iter().flat_map(|gone| gone.iter()) {
            let Some(claims) = table.host_ports.get_mut(key) else { continue };
            claims.retain(|host_port| host_port.pod != *name);
            if claims.is_empty() {
                table.host_ports.remove(key);
            }
        }
        table
    }

    pub(crate) fn same_host_ports(&self, other: &ServiceTable) -> bool {
        self.host_ports.ptr_eq(&other.host_ports)
    }

    /// The host port that a flow is addressed to, if it is for no Service.
    pub(crate) fn host_port(&self, flow: &FiveTuple) -> Option<&HostPort> {
        if self.host_ports.is_empty() {
            return None;
        }
        let node = self.nodes.owner(flow.dst.ip())?;
        let claims = self.host_ports.get(&(node.name.clone(), flow.protocol, flow.dst.port()))?;
        claims.iter().find(|host_port| host_port.is_at(flow.dst.ip()))
    }

    /// Whether both tables hold the same compiled state (the very same, not an equal one).
    pub(crate) fn same_service(&self, other: &ServiceTable, name: &ServiceName) -> bool {
        match (self.services.get(name), other.services.get(name)) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        }
    }

    pub(crate) fn same_nodes(&self, other: &ServiceTable) -> bool {
        self.nodes == other.nodes
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Option<&CompiledService> {
        self.services.get(name).map(|service| &**service)
    }

    /// How many Services have a frontend.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether no Service has one.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The frontend that a flow is addressed to.
    pub(crate) fn frontend(&self, flow: &FiveTuple) -> Option<&Frontend> {
        let key = FrontendKey { address: flow.dst.ip(), protocol: flow.protocol, port: flow.dst.port() };
        let own = self.frontends.get(&key);
        let at_node = || {
            self.nodes.owner(key.address)?;
            self.node_ports.get(&(key.address.is_ipv4(), key.protocol, key.port))
        };
        own.or_else(at_node)?.first()
    }

    /// What the health check port of a Service answers at an address of a node: how many
    /// endpoints of that address' family are ready there. `None` when the Service has no such port, or nobody that address.
    pub fn local_endpoints(&self, service: &ServiceName, address: IpAddr) -> Option<usize> {
        let compiled = self.services.get(service)?;
        compiled.service.health_check_node_port?;
        let node = self.nodes.owner(address)?;
        let ready = compiled.ports.iter().flat_map(|port| port.endpoints(address).local_ready(&node.name));
        Some(ready.map(|endpoint| endpoint.address.ip()).collect::<BTreeSet<_>>().len())
    }
}

/// The Service that a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = service_label(slice)?.to_owned();
    Some(ServiceName { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name })
}

fn service_label(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL).map(String::as_str)
}

fn claim<K: Clone + Eq + std::hash::Hash>(table: &mut Map<K, Claims>, key: K, frontend: &Frontend) {
    let entry = match table.entry(key) {
        // As a rule there is one claimant.
        Entry::Vacant(entry) => {
            entry.insert(Arc::new([frontend.clone()]));
            return;
        }
        Entry::Occupied(entry) => entry,
    };
    let mut claims = entry.get().to_vec();
    claims.push(frontend.clone());
    // By kind as well: one Service may have the same address twice, say as external and as load balancer address.
    claims.sort_by(|a, b| (a.service.seniority(), a.kind).cmp(&(b.service.seniority(), b.kind)));
    *entry.into_mut() = claims.into();
}

fn release<K: Clone + Eq + std::hash::Hash>(table: &mut Map<K, Claims>, key: &K, name: &ServiceName) {
    let Some(claims) = table.get(key) else { return };
    let left: Vec<Frontend> = claims.iter().filter(|frontend| frontend.service.name != *name).cloned().collect();
    if left.is_empty() {
        table.remove(key);
    } else {
        table.insert(key.clone(), left.into());
    }
}
