//! What the LimitRanges of a namespace say of its pods and claims: defaults for containers, then least and most.
//!
//! Follows `plugin/pkg/admission/limitranger`. A pod's amounts are counted when it is created; they do not change afterwards.

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::schema::quantity::Quantity;
use crate::status::Status;
use crate::{encode, strategy};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::Range;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status> {
        let is_pod = strategy::is_pod(request.kind);
        let is_claim = request.kind.group.is_empty() && request.kind.plural == "persistentvolumeclaims";
        let concerns = match request.operation {
            AdmissionOperation::Create => is_pod || is_claim,
            AdmissionOperation::Update => is_claim,
            AdmissionOperation::Delete => false,
        };
        if !concerns || !request.subresource.is_empty() || !object["spec"].is_object() {
            return Ok(());
        }
        let range = Range { prefix: format!("/registry/limitranges/{}/", request.namespace), ..Range::default() };
        let page = request.store.range(range).await.map_err(Status::internal)?;
        let ranges = page.items.iter().map(encode::parse).collect::<Result<Vec<_>, _>>()?;
        if is_pod {
            ranges.iter().for_each(|range| fill_in(range, object));
        }
        for range in &ranges {
            let mut errors: Vec<String> = Vec::new();
            for limit in list(&range["spec"]["limits"]) {
                match limit["type"].as_str().unwrap_or_default() {
                    "Container" if is_pod => {
                        let containers =
                            list(&object["spec"]["containers"]).chain(list(&object["spec"]["initContainers"]));
                        containers.for_each(|container| Amounts::of(container).check(limit, &mut errors));
                    }
                    "Pod" if is_pod => Amounts::of_pod(&object["spec"]).check(limit, &mut errors),
                    "PersistentVolumeClaim" if is_claim => Amounts::of(&object["spec"]).check(limit, &mut errors),
                    _ => {}
                }
            }
            let why = match errors.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(Status::forbidden("", &request.kind.plural, request.name, &why));
        }
        Ok(())
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Gives each container the defaults it has no amounts for, and says so in an annotation.
fn fill_in(range: &Value, pod: &mut Value) {
    let mut requests = json!({});
    let mut limits = json!({});
    for limit in list(&range["spec"]["limits"]).filter(|limit| limit["type"] == "Container") {
        for (all, field) in [(&mut requests, "defaultRequest"), (&mut limits, "default")] {
            for (resource, amount) in limit[field].as_object().into_iter().flatten() {
                all[resource] = amount.clone();
            }
        }
    }
    let mut said = Vec::new();
    for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][field].as_array_mut().into_iter().flatten().filter(|entry| entry.is_object()) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (part, defaults, what) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let mut set = Vec::new();
                for (resource, amount) in defaults.as_object().into_iter().flatten() {
                    if container["resources"][part][resource].is_null() {
                        container["resources"][part][resource] = amount.clone();
                        set.push(resource.as_str());
                    }
                }
                if !set.is_empty() {
                    set.sort_unstable();
                    said.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
}

type Resources = BTreeMap<String, Quantity>;

/// What is asked for.
#[derive(Debug, Default)]
struct Amounts {
    requests: Resources,
    limits: Resources,
}

fn quantities(value: &Value) -> Resources {
    let amounts = value.as_object().into_iter().flatten();
    amounts.filter_map(|(resource, amount)| Some((resource.clone(), Quantity::parse(amount.as_str()?)?))).collect()
}

impl Amounts {
    /// Of a container, or of a claim's spec.
    fn of(container: &Value) -> Self {
        let resources = &container["resources"];
        Amounts { requests: quantities(&resources["requests"]), limits: quantities(&resources["limits"]) }
    }

    /// Of all containers together, or of the init container that needs more than those.
    fn of_pod(spec: &Value) -> Self {
        let mut all = Amounts::default();
        for container in list(&spec["containers"]).map(Amounts::of) {
            for (sums, amounts) in [(&mut all.requests, container.requests), (&mut all.limits, container.limits)] {
                for (resource, amount) in amounts {
                    let sum = sums.get(&resource).map_or(amount, |known| known.plus(amount));
                    sums.insert(resource, sum);
                }
            }
        }
        for container in list(&spec["initContainers"]).map(Amounts::of) {
            for (most, amounts) in [(&mut all.requests, container.requests), (&mut all.limits, container.limits)] {
                for (resource, amount) in amounts {
                    if most.get(&resource).is_none_or(|known| known.nanos() < amount.nanos()) {
                        most.insert(resource, amount);
                    }
                }
            }
        }
        all
    }

    fn check(&self, limit: &Value, errors: &mut Vec<String>) {
        let kind = limit["type"].as_str().unwrap_or_default();
        let both = |resource: &String| (self.requests.get(resource), self.limits.get(resource));
        for (resource, least) in quantities(&limit["min"]) {
            let text = format!("minimum {resource} usage per {kind} is {}", least.canonical());
            let below = |amount: &&Quantity| amount.nanos() < least.nanos();
            match both(&resource) {
                (None, _) => errors.push(format!("{text}.  No request is specified")),
                (Some(request), asked) => {
                    if below(&request) {
                        errors.push(format!("{text}, but request is {}", request.canonical()));
                    } else if let Some(asked) = asked.filter(below) {
                        errors.push(format!("{text}, but limit is {}", asked.canonical()));
                    }
                }
            }
        }
        for (resource, most) in quantities(&limit["max"]) {
            let text = format!("maximum {resource} usage per {kind} is {}", most.canonical());
            let above = |amount: &&Quantity| amount.nanos() > most.nanos();
            match both(&resource) {
                // A claim has no limits.
                (None, _) if kind == "PersistentVolumeClaim" => {
                    errors.push(format!("{text}.  No request is specified"));
                }
                (_, None) if kind != "PersistentVolumeClaim" => errors.push(format!("{text}.  No limit is specified")),
                (request, asked) => {
                    if let Some(asked) = asked.filter(above) {
                        errors.push(format!("{text}, but limit is {}", asked.canonical()));
                    } else if let Some(request) = request.filter(above) {
                        errors.push(format!("{text}, but request is {}", request.canonical()));
                    }
                }
            }
        }
        for (resource, most) in quantities(&limit["maxLimitRequestRatio"]) {
            let text = format!("{resource} max limit to request ratio per {kind} is {}", most.canonical());
            let (request, asked) = both(&resource);
            let (Some(request), Some(asked)) =
                (request.filter(|amount| amount.nanos() > 0), asked.filter(|amount| amount.nanos() > 0))
            else {
                let what = if request.is_none_or(|amount| amount.nanos() <= 0) { "request" } else { "limit" };
                errors.push(format!("{text}, but no {what} is specified or {what} is 0"));
                continue;
            };
            let ratio = asked.nanos() as f64 / request.nanos() as f64;
            if ratio * 1e9 > most.nanos() as f64 {
                errors.push(format!("{text}, but provided ratio is {ratio:.6}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(limit: Value, resources: Value) -> Vec<String> {
        let mut errors = Vec::new();
        Amounts::of(&json!({"resources": resources})).check(&limit, &mut errors);
        errors
    }

    #[test]
    fn amounts_stay_between_least_and_most() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}});
        assert_eq!(
            said(limit.clone(), json!({"requests": {"cpu": "50m"}, "limits": {"memory": "2Gi"}})),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
            ]
        );
        assert_eq!(
            said(limit.clone(), json!({})),
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum memory usage per Container is 1Gi.  No limit is specified",
            ]
        );
        let good = json!({"requests": {"cpu": "0.1"}, "limits": {"memory": "1024Mi"}});
        assert!(said(limit, good).is_empty());
    }

    #[test]
    fn a_claim_is_measured_by_its_request() {
        let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
        assert_eq!(
            said(limit.clone(), json!({"requests": {"storage": "3Gi"}})),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
        assert!(said(limit, json!({"requests": {"storage": "2Gi"}})).is_empty());
    }

    #[test]
    fn a_limit_is_not_too_many_times_the_request() {
        let limit = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        let resources = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}});
        assert_eq!(
            said(limit.clone(), resources),
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"]
        );
        assert!(said(limit, json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})).is_empty());
    }

    #[test]
    fn a_pod_needs_what_its_containers_need_together_or_an_init_container_alone() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
        let sum = |init: &str| {
            let spec = json!({"containers": [cpu("500m"), cpu("1")], "initContainers": [cpu(init)]});
            Amounts::of_pod(&spec).requests["cpu"].canonical()
        };
        assert_eq!(sum("1"), "1500m");
        assert_eq!(sum("2"), "2");
    }
}
