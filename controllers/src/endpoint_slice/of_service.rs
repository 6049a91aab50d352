//! The slices of a Service with a selector: its labels, its families, its pods.

use super::desired::{endpoint, families, is_headless, ports};
use super::packing::{Frame, LABEL_MANAGED_BY, LABEL_SERVICE_NAME, LAST_CHANGE, Placeholder, Writes, arrange};
use crate::meta::{annotation, controller_reference, labels};
use crate::pods::condition;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::sync::Arc;

const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
pub(super) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

/// What the slices of `service` need in order to show exactly the selected `pods`.
pub(super) fn reconcile(
    service: &Service,
    pods: &[&Pod],
    nodes: &BTreeMap<String, Arc<Node>>,
    existing: &[Arc<EndpointSlice>],
) -> Writes {
    let mut writes = Writes::default();
    let families = families(service);
    let frame = Frame {
        service: service.metadata.name.clone().unwrap_or_default(),
        namespace: service.metadata.namespace.clone(),
        owner: controller_reference(service),
        labels: wanted_labels(service),
        annotations: last_change(service, pods).map(|at| (LAST_CHANGE.to_owned(), at)).into_iter().collect(),
        capacity: 100,
    };
    for family in &families {
        let desired =
            pods.iter().filter_map(|pod| Some((ports(service, pod), endpoint(service, pod, nodes, *family)?)));
        arrange(&frame, *family, desired.collect(), existing, Placeholder::Kept, &mut writes);
    }
    // Slices of a family the Service no longer has.
    let lost = existing.iter().filter(|slice| !families.iter().any(|family| slice.address_type == family.as_str()));
    writes.delete.extend(lost.cloned());
    writes
}

fn wanted_labels(service: &Service) -> BTreeMap<String, String> {
    let mut wanted = labels(&service.metadata).clone();
    wanted.retain(|name, _| ![LABEL_SERVICE_NAME, LABEL_MANAGED_BY, LABEL_HEADLESS].contains(&name.as_str()));
    wanted.insert(LABEL_SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    wanted.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    if is_headless(service) {
        wanted.insert(LABEL_HEADLESS.to_owned(), String::new());
    }
    wanted
}

/// The newest change that a new state of the slices can come from.
fn last_change(service: &Service, pods: &[&Pod]) -> Option<String> {
    let readiness =
        pods.iter().filter_map(|pod| condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0));
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // Unless it says otherwise itself: mirrored objects carry the time along.
    let own = annotation(&service.metadata, LAST_CHANGE).and_then(|time| time.parse().ok());
    readiness.chain(created).chain(own).max().map(|time: k8s_openapi::jiff::Timestamp| time.to_string())
}

#[cfg(test)]
#[path = "of_service_tests.rs"]
mod tests;
