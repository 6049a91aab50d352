//! EndpointSlices: which addresses stand behind a Service.
//!
//! [`desired`] turns pods into endpoints, [`packing`] puts them into slices with as few writes as possible, [`of_service`]
//! joins the two; all are pure. The controller around them follows Nodes and slices, and is told of Services and Pods by
//! [`selection`](crate::selection), which knows who selects whom. [`mirror`] does the same for Endpoints that users write. Consumers
//! (proxy, DNS, policy) only read slices.
//!
//! Follows KEP-0752 (EndpointSlice), KEP-1672 (terminating endpoints), KEP-4444 (trafficDistribution).

pub(crate) mod desired;
mod mirror;
mod of_service;
mod packing;

use crate::meta::labels;
use crate::pods::node_name;
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::selection::{Selection, selector};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, run};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use of_service::MANAGED_BY;
use packing::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME, Writes};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Starts the controllers; the queue to be told of changed Services and of those that changed pods concern.
pub(crate) fn start(shared: &Shared, selection: &Selection, tasks: &mut JoinSet<()>) -> Queue<Key> {
    mirror::start(shared, tasks);
    let queue = Queue::new();
    let services = shared.informers.of::<Service>();
    let nodes = shared.informers.of::<Node>();
    let slices = shared.informers.of::<EndpointSlice>();
    tasks
        .spawn(follow(slices.clone(), queue.clone(), |update| service_of_slice(update.object()).into_iter().collect()));
    tasks.spawn(follow(nodes.clone(), queue.clone(), {
        let (services, mut zones) = (services.clone(), HashMap::new());
        move |update| services_after_node(update, &services, &mut zones)
    }));
    let (selection, random) = (selection.clone(), shared.random("endpointslice"));
    let controller = EndpointSliceController { services, selection, nodes, slices, random };
    tasks.spawn(run(shared.clone(), queue.clone(), controller));
    queue
}

fn service_of_slice(slice: &EndpointSlice) -> Option<Key> {
    let labels = labels(&slice.metadata);
    let managed = labels.get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGED_BY);
    let service = labels.get(LABEL_SERVICE_NAME).filter(|_| managed)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

/// Zones come from nodes: when one changes, every Service may be concerned.
fn services_after_node(
    update: &Update<Node>,
    services: &Informer<Service>,
    zones: &mut HashMap<String, Option<String>>,
) -> Vec<Key> {
    let node = update.object();
    let name = node.metadata.name.clone().unwrap_or_default();
    let zone = desired::zone(node).map(str::to_owned);
    let known = match update {
        Update::Applied(_) => zones.insert(name, zone.clone()).flatten(),
        Update::Deleted(_) => zones.remove(&name).flatten(),
    };
    let now = if matches!(update, Update::Applied(_)) { zone } else { None };
    if known == now {
        return vec![];
    }
    services.list().iter().map(|service| Key::of(&service.metadata)).collect()
}

struct EndpointSliceController {
    services: Informer<Service>,
    selection: Selection,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    random: Random,
}

impl Controller for EndpointSliceController {
    const NAME: &'static str = "endpointslice-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        // The garbage collector removes the slices of a Service that is gone.
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let pods = self.selection.pods_of(&service);
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let mut nodes: BTreeMap<String, Arc<Node>> = BTreeMap::new();
        for name in pods.iter().filter_map(|pod| node_name(pod)) {
            if !nodes.contains_key(name)
                && let Some(node) = self.nodes.get("", name)
            {
                nodes.insert(name.to_owned(), node);
            }
        }
        // Every slice that is made here is called after its Service; a namespace may have those of thousands.
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .list_named(&key.namespace, crate::random::base(&format!("{}-", key.name)))
            .into_iter()
            .filter(|slice| service_of_slice(slice).as_ref() == Some(key))
            .collect();

        write(session, of_service::reconcile(&service, &pods, &nodes, &existing), &self.random).await?;
        Ok(Next::OnChange)
    }
}

async fn write(session: &Session, writes: Writes, random: &Random) -> Result<()> {
    for mut slice in writes.create {
        slice.metadata.name = slice.metadata.generate_name.as_deref().map(|base| random.name(base));
        match session.create(&slice).await {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            written => drop(written?),
        }
    }
    for slice in &writes.update {
        session.replace(slice).await?;
    }
    for slice in &writes.delete {
        session.delete(&**slice).await?;
    }
    Ok(())
}
