//! What a Deployment says about itself: counts and the conditions that `kubectl rollout status` waits for.

use super::rollout::{Plan, Revisions, available, desired, replicas, tolerance};
use crate::clock::{seconds, until, whole_seconds};
use crate::meta::some_count;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";

/// The status after a step, and when the progress deadline passes if nothing moves.
pub(super) fn status(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    plan: &Plan,
    failure: Option<&str>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let known = deployment.status.clone().unwrap_or_default();
    let Revisions { new, .. } = Revisions::of(deployment, sets);
    let sum = |count: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| count(set)).sum::<i32>();
    let of_status = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let available = sum(&available);
    let some = |count: i32| some_count(usize::try_from(count).unwrap_or(0));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&of_status)),
        updated_replicas: some(new.as_deref().map_or(0, of_status)),
        ready_replicas: some(sum(&|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some(sum(&replicas) - available),
        terminating_replicas: Some(sum(&|set| {
            set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
        })),
        collision_count: known.collision_count,
        conditions: None,
    };

    let mut conditions = Conditions { list: known.conditions.clone().unwrap_or_default(), now };
    let enough = available >= desired(deployment) - tolerance(deployment).1;
    match enough {
        true => conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => {
            let message = "Deployment does not have minimum availability.";
            conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
        }
    }
    let again = progress(deployment, &known, &status, new.as_deref(), plan, failure, &mut conditions);
    match new.as_deref().and_then(|set| set.status.as_ref()?.conditions.as_ref()?.first()) {
        Some(trouble) if trouble.type_ == REPLICA_FAILURE => {
            let (reason, message) = (trouble.reason.clone(), trouble.message.clone());
            let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
            conditions.set(REPLICA_FAILURE, &trouble.status, &reason, &message);
        }
        _ => conditions.remove(REPLICA_FAILURE),
    }
    status.conditions = Some(conditions.list);
    (status, again)
}

/// Decides the Progressing condition; returns when to look at the deadline again.
fn progress(
    deployment: &Deployment,
    known: &DeploymentStatus,
    status: &DeploymentStatus,
    new: Option<&ReplicaSet>,
    plan: &Plan,
    failure: Option<&str>,
    conditions: &mut Conditions,
) -> Option<Duration> {
    let spec = deployment.spec.clone().unwrap_or_default();
    // A deadline of i32::MAX means none, and then there is no such condition.
    let deadline = spec.progress_deadline_seconds.unwrap_or(600);
    if deadline == i32::MAX {
        conditions.remove(PROGRESSING);
        return None;
    }
    if let Some(message) = failure {
        conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
        return None;
    }
    let present = conditions.get(PROGRESSING).cloned();
    let reason = present.as_ref().and_then(|present| present.reason.clone()).unwrap_or_default();
    let reason = reason.as_str();
    let paused = spec.paused.unwrap_or(false);
    if reason != TIMED_OUT && paused != (reason == "DeploymentPaused") {
        match paused {
            true => conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused"),
            false if present.is_some() && reason == "DeploymentPaused" => {
                conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
            }
            false => {}
        }
    }
    if paused {
        return None;
    }
    let name = |set: &ReplicaSet| set.metadata.name.clone().unwrap_or_default();
    if let Some(created) = &plan.create {
        let message = format!("Created new replica set \"{}\"", name(created));
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &message);
        return Some(seconds(deadline));
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", name(set)),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let count = |count: Option<i32>| count.unwrap_or(0);
    let wanted = desired(deployment);
    let complete = count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && plan.scale.iter().all(|scale| scale.replicas == replicas(&scale.set));
    if complete && new.is_some() {
        if reason != COMPLETE || present.as_ref().is_none_or(|present| present.status != "True") {
            conditions.set(PROGRESSING, "True", COMPLETE, &format!("{subject} has successfully progressed."));
        }
        return None;
    }
    if reason == COMPLETE && status.replicas == status.updated_replicas {
        return None; // scaled or lost a pod after the rollout: no new rollout
    }
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    let moved = count(status.updated_replicas) > count(known.updated_replicas)
        || old(status) < old(known)
        || count(status.ready_replicas) > count(known.ready_replicas)
        || count(status.available_replicas) > count(known.available_replicas);
    if moved {
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
        return Some(seconds(deadline));
    }
    let Some(present) = present else {
        if new.is_some() {
            conditions.set(
                PROGRESSING,
                "True",
                "FoundNewReplicaSet",
                &format!("Found new replica set \"{}\"", new.map(name).unwrap_or_default()),
            );
        }
        return Some(seconds(deadline));
    };
    if reason == TIMED_OUT || reason == COMPLETE {
        // After completion a lost pod does not start the deadline again, as upstream.
        return None;
    }
    let since = present.last_update_time.map_or(conditions.now, |time| time.0);
    let left = until(conditions.now, since, seconds(deadline));
    if left.is_none() {
        conditions.set(PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."));
    }
    left
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == type_)
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_ != type_);
    }

    /// Sets a condition; one with the same status and reason keeps its times.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let same =
            |condition: &DeploymentCondition| condition.status == status && condition.reason.as_deref() == Some(reason);
        if !self.get(type_).is_some_and(same) {
            self.renew(type_, status, reason, message);
        }
    }

    /// Sets a condition and its update time.
    fn renew(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let now = Some(whole_seconds(self.now));
        let transition =
            self.get(type_).filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: now.clone(),
            last_transition_time: transition.unwrap_or(now),
        };
        match self.list.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => *known = condition,
            None => self.list.push(condition),
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
