//! ReplicaSets: as many pods as asked for.
//!
//! [`plan`] decides from the set and its pods; the controller around it claims pods by owner reference and selector,
//! creates and deletes in parallel, and keeps the status. Rolling from one ReplicaSet to the next is `deployment`'s.

use crate::clock::seconds;
use crate::event::EventType;
use crate::meta::{
    PodSelector, claim, controller_named, controller_of, is_controlled_by, labels, owners_of, some_count,
};
use crate::pods::{
    Availability, availability, from_template, is_active, is_ready, is_terminating, node_name, phase, ready_since,
    restarts,
};
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::session::{Error, Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Pods created or deleted at the same time.
const PARALLEL: usize = 32;
/// Pods created or deleted in one reconcile; the rest follows in the next.
const BURST: usize = 500;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (sets, pods) = (shared.informers.of::<ReplicaSet>(), shared.informers.of::<Pod>());
    tasks.spawn(follow_own(sets.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let sets = sets.clone();
        move |update| owners_of(&update.object().metadata, &sets, |set| Some(&set.spec.as_ref()?.selector))
    }));
    let controller = ReplicaSetController { sets, pods, random: shared.random("replicaset") };
    tasks.spawn(run(shared.clone(), queue, controller));
}

struct ReplicaSetController {
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    random: Random,
}

impl Controller for ReplicaSetController {
    const NAME: &'static str = "replicaset-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let selector = PodSelector::new(&spec.selector)?;
        let in_namespace = self.pods.list_in(&key.namespace);
        let claimed = claim(
            &set.metadata,
            &selector,
            in_namespace.iter().filter(|pod| !crate::pods::is_terminal(pod)).cloned().collect(),
        );
        let pods = claimed.settle(session, &*set).await?;

        let now = session.shared.clock.now();
        let plan = plan(&set, &pods, &self.crowds(&set, &in_namespace), now);
        let mut failure = None;
        if set.metadata.deletion_timestamp.is_none()
            && let Err(error) = self.scale(session, &set, &plan).await
        {
            if error.is_namespace_terminating() {
                return Ok(Next::OnChange);
            }
            failure = Some(error);
        }

        let status = status(&set, &pods, &plan, failure.as_ref(), session.shared.clock.time());
        if set.status.as_ref() != Some(&status) {
            let wanted = ReplicaSet { status: Some(status), ..(*set).clone() };
            match session.replace_status(&wanted).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(plan.again.into()),
        }
    }
}

impl ReplicaSetController {
    /// How many active pods of sets with the same owner each node has: a crowded node gives up a pod first.
    fn crowds(&self, set: &ReplicaSet, in_namespace: &[Arc<Pod>]) -> HashMap<String, usize> {
        let owner = controller_of(&set.metadata).map(|owner| &owner.uid);
        let related = |pod: &Pod| {
            is_controlled_by(&pod.metadata, &set.metadata)
                || owner.is_some_and(|owner| {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    let sibling =
                        controller_named::<ReplicaSet>(&pod.metadata).and_then(|name| self.sets.get(namespace, name));
                    sibling.is_some_and(|sibling| controller_of(&sibling.metadata).is_some_and(|o| o.uid == *owner))
                })
        };
        let mut crowds = HashMap::new();
        for pod in in_namespace.iter().filter(|pod| is_active(pod)) {
            if let Some(node) = node_name(pod).filter(|_| related(pod)) {
                *crowds.entry(node.to_owned()).or_insert(0) += 1;
            }
        }
        crowds
    }

    async fn scale(&self, session: &Session, set: &ReplicaSet, plan: &Plan) -> Result<()> {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return Ok(()) };
        let base = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
        let mut wanted: Vec<Pod> = (0..plan.create)
            .map(|_| {
                let mut pod = from_template(set, template, self.random.name(&base));
                pod.metadata.generate_name = Some(base.clone());
                pod
            })
            .collect();
        while !wanted.is_empty() {
            let batch = wanted.split_off(wanted.len().saturating_sub(PARALLEL));
            // All of a batch are awaited even if one fails: a create that is abandoned may still have happened.
            for created in futures::future::join_all(batch.iter().map(|pod| session.create(pod))).await {
                match created {
                    Ok(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        session.event(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(error) if error.is_already_exists() => return Err(error),
                    Err(error) => {
                        if !error.is_namespace_terminating() {
                            let message = format!("Error creating: {}", error.message());
                            session.event(set, EventType::Warning, "FailedCreate", message);
                        }
                        return Err(error);
                    }
                }
            }
        }
        for batch in plan.delete.chunks(PARALLEL) {
            for (pod, deleted) in
                batch.iter().zip(futures::future::join_all(batch.iter().map(|pod| session.delete(&**pod))).await)
            {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                match deleted {
                    Ok(()) => session.event(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}")),
                    Err(error) => {
                        let message = format!("Error deleting: {}", error.message());
                        session.event(set, EventType::Warning, "FailedDelete", message);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a ReplicaSet needs.
#[derive(Debug, Default)]
struct Plan {
    create: usize,
    delete: Vec<Arc<Pod>>,
    /// When the next ready pod becomes available.
    again: Option<Duration>,
}

/// Decides how to come to `spec.replicas` active pods. `crowds` counts related pods per node.
fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], crowds: &HashMap<String, usize>, now: Timestamp) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let mut active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let again =
        active.iter().filter_map(|pod| match availability(pod, seconds(spec.min_ready_seconds.unwrap_or(0)), now) {
            Availability::In(left) => Some(left),
            _ => None,
        });
    let again = again.min();
    if active.len() <= wanted {
        return Plan { create: (wanted - active.len()).min(BURST), delete: vec![], again };
    }
    let surplus = (active.len() - wanted).min(BURST);
    active.sort_by_cached_key(|pod| deletion_order(pod, crowds, now));
    active.truncate(surplus);
    Plan { create: 0, delete: active, again }
}

/// Pods with a smaller key go first: not yet bound, not yet running, not ready, cheap (`pod-deletion-cost`), on a crowded
/// node, ready for a shorter time, often restarted, younger. Ages count by their order of magnitude, as upstream.
fn deletion_order(pod: &Pod, crowds: &HashMap<String, usize>, now: Timestamp) -> impl Ord + use<> {
    let node = node_name(pod);
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost: i32 = crate::meta::annotation(&pod.metadata, "controller.kubernetes.io/pod-deletion-cost")
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    let crowd = node.and_then(|node| crowds.get(node)).copied().unwrap_or(0);
    let magnitude = |since: Option<Timestamp>| {
        since.map_or(0, |since| now.duration_since(since).as_secs().max(0).checked_ilog2().map_or(0, |log| log + 1))
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        (node.is_some(), phase, is_ready(pod)),
        (cost, Reverse(crowd)),
        (magnitude(ready_since(pod)), Reverse(restarts(pod)), magnitude(created)),
        pod.metadata.uid.clone(),
    )
}

fn status(set: &ReplicaSet, pods: &[Arc<Pod>], plan: &Plan, failure: Option<&Error>, now: Time) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = seconds(spec.min_ready_seconds.unwrap_or(0));
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref()).map(labels);
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let count = |is: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| is(pod)).count();
    let known = set.status.clone().unwrap_or_default();
    let conditions = failure_condition(&known, plan, failure, now.clone());
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some_count(count(&|pod| {
            template.is_some_and(|template| {
                template.iter().all(|(key, value)| labels(&pod.metadata).get(key) == Some(value))
            })
        })),
        ready_replicas: some_count(count(&is_ready)),
        available_replicas: some_count(count(&|pod| availability(pod, min_ready, now.0) == Availability::Available)),
        terminating_replicas: Some(
            i32::try_from(pods.iter().filter(|pod| is_terminating(pod)).count()).unwrap_or(i32::MAX),
        ),
        observed_generation: set.metadata.generation,
        conditions,
    }
}

/// `ReplicaFailure`, as long as pods cannot be created or deleted.
fn failure_condition(
    known: &ReplicaSetStatus,
    plan: &Plan,
    failure: Option<&Error>,
    now: Time,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = known.conditions.clone().unwrap_or_default();
    match failure {
        Some(error) => {
            let reason = if plan.delete.is_empty() { "FailedCreate" } else { "FailedDelete" };
            if !conditions
                .iter()
                .any(|condition| condition.type_ == "ReplicaFailure" && condition.reason.as_deref() == Some(reason))
            {
                conditions.retain(|condition| condition.type_ != "ReplicaFailure");
                conditions.push(ReplicaSetCondition {
                    type_: "ReplicaFailure".to_owned(),
                    status: "True".to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(error.message()),
                    last_transition_time: Some(now),
                });
            }
        }
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        let set = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "set", "generation": 2},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}}},
        });
        serde_json::from_value(set).expect("a ReplicaSet")
    }

    fn pod(name: &str, change: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "web"}, "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": "node-1"}, "status": {"phase": "Running"}});
        json_merge(&mut pod, change);
        Arc::new(serde_json::from_value(pod).expect("a Pod"))
    }

    fn json_merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    json_merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn ready(since: i64) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(since).to_string()}]}})
    }

    fn deleted(wanted: i32, pods: &[Arc<Pod>]) -> Vec<String> {
        let crowds = HashMap::from([("node-1".to_owned(), 2), ("node-2".to_owned(), 5)]);
        plan(&set(wanted, 0), pods, &crowds, at(10_000))
            .delete
            .iter()
            .filter_map(|pod| pod.metadata.name.clone())
            .collect()
    }

    #[test]
    fn missing_pods_are_created_and_terminating_ones_do_not_count() {
        let pods = [pod("a", ready(1)), pod("b", json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:05Z"}}))];
        let plan = plan(&set(3, 0), &pods, &HashMap::new(), at(10));
        assert_eq!((plan.create, plan.delete.len()), (2, 0));
    }

    #[test]
    fn pods_go_in_the_order_of_least_loss() {
        let unbound = pod("unbound", json!({"spec": {"nodeName": null}, "status": {"phase": "Pending"}}));
        let pending = pod("pending", json!({"status": {"phase": "Pending"}}));
        let unready = pod("unready", json!({}));
        let mut cheap = ready(10);
        json_merge(
            &mut cheap,
            json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}),
        );
        let cheap = pod("cheap", cheap);
        let mut crowded = ready(10);
        json_merge(&mut crowded, json!({"spec": {"nodeName": "node-2"}}));
        let crowded = pod("crowded", crowded);
        let fresh = pod("fresh", ready(9_990));
        let old = pod("old", ready(10));
        let pods = [old, fresh, crowded, cheap, unready, pending, unbound];
        assert_eq!(deleted(1, &pods), ["unbound", "pending", "unready", "cheap", "crowded", "fresh"]);
    }

    #[test]
    fn a_pod_is_available_after_it_has_been_ready_long_enough() {
        let pods = [pod("a", ready(100)), pod("b", ready(95))];
        let set = set(2, 10);
        let plan = plan(&set, &pods, &HashMap::new(), at(105));
        assert_eq!(plan.again, Some(Duration::from_secs(5)));
        let status = status(&set, &pods, &plan, None, Time(at(105)));
        assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)));
        assert_eq!((status.replicas, status.observed_generation), (2, Some(2)));
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let error = Error::Invalid("quota exceeded".to_owned());
        let mut set = set(1, 0);
        let failed = status(&set, &[], &Plan { create: 1, ..Plan::default() }, Some(&error), Time(at(5)));
        let conditions = failed.conditions.clone().expect("a condition");
        assert_eq!(
            (conditions[0].type_.as_str(), conditions[0].reason.as_deref()),
            ("ReplicaFailure", Some("FailedCreate"))
        );
        set.status = Some(failed);
        assert_eq!(status(&set, &[], &Plan::default(), None, Time(at(6))).conditions, None);
    }
}
