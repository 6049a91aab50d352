//! Deployments: from one ReplicaSet to the next.
//!
//! [`rollout::plan`] decides which ReplicaSet gets how many replicas, [`status`] what `kubectl rollout status` sees. The
//! controller around them claims ReplicaSets, numbers revisions and writes. Pods are the ReplicaSets' business.

mod rollout;
mod status;

use crate::event::EventType;
use crate::meta::{PodSelector, annotation, claim, controller_named, is_controlled_by, owners_of};
use crate::pods::is_terminal;
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::{Informer, Update};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use rollout::{Plan, REVISION, Revisions};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let deployments = shared.informers.of::<Deployment>();
    let sets = shared.informers.of::<ReplicaSet>();
    let pods = shared.informers.of::<Pod>();
    tasks.spawn(follow_own(deployments.clone(), queue.clone()));
    tasks.spawn(follow(sets.clone(), queue.clone(), {
        let deployments = deployments.clone();
        move |update| {
            owners_of(&update.object().metadata, &deployments, |deployment| Some(&deployment.spec.as_ref()?.selector))
        }
    }));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let (deployments, sets) = (deployments.clone(), sets.clone());
        move |update| recreated_by(update, &deployments, &sets).into_iter().collect()
    }));
    tasks.spawn(run(shared.clone(), queue, DeploymentController { deployments, sets, pods }));
}

/// A Deployment that recreates waits for the last old pod to be gone.
fn recreated_by(update: &Update<Pod>, deployments: &Informer<Deployment>, sets: &Informer<ReplicaSet>) -> Option<Key> {
    let pod = match update {
        Update::Deleted(pod) => pod,
        Update::Applied(pod) if is_terminal(pod) => pod,
        Update::Applied(_) => return None,
    };
    let namespace = pod.metadata.namespace.as_deref()?;
    let set = sets.get(namespace, controller_named::<ReplicaSet>(&pod.metadata)?)?;
    let deployment = deployments.get(namespace, controller_named::<Deployment>(&set.metadata)?)?;
    rollout::recreates(&deployment).then(|| Key::of(&deployment.metadata))
}

struct DeploymentController {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

impl Controller for DeploymentController {
    const NAME: &'static str = "deployment-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let Some(spec) = &deployment.spec else { return Ok(Next::OnChange) };
        let selector = PodSelector::new(&spec.selector)?;
        let claimed = claim(&deployment.metadata, &selector, self.sets.list_in(&key.namespace));
        let sets = claimed.settle(session, &*deployment).await?;

        let now = session.shared.clock.now();
        let mut plan = Plan::default();
        let mut failure = None;
        let mut latest = deployment.clone();
        if deployment.metadata.deletion_timestamp.is_none() {
            let old_pods_are_gone = !rollout::recreates(&deployment) || self.old_pods_are_gone(&deployment, &sets);
            plan = rollout::plan(&deployment, &sets, old_pods_are_gone);
            failure = self.carry_out(session, &deployment, &plan).await?;
            if let Some(revision) = &plan.revision {
                let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
                latest = Arc::new(session.merge(&deployment.metadata, patch).await?);
            }
        }
        let (status, again) = status::status(&deployment, &sets, &plan, failure.as_deref(), now);
        if deployment.status.as_ref() != Some(&status) {
            let wanted = Deployment { status: Some(status), ..(*latest).clone() };
            match session.replace_status(&wanted).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(message) => Err(crate::session::Error::Invalid(message)),
            None => Ok(again.into()),
        }
    }
}

impl DeploymentController {
    /// Whether no pod of an old ReplicaSet still runs.
    fn old_pods_are_gone(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let revisions = Revisions::of(deployment, sets);
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        !self.pods.list_in(namespace).iter().any(|pod| {
            !is_terminal(pod) && revisions.old.iter().any(|old| is_controlled_by(&pod.metadata, &old.metadata))
        })
    }

    /// Writes the plan. A ReplicaSet that cannot be created is told in the Deployment's conditions.
    async fn carry_out(&self, session: &Session, deployment: &Deployment, plan: &Plan) -> Result<Option<String>> {
        if let Some(set) = &plan.create {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            match session.create(set).await {
                Ok(created) => {
                    let replicas = created.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                    if replicas > 0 {
                        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                        session.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
                    }
                }
                Err(error) if error.is_already_exists() => self.collided(session, deployment, set).await?,
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => {
                    let message = format!("Failed to create new replica set \"{name}\": {}", error.message());
                    session.event(deployment, EventType::Warning, "ReplicaSetCreateError", message.clone());
                    return Ok(Some(message));
                }
            }
        }
        for scale in &plan.scale {
            let from = rollout::replicas(&scale.set);
            let name = scale.set.metadata.name.as_deref().unwrap_or_default();
            let patch = json!({
                "metadata": {"annotations": scale.annotations},
                "spec": {"replicas": scale.replicas, "minReadySeconds": scale.min_ready_seconds},
            });
            session.merge::<ReplicaSet>(&scale.set.metadata, patch).await?;
            if from != scale.replicas {
                let direction = if from < scale.replicas { "up" } else { "down" };
                let message = format!("Scaled {direction} replica set {name} from {from} to {}", scale.replicas);
                session.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
            }
        }
        for expired in &plan.delete {
            session.delete(&**expired).await?;
        }
        Ok(None)
    }

    /// The name of the new ReplicaSet is taken. If it is not ours from an earlier try, count the collision: it changes the hash.
    async fn collided(&self, session: &Session, deployment: &Deployment, set: &ReplicaSet) -> Result<()> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let taken = self.sets.get(namespace, name);
        let is_ours = taken.as_ref().is_some_and(|taken| {
            is_controlled_by(&taken.metadata, &deployment.metadata) && rollout::has_template_of(taken, deployment)
        });
        if is_ours || taken.is_none() {
            return Ok(()); // the cache will show it
        }
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
        tracing::info!(set = name, collisions, "name of the new ReplicaSet is taken");
        let patch = json!({"status": {"collisionCount": collisions}});
        session.merge_status::<Deployment>(&deployment.metadata, patch).await?;
        Ok(())
    }
}

/// The revision that `kubectl rollout history` shows for a ReplicaSet; 0 for none.
fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}
