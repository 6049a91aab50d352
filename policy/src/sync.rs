//! The owner of the table: follows policies, namespaces, pods and nodes, swaps, and has flows judged again.

use crate::admin_network_policy::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::endpoint::{Endpoints, on_host_network, version_of};
use crate::explain::Explanation;
use crate::filter::{Denial, Established, TableFilter};
use crate::hash::Map;
use crate::rule::Tier;
use crate::selector::Labels;
use crate::status::{self, Reports, TierPolicy, Told};
use crate::table::{NodeInfo, PolicyTable};
use arc_swap::ArcSwap;
use informer::{Change, Changes, Informer, Informers, Update, Working};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{Filter, Network, NewFlow};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

/// How long [`Policy::attach`] waits for a bookmark before it asks for another: one that was asked for while a watch was
/// being opened is lost.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of the policy engine.
#[derive(Clone)]
pub struct Config {
    /// Addresses of nodes beside those in their status, by node name: a pod always accepts its own node's traffic.
    pub node_addresses: Vec<(String, IpAddr)>,
    /// What happens to a flow that no rule allows.
    pub denial: Denial,
    /// What happens to a flow that has been let in and would not be any more.
    pub established: Established,
    /// Whether the API serves ClusterNetworkPolicies, AdminNetworkPolicies and BaselineAdminNetworkPolicies: they are
    /// followed then.
    pub cluster_network_policies: bool,
    /// With what the API is told how it fares with those.
    pub reports: Option<Reports>,
    /// Makes idle watches say how far they have followed the store (a bookmark).
    pub request_progress: Arc<dyn Fn() + Send + Sync>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node_addresses: Vec::new(),
            denial: Denial::Drop,
            established: Established::ReEvaluate,
            cluster_network_policies: false,
            reports: None,
            request_progress: Arc::new(|| {}),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut config = f.debug_struct("Config");
        config.field("node_addresses", &self.node_addresses).field("denial", &self.denial);
        config.field("established", &self.established).finish_non_exhaustive()
    }
}

/// The running policy engine. Dropping it ends its tasks; the last table stays with whoever holds the filter.
pub struct Policy {
    filter: Arc<TableFilter>,
    sources: Sources,
    commands: mpsc::UnboundedSender<Command>,
    request_progress: Arc<dyn Fn() + Send + Sync>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").finish_non_exhaustive()
    }
}

/// The informers that the policy engine follows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What isolates, and what is allowed then.
    pub policies: Informer<NetworkPolicy>,
    /// For their labels.
    pub namespaces: Informer<Namespace>,
    /// The administrator's tiers, where the API serves them.
    pub cluster_policies: Option<ClusterPolicies>,
    /// For changes of attached pods' labels.
    pub pods: Informer<Pod>,
    /// For their addresses.
    pub nodes: Informer<Node>,
}

/// The informers of the policies of the whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterPolicies {
    /// Of both tiers.
    pub cluster: Informer<ClusterNetworkPolicy>,
    /// What was tier Admin before.
    pub admin: Informer<AdminNetworkPolicy>,
    /// What was tier Baseline before.
    pub baseline: Informer<BaselineAdminNetworkPolicy>,
}

/// At most one per pod that starts or stops, so the queue is bounded by them.
enum Command {
    Attach { pod: Box<Pod>, ips: Vec<IpAddr>, done: oneshot::Sender<()> },
    Detach { ips: Vec<IpAddr> },
}

/// Starts to follow the cluster.
pub fn start(informers: &Informers, network: Network, config: Config) -> Policy {
    let sources = Sources {
        policies: informers.of(),
        namespaces: informers.of(),
        cluster_policies: config.cluster_network_policies.then(|| ClusterPolicies {
            cluster: informers.of(),
            admin: informers.of(),
            baseline: informers.of(),
        }),
        pods: informers.of(),
        nodes: informers.of(),
    };
    start_with(sources, network, config)
}

/// Starts to follow these informers, whoever feeds them.
pub fn start_with(sources: Sources, network: Network, config: Config) -> Policy {
    let static_nodes: Map<IpAddr, String> =
        config.node_addresses.into_iter().map(|(node, address)| (address, node)).collect();
    let listed = static_nodes.iter().map(|(ip, name)| (*ip, NodeInfo { name: name.clone(), ..NodeInfo::default() }));
    let table = PolicyTable::default().with_nodes(listed.collect());
    let filter = Arc::new(TableFilter { table: ArcSwap::from_pointee(table), denial: config.denial });
    let (commands, receiver) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let reporter = config.reports.map(|reports| {
        let (reporter, tables) = mpsc::unbounded_channel();
        tasks.spawn(status::run(reports, tables));
        reporter
    });
    let sync = TableSync {
        filter: filter.clone(),
        network,
        established: config.established,
        endpoints: Endpoints::default(),
        static_nodes,
        nodes: BTreeMap::new(),
        next: Next::default(),
        reporter,
    };
    let streams = Streams {
        policies: sources.policies.subscribe(),
        namespaces: sources.namespaces.subscribe(),
        cluster: sources.cluster_policies.as_ref().map(|of| of.cluster.subscribe()),
        admin: sources.cluster_policies.as_ref().map(|of| of.admin.subscribe()),
        baseline: sources.cluster_policies.as_ref().map(|of| of.baseline.subscribe()),
        pods: sources.pods.subscribe(),
        nodes: sources.nodes.subscribe(),
        commands: receiver,
    };
    tasks.spawn(sync.run(streams, sources.pods.clone()));
    Policy { filter, sources, commands, request_progress: config.request_progress, _tasks: tasks }
}

impl Policy {
    /// What the switch asks for every new flow.
    pub fn filter(&self) -> Arc<dyn Filter> {
        self.filter.clone()
    }

    /// The table in force.
    pub fn table(&self) -> Arc<PolicyTable> {
        self.filter.table.load_full()
    }

    /// Why a flow may pass, or not: by the table in force.
    pub fn explain(&self, flow: &NewFlow) -> Explanation {
        self.filter.table.load().explain(flow)
    }

    /// Puts a pod under its policies. Call it when the pod's addresses are known and before its first program starts:
    /// when it returns, every policy and namespace that is older than this state of the pod is in force for it.
    pub async fn attach(&self, pod: &Pod, ips: &[IpAddr]) {
        if on_host_network(pod) {
            return;
        }
        self.follow(version_of(pod)).await;
        let (done, attached) = oneshot::channel();
        let command = Command::Attach { pod: Box::new(pod.clone()), ips: ips.to_vec(), done };
        if self.commands.send(command).is_ok() {
            let _ = attached.await;
        }
    }

    /// The pods at these addresses have ended; the addresses may be given to others.
    pub fn detach(&self, ips: &[IpAddr]) {
        let _ = self.commands.send(Command::Detach { ips: ips.to_vec() });
    }

    /// Waits until policies and namespaces have been followed up to and with this resourceVersion.
    async fn follow(&self, version: u64) {
        let Sources { policies, namespaces, cluster_policies, .. } = &self.sources;
        let followed = async {
            tokio::join!(policies.synced(), namespaces.synced());
            tokio::join!(policies.applied_at_least(version), namespaces.applied_at_least(version));
            if let Some(ClusterPolicies { cluster, admin, baseline }) = cluster_policies {
                tokio::join!(cluster.synced(), admin.synced(), baseline.synced());
                tokio::join!(
                    cluster.applied_at_least(version),
                    admin.applied_at_least(version),
                    baseline.applied_at_least(version)
                );
            }
        };
        tokio::pin!(followed);
        let mut again = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = &mut followed => return,
                _ = again.tick() => (self.request_progress)(),
            }
        }
    }
}

struct Streams {
    policies: Changes<NetworkPolicy>,
    namespaces: Changes<Namespace>,
    cluster: Option<Changes<ClusterNetworkPolicy>>,
    admin: Option<Changes<AdminNetworkPolicy>>,
    baseline: Option<Changes<BaselineAdminNetworkPolicy>>,
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    commands: mpsc::UnboundedReceiver<Command>,
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

struct TableSync {
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
    async fn run(mut self, mut streams: Streams, pods: Informer<Pod>) {
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
            self.filter.table.store(Arc::new(table));
            match self.established {
                Established::ReEvaluate => self.network.reevaluate(),
                // Who has been refused asks anew; who has been let in is never asked again.
                Established::Keep => self.network.retain_flows(|flow| flow.dropped.is_none()),
            }
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
