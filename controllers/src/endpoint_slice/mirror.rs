//! Mirroring: Endpoints that a user has written for a Service without a selector become slices too.
//!
//! Consumers read slices only. The slices belong to the Endpoints object and follow it.

use super::desired::Family;
use super::packing::{Frame, LABEL_MANAGED_BY, LABEL_SERVICE_NAME, LAST_CHANGE, Placeholder, Writes, arrange};
use crate::meta::{annotation, controller_reference, labels};
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses mirrored of one subset, and endpoints in one slice.
const CAPACITY: usize = 1000;

pub(super) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let services = shared.informers.of::<Service>();
    let endpoints = shared.informers.of::<Endpoints>();
    let slices = shared.informers.of::<EndpointSlice>();
    tasks.spawn(follow_own(services.clone(), queue.clone()));
    tasks.spawn(follow_own(endpoints.clone(), queue.clone()));
    tasks.spawn(follow(slices.clone(), queue.clone(), |update| mirrored_for(update.object()).into_iter().collect()));
    let random = shared.random("endpointslicemirroring");
    tasks.spawn(run(shared.clone(), queue, MirroringController { services, endpoints, slices, random }));
}

fn mirrored_for(slice: &EndpointSlice) -> Option<Key> {
    let labels = labels(&slice.metadata);
    let managed = labels.get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGED_BY);
    let service = labels.get(LABEL_SERVICE_NAME).filter(|_| managed)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

struct MirroringController {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    random: Random,
}

impl Controller for MirroringController {
    const NAME: &'static str = "endpointslicemirroring-controller";
    const WORKERS: usize = 4;

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let service = self.services.get(&key.namespace, &key.name);
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .list_named(&key.namespace, crate::random::base(&format!("{}-", key.name)))
            .into_iter()
            .filter(|slice| mirrored_for(slice).as_ref() == Some(key))
            .collect();
        let writes = match (&endpoints, &service) {
            (Some(endpoints), Some(service)) if is_mirrored(endpoints, service) => reconcile(endpoints, &existing),
            _ => Writes { delete: existing, ..Writes::default() },
        };
        super::write(session, writes, &self.random).await?;
        Ok(Next::OnChange)
    }
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    service.spec.as_ref().is_none_or(|spec| spec.selector.as_ref().is_none_or(|selector| selector.is_empty()))
        && endpoints.metadata.deletion_timestamp.is_none()
        && labels(&endpoints.metadata).get(SKIP).is_none_or(|skip| skip != "true")
        && annotation(&endpoints.metadata, LEADER).is_none()
}

/// What the mirrored slices need in order to show what the Endpoints say.
fn reconcile(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Writes {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = labels(&endpoints.metadata).clone();
    labels.insert(LABEL_SERVICE_NAME.to_owned(), name.clone());
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != LAST_APPLIED && name != LAST_CHANGE);
    let frame = Frame {
        service: name,
        namespace: endpoints.metadata.namespace.clone(),
        owner: controller_reference(endpoints),
        labels,
        annotations,
        capacity: CAPACITY,
    };
    let mut desired = vec![];
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(waiting).take(CAPACITY) {
            if let Ok(ip) = address.ip.parse::<IpAddr>() {
                desired.push((Family::of(ip), ports.clone(), endpoint(address, is_ready)));
            }
        }
    }
    let mut writes = Writes::default();
    let families = [Family::Ipv4, Family::Ipv6].map(|family| {
        let own = desired.iter().filter(|(of, _, _)| *of == family);
        (family, own.map(|(_, ports, endpoint)| (ports.clone(), endpoint.clone())).collect::<Vec<_>>())
    });
    let is_empty = desired.is_empty();
    for (family, own) in families {
        let placeholder = if is_empty && family == Family::Ipv4 { Placeholder::Kept } else { Placeholder::None };
        arrange(&frame, family, own, existing, placeholder, &mut writes);
    }
    writes
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    //! The rules of SEMANTICS 4.10.

    use super::*;
    use serde_json::{Value, json};

    fn endpoints(metadata: Value, subsets: Value) -> Endpoints {
        let mut metadata = metadata;
        metadata["name"] = json!("db");
        metadata["uid"] = json!("e");
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).expect("Endpoints")
    }

    fn service(selector: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": {"selector": selector}})).expect("a Service")
    }

    #[test]
    fn rule_4_10_only_endpoints_without_selector_and_exemption_are_mirrored() {
        let mirrored =
            |metadata: Value, selector: Value| is_mirrored(&endpoints(metadata, json!([])), &service(selector));
        assert!(mirrored(json!({}), Value::Null));
        assert!(!mirrored(json!({}), json!({"app": "db"})));
        assert!(!mirrored(json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}), Value::Null));
        assert!(!mirrored(json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "x"}}), Value::Null));
    }

    #[test]
    fn rule_4_10_families_are_split_and_readiness_is_kept() {
        let subsets = json!([{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 5432}]}]);
        let writes = reconcile(&endpoints(json!({"labels": {"team": "a"}}), subsets), &[]);
        let shown: Vec<_> = writes
            .create
            .iter()
            .map(|slice| {
                let endpoints = slice.endpoints.iter().flatten();
                let ready = |e: &Endpoint| e.conditions.as_ref().and_then(|conditions| conditions.ready);
                (slice.address_type.as_str(), endpoints.map(|e| (e.addresses[0].clone(), ready(e))).collect::<Vec<_>>())
            })
            .collect();
        let ready = |ip: &str, ready| (ip.to_owned(), Some(ready));
        assert_eq!(
            shown,
            [
                ("IPv4", vec![ready("192.0.2.1", true), ready("192.0.2.2", false)]),
                ("IPv6", vec![ready("2001:db8::1", true)])
            ]
        );
        let metadata = &writes.create[0].metadata;
        assert_eq!(metadata.generate_name.as_deref(), Some("db-"));
        assert_eq!(metadata.owner_references.as_ref().map(|owners| owners[0].kind.as_str()), Some("Endpoints"));
        assert_eq!((labels(metadata)[LABEL_MANAGED_BY].as_str(), labels(metadata)["team"].as_str()), (MANAGED_BY, "a"));
        assert_eq!(writes.create[0].ports.as_ref().map(|ports| ports[0].port), Some(Some(5432)));
    }

    #[test]
    fn rule_4_10_at_most_a_thousand_addresses_of_a_subset() {
        let addresses: Vec<Value> = (0..1200).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let writes = reconcile(&endpoints(json!({}), json!([{"addresses": addresses, "ports": [{"port": 1}]}])), &[]);
        assert_eq!(writes.create.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>(), 1000);
    }

    #[test]
    fn rule_4_10_changes_follow_in_place() {
        let first = reconcile(
            &endpoints(json!({}), json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}])),
            &[],
        );
        let existing: Vec<Arc<EndpointSlice>> = first.create.into_iter().map(Arc::new).collect();
        let second = reconcile(
            &endpoints(json!({}), json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 1}]}])),
            &existing,
        );
        assert_eq!((second.create.len(), second.update.len(), second.delete.len()), (0, 1, 0));
        let emptied = reconcile(&endpoints(json!({}), json!([])), &existing);
        assert_eq!((emptied.create.len(), emptied.update.len(), emptied.delete.len()), (0, 1, 0));
        assert_eq!(emptied.update[0].endpoints, Some(vec![]));
    }
}
