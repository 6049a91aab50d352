//! LimitRange and ResourceQuota.

use super::field::invalid;
use super::json::{child, list, list_mut, object, text};
use super::metadata;
use super::quantity::{NOT_A_QUANTITY, Quantity, canonicalize, quantities};
use super::table::{age, name};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::Value;

/// Quantities in their one form; a container's default limit is the maximum, its default request the default limit, or the minimum.
pub(super) fn default_limit_range(_: &ResourceKind, range: &mut Value) {
    for limit in list_mut(range, "/spec/limits") {
        for field in ["/max", "/min", "/default", "/defaultRequest", "/maxLimitRequestRatio"] {
            canonicalize(limit, field);
        }
        if text(limit, "/type") != "Container" {
            continue;
        }
        for (to, from) in [("default", "/max"), ("defaultRequest", "/default"), ("defaultRequest", "/min")] {
            let known = object(limit, from).cloned().unwrap_or_default();
            if known.is_empty() {
                continue;
            }
            if let Some(target) = child(limit, to) {
                for (resource, quantity) in known {
                    super::json::fill(target, &resource, quantity);
                }
            }
        }
    }
}

/// ResourceQuota.
pub(super) fn default_quota(_: &ResourceKind, quota: &mut Value) {
    canonicalize(quota, "/spec/hard");
    child(quota, "status");
}

fn all_quantities(value: &Value, pointer: &str, field: &str, errors: &mut Vec<FieldError>) {
    for (resource, quantity) in object(value, pointer).into_iter().flatten() {
        let at = format!("{field}[{resource}]");
        match Quantity::of(quantity) {
            None => errors.push(FieldError::invalid(at, quantity, NOT_A_QUANTITY)),
            Some(read) if read.is_negative() => {
                errors.push(FieldError::invalid(at, quantity, "must be greater than or equal to 0"));
            }
            Some(_) => {}
        }
    }
}

/// Everything wrong with a LimitRange.
pub(super) fn limit_range(kind: &ResourceKind, range: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, range, old);
    for (index, limit) in list(range, "/spec/limits").iter().enumerate() {
        let field = format!("spec.limits[{index}]");
        for part in ["max", "min", "default", "defaultRequest"] {
            all_quantities(limit, &format!("/{part}"), &format!("{field}.{part}"), &mut errors);
        }
        let find = |part: &str, resource: &str| {
            quantities(limit, &format!("/{part}"))
                .into_iter()
                .find(|(name, _)| name == resource)
                .map(|(_, value)| value)
        };
        for (resource, least) in quantities(limit, "/min") {
            for (part, word) in [("max", "max"), ("default", "default"), ("defaultRequest", "default request")] {
                if let Some(other) = find(part, &resource).filter(|other| least > *other) {
                    let detail = format!("min value {least} is greater than {word} value {other}");
                    errors.push(invalid(format!("{field}.min[{resource}]"), &least.to_string(), detail));
                }
            }
        }
        for part in ["default", "defaultRequest"] {
            for (resource, value) in quantities(limit, &format!("/{part}")) {
                if let Some(most) = find("max", &resource).filter(|most| value > *most) {
                    let word = if part == "default" { "default" } else { "default request" };
                    let detail = format!("{word} value {value} is greater than max value {most}");
                    errors.push(invalid(format!("{field}.{part}[{resource}]"), &value.to_string(), detail));
                }
            }
        }
    }
    errors
}

/// Everything wrong with a ResourceQuota.
pub(super) fn quota(kind: &ResourceKind, quota: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, quota, old);
    all_quantities(quota, "/spec/hard", "spec.hard", &mut errors);
    if let Some(old) = old {
        super::field::immutable(&mut errors, quota, old, "/spec/scopes");
    }
    errors
}

/// NAME REQUEST LIMIT AGE.
pub(super) fn quota_row(_: &ResourceKind, quota: &Value, now: Timestamp) -> Vec<Value> {
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
    use serde_json::json;

    #[test]
    fn a_minimum_is_not_above_the_maximum() {
        let range = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": [
            {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        assert_eq!(
            said("", "LimitRange", range, None),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default request value 1",
            ]
        );
    }

    #[test]
    fn a_quota_is_shown_as_used_of_hard() {
        let quota = json!({"metadata": {"name": "q", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {
            "hard": {"pods": "10", "limits.cpu": "4", "cpu": "2"}, "used": {"pods": "3", "cpu": "500m"}}});
        assert_eq!(row_of("", "ResourceQuota", &quota), "q | cpu: 500m/2, pods: 3/10 | limits.cpu: 0/4 | 3h5m");
    }
}
