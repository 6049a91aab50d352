//! What one object counts for in a quota, by the names a quota may limit.
//!
//! Follows `pkg/quota/v1/evaluator/core` and `k8s.io/apiserver/pkg/quota/v1/generic`. Amounts of a pod are those of its spec: what a
//! resize that is under way still holds is not counted.

use super::super::claim_resize::storage_class;
use super::super::pod_amounts::{Amounts, Resources};
use crate::schema::quantity::Quantity;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// Compute resources of a container, each with what a quota calls its request and its limit.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// The old names of what is counted only.
const LEGACY_COUNTS: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// A kind of object as quotas know it: group and plural, the stored ones for a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource<'a> {
    pub(super) group: &'a str,
    pub(super) plural: &'a str,
}

pub(super) const PODS: Resource<'static> = Resource { group: "", plural: "pods" };
const SERVICES: Resource<'static> = Resource { group: "", plural: "services" };
const CLAIMS: Resource<'static> = Resource { group: "", plural: "persistentvolumeclaims" };

impl Resource<'_> {
    /// `count/deployments.apps`.
    fn count_name(&self) -> String {
        if self.group.is_empty() {
            format!("count/{}", self.plural)
        } else {
            format!("count/{}.{}", self.plural, self.group)
        }
    }

    /// Where its objects of a namespace stand in the store.
    pub(super) fn prefix(&self, namespace: &str) -> String {
        let Resource { group, plural } = self;
        if group.is_empty() {
            format!("/registry/{plural}/{namespace}/")
        } else {
            format!("/registry/{plural}.{group}/{namespace}/")
        }
    }

    /// Whether an object counts for something that an update can change.
    pub(super) fn varies(&self) -> bool {
        [PODS, SERVICES, CLAIMS].contains(self)
    }

    /// Whether a quota's name `limited` counts objects of this kind.
    pub(super) fn is_limited_by(&self, limited: &str) -> bool {
        if limited == self.count_name() {
            return true;
        }
        if *self == PODS {
            let (bare, has_prefix) = match limited.strip_prefix("requests.") {
                Some(bare) => (bare, true),
                None => (limited.strip_prefix("limits.").unwrap_or(limited), false),
            };
            return limited == "pods"
                || COMPUTE.contains(&bare)
                || (bare.starts_with("hugepages-") && !limited.starts_with("limits."))
                || (has_prefix && is_extended(bare) && !limited.contains(CLASS_SUFFIX));
        }
        if *self == SERVICES {
            return matches!(limited, "services" | "services.nodeports" | "services.loadbalancers");
        }
        if *self == CLAIMS {
            return matches!(limited, "persistentvolumeclaims" | "requests.storage")
                || limited.ends_with(&format!("{CLASS_SUFFIX}persistentvolumeclaims"))
                || limited.ends_with(&format!("{CLASS_SUFFIX}requests.storage"));
        }
        self.group.is_empty() && LEGACY_COUNTS.contains(&limited) && limited == self.plural
    }
}

/// The kinds that a quota of these names counts.
pub(super) fn counted<'a>(limited: impl IntoIterator<Item = &'a str>) -> BTreeSet<Resource<'a>> {
    let mut kinds = BTreeSet::new();
    for name in limited {
        // Nobody's events are refused.
        if name == "count/events" || name == "count/events.events.k8s.io" {
            continue;
        }
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            kinds.insert(Resource { group, plural });
        } else if LEGACY_COUNTS.contains(&name) {
            kinds.insert(Resource { group: "", plural: name });
        } else {
            kinds.extend([PODS, SERVICES, CLAIMS].into_iter().filter(|kind| kind.is_limited_by(name)));
        }
    }
    kinds
}

/// Whether a container's resource is one that no part of Kubernetes knows by itself, such as `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    match name.split_once('/') {
        None => false,
        Some((domain, _)) => {
            !name.starts_with("requests.") && domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io")
        }
    }
}

fn count(number: usize) -> Quantity {
    Quantity::parse(&number.to_string()).expect("a number is a quantity")
}

/// What an object counts for.
pub(super) fn of(resource: Resource<'_>, object: &Value) -> Resources {
    let mut usage = BTreeMap::from([(resource.count_name(), count(1))]);
    if resource == PODS {
        of_pod(object, &mut usage);
    } else if resource == SERVICES {
        of_service(object, &mut usage);
    } else if resource == CLAIMS {
        of_claim(object, &mut usage);
    } else if resource.group.is_empty() && LEGACY_COUNTS.contains(&resource.plural) {
        usage.insert(resource.plural.to_owned(), count(1));
    }
    usage
}

/// A pod that has ended counts as an object, but holds nothing any more.
fn of_pod(pod: &Value, usage: &mut Resources) {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return;
    }
    usage.insert("pods".to_owned(), count(1));
    usage.extend(names_of(&Amounts::of_pod_with_overhead(&pod["spec"])));
}

/// What quotas call the amounts of a container or a pod.
fn names_of(amounts: &Amounts) -> Resources {
    let mut names = BTreeMap::new();
    for (resource, amount) in &amounts.requests {
        let plain = COMPUTE.contains(&resource.as_str()) || resource.starts_with("hugepages-");
        if plain {
            names.insert(resource.clone(), *amount);
        }
        if plain || is_extended(resource) {
            names.insert(format!("requests.{resource}"), *amount);
        }
    }
    for (resource, amount) in &amounts.limits {
        if COMPUTE.contains(&resource.as_str()) {
            names.insert(format!("limits.{resource}"), *amount);
        }
    }
    names
}

/// The limited names for which each container has to say an amount, with the containers that do not, as text; empty if all do.
///
/// As upstream, only CPU and memory are asked for, and nothing of a pod that says amounts as a whole (KEP-2837).
pub(super) fn unsaid(pod: &Value, limited: &[&str]) -> String {
    const ASKED_FOR: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let of_whole = Amounts::of(&pod["spec"]);
    if !of_whole.requests.is_empty() || !of_whole.limits.is_empty() {
        return String::new();
    }
    let containers = ["containers", "initContainers"].map(|field| pod["spec"][field].as_array().into_iter().flatten());
    let containers: Vec<(&str, Resources)> = containers
        .into_iter()
        .flatten()
        .map(|container| (container["name"].as_str().unwrap_or_default(), names_of(&Amounts::of(container))))
        .collect();
    let mut missing = Vec::new();
    for name in ASKED_FOR.into_iter().filter(|name| limited.contains(name)) {
        let silent: BTreeSet<&str> =
            containers.iter().filter(|(_, said)| !said.contains_key(name)).map(|(container, _)| *container).collect();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.into_iter().collect::<Vec<_>>().join(",")));
        }
    }
    missing.join("; ")
}

fn of_service(service: &Value, usage: &mut Resources) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let given = ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port != 0)).count();
    let (load_balancers, node_ports) = match spec["type"].as_str() {
        Some("NodePort") => (0, ports.len()),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (1, given),
        Some("LoadBalancer") => (1, ports.len()),
        _ => (0, 0),
    };
    usage.insert("services".to_owned(), count(1));
    usage.insert("services.loadbalancers".to_owned(), count(load_balancers));
    usage.insert("services.nodeports".to_owned(), count(node_ports));
}

fn of_claim(claim: &Value, usage: &mut Resources) {
    usage.insert("persistentvolumeclaims".to_owned(), count(1));
    let class = storage_class(claim);
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), count(1));
    }
    let amount = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str).and_then(Quantity::parse);
    let asked = amount("/spec/resources/requests/storage");
    let given = amount("/status/allocatedResources/storage");
    // A volume that could not grow as far as it was asked to keeps what it got.
    let most = [asked, given].into_iter().flatten().max_by_key(Quantity::nanos);
    if let Some(most) = most {
        usage.insert("requests.storage".to_owned(), most);
        if !class.is_empty() {
            usage.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), most);
        }
    }
}
