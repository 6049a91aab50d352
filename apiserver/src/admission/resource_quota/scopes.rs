//! Which objects a quota is about: its scopes and its scope selector.
//!
//! Follows `podMatchesScopeFunc` and `pvcMatchesScopeFunc`. Kinds without scopes are about no quota that has some.

use super::usage::{PODS, Resource};
use crate::kinds::pod::qos_class;
use serde_json::Value;

/// Whether a quota with this spec counts the object.
pub(super) fn matches(spec: &Value, resource: Resource<'_>, object: &Value) -> bool {
    let scopes = spec["scopes"].as_array().into_iter().flatten();
    let expressions = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    scopes
        .filter_map(Value::as_str)
        .map(|scope| (scope, "Exists", &Value::Null))
        .chain(expressions.map(|expression| {
            let text = |field: &str| expression[field].as_str().unwrap_or_default();
            (text("scopeName"), text("operator"), &expression["values"])
        }))
        .all(|(scope, operator, values)| matches_one(scope, operator, values, resource, object))
}

fn matches_one(scope: &str, operator: &str, values: &Value, resource: Resource<'_>, object: &Value) -> bool {
    let spec = &object["spec"];
    if resource != PODS {
        let of_claim = scope == "VolumeAttributesClass" && resource.plural == "persistentvolumeclaims";
        return of_claim && resource.group.is_empty() && selects(operator, values, &spec["volumeAttributesClassName"]);
    }
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos_class(object) == "BestEffort",
        "NotBestEffort" => qos_class(object) != "BestEffort",
        "PriorityClass" => selects(operator, values, &spec["priorityClassName"]),
        "CrossNamespacePodAffinity" => looks_into_other_namespaces(spec),
        _ => false,
    }
}

/// A scope selector over one value, which may be unset.
fn selects(operator: &str, values: &Value, value: &Value) -> bool {
    let value = value.as_str().filter(|value| !value.is_empty());
    let listed = value.is_some_and(|value| values.as_array().into_iter().flatten().any(|listed| listed == value));
    match operator {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

fn looks_into_other_namespaces(spec: &Value) -> bool {
    let affinity = &spec["affinity"];
    let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
        let of = |field: &str| affinity[kind][field].as_array().into_iter().flatten();
        let preferred = of("preferredDuringSchedulingIgnoredDuringExecution").map(|term| &term["podAffinityTerm"]);
        of("requiredDuringSchedulingIgnoredDuringExecution").chain(preferred).collect::<Vec<_>>()
    });
    let mut terms = terms;
    terms.any(|term| {
        !term["namespaceSelector"].is_null() || term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
    })
}
