//! The owner of the table: follows Services, EndpointSlices, Nodes and Pods, swaps, and cleans up UDP flows.

use crate::explain::Explanation;
use crate::health_check;
use crate::node_health::{self, Progress};
use crate::service::{CompiledService, ServiceName};
use crate::table::{Addressing, ExternalFrontends, ServiceTable, service_of};
use crate::translator::Translator;
use informer::{Change, Informer, Informers, Update, Working};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use netstack::{FiveTuple, FlowInfo, Host, Network, Protocol, Translate};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

/// Settings of the proxy.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where ClusterIPs are allocated from: address and prefix length.
    pub service_cidrs: Vec<(IpAddr, u8)>,
    /// Where pods are.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// The gateway's own addresses inside the network.
    pub gateway_addresses: Vec<IpAddr>,
    /// Seed of the choice among endpoints.
    pub seed: u64,
}

/// The running proxy. Dropping it ends its task; the last table stays with whoever holds the translator.
#[derive(Debug)]
pub struct Proxy {
    translator: Arc<Translator>,
    external: watch::Receiver<ExternalFrontends>,
    ready: watch::Receiver<bool>,
    progress: Arc<Progress>,
    nodes: Informer<Node>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The informers that the proxy follows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The frontends.
    pub services: Informer<Service>,
    /// The endpoints.
    pub slices: Informer<EndpointSlice>,
    /// Node addresses, zones and pod ranges.
    pub nodes: Informer<Node>,
    /// Host ports.
    pub pods: Informer<Pod>,
}

/// Starts to follow the cluster. Until everything has been listed, no address of the service range is answered.
pub fn start(informers: &Informers, network: Network, config: Config) -> Proxy {
    let sources =
        Sources { services: informers.of(), slices: informers.of(), nodes: informers.of(), pods: informers.of() };
    start_with(sources, network, config)
}

/// Starts to follow these informers, whoever feeds them.
pub fn start_with(sources: Sources, network: Network, config: Config) -> Proxy {
    let addressing = Addressing {
        service_cidrs: config.service_cidrs,
        cluster_cidrs: config.cluster_cidrs,
        gateway_addresses: config.gateway_addresses,
    };
    let translator = Arc::new(Translator::new(ServiceTable::new(&addressing), config.seed));
    let (external, external_receiver) = watch::channel(ExternalFrontends::default());
    let (ready, ready_receiver) = watch::channel(false);
    let (progress, nodes) = (Arc::new(Progress::new()), sources.nodes.clone());
    let sync = TableSync {
        translator: translator.clone(),
        network,
        external,
        ready,
        progress: progress.clone(),
        known: Known::default(),
    };
    let task = tokio::spawn(sync.run(sources));
    Proxy { translator, external: external_receiver, ready: ready_receiver, progress, nodes, task }
}

impl Proxy {
    /// Answers the health check ports of Services at these hosts, each of which has the addresses of one node, for as long as
    /// the proxy runs.
    pub fn serve_health_checks(&self, nodes: Vec<Host>) -> impl Future<Output = ()> + Send + 'static {
        health_check::serve(self.translator.clone(), self.external_frontends(), nodes)
    }

    /// Answers `/healthz` and `/livez` on port 10256 of these hosts, each of which has the addresses of one node, as kube-proxy does.
    /// `now` is the wall clock.
    pub fn serve_node_health(
        &self,
        nodes: Vec<Host>,
        now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        node_health::serve(self.progress.clone(), self.nodes.clone(), nodes, now)
    }

    /// What the switch asks for every new flow.
    pub fn translator(&self) -> Arc<dyn Translate> {
        self.translator.clone()
    }

    /// Waits until the first table with everything that was listed is in force.
    pub async fn synced(&self) {
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// The table in force.
    pub fn table(&self) -> Arc<ServiceTable> {
        self.translator.table()
    }

    /// How many clients session affinity remembers.
    pub fn held_clients(&self) -> usize {
        self.translator.held_clients()
    }

    /// Why a flow goes where it goes: by the same table, without drawing or remembering anything.
    pub fn explain(&self, flow: &FiveTuple) -> Explanation {
        self.translator.explain(flow, Instant::now())
    }

    /// The addresses and ports that are reachable from outside (node ports at every node, load balancer and external
    /// addresses, host ports, health checks), and every change of them: for whoever opens listeners on the host.
    pub fn external_frontends(&self) -> watch::Receiver<ExternalFrontends> {
        self.external.clone()
    }
}

/// Everything listed so far.
#[derive(Default)]
struct Known {
    services: HashMap<ServiceName, Arc<Service>>,
    slices: HashMap<ServiceName, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Which Service a slice, by namespace and name, counted for: its label may change.
    owners: HashMap<(String, String), ServiceName>,
    nodes: BTreeMap<String, Arc<Node>>,
}

/// What a burst of changes has touched.
#[derive(Default)]
struct Dirty {
    services: HashSet<ServiceName>,
    /// The newest state of pods, `None` if gone.
    pods: HashMap<ServiceName, Option<Arc<Pod>>>,
    nodes: bool,
    working: Vec<Working>,
}

impl Dirty {
    fn pod(&mut self, change: Change<Pod>) {
        let name = ServiceName::of_object(&change.update.object().metadata);
        let newest = match change.update {
            Update::Applied(pod) => Some(pod),
            Update::Deleted(_) => None,
        };
        self.pods.insert(name, newest);
        self.working.push(change.working);
    }
}

impl Known {
    fn service(&mut self, change: Change<Service>, dirty: &mut Dirty) {
        let name = ServiceName::of(change.update.object());
        match change.update {
            Update::Applied(service) => self.services.insert(name.clone(), service),
            Update::Deleted(_) => self.services.remove(&name),
        };
        dirty.services.insert(name);
        dirty.working.push(change.working);
    }

    fn slice(&mut self, change: Change<EndpointSlice>, dirty: &mut Dirty) {
        let metadata = &change.update.object().metadata;
        let slice_name = metadata.name.clone().unwrap_or_default();
        let key = (metadata.namespace.clone().unwrap_or_default(), slice_name.clone());
        if let Some(owner) = self.owners.remove(&key) {
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(&slice_name);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
            dirty.services.insert(owner);
        }
        if let Update::Applied(slice) = &change.update
            && let Some(owner) = service_of(slice)
        {
            self.owners.insert(key, owner.clone());
            self.slices.entry(owner.clone()).or_default().insert(slice_name, slice.clone());
            dirty.services.insert(owner);
        }
        dirty.working.push(change.working);
    }

    fn node(&mut self, change: Change<Node>, dirty: &mut Dirty) {
        let name = change.update.object().metadata.name.clone().unwrap_or_default();
        match change.update {
            Update::Applied(node) => self.nodes.insert(name, node),
            Update::Deleted(_) => self.nodes.remove(&name),
        };
        dirty.nodes = true;
        dirty.working.push(change.working);
    }
}

struct TableSync {
    translator: Arc<Translator>,
    network: Network,
    external: watch::Sender<ExternalFrontends>,
    ready: watch::Sender<bool>,
    progress: Arc<Progress>,
    known: Known,
}

impl TableSync {
    async fn run(mut self, sources: Sources) {
        let Sources { services, slices, nodes, pods } = sources;
        let mut service_changes = services.subscribe();
        let mut slice_changes = slices.subscribe();
        let mut node_changes = nodes.subscribe();
        let mut pod_changes = pods.subscribe();
        // A table of half a list would refuse what the other half allows.
        tokio::join!(services.synced(), slices.synced(), nodes.synced());
        let mut dirty = Dirty::default();
        loop {
            while let Some(change) = service_changes.try_next() {
                self.known.service(change, &mut dirty);
            }
            while let Some(change) = slice_changes.try_next() {
                self.known.slice(change, &mut dirty);
            }
            while let Some(change) = node_changes.try_next() {
                self.known.node(change, &mut dirty);
            }
            while let Some(change) = pod_changes.try_next() {
                dirty.pod(change);
            }
            self.apply(std::mem::take(&mut dirty));
            self.progress.updated();
            self.ready.send_replace(true);
            tokio::select! {
                biased; // all that is ready is taken in before the swap anyway
                Some(change) = service_changes.next() => self.known.service(change, &mut dirty),
                Some(change) = slice_changes.next() => self.known.slice(change, &mut dirty),
                Some(change) = node_changes.next() => self.known.node(change, &mut dirty),
                Some(change) = pod_changes.next() => dirty.pod(change),
                else => return, // the informers have stopped
            }
            self.progress.queued();
        }
    }

    /// Brings the table in line with what is known; the work counts as done when this returns.
    fn apply(&self, dirty: Dirty) {
        let old = self.translator.table();
        let mut table = (*old).clone();
        if dirty.nodes {
            let next = table.with_nodes(self.known.nodes.values().map(|node| &**node));
            if !next.same_nodes(&table) {
                table = next;
            }
        }
        for name in &dirty.services {
            match self.known.services.get(name) {
                Some(service) => {
                    let slices = self.known.slices.get(name);
                    table.set_service(service, slices.into_iter().flatten().map(|(_, slice)| slice.clone()).collect());
                }
                None => table.remove_service(name),
            }
        }
        for (name, pod) in &dirty.pods {
            table = match pod {
                Some(pod) => table.with_pod(pod),
                None => table.without_pod(name),
            };
        }
        let host_ports_changed = !table.same_host_ports(&old);
        let changed: Vec<&ServiceName> = dirty.services.iter().filter(|name| !table.same_service(&old, name)).collect();
        let nodes_changed = !table.same_nodes(&old);
        if changed.is_empty() && !nodes_changed && !host_ports_changed {
            return;
        }
        debug!(services = changed.len(), nodes_changed, total = table.len(), "service table updated");
        let mut states = changed.iter().flat_map(|name| [table.service(name), old.service(name)]).flatten();
        let udp = nodes_changed || host_ports_changed || states.any(CompiledService::has_udp);
        self.translator.swap(table.clone(), changed.iter().copied());
        if udp {
            self.network.retain_udp_flows(|flow| keep(flow, &old, &table));
        }
        let mut frontends = self.external.borrow().clone();
        let modified = if nodes_changed {
            let before = std::mem::replace(&mut frontends, table.external_frontends());
            before != frontends
        } else {
            table.update_external(&mut frontends, &old, changed.iter().copied(), dirty.pods.keys())
        };
        if modified {
            self.external.send_replace(frontends);
        }
    }
}

/// Which flows outlive a change of the table.
///
/// Established TCP does: it ends with its endpoint. A UDP flow does as long as its endpoint serves, ready or not;
/// otherwise a resolver that keeps its socket would talk to nobody until the entry expires.
fn keep(flow: &FlowInfo, old: &ServiceTable, new: &ServiceTable) -> bool {
    if flow.original.protocol != Protocol::Udp {
        return true;
    }
    match new.frontend(&flow.original) {
        Some(frontend) => {
            let endpoint = frontend.port.endpoints(flow.original.dst.ip()).find(flow.translated.dst);
            endpoint.is_some_and(|(_, endpoint)| endpoint.serving)
        }
        None => match new.host_port(&flow.original) {
            Some(host_port) => host_port.target == flow.translated.dst,
            // The Service is gone, or this port of it, or the pod.
            None => old.frontend(&flow.original).is_none() && old.host_port(&flow.original).is_none(),
        },
    }
}
