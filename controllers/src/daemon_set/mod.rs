//! DaemonSets: one pod on every node that fits.
//!
//! [`mod@plan`] decides from the set, its pods and the nodes; [`placement`] says which nodes fit and ties a pod to one. The
//! scheduler binds the pods, by the node affinity they carry. Revisions are kept as for StatefulSets.

mod placement;
mod plan;

use crate::event::EventType;
use crate::meta::{PodSelector, claim, labels, owners_of};
use crate::pods::from_template;
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::session::{Key, Result, Session};
use crate::stateful_set::revisions::{self, LABEL_REVISION, Template};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::{Informer, Update};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use plan::{plan, status};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let sets = shared.informers.of::<DaemonSet>();
    let pods = shared.informers.of::<Pod>();
    let nodes = shared.informers.of::<Node>();
    let revisions = shared.informers.of::<ControllerRevision>();
    tasks.spawn(follow_own(sets.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let sets = sets.clone();
        move |update| owners_of(&update.object().metadata, &sets, |set| Some(&set.spec.as_ref()?.selector))
    }));
    tasks.spawn(follow(nodes.clone(), queue.clone(), {
        let sets = sets.clone();
        let mut known: HashMap<String, Arc<Node>> = HashMap::new();
        move |update| sets_after_node(update, &sets, &mut known)
    }));
    let random = shared.random("daemonset");
    tasks.spawn(run(shared.clone(), queue, DaemonSetController { sets, pods, nodes, revisions, random }));
}

/// All sets, if the node's labels or taints have changed.
fn sets_after_node(
    update: &Update<Node>,
    sets: &Informer<DaemonSet>,
    known: &mut HashMap<String, Arc<Node>>,
) -> Vec<Key> {
    let node = update.object();
    let name = node.metadata.name.clone().unwrap_or_default();
    let before = match update {
        Update::Applied(node) => known.insert(name, node.clone()),
        Update::Deleted(_) => known.remove(&name).filter(|_| false),
    };
    if before.is_some_and(|before| labels(&before.metadata) == labels(&node.metadata) && before.spec == node.spec) {
        return vec![];
    }
    sets.list().iter().map(|set| Key::of(&set.metadata)).collect()
}

struct DaemonSetController {
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    random: Random,
}

impl Controller for DaemonSetController {
    const NAME: &'static str = "daemonset-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let selector = PodSelector::new(&spec.selector)?;
        let pods = claim(&set.metadata, &selector, self.pods.list_in(&key.namespace)).settle(session, &*set).await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let history = revisions::owned(&self.revisions, &set.metadata);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let update = revisions::ensure(session, &*set, &Template::of_daemon_set(&set), &history, collisions).await?;
        let hash = labels(&update.metadata).get(LABEL_REVISION).cloned().unwrap_or_default();

        let now = session.shared.clock.now();
        let plan = plan(&set, &pods, &self.nodes.list(), &hash, now);
        self.carry_out(session, &set, &plan, &hash).await?;
        let status = status(&set, &pods, &self.nodes.list(), &hash, now);
        if set.status.as_ref() != Some(&status) {
            let wanted = DaemonSet { status: Some(status), ..(*set).clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                written => drop(written?),
            }
        }
        let hashes: Vec<&String> = pods.iter().filter_map(|pod| labels(&pod.metadata).get(LABEL_REVISION)).collect();
        let live: Vec<String> = history
            .iter()
            .chain([&update])
            .filter(|revision| {
                let own = labels(&revision.metadata).get(LABEL_REVISION);
                own == Some(&hash) || own.is_some_and(|own| hashes.contains(&own))
            })
            .filter_map(|revision| revision.metadata.name.clone())
            .collect();
        revisions::truncate(session, &history, &live, spec.revision_history_limit.unwrap_or(10)).await?;
        Ok(plan.again.into())
    }
}

impl DaemonSetController {
    async fn carry_out(&self, session: &Session, set: &DaemonSet, plan: &plan::Plan, hash: &str) -> Result<()> {
        let Some(spec) = &set.spec else { return Ok(()) };
        let base = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
        for node in &plan.create {
            let mut pod = from_template(set, &spec.template, self.random.name(&base));
            pod.metadata.generate_name = Some(base.clone());
            let labels = pod.metadata.labels.get_or_insert_default();
            labels.insert(LABEL_REVISION.to_owned(), hash.to_owned());
            placement::tie(&mut pod, node);
            match session.create(&pod).await {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.metadata.name.unwrap_or_default());
                    session.event(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => {
                    let message = format!("Error creating: {}", error.message());
                    session.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        for pod in &plan.delete {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            session.delete(&**pod).await?;
            session.event(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
        }
        for pod in plan.delete.iter().filter(|pod| crate::pods::phase(pod) == "Failed") {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let node = placement::node_of(pod).unwrap_or_default();
            let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
            session.event(set, EventType::Warning, "FailedDaemonPod", message);
        }
        Ok(())
    }
}
