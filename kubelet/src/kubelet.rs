//! The kubelet of one virtual node: registers the node and gives every pod bound to it a worker.

use crate::environment::{ConfigError, References};
use crate::events::{Occurrence, Recorder};
use crate::ipam::Ipam;
use crate::node;
use crate::pod_worker::{Handle, PodUpdate, PodWorker};
use crate::program::Programs;
use crate::resolv_conf::ClusterDns;
use crate::virtual_runtime::Functions;
use crate::volumes;
use async_trait::async_trait;
use informer::{Activity, Informer, Informers, Update, Working};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PostParams};
use netstack::{Host, Network, PortTag};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Wall time that follows tokio's clock, so that a paused clock pauses timestamps too.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    origin: Instant,
}

impl Clock {
    /// A clock that says `wall` now.
    pub fn starting_at(wall: Timestamp) -> Self {
        Clock { wall, origin: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.origin.elapsed()).unwrap_or_default();
        self.wall.checked_add(elapsed).unwrap_or(self.wall)
    }
}

/// What must happen on the network before a pod's first program runs, and after its last.
#[async_trait]
pub trait SandboxHooks: Send + Sync + 'static {
    /// The pod has these addresses; returns when everything that judges its packets knows it.
    async fn before_start(&self, pod: &core::Pod, addresses: &[IpAddr]);
    /// The addresses are free again.
    fn removed(&self, addresses: &[IpAddr]);
}

/// One virtual node.
#[derive(Clone)]
pub struct Config {
    /// The Node's name.
    pub node_name: String,
    /// The node's addresses on the network, at most one of each family, the primary family's first.
    pub node_ips: Vec<IpAddr>,
    /// The node's podCIDRs in the same order: network and prefix length.
    pub pod_networks: Vec<(IpAddr, u8)>,
    /// Further labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// CPUs, bytes of memory, and number of pods.
    pub capacity: (u32, u64, u32),
    /// What pods resolve with.
    pub dns: ClusterDns,
    /// The time.
    pub clock: Clock,
    /// In-process functions that run as pods.
    pub functions: Functions,
    /// Programs that are compiled in.
    pub programs: Arc<dyn Programs>,
    /// Called around a pod's life on the network.
    pub hooks: Arc<dyn SandboxHooks>,
    /// Numbers for ports of the network, shared by all nodes.
    pub tags: Arc<AtomicU64>,
    /// Kubernetes version to report.
    pub version: String,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) client: kube::Client,
    pub(crate) network: Network,
    pub(crate) ipam: Ipam,
    pub(crate) services: Informer<core::Service>,
    activity: Activity,
    node_host: Host,
    recorder: Recorder,
    workers: Mutex<HashMap<String, Worker>>,
}

struct Worker {
    namespace: String,
    name: String,
    updates: mpsc::UnboundedSender<PodUpdate>,
    handle: Handle,
    task: AbortHandle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A running kubelet; dropping it ends its node's pods.
pub struct Kubelet {
    pub(crate) shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kubelet({})", self.shared.config.node_name)
    }
}

/// Why a kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's address is taken.
    #[error("node {node} cannot be attached to the network")]
    Attach {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: netstack::AttachError,
    },
    /// The Node object could not be written.
    #[error("node {node} cannot be registered")]
    Register {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Kubelet {
    /// Registers the node and begins to run its pods.
    pub async fn start(
        config: Config,
        client: kube::Client,
        informers: &Informers,
        network: Network,
    ) -> Result<Kubelet, StartError> {
        let node = config.node_name.clone();
        let tag = PortTag(config.tags.fetch_add(1, Ordering::Relaxed));
        let node_host = network
            .attach_host(&config.node_ips, tag)
            .map_err(|source| StartError::Attach { node: node.clone(), source })?;
        let (recorder, write_events) = Recorder::new(client.clone(), node.clone());
        let shared = Arc::new(Shared {
            ipam: Ipam::new(&config.pod_networks),
            services: informers.of(),
            activity: informers.activity().clone(),
            node_host,
            recorder,
            workers: Mutex::default(),
            config,
            client,
            network,
        });
        node::register(&shared).await.map_err(|source| StartError::Register { node, source: Box::new(source) })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(write_events);
        tasks.spawn(node::heartbeat(shared.clone()));
        tasks.spawn(shared.clone().follow(informers.of()));
        Ok(Kubelet { shared, tasks: Mutex::new(tasks) })
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.shared.config.node_name
    }

    /// The node's own host on the network.
    pub fn host(&self) -> &Host {
        &self.shared.node_host
    }

    /// Ends all pods of the node at once, without a word to the API.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        self.shared.workers.lock().clear();
        self.shared.node_host.shutdown();
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.workers.lock().clear();
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(crate) fn programs(&self) -> &Arc<dyn Programs> {
        &self.config.programs
    }

    pub(crate) fn node_host(&self) -> &Host {
        &self.node_host
    }

    pub(crate) fn next_tag(&self) -> PortTag {
        PortTag(self.config.tags.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn event(&self, pod: &Arc<core::Pod>, kind: &'static str, reason: &'static str, message: &str) {
        let occurrence = Occurrence { pod: pod.clone(), kind, reason, message: message.to_owned(), at: self.now() };
        self.recorder.record(occurrence);
    }

    /// The worker's view of a pod, by name.
    pub(crate) fn handle(&self, namespace: &str, name: &str) -> Option<Handle> {
        let workers = self.workers.lock();
        workers
            .values()
            .find(|worker| worker.namespace == namespace && worker.name == name)
            .map(|worker| worker.handle.clone())
    }

    async fn follow(self: Arc<Self>, pods: Informer<core::Pod>) {
        let mut changes = pods.subscribe();
        while let Some(change) = changes.next().await {
            let pod = change.update.object().clone();
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if node != Some(self.config.node_name.as_str()) {
                continue;
            }
            match change.update {
                Update::Applied(_) => self.apply(pod, change.working),
                Update::Deleted(_) => {
                    let uid = pod.metadata.uid.clone().unwrap_or_default();
                    self.workers.lock().remove(&uid);
                }
            }
        }
    }

    fn apply(self: &Arc<Self>, pod: Arc<core::Pod>, working: Working) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut workers = self.workers.lock();
        if let Some(worker) = workers.get(&uid) {
            if let Err(refused) = worker.updates.send((pod, working)) {
                // The worker is at its end; the pod's object is being deleted.
                drop(refused);
            }
            return;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        if matches!(phase, "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let (updates, receiver) = mpsc::unbounded_channel();
        let handle = Handle::default();
        let worker = PodWorker::new(self.clone(), pod.clone(), handle.clone(), receiver);
        let task = tokio::spawn(worker.run(working)).abort_handle();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        workers.insert(uid, Worker { namespace, name, updates, handle, task });
    }

    /// Fetches the ConfigMaps and Secrets a pod refers to; those that do not exist are left out.
    pub(crate) async fn references(&self, pod: &core::Pod) -> Result<References, ConfigError> {
        let (maps, secrets) = volumes::referenced(pod);
        let mut references = References::default();
        if maps.is_empty() && secrets.is_empty() {
            return Ok(references);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<core::ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        for name in maps {
            if let Some(map) = api.get_opt(&name).await.map_err(|error| ConfigError(error.to_string()))? {
                references.config_maps.insert(name, Arc::new(map));
            }
        }
        let api: Api<core::Secret> = Api::namespaced(self.client.clone(), namespace);
        for name in secrets {
            if let Some(secret) = api.get_opt(&name).await.map_err(|error| ConfigError(error.to_string()))? {
                references.secrets.insert(name, Arc::new(secret));
            }
        }
        Ok(references)
    }

    /// A token bound to the pod (KEP-1205).
    pub(crate) async fn token(
        &self,
        pod: &core::Pod,
        wanted: &core::ServiceAccountTokenProjection,
    ) -> Result<String, ConfigError> {
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let audiences: Vec<String> = wanted.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect();
        let request = serde_json::from_value(serde_json::json!({
            "spec": {"audiences": audiences, "expirationSeconds": wanted.expiration_seconds.unwrap_or(3607),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata.name, "uid": metadata.uid}},
        }));
        let request = request.map_err(|error| ConfigError(error.to_string()))?;
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.map_err(|error| ConfigError(format!("token for service account {account:?}: {error}")))?;
        Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
    }
}
