//! LimitRange: what it fills in, and what it must not say.

use super::field::invalid;
use super::json::{child, list, list_mut, object, text};
use super::metadata;
use super::quantity::{NOT_A_QUANTITY, Quantity, canonicalize, quantities};
use crate::registry::ResourceKind;
use crate::status::FieldError;
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

#[cfg(test)]
mod tests {
    use super::super::tests::said;
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
}
