//! The owner of the table: follows policies, namespaces, pods and nodes, swaps, and has flows judged again.

use crate::admin_network_policy::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::endpoint::Endpoints;
use crate::engine::Sources;
use crate::filter::{Established, TableFilter};
use crate::hash::Map;
use crate::rule::Tier;
use crate::selector::Labels;
use crate::status::{TierPolicy, Told};
use crate::table::{NodeInfo, PolicyTable};
use informer::{Change, Changes, Informer, Update, Working};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::Network;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// At most one per pod that starts or stops, so the queue is bounded by them.
pub(crate) enum Command {
    Attach { pod: Box<Pod>, ips: Vec<IpAddr>, done: oneshot::Sender<()> },
    Detach { ips: Vec<IpAddr> },
}

/// What the task is told.
pub(crate) struct Streams {
    policies: Changes<NetworkPolicy>,
    namespaces: Changes<Namespace>,
    cluster: Option<Changes<ClusterNetworkPolicy>>,
    admin: Option<Changes<AdminNetworkPolicy>>,
    baseline: Option<Changes<BaselineAdminNetworkPolicy>>,
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl Streams {
    pub(crate) fn of(sources: &Sources, commands: mpsc::UnboundedReceiver<Command>) -> Streams {
        let cluster_policies = sources.cluster_policies.as_ref();
        Streams {
            policies: sources.policies.subscribe(),
            namespaces: sources.namespaces.subscribe(),
            cluster: cluster_policies.map(|of| of.cluster.subscribe()),
            admin: cluster_policies.map(|of| of.admin.subscribe()),
            baseline: cluster_policies.map(|of| of.baseline.subscribe()),
            pods: sources.pods.subscribe(),
            nodes: sources.nodes.subscribe(),
            commands,
        }
    }
}

/// What a burst has touched so far.
#[derive(Default)]
struct Next {
    table: Option<PolicyTable>,
    /// Whose policies have changed: a namespace's pods, or everybody (`None`).
    touched: BTreeSet<Option<String>>,
    tier_policies: Vec<(String, Option<TierPolicy>)>,
    endpoints: bool,
    nodes: bool,
    working: Vec<Working>,
    attached: Vec<oneshot::Sender<()>>,
}

/// The task.
pub(crate) struct TableSync {
    filter: Arc<TableFilter>,
    network: Network,
    established: Established,
    endpoints: Endpoints,
    static_nodes: Map<IpAddr, String>,
    nodes: BTreeMap<String, (Labels, Vec<IpAddr>)>,
    next: Next,
    reporter: Option<mpsc::UnboundedSender<Told>>,
}

impl TableSync {
    /// The owner of the table in `filter`, in which it brings `static_nodes` into force.
    pub(crate) fn new(
        filter: Arc<TableFilter>,
        network: Network,
        established: Established,
        static_nodes: Map<IpAddr, String>,
        reporter: Option<mpsc::UnboundedSender<Told>>,
    ) -> TableSync {
        let (endpoints, nodes, next) = (Endpoints::default(), BTreeMap::new(), Next::default());
        let sync = TableSync { filter, network, established, endpoints, static_nodes, nodes, next, reporter };
        let table = sync.filter.table.load().with_nodes(sync.node_addresses());
        sync.filter.table.store(Arc::new(table));
        sync
    }

    pub(crate) async fn run(mut self, mut streams: Streams, pods: Informer<Pod>) {
        loop {
            tokio::select! {
                biased; // all that is ready is taken in before the swap anyway
                Some(change) = streams.policies.next() => self.policy(change),
                Some(change) = next_if_any(&mut streams.cluster) => self.cluster_policy(change),
                Some(change) = next_if_any(&mut streams.admin) => self.admin_policy(change),
                Some(change) = next_if_any(&mut streams.baseline) => self.baseline_policy(change),
                Some(change) = streams.namespaces.next() => self.namespace(change),
                Some(change) = streams.pods.next() => self.pod(change),
                Some(change) = streams.nodes.next() => self.node(change),
                Some(command) = streams.commands.recv() => self.commands(command, &mut streams, &pods),
                else => return,
            }
            self.drain(&mut streams);
            self.swap();
        }
    }

    /// Takes in everything that has been told already: one swap for a burst, and nothing older than an attach missed.
    fn drain(&mut self, streams: &mut Streams) {
        while let Some(change) = streams.policies.try_next() {
            self.policy(change);
        }
        while let Some(change) = streams.cluster.as_mut().and_then(Changes::try_next) {
            self.cluster_policy(change);
        }
        while let Some(change) = streams.admin.as_mut().and_then(Changes::try_next) {
            self.admin_policy(change);
        }
        while let Some(change) = streams.baseline.as_mut().and_then(Changes::try_next) {
            self.baseline_policy(change);
        }
        while let Some(change) = streams.namespaces.try_next() {
            self.namespace(change);
        }
        while let Some(change) = streams.pods.try_next() {
            self.pod(change);
        }
        while let Some(change) = streams.nodes.try_next() {
            self.node(change);
        }
    }

    /// Pods come and go in the order of the commands.
    fn commands(&mut self, first: Command, streams: &mut Streams, pods: &Informer<Pod>) {
        let mut command = Some(first);
        while let Some(current) = command {
            match current {
                Command::Attach { pod, ips, done } => {
                    // A newer state may have been told before the pod was attached, and was for nobody then.
                    let metadata = &pod.metadata;
                    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
                    let newest = pods.get(namespace.unwrap_or_default(), name.unwrap_or_default());
                    self.endpoints.attach(&pod, &ips);
                    if let Some(newest) = newest {
                        self.endpoints.update(&newest);
                    }
                    self.next.endpoints = true;
                    self.next.attached.push(done);
                }
                Command::Detach { ips } => self.next.endpoints |= self.endpoints.detach(&ips),
            }
            command = streams.commands.try_recv().ok();
        }
    }

    fn table(&mut self) -> PolicyTable {
        self.next.table.take().unwrap_or_else(|| (*self.filter.table.load_full()).clone())
    }

    fn policy(&mut self, change: Change<NetworkPolicy>) {
        let table = self.table();
        let metadata = &change.update.object().metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        self.next.table = Some(match &change.update {
            Update::Applied(policy) => table.with_policy(policy),
            Update::Deleted(_) => table.without_policy(&namespace, metadata.name.as_deref().unwrap_or_default()),
        });
        self.next.touched.insert(Some(namespace));
        self.next.working.push(change.working);
    }

    fn cluster_policy(&mut self, change: Change<ClusterNetworkPolicy>) {
        let name = change.update.object().metadata.name.clone().unwrap_or_default();
        self.tier_policy(name, change, PolicyTable::with_cluster_policy, TierPolicy::Cluster);
    }

    fn admin_policy(&mut self, change: Change<AdminNetworkPolicy>) {
        let name = change.update.object().full_name();
        self.tier_policy(name, change, PolicyTable::with_admin_policy, TierPolicy::Admin);
    }

    fn baseline_policy(&mut self, change: Change<BaselineAdminNetworkPolicy>) {
        let name = change.update.object().full_name();
        self.tier_policy(name, change, PolicyTable::with_baseline_policy, TierPolicy::Baseline);
    }

    fn tier_policy<K>(
        &mut self,
        name: String,
        change: Change<K>,
        with: fn(&PolicyTable, &K) -> PolicyTable,
        policy: fn(Arc<K>) -> TierPolicy,
    ) {
        let table = self.table();
        let (table, told) = match change.update {
            Update::Applied(object) => (with(&table, &object), Some(policy(object))),
            Update::Deleted(_) => (table.without_cluster_policy(&name), None),
        };
        self.next.table = Some(table);
        self.next.touched.insert(None);
        self.next.tier_policies.push((name, told));
        self.next.working.push(change.working);
    }

    fn namespace(&mut self, change: Change<Namespace>) {
        let metadata = &change.update.object().metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        self.next.endpoints |= match &change.update {
            Update::Applied(_) => self.endpoints.set_namespace(name, metadata.labels.as_ref()),
            Update::Deleted(_) => self.endpoints.remove_namespace(name),
        };
        self.next.working.push(change.working);
    }

    fn pod(&mut self, change: Change<Pod>) {
        if let Update::Applied(pod) = &change.update {
            self.next.endpoints |= self.endpoints.update(pod);
        }
        self.next.working.push(change.working);
    }

    fn node(&mut self, change: Change<Node>) {
        let node = change.update.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        match &change.update {
            Update::Applied(_) => {
                let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
                let addresses = addresses.filter_map(|address| address.address.parse().ok()).collect();
                let next = (node.metadata.labels.clone().unwrap_or_default(), addresses);
                self.next.nodes |= self.nodes.get(&name) != Some(&next);
                self.nodes.insert(name, next);
            }
            Update::Deleted(_) => self.next.nodes |= self.nodes.remove(&name).is_some(),
        }
        self.next.working.push(change.working);
    }

    /// Brings the table into force. Pods count as attached when this returns, and so does the work as done, unless
    /// somebody is still to be told.
    fn swap(&mut self) {
        let next = std::mem::take(&mut self.next);
        let current = self.filter.table.load_full();
        let mut table = next.table.unwrap_or_else(|| (*current).clone());
        let policies = !table.same_policies(&current);
        if next.endpoints {
            table = table.with_endpoints(&self.endpoints);
        }
        if next.nodes {
            table = table.with_nodes(self.node_addresses());
        }
        if policies || next.endpoints || next.nodes {
            debug!(policies, pods = next.endpoints, nodes = next.nodes, "policy table updated");
            // Compiled here rather than by the first packet, which would hold up the whole network.
            for namespace in &next.touched {
                for identity in self.endpoints.identities(namespace.as_deref()) {
                    Tier::ALL.into_iter().for_each(|tier| drop(table.subject(tier, &identity)));
                }
            }
            if next.touched.contains(&None) {
                // Before it is in force: an answer in between is news already.
                table.names.want(table.names_of_rules());
            }
            self.filter.table.store(Arc::new(table));
            self.established.judge_anew(&self.network);
        }
        if let Some(reporter) = &self.reporter {
            let table = self.filter.table.load_full();
            let _ = reporter.send(Told { table, changed: next.tier_policies, working: next.working });
        }
        for attached in next.attached {
            let _ = attached.send(());
        }
    }

    fn node_addresses(&self) -> Map<IpAddr, NodeInfo> {
        let listed = self.nodes.iter().flat_map(|(name, (labels, ips))| {
            ips.iter().map(move |ip| (*ip, NodeInfo { name: name.clone(), labels: labels.clone() }))
        });
        let fixed = self.static_nodes.iter().map(|(ip, name)| {
            let labels = self.nodes.get(name).map(|(labels, _)| labels.clone()).unwrap_or_default();
            (*ip, NodeInfo { name: name.clone(), labels })
        });
        listed.chain(fixed).collect()
    }
}

async fn next_if_any<K>(changes: &mut Option<Changes<K>>) -> Option<Change<K>> {
    match changes {
        Some(changes) => changes.next().await,
        None => None,
    }
}
