//! The scheduler: which node a pod runs on.
//!
//! One task takes pending pods in order of priority and age, decides with [`filter`] and [`score`] over [`cache`], and
//! binds through the `pods/binding` subresource. A decision counts at once (the pod is assumed to be on its node), so it
//! never waits for an informer. What fits nowhere waits until a node changes or a pod goes.
//!
//! Follows kube-scheduler's filters and wording; no preemption, and no volumes, because virtual nodes have none to run out of.

mod cache;
pub(crate) mod filter;
mod quantity;
mod score;

use crate::Shared;
use crate::event::{EventType, Recorder, reference};
use crate::pods::{condition, is_terminal, is_terminating, node_name};
use cache::Cache;
use informer::{Change, Update, Working};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
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
        client: shared.client.clone(),
        clock: shared.clock,
        events: shared.events.named(NAME),
        seed: shared.seed,
        cache: Cache::default(),
        pending: BTreeMap::new(),
        waiting: HashMap::new(),
        retries: BTreeMap::new(),
        writing: JoinSet::new(),
        serial: 0,
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
    /// Pods to be placed now, by priority and age.
    pending: BTreeMap<Rank, Candidate>,
    /// Pods that fit nowhere, by uid.
    waiting: HashMap<String, Candidate>,
    /// When pods are tried again.
    retries: BTreeMap<(Instant, u64), Candidate>,
    writing: JoinSet<Written>,
    serial: u64,
}

type Rank = (Reverse<i32>, Option<Timestamp>, u64);

#[derive(Clone)]
struct Candidate {
    pod: Arc<Pod>,
    failures: u32,
    /// Held until the pod is bound, or known to fit nowhere.
    working: Option<Working>,
}

/// What has become of a write.
enum Written {
    Bound,
    NotBound(Candidate),
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
                && let Some((_, candidate)) = self.pending.pop_first()
            {
                self.place(candidate);
            }
            let retry = self.retries.keys().next().map(|(due, _)| *due);
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
                () = sleep_until(retry), if retry.is_some() => self.retry_due(),
            }
        }
    }

    fn node_changed(&mut self, Change { update, working }: Change<Node>) {
        if self.cache.node(&update) {
            self.retry_waiting(&working);
        }
    }

    fn pod_changed(&mut self, Change { update, working }: Change<Pod>) {
        let freed = self.cache.pod(&update);
        let pod = update.object();
        let uid = uid(pod);
        let was_waiting = self.waiting.remove(&uid);
        if freed {
            self.retry_waiting(&working);
        }
        match &update {
            Update::Applied(pod) if wants_a_node(pod) && !self.cache.holds(&uid) => {
                let is_the_same = |before: &Candidate| {
                    before.pod.spec == pod.spec && before.pod.metadata.labels == pod.metadata.labels
                };
                match was_waiting {
                    // Only its status has changed, by our own condition: that makes no difference.
                    Some(before) if is_the_same(&before) => {
                        self.waiting.insert(uid, Candidate { pod: pod.clone(), ..before });
                    }
                    _ => self.add(Candidate { pod: pod.clone(), failures: 0, working: Some(working) }),
                }
            }
            _ => {
                self.pending.retain(|_, candidate| self::uid(&candidate.pod) != uid);
                self.retries.retain(|_, candidate| self::uid(&candidate.pod) != uid);
            }
        }
    }

    fn add(&mut self, candidate: Candidate) {
        let priority = candidate.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let created = candidate.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let uid = uid(&candidate.pod);
        self.pending.retain(|_, known| self::uid(&known.pod) != uid);
        self.retries.retain(|_, known| self::uid(&known.pod) != uid);
        self.serial += 1;
        self.pending.insert((Reverse(priority), created, self.serial), candidate);
    }

    fn retry_waiting(&mut self, working: &Working) {
        for (_, candidate) in std::mem::take(&mut self.waiting) {
            self.add(Candidate { working: Some(working.clone()), ..candidate });
        }
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.retries.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let candidate = entry.remove();
            self.waiting.remove(&uid(&candidate.pod));
            self.add(candidate);
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
                self.retry_later(candidate.clone(), UNSCHEDULABLE_FOR);
                self.waiting.insert(uid(&pod), candidate);
            }
        }
    }

    fn retry_later(&mut self, candidate: Candidate, delay: Duration) {
        self.serial += 1;
        self.retries.insert((Instant::now() + delay, self.serial), candidate);
    }

    fn written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        if let Ok(Written::NotBound(candidate)) = written {
            self.cache.forget(&uid(&candidate.pod));
            let delay = FIRST_RETRY.saturating_mul(1 << candidate.failures.min(10)).min(LAST_RETRY);
            let candidate = Candidate { failures: candidate.failures + 1, working: None, ..candidate };
            self.retry_later(candidate, delay);
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
        // Gone, or bound by somebody else: the informer will tell.
        Err(error) if error.is_not_found() => Written::Bound,
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
