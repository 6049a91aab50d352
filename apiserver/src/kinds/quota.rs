//! ResourceQuota: its defaults, rules and columns. What it counts, and whom it refuses, is admission's.

use super::field::{IMMUTABLE, complaints, invalid};
use super::json::{child, list, object, text, texts};
use super::metadata;
use super::names::qualified_name;
use super::quantity::{NOT_A_QUANTITY, Quantity, canonicalize, quantities};
use super::table::{age, name};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is counted in whole numbers.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const AMOUNTS: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];
/// What quotas that are about some pods only can limit.
const OF_PODS: [&str; 7] = ["cpu", "limits.cpu", "limits.memory", "memory", "pods", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const UNSUPPORTED_FOR_RESOURCE: &str = "unsupported scope applied to resource";

/// Quantities in their one form.
pub(super) fn default(_: &ResourceKind, quota: &mut Value) {
    canonicalize(quota, "/spec/hard");
    child(quota, "status");
}

/// Everything wrong with a ResourceQuota.
pub(super) fn errors(kind: &ResourceKind, quota: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, quota, old);
    for (resource, quantity) in object(quota, "/spec/hard").into_iter().flatten() {
        let field = format!("spec.hard[{resource}]");
        errors.extend(complaints(&field, resource, qualified_name(resource)));
        if !resource.contains('/') && !is_standard(resource) {
            errors.push(invalid(&field, resource, "must be a standard resource for quota"));
        }
        match Quantity::of(quantity) {
            None => errors.push(FieldError::invalid(field, quantity, NOT_A_QUANTITY)),
            Some(read) if read.is_negative() => {
                errors.push(FieldError::invalid(field, quantity, "must be greater than or equal to 0"));
            }
            Some(read) if is_counted(resource) && !read.is_whole() => {
                errors.push(FieldError::invalid(field, quantity, "must be an integer"));
            }
            Some(_) => {}
        }
    }
    scopes(quota, &mut errors);
    selector(quota, &mut errors);
    if let Some(old) = old {
        let of = |quota| texts(quota, "/spec/scopes").into_iter().collect::<BTreeSet<_>>();
        if of(quota) != of(old) {
            errors.push(FieldError::invalid("spec.scopes", &json!(texts(quota, "/spec/scopes")), IMMUTABLE));
        }
    }
    errors
}

fn is_standard(resource: &str) -> bool {
    let hugepages = resource.strip_prefix("requests.").unwrap_or(resource).starts_with("hugepages-");
    COUNTS.contains(&resource) || AMOUNTS.contains(&resource) || hugepages
}

/// `count/…` and extended resources are counted in whole numbers too.
fn is_counted(resource: &str) -> bool {
    let foreign = resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.");
    COUNTS.contains(&resource) || foreign
}

/// Whether a quota of this scope can limit the resource. Names of others' making are not judged.
fn goes_with(scope: &str, resource: &str) -> bool {
    match scope {
        _ if !is_standard(resource) => true,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => OF_PODS.contains(&resource),
        _ => true,
    }
}

fn limited(quota: &Value) -> impl Iterator<Item = &str> {
    object(quota, "/spec/hard").into_iter().flatten().map(|(resource, _)| resource.as_str())
}

fn scopes(quota: &Value, errors: &mut Vec<FieldError>) {
    let scopes = texts(quota, "/spec/scopes");
    let mut complain = |detail: &str| errors.push(FieldError::invalid("spec.scopes", &json!(scopes), detail));
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            complain("unsupported scope");
        }
        limited(quota).filter(|resource| !goes_with(scope, resource)).for_each(|_| complain(UNSUPPORTED_FOR_RESOURCE));
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            complain("conflicting scopes");
        }
    }
}

fn selector(quota: &Value, errors: &mut Vec<FieldError>) {
    let field = "spec.scopeSelector.matchExpressions";
    for expression in list(quota, "/spec/scopeSelector/matchExpressions") {
        let (scope, operator) = (text(expression, "/scopeName"), text(expression, "/operator"));
        if !SCOPES.contains(&scope) {
            errors.push(invalid(format!("{field}.scopeName"), scope, "unsupported scope"));
        }
        for _ in limited(quota).filter(|resource| !goes_with(scope, resource)) {
            let selector = quota.pointer("/spec/scopeSelector").unwrap_or(&Value::Null);
            errors.push(FieldError::invalid(field, selector, UNSUPPORTED_FOR_RESOURCE));
        }
        if SCOPES.contains(&scope)
            && !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && operator != "Exists"
        {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(invalid(format!("{field}.operator"), operator, detail));
        }
        let values = list(expression, "/values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(format!("{field}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{field}.values"), &json!(values), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(invalid(format!("{field}.operator"), operator, "not a valid selector operator")),
        }
    }
}

/// NAME REQUEST LIMIT AGE.
pub(super) fn row(_: &ResourceKind, quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard = quantities(quota, "/status/hard");
    hard.sort_by(|one, other| one.0.cmp(&other.0));
    let used = quantities(quota, "/status/used");
    for (resource, most) in hard {
        let used = used.iter().find(|(name, _)| *name == resource).map_or(Quantity::ZERO, |(_, used)| *used);
        let shown = format!("{resource}: {used}/{most}");
        if resource.starts_with("limits") { limits.push(shown) } else { requests.push(shown) }
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use serde_json::{Value, json};

    fn quota(spec: Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "default"}, "spec": spec})
    }

    #[test]
    fn a_quota_is_shown_as_used_of_hard() {
        let quota = json!({"metadata": {"name": "q", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {
            "hard": {"pods": "10", "limits.cpu": "4", "cpu": "2"}, "used": {"pods": "3", "cpu": "500m"}}});
        assert_eq!(row_of("", "ResourceQuota", &quota), "q | cpu: 500m/2, pods: 3/10 | limits.cpu: 0/4 | 3h5m");
    }

    #[test]
    fn a_quota_limits_what_can_be_counted() {
        let good = json!({"hard": {"pods": "1", "requests.hugepages-2Mi": "4Mi", "count/widgets.example.com": "3",
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "requests.example.com/gpu": "2"}});
        assert_eq!(said("", "ResourceQuota", quota(good), None), Vec::<String>::new());
        let bad = json!({"hard": {"bananas": "1", "count/pods": "500m", "cpu": "-1", "pods": "1500m"}});
        assert_eq!(
            said("", "ResourceQuota", quota(bad), None),
            [
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
                "spec.hard[count/pods]: Invalid value: \"500m\": must be an integer",
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ]
        );
    }

    #[test]
    fn scopes_are_known_go_together_and_with_what_is_limited_and_stay() {
        let bad = json!({"hard": {"cpu": "1", "services": "1"}, "scopes": ["BestEffort", "NotBestEffort", "Odd"]});
        let scopes = r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]"#;
        let resource = format!("{scopes}: unsupported scope applied to resource");
        assert_eq!(
            said("", "ResourceQuota", quota(bad), None),
            [
                resource.clone(),
                resource.clone(),
                resource,
                format!("{scopes}: unsupported scope"),
                format!("{scopes}: conflicting scopes"),
            ]
        );
        let old = quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotTerminating"]}));
        let same = quota(json!({"hard": {"pods": "2"}, "scopes": ["NotTerminating", "BestEffort"]}));
        assert_eq!(said("", "ResourceQuota", same, Some(old.clone())), Vec::<String>::new());
        let other = quota(json!({"hard": {"pods": "2"}, "scopes": ["BestEffort"]}));
        assert_eq!(
            said("", "ResourceQuota", other, Some(old)),
            [r#"spec.scopes: Invalid value: ["BestEffort"]: field is immutable"#]
        );
    }

    #[test]
    fn a_scope_selector_has_the_values_its_operator_needs() {
        let with = |expression: Value| {
            let spec = json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}});
            said("", "ResourceQuota", quota(spec), None).join("\n")
        };
        let field = "spec.scopeSelector.matchExpressions";
        assert_eq!(with(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]})), "");
        assert_eq!(
            with(json!({"scopeName": "PriorityClass", "operator": "NotIn"})),
            format!(
                "{field}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            )
        );
        assert_eq!(
            with(json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]})),
            format!(
                "{field}.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            )
        );
        assert!(
            with(json!({"scopeName": "Terminating", "operator": "DoesNotExist"}))
                .contains("must be 'Exist' when scope is any of")
        );
        assert_eq!(
            with(json!({"scopeName": "Odd", "operator": "Like"})),
            format!(
                "{field}.scopeName: Invalid value: \"Odd\": unsupported scope\n{field}.operator: Invalid value: \"Like\": not a valid selector operator"
            )
        );
    }
}
