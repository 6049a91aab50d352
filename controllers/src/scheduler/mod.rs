//! The scheduler: which node a pod runs on.
//!
//! One task takes pods from the [`backlog`] in order of priority and age, decides with [`filter`], [`topology`] and [`score`]
//! over [`cache`], and binds through the `pods/binding` subresource. A decision counts at once (the pod is assumed to be on its node), so it
//! never waits for an informer. What fits nowhere waits until a node changes or a pod goes.
//!
//! Follows kube-scheduler's filters and wording; no preemption, and no volumes, because virtual nodes have none to run out of.

mod backlog;
mod cache;
pub(crate) mod filter;
mod quantity;
mod score;
mod topology;

use crate::Shared;
use crate::event::{EventType, Recorder, reference};
use crate::pods::{condition, is_terminal, is_terminating, node_name};
use backlog::{Backlog, Candidate, Delay};
use cache::Cache;
use informer::{Change, Update, Working};
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

const NAME: &str = "default-scheduler";
/// Bindings on their way at the same time.
const BINDING: usize = 64;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// A pod that fits nowhere is tried again after this, even if nothing seems to have changed.
const UNSCHEDULABLE_FOR: Duration = Duration::from_secs(300);

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let scheduler = Scheduler {
        client: shared.as_component(NAME).client,
        clock: shared.clock,
        events: shared.events.named(NAME),
        seed: shared.seed,
        cache: Cache::new(shared.informers.of::<Namespace>()),
        backlog: Backlog::default(),
        writing: JoinSet::new(),
    };
    let (pods, nodes) = (shared.informers.of::<Pod>(), shared.informers.of::<Node>());
    tasks.spawn(async move {
        // Without the nodes every pod would be told first that there are none.
        nodes.synced().await;
        scheduler.run(pods.subscribe(), nodes.subscribe()).await;
    });
}

struct Scheduler {
    client: kube::Client,
    clock: crate::Clock,
    events: Recorder,
    seed: u64,
    cache: Cache,
    backlog: Backlog,
    writing: JoinSet<Written>,
}

/// What has become of a write.
enum Written {
    Bound,
    NotBound(Candidate),
    Gone(Candidate),
    Told,
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Scheduler {
    async fn run(mut self, mut pods: informer::Changes<Pod>, mut nodes: informer::Changes<Node>) {
        loop {
            // Everything that is known already first: nodes before pods, so that pods see the newest nodes.
            while let Some(change) = nodes.try_next() {
                self.node_changed(change);
            }
            while let Some(change) = pods.try_next() {
                self.pod_changed(change);
            }
            while self.writing.len() < BINDING
                && let Some(candidate) = self.backlog.next()
            {
                self.place(candidate);
            }
            let retry = self.backlog.next_due();
            tokio::select! {
                change = nodes.next() => match change {
                    Some(change) => self.node_changed(change),
                    None => return,
                },
                change = pods.next() => match change {
                    Some(change) => self.pod_changed(change),
                    None => return,
                },
                Some(written) = self.writing.join_next() => self.written(written),
                () = sleep_until(retry), if retry.is_some() => self.backlog.release_due(Instant::now()),
            }
        }
    }

    fn node_changed(&mut self, Change { update, working }: Change<Node>) {
        if self.cache.node(&update) {
            self.backlog.release_unschedulable(&working);
        }
    }

    fn pod_changed(&mut self, Change { update, working }: Change<Pod>) {
        // A pod that goes makes room; one that has come may be what another waits to be near.
        let (pod, uid) = (update.object(), uid(update.object()));
        let has_come = node_name(pod).is_some() && !self.cache.holds(&uid);
        if self.cache.pod(&update) || has_come {
            self.backlog.release_unschedulable(&working);
        }
        match &update {
            Update::Applied(pod) if wants_a_node(pod) => {
                if self.cache.holds(&uid) {
                    return; // being bound
                }
                if let Some(known) = self.backlog.unschedulable(&uid)
                    && known.pod.spec == pod.spec
                    && known.pod.metadata.labels == pod.metadata.labels
                {
                    // Only its status has changed, by our own condition: that makes no difference.
                    known.pod = pod.clone();
                    return;
                }
                self.backlog.add(Candidate { pod: pod.clone(), failures: 0, working: Some(working) });
            }
            _ => self.backlog.remove(&uid),
        }
    }

    /// Decides about one pod and starts to write the decision.
    fn place(&mut self, candidate: Candidate) {
        let pod = candidate.pod.clone();
        match self.cache.place(&pod, self.seed) {
            Ok(node) => {
                self.cache.assume(&pod, &node);
                self.writing.spawn(bind(self.client.clone(), candidate, node, self.events.clone()));
            }
            Err(reasons) => {
                let message = reasons.to_string();
                self.events.record(reference(&*pod), EventType::Warning, "FailedScheduling", message.clone());
                let told = condition(&pod, "PodScheduled")
                    .is_some_and(|known| known.status == "False" && known.message.as_ref() == Some(&message));
                if !told {
                    let now = self.clock.time();
                    self.writing.spawn(tell(self.client.clone(), pod.clone(), message, now, candidate.working.clone()));
                }
                let candidate = Candidate { working: None, ..candidate };
                self.backlog.delay(candidate, Instant::now() + UNSCHEDULABLE_FOR, Delay::Unschedulable);
            }
        }
    }

    fn written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        match written {
            Ok(Written::NotBound(candidate)) => {
                self.cache.forget(&uid(&candidate.pod));
                let delay = FIRST_RETRY.saturating_mul(1 << candidate.failures.min(10)).min(LAST_RETRY);
                let candidate = Candidate { failures: candidate.failures + 1, working: None, ..candidate };
                self.backlog.delay(candidate, Instant::now() + delay, Delay::Failed);
            }
            Ok(Written::Gone(candidate)) => self.cache.forget(&uid(&candidate.pod)),
            Ok(Written::Bound | Written::Told) | Err(_) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

fn wants_a_node(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    node_name(pod).is_none()
        && !is_terminal(pod)
        && !is_terminating(pod)
        && spec.scheduler_name.as_deref().is_none_or(|name| name == NAME || name.is_empty())
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

async fn bind(client: kube::Client, candidate: Candidate, node: String, events: Recorder) -> Written {
    let pod = &candidate.pod;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    let collection = kube::core::Request::new(Pod::url_path(&(), Some(&namespace)));
    let body = serde_json::to_vec(&binding).unwrap_or_default();
    let bound = match collection.create_subresource("binding", &name, &PostParams::default(), body) {
        Ok(request) => client.request_text(request).await.map_err(crate::session::Error::from),
        Err(error) => Err(crate::session::Error::Request(error.to_string())),
    };
    match bound {
        Ok(_) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            events.record(reference(&**pod), EventType::Normal, "Scheduled", message);
            Written::Bound
        }
        Err(error) if error.is_not_found() => Written::Gone(candidate),
        Err(error) => {
            debug!(pod = name, node, %error, "not bound; will try again");
            if !error.is_conflict() {
                let message = format!("binding rejected: {}", error.message());
                events.record(reference(&**pod), EventType::Warning, "FailedScheduling", message);
            }
            Written::NotBound(candidate)
        }
    }
}

/// Writes the condition that says why a pod has no node.
async fn tell(client: kube::Client, pod: Arc<Pod>, message: String, now: Time, working: Option<Working>) -> Written {
    let since = condition(&pod, "PodScheduled")
        .filter(|known| known.status == "False")
        .and_then(|known| known.last_transition_time.clone());
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or(now),
    }]}});
    let api: Api<Pod> = Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        debug!(pod = name, %error, "condition not written");
    }
    drop(working);
    Written::Told
}
