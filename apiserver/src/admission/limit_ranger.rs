//! What the LimitRanges of a namespace say of its pods and claims: defaults for containers, then least and most.
//!
//! Follows `plugin/pkg/admission/limitranger`. A pod's amounts are counted when it is created or
//! resized; nothing else changes them.

use super::pod_amounts::{Amounts, quantities};
use super::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::schema::quantity::Quantity;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        let is_claim = request.is_about("", "persistentvolumeclaims") && request.subresource.is_empty();
        match request.operation {
            AdmissionOperation::Create => is_claim || request.creates("", "pods"),
            AdmissionOperation::Update => is_claim || (request.is_about("", "pods") && request.subresource == "resize"),
            AdmissionOperation::Delete => false,
        }
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<Mutation, Status> {
        if !request.creates("", "pods") || !object["spec"].is_object() {
            return Ok(Mutation::Unchanged);
        }
        let ranges = ranges(request).await?;
        ranges.iter().for_each(|range| fill_in(range, object));
        Ok(if ranges.is_empty() { Mutation::Unchanged } else { Mutation::Changed })
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        let is_pod = request.is_about("", "pods");
        for range in ranges(request).await? {
            let mut errors: Vec<String> = Vec::new();
            for limit in list(&range["spec"]["limits"]) {
                match limit["type"].as_str().unwrap_or_default() {
                    "Container" if is_pod => {
                        let containers =
                            list(&object["spec"]["containers"]).chain(list(&object["spec"]["initContainers"]));
                        containers.for_each(|container| check(&Amounts::of(container), limit, &mut errors));
                    }
                    "Pod" if is_pod => check(&Amounts::of_pod(&object["spec"]), limit, &mut errors),
                    "PersistentVolumeClaim" if !is_pod => check(&Amounts::of(&object["spec"]), limit, &mut errors),
                    _ => {}
                }
            }
            let why = match errors.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(request.forbidden(&why));
        }
        Ok(())
    }
}

/// The LimitRanges of the object's namespace.
async fn ranges(request: &AdmissionRequest<'_>) -> Result<Vec<Value>, Status> {
    request.objects(&format!("/registry/limitranges/{}/", request.namespace)).await
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

/// Notes everything in which the amounts are not within one limit.
fn check(amounts: &Amounts, limit: &Value, errors: &mut Vec<String>) {
    let kind = limit["type"].as_str().unwrap_or_default();
    let both = |resource: &String| (amounts.requests.get(resource), amounts.limits.get(resource));
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
#[cfg(test)]
mod tests {
    use super::*;

    fn said(limit: Value, resources: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&Amounts::of(&json!({"resources": resources})), &limit, &mut errors);
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
}
