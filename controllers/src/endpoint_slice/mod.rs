//! EndpointSlices: which addresses stand behind a Service.
//!
//! [`desired`] turns pods into endpoints, [`packing`] puts them into slices with as few writes as possible, [`of_service`]
//! joins the two; all are pure. The controller around them follows Services, Pods and Nodes. [`mirror`] does the same for
//! Endpoints that users write. Consumers (proxy, DNS, policy) only read slices.
//!
//! Follows KEP-0752 (EndpointSlice), KEP-1672 (terminating endpoints), KEP-4444 (trafficDistribution).

pub(crate) mod desired;
mod mirror;
mod of_service;
mod packing;

use crate::meta::labels;
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use of_service::MANAGED_BY;
use packing::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME, Writes};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    mirror::start(shared, tasks);
    let queue = Queue::new();
    let services = shared.informers.of::<Service>();
    let pods = shared.informers.of::<Pod>();
    let nodes = shared.informers.of::<Node>();
    let slices = shared.informers.of::<EndpointSlice>();
    tasks.spawn(follow_own(services.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), services_of_pods(services.clone())));
    tasks
        .spawn(follow(slices.clone(), queue.clone(), |update| service_of_slice(update.object()).into_iter().collect()));
    tasks.spawn(follow(nodes.clone(), queue.clone(), {
        let (services, mut zones) = (services.clone(), HashMap::new());
        move |update| services_after_node(update, &services, &mut zones)
    }));
    let random = shared.random("endpointslice");
    tasks.spawn(run(shared.clone(), queue, EndpointSliceController { services, pods, nodes, slices, random }));
}

/// Maps a changed pod to the Services which select it now or selected it before.
pub(crate) fn services_of_pods(services: Informer<Service>) -> impl FnMut(&Update<Pod>) -> Vec<Key> + Send + 'static {
    let mut before: HashMap<Key, BTreeSet<Key>> = HashMap::new();
    move |update| {
        let pod = update.object();
        let key = Key::of(&pod.metadata);
        let now: BTreeSet<Key> = services
            .list_in(&key.namespace)
            .iter()
            .filter(|service| selects(service, pod))
            .map(|service| Key::of(&service.metadata))
            .collect();
        let mut touched = before.remove(&key).unwrap_or_default();
        touched.extend(now.iter().cloned());
        if matches!(update, Update::Applied(_)) && !now.is_empty() {
            before.insert(key, now);
        }
        touched.into_iter().collect()
    }
}

/// The Service's selector, if it has one that these controllers serve.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether the Service selects the pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = labels(&pod.metadata);
    selector(service).is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
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
    pods: Informer<Pod>,
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
        let pods = self.pods.list_in(&key.namespace);
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).filter(|pod| selects(&service, pod)).collect();
        let nodes: BTreeMap<String, Arc<Node>> =
            self.nodes.list().into_iter().filter_map(|node| Some((node.metadata.name.clone()?, node))).collect();
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

#[cfg(test)]
mod tests {
    //! The rules of SEMANTICS 4.1.

    use super::*;
    use serde_json::{Value, json};

    fn service(name: &str, spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
            .expect("a Service")
    }

    fn pod(labels: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "labels": labels}}))
            .expect("a Pod")
    }

    #[test]
    fn rule_4_1_without_a_selector_and_with_an_external_name_there_is_nothing_to_watch() {
        let web = json!({"app": "web"});
        assert!(selector(&service("a", json!({"selector": web}))).is_some());
        assert!(selector(&service("a", json!({"selector": web, "clusterIP": "None"}))).is_some(), "headless or not");
        assert!(selector(&service("a", json!({"selector": {}}))).is_none());
        assert!(selector(&service("a", json!({}))).is_none());
        assert!(selector(&service("a", json!({"type": "ExternalName", "selector": web}))).is_none());
    }

    #[test]
    fn rule_4_2_a_pod_is_selected_by_all_labels_of_the_selector() {
        let service = service("a", json!({"selector": {"app": "web", "tier": "front"}}));
        assert!(selects(&service, &pod(json!({"app": "web", "tier": "front", "more": "x"}))));
        assert!(!selects(&service, &pod(json!({"app": "web"}))));
        assert!(!selects(&service, &pod(json!({"app": "web", "tier": "back"}))));
    }

    #[test]
    fn rule_4_2_a_pod_whose_labels_change_concerns_the_services_of_before_and_of_now() {
        let services = Informer::<Service>::detached(informer::Activity::default());
        services.apply(service("web", json!({"selector": {"app": "web"}})));
        services.apply(service("api", json!({"selector": {"app": "api"}})));
        services.apply(service("none", json!({})));
        let mut concerned = services_of_pods(services);
        let mut names = |update: Update<Pod>| concerned(&update).into_iter().map(|key| key.name).collect::<Vec<_>>();
        assert_eq!(names(Update::Applied(Arc::new(pod(json!({"app": "web"}))))), ["web"]);
        assert_eq!(names(Update::Applied(Arc::new(pod(json!({"app": "api"}))))), ["api", "web"]);
        assert_eq!(names(Update::Applied(Arc::new(pod(json!({"app": "api"}))))), ["api"]);
        assert_eq!(names(Update::Deleted(Arc::new(pod(json!({"app": "api"}))))), ["api"]);
    }
}
