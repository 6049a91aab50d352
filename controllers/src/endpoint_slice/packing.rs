//! From desired endpoints and existing slices to the fewest writes that make them agree.
//!
//! Endpoints are grouped by address family and port list. Slices that still hold something keep it; new endpoints go
//! where a write is due anyway, else into the fullest slice with room for all of them, else into new slices.

use super::desired::Family;
use crate::meta::{annotation, labels};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The slices to write.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// What all slices of one owner have in common.
#[derive(Debug)]
pub(super) struct Frame {
    /// The name of the Service.
    pub(super) service: String,
    pub(super) namespace: Option<String>,
    pub(super) owner: OwnerReference,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Endpoints per slice.
    pub(super) capacity: usize,
}

impl Frame {
    fn is_around(&self, slice: &EndpointSlice) -> bool {
        let own = |(name, value): (&String, &String)| {
            // The time alone is no reason to write.
            name == LAST_CHANGE || annotation(&slice.metadata, name) == Some(value)
        };
        labels(&slice.metadata) == &self.labels
            && self.annotations.iter().all(own)
            && slice.metadata.owner_references.iter().flatten().any(|owner| owner.uid == self.owner.uid)
    }

    fn put_around(&self, slice: &EndpointSlice) -> EndpointSlice {
        let mut slice = slice.clone();
        slice.metadata.labels = Some(self.labels.clone());
        slice.metadata.annotations = Some(self.annotations.clone());
        slice.metadata.owner_references = Some(vec![self.owner.clone()]);
        slice.metadata.managed_fields = None;
        slice
    }

    fn slice(&self, family: Family, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.service)),
                namespace: self.namespace.clone(),
                ..ObjectMeta::default()
            },
            address_type: family.as_str().to_owned(),
            endpoints: Some(endpoints),
            ports: Some(ports),
        };
        self.put_around(&slice)
    }
}

/// Whether a family without any endpoint keeps an empty slice: it says "nothing" instead of saying nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder {
    Kept,
    None,
}

/// What the slices of one family need in order to show exactly `desired`.
pub(super) fn arrange(
    frame: &Frame,
    family: Family,
    desired: Vec<(Vec<EndpointPort>, Endpoint)>,
    existing: &[Arc<EndpointSlice>],
    placeholder: Placeholder,
    writes: &mut Writes,
) {
    let mut groups: BTreeMap<PortsKey, Group> = BTreeMap::new();
    let mut alike: Option<(PortsKey, Group)> = None;
    for (ports, endpoint) in desired {
        // As a rule all pods serve the same ports: then the list is looked up once.
        let same = alike.as_ref().is_some_and(|(_, group)| group.ports == ports);
        if !same {
            groups.extend(alike.take());
            let key = ports_key(&ports);
            let group = groups.remove(&key).unwrap_or(Group { ports, ..Group::default() });
            alike = Some((key, group));
        }
        if let Some((_, group)) = &mut alike {
            group.desired.push(endpoint);
        }
    }
    groups.extend(alike);
    let mut create = vec![];
    let mut delete = vec![];
    let mut kept = 0;
    for slice in existing.iter().filter(|slice| slice.address_type == family.as_str()) {
        match groups.get_mut(&ports_key(slice.ports.as_deref().unwrap_or_default())) {
            Some(group) => group.existing.push(slice.clone()),
            None => delete.push(slice.clone()),
        }
    }
    for group in groups.into_values() {
        let packed = pack(group, frame);
        kept += packed.unchanged + packed.update.len();
        writes.update.extend(packed.update);
        delete.extend(packed.delete);
        create.extend(packed.new.into_iter().map(|(ports, endpoints)| frame.slice(family, ports, endpoints)));
    }
    if kept == 0 && create.is_empty() && placeholder == Placeholder::Kept {
        match delete.iter().position(|slice| is_placeholder(slice)) {
            Some(at) => {
                let placeholder = delete.remove(at);
                if !frame.is_around(&placeholder) {
                    writes.update.push(frame.put_around(&placeholder));
                }
            }
            None => create.push(frame.slice(family, vec![], vec![])),
        }
    }
    // A slice to be deleted and one to be created: one update does both.
    while !create.is_empty() && !delete.is_empty() {
        let (old, new) = (delete.remove(0), create.remove(0));
        let mut reused = frame.put_around(&old);
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
    new: Vec<(Vec<EndpointPort>, Vec<Endpoint>)>,
    unchanged: usize,
}

/// An existing slice and which of the desired endpoints it is to hold.
struct Slice<'a> {
    known: &'a Arc<EndpointSlice>,
    members: Vec<usize>,
    is_changed: bool,
}

fn pack(group: Group, frame: &Frame) -> Packed {
    let desired = &group.desired;
    // Of several that are the same endpoint the last counts.
    let mut places: HashMap<EndpointKey<'_>, usize> = HashMap::with_capacity(desired.len());
    for (index, endpoint) in desired.iter().enumerate() {
        places.insert(endpoint_key(endpoint), index);
    }
    let mut slices = Vec::with_capacity(group.existing.len());
    for known in &group.existing {
        let mut slice = Slice { known, members: vec![], is_changed: !frame.is_around(known) };
        for present in known.endpoints.iter().flatten() {
            match places.remove(&endpoint_key(present)) {
                Some(index) => {
                    slice.is_changed |= desired[index] != *present;
                    slice.members.push(index);
                }
                None => slice.is_changed = true,
            }
        }
        slices.push(slice);
    }
    let mut rest: Vec<usize> = places.into_values().collect();
    rest.sort_unstable();

    // First where a write is due anyway, the fullest first.
    slices.sort_by_key(|slice| (Reverse(slice.members.len()), slice.known.metadata.name.clone()));
    for slice in slices.iter_mut().filter(|slice| slice.is_changed && !slice.members.is_empty()) {
        let room = frame.capacity.saturating_sub(slice.members.len()).min(rest.len());
        slice.members.extend(rest.drain(..room));
    }
    // Then the fullest that can take all the rest.
    if !rest.is_empty() && rest.len() < frame.capacity {
        let fits = slices
            .iter_mut()
            .find(|slice| !slice.members.is_empty() && slice.members.len() + rest.len() <= frame.capacity);
        if let Some(slice) = fits {
            slice.members.append(&mut rest);
            slice.is_changed = true;
        }
    }
    // What has become empty takes the rest before anything new is made.
    for slice in slices.iter_mut().filter(|slice| slice.members.is_empty()) {
        let room = frame.capacity.min(rest.len());
        slice.members.extend(rest.drain(..room));
        slice.is_changed = true;
    }
    let endpoints = |members: &[usize]| members.iter().map(|index| desired[*index].clone()).collect();
    let new = rest.chunks(frame.capacity).map(|members| (group.ports.clone(), endpoints(members))).collect();
    let mut packed = Packed { update: vec![], delete: vec![], new, unchanged: 0 };
    for slice in slices {
        if slice.members.is_empty() {
            packed.delete.push(slice.known.clone());
        } else if slice.is_changed {
            let mut update = frame.put_around(slice.known);
            update.endpoints = Some(endpoints(&slice.members));
            packed.update.push(update);
        } else {
            packed.unchanged += 1;
        }
    }
    packed
}

type EndpointKey<'a> = (&'a [String], Option<&'a str>);

/// What makes an endpoint the same one: its address and its pod.
fn endpoint_key(endpoint: &Endpoint) -> EndpointKey<'_> {
    (&endpoint.addresses, endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()))
}

fn is_placeholder(slice: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty) && slice.ports.as_ref().is_none_or(Vec::is_empty)
}
