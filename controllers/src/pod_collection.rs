//! Collects pods that nobody else can end: those on nodes that are gone, and deleted ones that never had a node.
//!
//! What belongs to owners that are gone is the garbage collector's.

use crate::pods::{is_terminating, node_name};
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A node that comes back within this time finds its pods again.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (pods, nodes) = (shared.informers.of::<Pod>(), shared.informers.of::<Node>());
    tasks.spawn({
        let (pods, nodes, queue) = (pods.clone(), nodes.clone(), queue.clone());
        async move {
            nodes.synced().await;
            follow_own(pods, queue).await;
        }
    });
    tasks.spawn(follow(nodes.clone(), queue.clone(), {
        let pods = pods.clone();
        move |update| match update {
            Update::Applied(_) => vec![],
            Update::Deleted(node) => {
                let stranded = pods.list().into_iter().filter(|pod| node_name(pod) == node.metadata.name.as_deref());
                stranded.map(|pod| Key::of(&pod.metadata)).collect()
            }
        }
    }));
    tasks.spawn(run(shared.clone(), queue, PodCollector { pods, nodes, missing: Mutex::default() }));
}

struct PodCollector {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Nodes that are gone, and since when.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Controller for PodCollector {
    const NAME: &'static str = "pod-garbage-collector";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        match node_name(&pod) {
            None if is_terminating(&pod) => session.delete_now(&*pod).await?,
            None => {}
            Some(node) => {
                if self.nodes.get("", node).is_some() {
                    self.missing.lock().remove(node);
                    return Ok(Next::OnChange);
                }
                let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(Instant::now);
                let left = QUARANTINE.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                session.delete_now(&*pod).await?;
            }
        }
        Ok(Next::OnChange)
    }
}
