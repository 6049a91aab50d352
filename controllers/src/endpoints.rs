//! Legacy Endpoints: one object per Service with everything in it, for clients older than EndpointSlices.
//!
//! [`subsets`] is pure. Mirroring the other way, from a user's Endpoints to slices, is `endpoint_slice::mirror`'s.
//! Deprecated since Kubernetes 1.33, and still what `kubectl get endpoints` shows.

use crate::endpoint_slice::desired::{
    address, families, hostname, is_headless, protocol, publishes_not_ready, target_port, target_reference,
};
use crate::meta::{annotation, labels};
use crate::pods::{is_ready, is_terminal, is_terminating, node_name};
use crate::queue::{Next, Queue};
use crate::selection::{Selection, selector};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow_own, run};
use informer::Informer;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const LABEL_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one Endpoints object; more are cut off.
const CAPACITY: usize = 1000;

/// Starts the controller; the queue to be told of changed Services and of those that changed pods concern.
pub(crate) fn start(shared: &Shared, selection: &Selection, tasks: &mut JoinSet<()>) -> Queue<Key> {
    let queue = Queue::new();
    let services = shared.informers.of::<Service>();
    let endpoints = shared.informers.of::<Endpoints>();
    tasks.spawn(follow_own(endpoints.clone(), queue.clone()));
    let controller = EndpointsController { services, selection: selection.clone(), endpoints };
    tasks.spawn(run(shared.clone(), queue.clone(), controller));
    queue
}

struct EndpointsController {
    services: Informer<Service>,
    selection: Selection,
    endpoints: Informer<Endpoints>,
}

impl Controller for EndpointsController {
    const NAME: &'static str = "endpoint-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let existing = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // The Service is gone, so are the endpoints this controller made for it.
            if let Some(orphan) = existing.filter(|endpoints| {
                labels(&endpoints.metadata).get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGED_BY)
            }) {
                session.delete(&*orphan).await?;
            }
            return Ok(Next::OnChange);
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let pods = self.selection.pods_of(&service);
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let wanted = wanted(&service, &pods, existing.as_deref());
        match existing {
            None => match session.create(&wanted).await {
                Err(error) if error.is_namespace_terminating() => {}
                written => drop(written?),
            },
            Some(existing) if !same(&existing, &wanted) => drop(session.replace(&wanted).await?),
            Some(_) => {}
        }
        Ok(Next::OnChange)
    }
}

fn same(one: &Endpoints, other: &Endpoints) -> bool {
    let subsets = |endpoints: &Endpoints| endpoints.subsets.clone().unwrap_or_default();
    subsets(one) == subsets(other)
        && labels(&one.metadata) == labels(&other.metadata)
        && annotation(&one.metadata, OVER_CAPACITY) == annotation(&other.metadata, OVER_CAPACITY)
}

/// The Endpoints object that the Service is to have.
fn wanted(service: &Service, pods: &[&Pod], existing: Option<&Endpoints>) -> Endpoints {
    let mut metadata = existing.map(|existing| existing.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut own = labels(&service.metadata).clone();
    own.remove(LABEL_HEADLESS);
    if is_headless(service) {
        own.insert(LABEL_HEADLESS.to_owned(), String::new());
    }
    own.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    metadata.labels = Some(own);
    metadata.managed_fields = None;
    let (subsets, truncated) = subsets(service, pods);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

type Port = (String, i32, String, Option<String>);
/// An address with the order in which subsets list it.
type Address = (String, Option<String>, EndpointAddressKey);
/// Ports, and the addresses behind all of them with their readiness.
type Subset = (Vec<Port>, Vec<(EndpointAddress, bool)>);
type EndpointAddressKey = (Option<String>, Option<String>);

/// The subsets of a Service: ports with the same addresses share one. Also whether addresses had to be cut off.
fn subsets(service: &Service, pods: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let Some(family) = families(service).first().copied() else { return (vec![], false) };
    let publishes = publishes_not_ready(service);
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<Address, (EndpointAddress, bool)>> = BTreeMap::new();
    let mut taken = 0;
    let mut truncated = false;
    // Ready ones first, so that truncation costs not-ready ones.
    let mut candidates: Vec<&&Pod> =
        pods.iter().filter(|pod| !is_terminal(pod) && (publishes || !is_terminating(pod))).collect();
    candidates.sort_by_key(|pod| !is_ready(pod));
    for pod in candidates {
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports(service, pod);
        if ports.is_empty() && !(is_headless(service) && service.spec.as_ref().is_some_and(|spec| spec.ports.is_none()))
        {
            continue;
        }
        if taken == CAPACITY {
            truncated = true;
            break;
        }
        taken += 1;
        let uid = pod.metadata.uid.clone();
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: hostname(service, pod),
            node_name: node_name(pod).map(str::to_owned),
            target_ref: Some(target_reference(pod)),
        };
        let ready = publishes || is_ready(pod);
        let ports = if ports.is_empty() { vec![None] } else { ports.into_iter().map(Some).collect() };
        for port in ports {
            let key = (ip.clone(), uid.clone(), (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
            by_port.entry(port).or_default().insert(key, (address.clone(), ready));
        }
    }
    let mut by_addresses: BTreeMap<Vec<(Address, bool)>, Subset> = BTreeMap::new();
    for (port, addresses) in by_port {
        let key = addresses.iter().map(|(key, (_, ready))| (key.clone(), *ready)).collect();
        let entry = by_addresses.entry(key).or_insert_with(|| (vec![], addresses.into_values().collect()));
        entry.0.extend(port);
    }
    let subsets = by_addresses.into_values().map(|(ports, addresses)| {
        let (ready, waiting): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
        let addresses = |list: Vec<(EndpointAddress, bool)>| -> Option<Vec<EndpointAddress>> {
            (!list.is_empty()).then(|| list.into_iter().map(|(address, _)| address).collect())
        };
        EndpointSubset {
            addresses: addresses(ready),
            not_ready_addresses: addresses(waiting),
            ports: endpoint_ports(ports),
        }
    });
    (subsets.collect(), truncated)
}

fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = target_port(port, pod)?;
            let name = port.name.clone().unwrap_or_default();
            Some((name, number, protocol(port.protocol.as_deref()).to_owned(), port.app_protocol.clone()))
        })
        .collect()
}

fn endpoint_ports(ports: Vec<Port>) -> Option<Vec<EndpointPort>> {
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    (!ports.is_empty()).then_some(ports)
}

#[cfg(test)]
mod tests {
    //! The rules of SEMANTICS 4.9.

    use super::*;
    use serde_json::{Value, json};

    fn service(ports: Value, publish: bool) -> Service {
        let service = json!({"metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": ports, "publishNotReadyAddresses": publish}});
        serde_json::from_value(service).expect("a Service")
    }

    fn pod(n: u32, ready: bool, port: u32, dying: bool) -> Pod {
        let deleted = dying.then_some("1970-01-01T00:00:00Z");
        let pod = json!({"metadata": {"name": format!("p{n}"), "namespace": "default", "uid": format!("u{n}"), "deletionTimestamp": deleted},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": format!("10.244.{}.{}", n / 256, n % 256), "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        serde_json::from_value(pod).expect("a Pod")
    }

    /// Each subset as "ready | not ready | ports".
    fn shown(service: &Service, pods: &[Pod]) -> Vec<String> {
        let ips = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let ports = |ports: &Option<Vec<EndpointPort>>| {
            ports.iter().flatten().map(|p| p.port.to_string()).collect::<Vec<_>>().join(" ")
        };
        let pods: Vec<&Pod> = pods.iter().collect();
        let subsets = subsets(service, &pods).0;
        subsets
            .iter()
            .map(|s| format!("{} | {} | {}", ips(&s.addresses), ips(&s.not_ready_addresses), ports(&s.ports)))
            .collect()
    }

    #[test]
    fn rule_4_9_ready_and_not_ready_addresses_are_kept_apart() {
        let service = service(json!([{"port": 80, "targetPort": 8080}]), false);
        let pods = [pod(2, true, 1, false), pod(1, false, 1, false), pod(3, true, 1, true)];
        assert_eq!(shown(&service, &pods), ["10.244.0.2 | 10.244.0.1 | 8080"]);
    }

    #[test]
    fn rule_4_9_publishing_not_ready_addresses_makes_all_ready_and_keeps_terminating_ones() {
        let service = service(json!([{"port": 80, "targetPort": 8080}]), true);
        let pods = [pod(1, false, 1, false), pod(3, true, 1, true)];
        assert_eq!(shown(&service, &pods), ["10.244.0.1 10.244.0.3 |  | 8080"]);
    }

    #[test]
    fn rule_4_9_ports_with_the_same_addresses_share_a_subset() {
        let service = service(
            json!([{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 9}]),
            false,
        );
        let pods = [pod(1, true, 8001, false), pod(2, true, 8002, false)];
        assert_eq!(
            shown(&service, &pods),
            ["10.244.0.1 |  | 8001", "10.244.0.1 10.244.0.2 |  | 9", "10.244.0.2 |  | 8002"]
        );
        let alike = [pod(1, true, 8001, false), pod(2, true, 8001, false)];
        assert_eq!(shown(&service, &alike), ["10.244.0.1 10.244.0.2 |  | 8001 9"]);
    }

    #[test]
    fn rule_4_9_endpoints_show_the_primary_family_only() {
        let families = |order: [&str; 2]| {
            let mut service = service(json!([{"port": 80}]), false);
            let spec = service.spec.as_mut().expect("a spec");
            spec.ip_families = Some(order.map(str::to_owned).to_vec());
            let mut both = pod(1, true, 1, false);
            let status = both.status.as_mut().expect("a status");
            let ips = json!([{"ip": "10.244.0.1"}, {"ip": "fd00::1"}]);
            status.pod_ips = serde_json::from_value(ips).expect("addresses");
            shown(&service, &[both])
        };
        assert_eq!(families(["IPv4", "IPv6"]), ["10.244.0.1 |  | 80"]);
        assert_eq!(families(["IPv6", "IPv4"]), ["fd00::1 |  | 80"]);
    }

    #[test]
    fn rule_4_9_nothing_selected_means_no_subsets() {
        let endpoints = wanted(&service(json!([{"port": 80}]), false), &[], None);
        assert_eq!(endpoints.subsets, None);
        assert_eq!(labels(&endpoints.metadata)[LABEL_MANAGED_BY], "endpoint-controller");
        assert_eq!(labels(&endpoints.metadata)["team"], "a");
    }

    #[test]
    fn rule_4_9_more_than_a_thousand_addresses_are_cut_off_not_ready_ones_first() {
        let service = service(json!([{"port": 80}]), false);
        let pods: Vec<Pod> = (0..1100).map(|n| pod(n, n % 2 == 0, 1, false)).collect();
        let endpoints = wanted(&service, &pods.iter().collect::<Vec<_>>(), None);
        assert_eq!(annotation(&endpoints.metadata, OVER_CAPACITY), Some("truncated"));
        let subset = &endpoints.subsets.expect("subsets")[0];
        let len = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        assert_eq!((len(&subset.addresses), len(&subset.not_ready_addresses)), (550, 450));
    }
}
