//! Rules of a Deployment's conditions: progress, its deadline, and completion.

use super::*;
use crate::deployment::rollout;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn deployment(status: Option<DeploymentStatus>) -> Deployment {
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 7},
        "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}}},
    });
    Deployment { status, ..serde_json::from_value(deployment).expect("a Deployment") }
}

fn set(replicas: i32, status: Value) -> Arc<ReplicaSet> {
    let set = json!({
        "metadata": {"name": "web-1", "uid": "s"},
        "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "1"}}}},
        "status": status,
    });
    Arc::new(serde_json::from_value(set).expect("a ReplicaSet"))
}

fn reasons(status: &DeploymentStatus) -> Vec<(&str, &str, &str)> {
    let conditions = status.conditions.iter().flatten();
    conditions.map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap_or_default())).collect()
}

#[test]
fn a_rollout_is_complete_when_every_replica_is_new_and_available() {
    let ready = set(2, json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}));
    let (status, again) = status(&deployment(None), &[ready], &Plan::default(), None, at(5));
    assert_eq!(
        reasons(&status),
        [("Available", "True", "MinimumReplicasAvailable"), ("Progressing", "True", COMPLETE)]
    );
    assert_eq!(
        (status.observed_generation, status.updated_replicas, status.unavailable_replicas),
        (Some(7), Some(2), None)
    );
    assert_eq!(again, None);
}

#[test]
fn a_rollout_without_progress_passes_its_deadline() {
    let waiting = [set(2, json!({"replicas": 2}))];
    let (first, again) = status(&deployment(None), &waiting, &Plan::default(), None, at(100));
    assert_eq!(again, Some(Duration::from_secs(60)));
    let (second, again) = status(&deployment(Some(first)), &waiting, &Plan::default(), None, at(130));
    assert_eq!(again, Some(Duration::from_secs(30)));
    assert_eq!(reasons(&second)[1], ("Progressing", "True", "ReplicaSetUpdated"));
    let (third, again) = status(&deployment(Some(second)), &waiting, &Plan::default(), None, at(160));
    assert_eq!(reasons(&third)[1], ("Progressing", "False", TIMED_OUT));
    assert_eq!(reasons(&third)[0], ("Available", "False", "MinimumReplicasUnavailable"));
    assert_eq!(again, None);
}

#[test]
fn nothing_new_means_the_same_status() {
    let half = [set(2, json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1}))];
    let (first, _) = status(&deployment(None), &half, &Plan::default(), None, at(100));
    let (second, _) = status(&deployment(Some(first.clone())), &half, &Plan::default(), None, at(110));
    assert_eq!(first, second);
}

#[test]
fn losing_a_pod_after_the_rollout_is_no_new_rollout() {
    let ready = set(2, json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}));
    let (done, _) = status(&deployment(None), &[ready], &Plan::default(), None, at(5));
    let lost = set(2, json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1}));
    let (status, _) = status(&deployment(Some(done)), &[lost], &Plan::default(), None, at(500));
    assert_eq!(
        reasons(&status),
        [("Available", "False", "MinimumReplicasUnavailable"), ("Progressing", "True", COMPLETE)]
    );
}

#[test]
fn a_new_replica_set_starts_the_deadline() {
    let plan = Plan { create: rollout::plan(&deployment(None), &[], true).create, ..Plan::default() };
    assert!(plan.create.is_some());
    let (status, again) = status(&deployment(None), &[], &plan, None, at(5));
    assert_eq!(reasons(&status)[1].2, "NewReplicaSetCreated");
    assert_eq!(again, Some(Duration::from_secs(60)));
}

#[test]
fn trouble_of_the_replica_set_is_told() {
    let failing = set(
        2,
        json!({"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]}),
    );
    let (status, _) = status(&deployment(None), &[failing], &Plan::default(), None, at(5));
    assert!(reasons(&status).contains(&("ReplicaFailure", "True", "FailedCreate")));
}
