//! What is wrong with what a container asks for, and with a change of it while it runs.

use super::qos_class;
use crate::kinds::field::invalid;
use crate::kinds::json::{list, object, text};
use crate::kinds::names;
use crate::kinds::quantity::{NOT_A_QUANTITY, Quantity, quantities};
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The `resources` of a container at `field`.
pub(super) fn errors(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut limits: HashMap<String, Quantity> = HashMap::new();
    let mut names_seen: Vec<String> = Vec::new();
    for which in ["limits", "requests"] {
        let field = format!("{field}.resources.{which}");
        for (name, value) in object(container, &format!("/resources/{which}")).into_iter().flatten() {
            let at = format!("{field}[{name}]");
            names_seen.push(name.clone());
            if !is_container_resource(name) {
                errors.push(invalid(&at, name, "must be a standard resource type or fully qualified"));
            }
            match Quantity::of(value) {
                None => errors.push(FieldError::invalid(&at, value, NOT_A_QUANTITY)),
                Some(quantity) if quantity.is_negative() => {
                    errors.push(FieldError::invalid(&at, value, "must be greater than or equal to 0"));
                }
                Some(quantity) if name.contains('/') && !quantity.is_whole() => {
                    errors.push(FieldError::invalid(&at, value, "must be an integer"));
                }
                Some(_) => {}
            }
        }
        for (name, quantity) in quantities(container, &format!("/resources/{which}")) {
            if which == "limits" {
                limits.insert(name, quantity);
                continue;
            }
            match limits.get(&name) {
                Some(limit) if !may_be_overcommitted(&name) && quantity != *limit => {
                    let detail = format!("must be equal to {name} limit of {limit}");
                    errors.push(invalid(&field, &quantity.to_string(), detail));
                }
                Some(limit) if quantity > *limit => {
                    let detail = format!("must be less than or equal to {name} limit of {limit}");
                    errors.push(invalid(&field, &quantity.to_string(), detail));
                }
                None if !may_be_overcommitted(&name) => {
                    let limits = field.replace(".requests", ".limits");
                    errors.push(FieldError::required(limits, "Limit must be set for non overcommitable resources"));
                }
                _ => {}
            }
        }
    }
    let huge = names_seen.iter().any(|name| name.starts_with("hugepages-"));
    if huge && !names_seen.iter().any(|name| matches!(name.as_str(), "cpu" | "memory")) {
        errors.push(FieldError::forbidden(format!("{field}.resources"), "HugePages require cpu or memory"));
    }
}

/// Devices and huge pages are given whole or not at all.
fn may_be_overcommitted(name: &str) -> bool {
    !name.starts_with("hugepages-") && (!name.contains('/') || name.starts_with("kubernetes.io/"))
}

fn is_container_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || name.starts_with("hugepages-")
        || (name.contains('/') && names::qualified_name(name).is_empty())
}

/// What `/resize` may not do (KEP-1287).
pub(super) fn resize(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let class = qos_class(new);
    if class != qos_class(old) {
        errors.push(invalid("spec", class, "Pod QOS Class may not change as a result of resizing"));
    }
    for group in ["containers", "initContainers"] {
        for (index, before) in list(old, &format!("/spec/{group}")).iter().enumerate() {
            let field = format!("spec.{group}[{index}].resources");
            let name = text(before, "/name");
            let Some(now) = list(new, &format!("/spec/{group}")).iter().find(|now| text(now, "/name") == name) else {
                continue;
            };
            for which in ["limits", "requests"] {
                let pointer = format!("/resources/{which}");
                let (was, is): (HashMap<_, _>, HashMap<_, _>) = (
                    quantities(before, &pointer).into_iter().collect(),
                    quantities(now, &pointer).into_iter().collect(),
                );
                let mutable = |name: &str| matches!(name, "cpu" | "memory");
                if was.keys().any(|name| mutable(name) && !is.contains_key(name)) {
                    let detail = format!("resource {which} cannot be removed");
                    errors.push(FieldError::forbidden(format!("{field}.{which}"), detail));
                }
                let others = |all: &HashMap<String, Quantity>| {
                    let mut others: Vec<_> = all.iter().filter(|(name, _)| !mutable(name)).collect();
                    others.sort_by_key(|(name, _)| (*name).clone());
                    json!(others.into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect::<Vec<_>>())
                };
                if others(&was) != others(&is) {
                    errors.push(FieldError::forbidden("spec", "only cpu and memory resources are mutable"));
                }
            }
        }
    }
}
