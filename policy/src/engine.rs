//! The policy engine as the wiring sees it: its settings, what it follows, and the handle of the running engine.
//!
//! The work is done by a task of [`crate::sync`].

use crate::admin_network_policy::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::answered_names::AnsweredNames;
use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::endpoint::{on_host_network, version_of};
use crate::explain::Explanation;
use crate::filter::{Denial, Established, TableFilter};
use crate::hash::Map;
use crate::status::{self, Reports};
use crate::sync::{Command, Streams, TableSync};
use crate::table::PolicyTable;
use arc_swap::ArcSwap;
use informer::{Informer, Informers};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{Filter, Network, NewFlow};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

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
    network: Network,
    established: Established,
    names: Arc<AnsweredNames>,
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
    let names = Arc::new(AnsweredNames::default());
    let table = ArcSwap::from_pointee(PolicyTable::default().with_names(names.clone()));
    let filter = Arc::new(TableFilter { table, denial: config.denial });
    let (commands, receiver) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let reporter = config.reports.map(|reports| {
        let (reporter, tables) = mpsc::unbounded_channel();
        tasks.spawn(status::run(reports, tables));
        reporter
    });
    let streams = Streams::of(&sources, receiver);
    let established = config.established;
    let sync = TableSync::new(filter.clone(), network.clone(), established, static_nodes, reporter);
    tasks.spawn(sync.run(streams, sources.pods.clone()));
    let request_progress = config.request_progress;
    Policy { filter, sources, commands, request_progress, network, established, names, _tasks: tasks }
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

    /// Pods are about to be told that these names (in lower case, without the dot at their end) have these addresses, for as long
    /// as that: when this returns, they may use them where policies let them by name.
    pub fn answered<'a>(&self, answers: impl IntoIterator<Item = (&'a str, IpAddr, Duration)>) {
        let mut news = false;
        for (name, address, ttl) in answers {
            news |= self.names.add(name, address, ttl);
        }
        if news {
            // Who has tried too early is not refused for ever.
            self.established.judge_anew(&self.network);
        }
    }

    /// Whether policies in force may name something in this zone, so that answers from it have to be told of.
    pub fn names_in(&self, zone: &str) -> bool {
        self.names.wants(zone)
    }

    /// What names have been answered with, for tables that are built beside the one in force.
    pub fn names(&self) -> Arc<AnsweredNames> {
        self.names.clone()
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
