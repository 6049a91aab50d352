//! From desired endpoints and existing slices to the fewest writes that make them agree.
//!
//! Endpoints are grouped by address family and port list. Slices that still hold something keep it; new endpoints go
//! where a write is due anyway, else into the fullest slice with room for all of them, else into new slices.

use super::desired::{Family, endpoint, families, is_headless, ports};
use crate::meta::{annotation, controller_reference, labels};
use crate::pods::condition;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
pub(super) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Endpoints per slice.
const FULL: usize = 100;

/// The slices to write.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// What the slices of `service` need in order to show exactly the selected `pods`.
pub(super) fn reconcile(
    service: &Service,
    pods: &[&Pod],
    nodes: &BTreeMap<String, Arc<Node>>,
    existing: &[Arc<EndpointSlice>],
) -> Writes {
    let mut writes = Writes::default();
    let families = families(service);
    let changed = last_change(service, pods);
    for family in &families {
        let of_family = existing.iter().filter(|slice| slice.address_type == family.as_str()).cloned().collect();
        reconcile_family(service, pods, nodes, *family, of_family, &mut writes);
    }
    // Slices of a family the Service no longer has.
    let lost = existing.iter().filter(|slice| !families.iter().any(|family| slice.address_type == family.as_str()));
    writes.delete.extend(lost.cloned());
    for slice in writes.create.iter_mut().chain(&mut writes.update) {
        if let Some(changed) = &changed {
            slice.metadata.annotations.get_or_insert_default().insert(LAST_CHANGE.to_owned(), changed.clone());
        }
    }
    writes
}

fn reconcile_family(
    service: &Service,
    pods: &[&Pod],
    nodes: &BTreeMap<String, Arc<Node>>,
    family: Family,
    existing: Vec<Arc<EndpointSlice>>,
    writes: &mut Writes,
) {
    let mut groups: BTreeMap<PortsKey, Group> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod, nodes, family) {
            let ports = ports(service, pod);
            groups
                .entry(ports_key(&ports))
                .or_insert_with(|| Group { ports, ..Group::default() })
                .desired
                .push(endpoint);
        }
    }
    let wanted_labels = wanted_labels(service);
    let mut create = vec![];
    let mut delete = vec![];
    let mut kept = 0;
    for slice in existing {
        let ports = slice.ports.clone().unwrap_or_default();
        match groups.get_mut(&ports_key(&ports)) {
            Some(group) => group.existing.push(slice),
            None => delete.push(slice),
        }
    }
    for group in groups.into_values() {
        let packed = pack(group, &wanted_labels, service);
        kept += packed.unchanged + packed.update.len();
        writes.update.extend(packed.update);
        delete.extend(packed.delete);
        create.extend(
            packed
                .ports_of_new
                .into_iter()
                .map(|(ports, endpoints)| new_slice(service, family, ports, endpoints, &wanted_labels)),
        );
    }
    if kept == 0 && create.is_empty() {
        // Without any endpoint an empty slice stays as a placeholder: it says "nothing" instead of saying nothing.
        match delete.iter().position(|slice| is_placeholder(slice)) {
            Some(at) => {
                let placeholder = delete.remove(at);
                if !has_labels(&placeholder, &wanted_labels, service) {
                    writes.update.push(relabelled(&placeholder, &wanted_labels, service));
                }
            }
            None => create.push(new_slice(service, family, vec![], vec![], &wanted_labels)),
        }
    }
    // A slice to be deleted and one to be created: one update does both.
    while !create.is_empty() && !delete.is_empty() {
        let (old, new) = (delete.remove(0), create.remove(0));
        let mut reused = relabelled(&old, &wanted_labels, service);
        reused.endpoints = new.endpoints;
        reused.ports = new.ports;
        writes.update.push(reused);
    }
    writes.create.extend(create);
    writes.delete.extend(delete);
}

#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    desired: Vec<Endpoint>,
    existing: Vec<Arc<EndpointSlice>>,
}

type PortsKey = Vec<(String, String, i32, String)>;

fn ports_key(ports: &[EndpointPort]) -> PortsKey {
    let mut key: PortsKey = ports
        .iter()
        .map(|port| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            (text(&port.name), text(&port.protocol), port.port.unwrap_or(0), text(&port.app_protocol))
        })
        .collect();
    key.sort();
    key
}

struct Packed {
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
    ports_of_new: Vec<(Vec<EndpointPort>, Vec<Endpoint>)>,
    unchanged: usize,
}

struct Slice {
    known: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    is_changed: bool,
}

fn pack(group: Group, wanted_labels: &BTreeMap<String, String>, service: &Service) -> Packed {
    let mut left: BTreeMap<EndpointKey, Endpoint> = BTreeMap::new();
    let mut order: Vec<EndpointKey> = vec![];
    for endpoint in group.desired {
        let key = endpoint_key(&endpoint);
        if left.insert(key.clone(), endpoint).is_none() {
            order.push(key);
        }
    }
    let mut slices: Vec<Slice> = group
        .existing
        .into_iter()
        .map(|known| {
            let mut is_changed = !has_labels(&known, wanted_labels, service);
            let mut endpoints = vec![];
            for present in known.endpoints.iter().flatten() {
                match left.remove(&endpoint_key(present)) {
                    Some(desired) => {
                        is_changed |= desired != *present;
                        endpoints.push(desired);
                    }
                    None => is_changed = true,
                }
            }
            Slice { known, endpoints, is_changed }
        })
        .collect();
    let mut rest: Vec<Endpoint> = order.into_iter().filter_map(|key| left.remove(&key)).collect();

    // First where a write is due anyway, the fullest first.
    slices.sort_by_key(|slice| (Reverse(slice.endpoints.len()), slice.known.metadata.name.clone()));
    for slice in slices.iter_mut().filter(|slice| slice.is_changed && !slice.endpoints.is_empty()) {
        let room = FULL.saturating_sub(slice.endpoints.len()).min(rest.len());
        slice.endpoints.extend(rest.drain(..room));
    }
    // Then the fullest that can take all the rest.
    if !rest.is_empty() && rest.len() < FULL {
        let fits =
            slices.iter_mut().find(|slice| !slice.endpoints.is_empty() && slice.endpoints.len() + rest.len() <= FULL);
        if let Some(slice) = fits {
            slice.endpoints.append(&mut rest);
            slice.is_changed = true;
        }
    }
    // What has become empty takes the rest before anything new is made.
    for slice in slices.iter_mut().filter(|slice| slice.endpoints.is_empty()) {
        let room = FULL.min(rest.len());
        slice.endpoints.extend(rest.drain(..room));
        slice.is_changed = true;
    }
    let mut packed = Packed { update: vec![], delete: vec![], ports_of_new: vec![], unchanged: 0 };
    while !rest.is_empty() {
        let room = FULL.min(rest.len());
        packed.ports_of_new.push((group.ports.clone(), rest.drain(..room).collect()));
    }
    for slice in slices {
        if slice.endpoints.is_empty() {
            packed.delete.push(slice.known);
        } else if slice.is_changed {
            let mut update = relabelled(&slice.known, wanted_labels, service);
            update.endpoints = Some(slice.endpoints);
            packed.update.push(update);
        } else {
            packed.unchanged += 1;
        }
    }
    packed
}

type EndpointKey = (Vec<String>, Option<String>);

/// What makes an endpoint the same one: its address and its pod.
fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    (endpoint.addresses.clone(), endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

fn is_placeholder(slice: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty) && slice.ports.as_ref().is_none_or(Vec::is_empty)
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

fn has_labels(slice: &EndpointSlice, wanted: &BTreeMap<String, String>, service: &Service) -> bool {
    labels(&slice.metadata) == wanted
        && slice
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(&owner.uid) == service.metadata.uid.as_ref())
}

fn relabelled(slice: &EndpointSlice, wanted: &BTreeMap<String, String>, service: &Service) -> EndpointSlice {
    let mut slice = slice.clone();
    slice.metadata.labels = Some(wanted.clone());
    slice.metadata.owner_references = Some(vec![controller_reference(service)]);
    slice.metadata.managed_fields = None;
    slice
}

fn new_slice(
    service: &Service,
    family: Family,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    wanted_labels: &BTreeMap<String, String>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(wanted_labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
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
#[path = "packing_tests.rs"]
mod tests;
