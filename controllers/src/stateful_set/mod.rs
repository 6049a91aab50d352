//! StatefulSets: pods with names, one after the other.
//!
//! [`mod@plan`] decides which pods to make and which to delete, [`identity`] makes them, [`revisions`] remembers templates.
//! The controller around them claims pods, makes volume claims, writes, and keeps the status.

mod identity;
mod plan;
pub(crate) mod revisions;

use crate::clock::seconds;
use crate::event::EventType;
use crate::meta::{PodSelector, claim, controller_named, controller_of, is_controlled_by, some_count};
use crate::pods::{Availability, availability, is_ready, is_terminating};
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use plan::{Plan, Versions, plan};
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let sets = shared.informers.of::<StatefulSet>();
    let pods = shared.informers.of::<Pod>();
    let revisions = shared.informers.of::<ControllerRevision>();
    let claims = shared.informers.of::<PersistentVolumeClaim>();
    tasks.spawn(follow_own(sets.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let sets = sets.clone();
        move |update| sets_of(update.object(), &sets)
    }));
    tasks.spawn(run(shared.clone(), queue, StatefulSetController { sets, pods, revisions, claims }));
}

fn sets_of(pod: &Pod, sets: &Informer<StatefulSet>) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    if controller_of(&pod.metadata).is_some() {
        return controller_named::<StatefulSet>(&pod.metadata)
            .map(|name| Key::new(namespace, name))
            .into_iter()
            .collect();
    }
    // An orphan that is called like a member.
    let parent =
        identity::parent_and_ordinal(pod.metadata.name.as_deref().unwrap_or_default()).map(|(parent, _)| parent);
    let set = parent.and_then(|parent| sets.get(&namespace, parent));
    set.map(|set| Key::of(&set.metadata)).into_iter().collect()
}

struct StatefulSetController {
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Controller for StatefulSetController {
    const NAME: &'static str = "statefulset-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let selector = PodSelector::new(&spec.selector)?;
        let members: Vec<Arc<Pod>> = self
            .pods
            .list_in(&key.namespace)
            .into_iter()
            .filter(|pod| {
                let parent = identity::parent_and_ordinal(pod.metadata.name.as_deref().unwrap_or_default());
                parent.is_some_and(|(parent, _)| parent == key.name) || is_controlled_by(&pod.metadata, &set.metadata)
            })
            .collect();
        let pods = claim(&set.metadata, &selector, members).settle(session, &*set).await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }

        let history = revisions::owned(&self.revisions, &set.metadata);
        let template = revisions::Template::of_stateful_set(&set);
        let update = revisions::ensure(
            session,
            &*set,
            &template,
            &history,
            set.status.as_ref().and_then(|status| status.collision_count),
        )
        .await?;
        let known = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let current =
            history.iter().find(|revision| revision.metadata.name == known).cloned().unwrap_or_else(|| update.clone());
        let versions = Versions { current: name(&current), update: name(&update) };

        let now = session.shared.clock.now();
        let plan = plan(&set, &pods, &versions, now);
        self.carry_out(session, &set, &plan, &current, &update).await?;

        let status = status(&set, &pods, &versions, now);
        if set.status.as_ref() != Some(&status) {
            let wanted = StatefulSet { status: Some(status), ..(*set).clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                written => drop(written?),
            }
        }
        let live: Vec<String> = pods
            .iter()
            .filter_map(|pod| plan::revision(pod).map(str::to_owned))
            .chain([versions.current, versions.update])
            .collect();
        revisions::truncate(session, &history, &live, spec.revision_history_limit.unwrap_or(10)).await?;
        Ok(plan.again.into())
    }
}

fn name(revision: &ControllerRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

impl StatefulSetController {
    async fn carry_out(
        &self,
        session: &Session,
        set: &StatefulSet,
        plan: &Plan,
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> Result<()> {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        for member in &plan.create {
            let revision = if member.is_updated { update } else { current };
            let pod = identity::pod(set, member.ordinal, revision);
            let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
            for volume_claim in identity::claims(set, member.ordinal) {
                let claim_name = volume_claim.metadata.name.clone().unwrap_or_default();
                if self
                    .claims
                    .get(volume_claim.metadata.namespace.as_deref().unwrap_or_default(), &claim_name)
                    .is_some()
                {
                    continue;
                }
                match session.create(&volume_claim).await {
                    Ok(_) => {
                        let message =
                            format!("create Claim {claim_name} Pod {pod_name} in StatefulSet {set_name} success");
                        session.event(set, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) if error.is_already_exists() => {}
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => {
                        let message = format!(
                            "create Claim {claim_name} for Pod {pod_name} in StatefulSet {set_name} failed error: {}",
                            error.message()
                        );
                        session.event(set, EventType::Warning, "FailedCreate", message);
                        return Err(error);
                    }
                }
            }
            match session.create(&pod).await {
                Ok(_) => {
                    let message = format!("create Pod {pod_name} in StatefulSet {set_name} successful");
                    session.event(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => {
                    let message =
                        format!("create Pod {pod_name} in StatefulSet {set_name} failed error: {}", error.message());
                    session.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        for pod in &plan.delete {
            let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
            session.delete(&**pod).await?;
            let message = format!("delete Pod {pod_name} in StatefulSet {set_name} successful");
            session.event(set, EventType::Normal, "SuccessfulDelete", message);
        }
        Ok(())
    }
}

fn status(set: &StatefulSet, pods: &[Arc<Pod>], versions: &Versions, now: Timestamp) -> StatefulSetStatus {
    let known = set.status.clone().unwrap_or_default();
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = seconds(spec.min_ready_seconds.unwrap_or(0));
    let count = |is: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| is(pod)).count();
    let of_revision = |name: &str| count(&|pod| !is_terminating(pod) && plan::revision(pod) == Some(name));
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let ready = count(&|pod| is_ready(pod) && !is_terminating(pod));
    let updated = of_revision(&versions.update);
    let rolls = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    // Once every pod is updated, the update is what is current.
    let is_complete = rolls && updated == wanted && ready == wanted && pods.len() == wanted;
    let current = if is_complete { &versions.update } else { &versions.current };
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: i32::try_from(pods.len()).unwrap_or(i32::MAX),
        ready_replicas: some_count(ready),
        available_replicas: Some(
            some_count(count(&|pod| {
                !is_terminating(pod) && availability(pod, min_ready, now) == Availability::Available
            }))
            .unwrap_or(0),
        ),
        current_replicas: some_count(of_revision(current)),
        updated_replicas: some_count(updated),
        current_revision: Some(current.clone()),
        update_revision: Some(versions.update.clone()),
        collision_count: known.collision_count.or(Some(0)),
        conditions: known.conditions,
    }
}
