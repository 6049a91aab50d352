//! Merging a configuration into a live value, and pruning what nobody owns any more, both by the type.

use super::super::field_set::{FieldSet, field_element};
use super::super::types::{List, Object, Type};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Merges a configuration into a live object.
pub(super) fn merge_object(
    object: &Object,
    live: Option<&Map<String, Value>>,
    config: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = live.cloned().unwrap_or_default();
    for (key, value) in config {
        let value = match object.field(key) {
            Some(field) => merge(&field.ty, merged.get(key), value),
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

fn merge(ty: &Type, live: Option<&Value>, config: &Value) -> Value {
    if ty.is_leaf() {
        return config.clone();
    }
    match (ty, config) {
        (Type::Object { schema, .. }, Value::Object(config)) => {
            Value::Object(merge_object(schema, live.and_then(Value::as_object), config))
        }
        (Type::Map(map), Value::Object(config)) => {
            let mut merged = live.and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, value) in config {
                let value = merge(&map.element, merged.get(key), value);
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Type::List(list), Value::Array(config)) => {
            let live = live.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            Value::Array(merge_list(list, live, config))
        }
        (_, config) => config.clone(),
    }
}

/// Merges lists: elements of the configuration in its order, others where they stand among them in the live list.
fn merge_list(list: &List, live: &[Value], config: &[Value]) -> Vec<Value> {
    let path = |element: &Value| list.path_element(element).unwrap_or_else(|| element.to_string());
    let live: Vec<(String, &Value)> = live.iter().map(|element| (path(element), element)).collect();
    let config: Vec<(String, &Value)> = config.iter().map(|element| (path(element), element)).collect();
    let by_path: HashMap<&str, &Value> = live.iter().map(|(path, element)| (path.as_str(), *element)).collect();
    let wanted: HashSet<&str> = config.iter().map(|(path, _)| path.as_str()).collect();

    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut rest = live.iter().peekable();
    let mut shared = config.iter().map(|(path, _)| path.as_str()).filter(|path| by_path.contains_key(path)).peekable();
    for (path, element) in &config {
        // What only the live list has keeps its place before the next shared element; shared elements out of order move.
        while let Some((other, element)) = rest.next_if(|(other, _)| shared.peek() != Some(&other.as_str())) {
            if !wanted.contains(other.as_str()) {
                out.push((*element).clone());
            }
        }
        if shared.next_if_eq(&path.as_str()).is_some() {
            rest.next_if(|(other, _)| other == path);
        }
        out.push(merge(&list.element, by_path.get(path.as_str()).copied(), element));
    }
    out.extend(rest.filter(|(path, _)| !wanted.contains(path.as_str())).map(|(_, element)| (*element).clone()));
    out
}

/// Removes what the manager owned at `last` and nobody owns now. Named fields count as owned with anything below them; elements of
/// lists and entries of maps only by themselves.
pub(super) fn prune_object(object: &Object, map: &mut Map<String, Value>, last: &FieldSet, owned: &FieldSet) {
    prune_entries(map, last, owned, |key| object.field(key).map(|field| (&field.ty, true)));
}

fn prune_entries<'a>(
    map: &mut Map<String, Value>,
    last: &FieldSet,
    owned: &FieldSet,
    ty: impl Fn(&str) -> Option<(&'a Type, bool)>,
) {
    let nothing = FieldSet::default();
    map.retain(|key, value| {
        let element = field_element(key);
        let Some(last) = last.children.get(&element) else { return true };
        let (ty, named) = ty(key).map_or((None, false), |(ty, named)| (Some(ty), named));
        let owned = owned.children.get(&element).unwrap_or(&nothing);
        let counts = |set: &FieldSet| set.member || (named && !set.children.is_empty());
        if counts(last) && !counts(owned) {
            return false;
        }
        match ty {
            Some(ty) => prune(ty, value, last, owned),
            None => true,
        }
    });
}

/// Whether the value is worth keeping: a container that pruning emptied is not.
fn prune(ty: &Type, value: &mut Value, last: &FieldSet, owned: &FieldSet) -> bool {
    if ty.is_leaf() {
        return true;
    }
    match (ty, value) {
        (Type::Object { schema, .. }, Value::Object(map)) => {
            let full = !map.is_empty();
            prune_object(schema, map, last, owned);
            !(full && map.is_empty()) || owned.member
        }
        (Type::Map(ty), Value::Object(map)) => {
            let full = !map.is_empty();
            prune_entries(map, last, owned, |_| Some((&ty.element, false)));
            !(full && map.is_empty())
        }
        (Type::List(list), Value::Array(elements)) => {
            let full = !elements.is_empty();
            let nothing = FieldSet::default();
            elements.retain_mut(|element| {
                let Some(path) = list.path_element(element) else { return true };
                let Some(last) = last.children.get(&path) else { return true };
                let owned = owned.children.get(&path).unwrap_or(&nothing);
                if last.member && !owned.member {
                    return false;
                }
                prune(&list.element, element, last, owned);
                true
            });
            !(full && elements.is_empty())
        }
        _ => true,
    }
}
