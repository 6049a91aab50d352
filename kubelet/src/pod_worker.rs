//! The worker of one pod: brings it up, keeps its status true, takes it down.
//!
//! One task per pod, owned by the [`crate::Kubelet`]. Init containers run first, one after another; sidecars (init containers that
//! restart always) stay; then all containers run side by side.

use crate::container_runner::{Records, Restart, Runner, Stop};
use crate::kubelet::Shared;
use crate::sandbox::Sandbox;
use crate::status::{self, Inputs};
use informer::Working;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How long to wait before a failed sandbox or status write is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A new state of the pod in the API.
pub(crate) type PodUpdate = (Arc<core::Pod>, Working);

/// What others see of a running pod: exec, logs and attach find their container here.
#[derive(Clone, Default)]
pub(crate) struct Handle(Arc<Mutex<Option<Up>>>);

/// What there is once the sandbox is made.
type Up = (Records, Arc<Sandbox>);

impl Handle {
    pub(crate) fn records(&self) -> Option<Records> {
        self.0.lock().as_ref().map(|(records, _)| records.clone())
    }

    pub(crate) fn sandbox(&self) -> Option<Arc<Sandbox>> {
        self.0.lock().as_ref().map(|(_, sandbox)| sandbox.clone())
    }
}

pub(crate) struct PodWorker {
    kubelet: Arc<Shared>,
    pod: Arc<core::Pod>,
    handle: Handle,
    updates: mpsc::UnboundedReceiver<PodUpdate>,
    written: Option<Value>,
    started: Timestamp,
    failed: Option<(&'static str, String)>,
}

/// Ends a worker's sandbox even when its task is aborted.
struct Attached {
    kubelet: Arc<Shared>,
    sandbox: Arc<Sandbox>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.sandbox.remove(&self.kubelet);
    }
}

impl PodWorker {
    pub(crate) fn new(
        kubelet: Arc<Shared>,
        pod: Arc<core::Pod>,
        handle: Handle,
        updates: mpsc::UnboundedReceiver<PodUpdate>,
    ) -> Self {
        let started = kubelet.now();
        PodWorker { kubelet, pod, handle, updates, written: None, started, failed: None }
    }

    pub(crate) async fn run(mut self, working: Working) {
        let (changed, mut changes) = mpsc::unbounded_channel::<Working>();
        let spec = self.pod.spec.clone().unwrap_or_default();
        let all = spec.init_containers.iter().flatten().chain(&spec.containers).cloned();
        let records = Records::new(all, changed);
        let Some(sandbox) = self.sandbox(&records).await else {
            self.delete().await;
            return;
        };
        let sandbox = Arc::new(sandbox);
        let _attached = Attached { kubelet: self.kubelet.clone(), sandbox: sandbox.clone() };
        *self.handle.0.lock() = Some((records.clone(), sandbox.clone()));
        let (stop, stopping) = watch::channel(None::<Stop>);
        let (pod_sender, pod_state) = watch::channel(self.pod.clone());
        let crew =
            Crew { kubelet: self.kubelet.clone(), sandbox, pod: pod_state, records: records.clone(), stop: stopping };
        let mut tasks = JoinSet::new();
        tasks.spawn(crew.clone().run(working));
        let mut ephemeral: BTreeSet<String> = BTreeSet::new();
        let deadline =
            spec.active_deadline_seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.max(0) as u64));
        let mut pending: Vec<Working> = Vec::new();
        let mut over = false;
        loop {
            // Everything that has happened so far goes into one status write.
            while let Ok(working) = changes.try_recv() {
                pending.push(working);
            }
            if !pending.is_empty() {
                if !self.write_status(&records, Some(&crew.sandbox)).await {
                    break;
                }
                pending.clear();
            }
            let deleting = self.pod.metadata.deletion_timestamp.is_some();
            if over && deleting {
                self.delete().await;
                break;
            }
            tokio::select! {
                Some(working) = changes.recv() => pending.push(working),
                update = self.updates.recv() => {
                    let Some((pod, working)) = update else { break };
                    let changed = pod.metadata.generation != self.pod.metadata.generation
                        || status::gates_are_open(&pod) != status::gates_are_open(&self.pod);
                    let deleting = pod.metadata.deletion_timestamp.is_some();
                    self.pod = pod.clone();
                    pod_sender.send_replace(pod);
                    self.begin_termination(&stop);
                    for container in self.new_ephemeral(&mut ephemeral, &records) {
                        tasks.spawn(crew.clone().run_ephemeral(container, self.kubelet.activity().begin()));
                    }
                    // A new spec has been seen: `observedGeneration` says so, and a resize is in the status. A gate is part of `Ready`.
                    if changed && !deleting {
                        pending.push(working);
                    }
                }
                Some(_) = tasks.join_next(), if !over => {
                    if tasks.is_empty() {
                        over = true;
                        pending.push(self.kubelet.activity().begin());
                    }
                }
                () = sleep_until(deadline), if deadline.is_some() && self.failed.is_none() && !over => {
                    let text = "Pod was active on the node longer than the specified deadline".to_owned();
                    self.failed = Some(("DeadlineExceeded", text));
                    stop.send_replace(Some(Stop { deadline: Instant::now() + self.grace() }));
                }
            }
        }
        *self.handle.0.lock() = None;
    }

    /// Makes the sandbox, again and again; `None` when the pod is to go before it could be made.
    async fn sandbox(&mut self, records: &Records) -> Option<Sandbox> {
        loop {
            if self.pod.metadata.deletion_timestamp.is_some() {
                return None;
            }
            match Sandbox::create(&self.kubelet, &self.pod).await {
                Ok(sandbox) => {
                    for warning in &sandbox.resolv_conf.warnings {
                        self.kubelet.event(&self.pod, "Warning", "DNSConfigForming", warning);
                    }
                    return Some(sandbox);
                }
                Err(error) => {
                    let text = format!("Failed to create pod sandbox: {error}");
                    self.kubelet.event(&self.pod, "Warning", "FailedCreatePodSandBox", &text);
                    self.write_status(records, None).await;
                    if let Ok(Some((pod, _))) = tokio::time::timeout(RETRY, self.updates.recv()).await {
                        self.pod = pod;
                    }
                }
            }
        }
    }

    fn grace(&self) -> Duration {
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let usual = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(asked.or(usual).unwrap_or(30).max(0) as u64)
    }

    /// A deletion (or a shorter grace period) has been asked for.
    fn begin_termination(&self, stop: &watch::Sender<Option<Stop>>) {
        if self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let deadline = Instant::now() + self.grace();
        stop.send_if_modified(|stop| match stop {
            Some(earlier) if earlier.deadline <= deadline => false,
            stop => {
                *stop = Some(Stop { deadline });
                true
            }
        });
    }

    fn new_ephemeral(&self, known: &mut BTreeSet<String>, records: &Records) -> Vec<core::Container> {
        let containers = self.pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let new: Vec<_> = containers.filter(|container| known.insert(container.name.clone())).collect();
        let new: Vec<core::Container> = new
            .into_iter()
            .filter_map(|container| serde_json::from_value(serde_json::to_value(container).ok()?).ok())
            .collect();
        for container in &new {
            records.add(container);
        }
        new
    }

    /// Writes the status if it has changed; `false` when the pod is gone.
    async fn write_status(&mut self, records: &Records, sandbox: Option<&Arc<Sandbox>>) -> bool {
        let inputs = Inputs {
            pod: &self.pod,
            records,
            ips: sandbox.map_or(&[], |sandbox| &sandbox.ips),
            node_ips: &self.kubelet.config.node_ips,
            started: self.started,
            now: self.kubelet.now(),
            failed: self.failed.clone(),
        };
        let status = status::status(&inputs);
        if self.written.as_ref() == Some(&status) {
            return true;
        }
        let api = self.api();
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let mut patch = json!({"metadata": {"uid": self.pod.metadata.uid}, "status": status});
        for list in ["/status/podIPs", "/status/hostIPs"] {
            // These merge by address: one of an earlier life, of a family the cluster no longer has, would stay.
            if let Some(addresses) = patch.pointer_mut(list).and_then(Value::as_array_mut) {
                addresses.push(json!({"$patch": "replace"}));
            }
        }
        loop {
            match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Ok(pod) => {
                    // The next status is computed from what stands there now.
                    self.pod = Arc::new(pod);
                    self.written = Some(status);
                    return true;
                }
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                    debug!(pod = name, "status of a pod that is gone");
                    return answer.code == 409
                        && api
                            .get_opt(&name)
                            .await
                            .ok()
                            .flatten()
                            .is_some_and(|pod| pod.metadata.uid == self.pod.metadata.uid);
                }
                Err(error) => {
                    warn!(pod = name, %error, "status not written");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn api(&self) -> Api<core::Pod> {
        Api::namespaced(self.kubelet.client.clone(), self.pod.metadata.namespace.as_deref().unwrap_or("default"))
    }

    /// The last step of a graceful deletion: the object itself.
    async fn delete(&self) {
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None };
        let params =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        if let Err(error) = self.api().delete(&name, &params).await {
            debug!(pod = name, %error, "pod was gone already");
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What all runners of a pod share.
#[derive(Clone)]
struct Crew {
    kubelet: Arc<Shared>,
    sandbox: Arc<Sandbox>,
    pod: watch::Receiver<Arc<core::Pod>>,
    records: Records,
    stop: watch::Receiver<Option<Stop>>,
}

impl Crew {
    fn runner(&self, spec: &core::Container, restart: Restart) -> Runner {
        Runner {
            kubelet: self.kubelet.clone(),
            sandbox: self.sandbox.clone(),
            pod: self.pod.clone(),
            spec: spec.clone(),
            restart,
            records: self.records.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Runs the whole pod: returns when no container will run again.
    async fn run(self, working: Working) {
        let spec = self.pod.borrow().spec.clone().unwrap_or_default();
        let policy = match spec.restart_policy.as_deref() {
            Some("Never") => Restart::Never,
            Some("OnFailure") => Restart::OnFailure,
            _ => Restart::Always,
        };
        let mut sidecars = JoinSet::new();
        for container in spec.init_containers.iter().flatten() {
            if self.stop.borrow().is_some() {
                return;
            }
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.spawn(self.runner(container, Restart::Always).run(working.clone()));
                continue;
            }
            let restart = if policy == Restart::Never { Restart::Never } else { Restart::OnFailure };
            if self.runner(container, restart).run(working.clone()).await != 0 {
                return;
            }
        }
        let mut containers = JoinSet::new();
        for container in &spec.containers {
            containers.spawn(self.runner(container, policy).run(working.clone()));
        }
        drop(working);
        while containers.join_next().await.is_some() {}
        // Sidecars end with the pod; dropping the set ends those that do not stop by themselves.
        if self.stop.borrow().is_some() {
            while sidecars.join_next().await.is_some() {}
        }
    }

    async fn run_ephemeral(self, container: core::Container, working: Working) {
        self.runner(&container, Restart::Never).run(working).await;
    }
}
