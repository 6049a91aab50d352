//! Server-side apply: the wish of one applier, merged into an object that has other owners.
//!
//! The configuration is merged into the live object by the rules of its type; fields that its applier no longer mentions and nobody else
//! owns are pruned; fields that somebody else owns and that would change are conflicts, unless the applier forces them.
//! The generic handler calls [`apply`] for `application/apply-patch+yaml`, and stores what comes back after defaulting and
//! validation.
//!
//! Follows KEP-555; differs in that sets of other API versions of the same kind are compared path by path, without conversion.

use super::check::check;
use super::decode::MAX_DEPTH;
use super::field_set::{FieldSet, difference, field_element, fields_of};
use super::managed_fields::{self, Manager, Operation, text};
use super::time;
use super::types::{List, ListKind, Object, ObjectRef, Type};
use crate::status::{FieldError, Status};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// The request names no `fieldManager`.
    #[error("fieldManager: Required value: is required for apply patch")]
    NoFieldManager,
    /// The configuration is not an object, or a scalar in it is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The configuration has managed fields of its own.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The configuration is of another API version than the request.
    #[error("Incorrect version specified in apply patch. Specified patch version: {given}, expected: {expected}")]
    Version {
        /// What the configuration says.
        given: String,
        /// What the path says.
        expected: String,
    },
    /// The configuration does not fit the type.
    #[error("failed to create typed patch object ({object}): {problems}")]
    Typed {
        /// `namespace/name; apiVersion, Kind=Kind`.
        object: String,
        /// `.spec.bogus: field not declared in schema`.
        problems: String,
    },
    /// Somebody else owns fields that would change.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

/// A field that would change and has another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"m1"`, or `"u1" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`.
    pub path: String,
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut message = format!("Apply failed with {} conflicts: ", conflicts.len());
    let mut manager = "";
    for conflict in conflicts {
        if conflict.manager != manager {
            let newline = if manager.is_empty() { "" } else { "\n" };
            manager = &conflict.manager;
            message.push_str(&format!("{newline}conflicts with {manager}:"));
        }
        message.push_str(&format!("\n- {}", conflict.path));
    }
    message
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Status {
        let message = error.to_string();
        match error {
            ApplyError::NoFieldManager => {
                let required = FieldError::required("fieldManager", "is required for apply patch");
                Status::invalid("meta.k8s.io", "PatchOptions", "", &[required])
            }
            ApplyError::Malformed(_) | ApplyError::ManagedFields | ApplyError::Version { .. } => {
                Status::bad_request(message)
            }
            ApplyError::Typed { .. } => Status::failure(500, "", message),
            ApplyError::Conflicts(conflicts) => {
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|conflict| {
                        let message = format!("conflict with {}", conflict.manager);
                        json!({"reason": "FieldManagerConflict", "message": message, "field": conflict.path})
                    })
                    .collect();
                let mut status = Status::failure(409, "Conflict", message);
                status.details = Some(json!({"causes": causes}));
                status
            }
        }
    }
}

/// Applies `config` to `live` (`None`: the object does not exist yet) in the name of `manager`.
///
/// What comes back has its managed fields and is to be defaulted, validated and stored. If nothing has changed it equals
/// `live`. `kubectl` may take over what its client-side apply noted in the last-applied annotation, as upstream.
///
/// # Errors
/// [`ApplyError`], which turns into the right [`Status`].
pub fn apply(
    object: &ObjectRef,
    live: Option<&Value>,
    config: &Value,
    manager: &Manager<'_>,
    force: bool,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    let config = checked_config(object, config, manager)?;
    let mut before = live.cloned().unwrap_or_else(|| json!({}));
    let mut entries = managed_fields::take(&mut before).unwrap_or_default();
    if live.is_some() && entries.is_empty() {
        let owned = difference(object, None, &before).changed;
        if !owned.is_empty() {
            let first = Manager { name: BEFORE_FIRST_APPLY, api_version: manager.api_version, subresource: "" };
            entries.push(first.entry(Operation::Update, owned.to_json(), &time::seconds(now)));
        }
    }
    let set = fields_of(object, &config);
    let own = manager.position(&entries, Operation::Apply);
    let last = own.map(|own| FieldSet::from_json(&entries[own]["fieldsV1"])).unwrap_or_default();

    let mut after = merge_object(object, before.as_object(), &config);
    if !last.is_empty() {
        let mut owned = set.clone();
        for (index, entry) in entries.iter().enumerate() {
            if Some(index) != own {
                owned.extend(&FieldSet::from_json(&entry["fieldsV1"]));
            }
        }
        prune_object(object, &mut after, &last, &owned);
    }
    let after = Value::Object(after);
    let difference = difference(object, live.map(|_| &before), &after);

    if !force {
        refuse_conflicts(object, &before, &entries, own, &difference.changed, manager)?;
    }
    let unchanged = live.is_some() && after == before && set == last;
    let entry_time = if unchanged { text(&entries[own.unwrap_or(0)], "time").to_owned() } else { time::seconds(now) };
    let mut index = 0;
    entries.retain_mut(|entry| {
        index += 1;
        let Value::Object(map) = entry else { return false };
        if Some(index - 1) == own {
            return false;
        }
        let fields = map.get("fieldsV1").unwrap_or(&Value::Null);
        if difference.changed.meets(fields) || difference.removed.meets(fields) {
            let mut set = FieldSet::from_json(fields);
            set.subtract(&difference.changed);
            set.subtract(&difference.removed);
            map.insert("fieldsV1".to_owned(), set.to_json());
            return !set.is_empty();
        }
        true
    });
    if !set.is_empty() {
        entries.push(manager.entry(Operation::Apply, set.to_json(), &entry_time));
    }
    managed_fields::sort(&mut entries);
    let mut after = after;
    managed_fields::put(&mut after, entries);
    Ok(after)
}

/// The configuration in canonical form, if it fits the type.
fn checked_config(object: &ObjectRef, config: &Value, manager: &Manager<'_>) -> Result<Map<String, Value>, ApplyError> {
    if manager.name.is_empty() {
        return Err(ApplyError::NoFieldManager);
    }
    let Value::Object(map) = config else {
        return Err(ApplyError::Malformed("error decoding patch: an apply configuration must be an object".to_owned()));
    };
    let given = map.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    if given != manager.api_version {
        let (given, expected) = (given.to_owned(), manager.api_version.to_owned());
        return Err(ApplyError::Version { given, expected });
    }
    let empty = |fields: &Value| fields.is_null() || fields.as_array().is_some_and(Vec::is_empty);
    let metadata = map.get("metadata");
    if metadata.and_then(|metadata| metadata.get("managedFields")).is_some_and(|fields| !empty(fields)) {
        return Err(ApplyError::ManagedFields);
    }
    let mut problems = Vec::new();
    typed_object(object, map, &mut String::new(), &mut problems);
    if !problems.is_empty() {
        let named = |key| metadata.map(|metadata| text(metadata, key)).unwrap_or("");
        let kind = map.get("kind").and_then(Value::as_str).unwrap_or("");
        let problems = match problems.as_slice() {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        let object = format!("{}/{}; {given}, Kind={kind}", named("namespace"), named("name"));
        return Err(ApplyError::Typed { object, problems });
    }
    let mut config = config.clone();
    if let Some(error) = check(object, &mut config).error {
        return Err(ApplyError::Malformed(error));
    }
    match config {
        Value::Object(map) => Ok(map),
        _ => Err(ApplyError::Malformed("an apply configuration must be an object".to_owned())),
    }
}

fn refuse_conflicts(
    object: &ObjectRef,
    live: &Value,
    entries: &[Value],
    own: Option<usize>,
    changed: &FieldSet,
    manager: &Manager<'_>,
) -> Result<(), ApplyError> {
    let mut conflicts = Vec::new();
    let mut allowed: Option<FieldSet> = None;
    for (index, entry) in entries.iter().enumerate() {
        if Some(index) == own || !changed.meets(&entry["fieldsV1"]) {
            continue;
        }
        let mut both = changed.intersection(&FieldSet::from_json(&entry["fieldsV1"]));
        if manager.name == "kubectl" {
            both.subtract(allowed.get_or_insert_with(|| last_applied(object, live)));
        }
        let name = printed(entry);
        conflicts.extend(both.paths().into_iter().map(|path| Conflict { manager: name.clone(), path }));
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    Err(ApplyError::Conflicts(conflicts))
}

fn printed(entry: &Value) -> String {
    let mut out = format!("{:?}", text(entry, "manager"));
    if !text(entry, "subresource").is_empty() {
        out.push_str(&format!(" with subresource {:?}", text(entry, "subresource")));
    }
    if text(entry, "operation") == Operation::Update.name() {
        out.push_str(&format!(" using {}", text(entry, "apiVersion")));
    }
    out
}

/// What client-side apply set last, which `kubectl apply --server-side` may take over.
fn last_applied(object: &ObjectRef, live: &Value) -> FieldSet {
    let annotation = live.pointer("/metadata/annotations").and_then(|annotations| annotations.get(LAST_APPLIED));
    let parsed =
        annotation.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    parsed.map(|config| fields_of(object, &config)).unwrap_or_default()
}

// What does not fit the type.

fn typed_object(object: &Object, map: &Map<String, Value>, path: &mut String, problems: &mut Vec<String>) {
    for (key, value) in map {
        let length = path.len();
        path.push('.');
        path.push_str(key);
        match object.field(key) {
            Some(field) => typed(&field.ty, value, path, problems),
            None if object.open => {}
            None => problems.push(format!("{path}: field not declared in schema")),
        }
        path.truncate(length);
    }
}

fn typed(ty: &Type, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    // Deeper than any decoder goes, or than anybody wants to read.
    if value.is_null() || problems.len() > 100 || path.len() > 100 * MAX_DEPTH {
        return;
    }
    let mut expect = |fits: bool, what: &str| {
        if !fits {
            problems.push(format!("{path}: expected {what}, got {}", go_kind(value)));
        }
    };
    match ty {
        Type::Object { schema, .. } => match value {
            Value::Object(map) => typed_object(schema, map, path, problems),
            _ => expect(false, "map"),
        },
        Type::Map(map) => match value {
            Value::Object(entries) => {
                for (key, entry) in entries {
                    let length = path.len();
                    path.push('.');
                    path.push_str(key);
                    typed(&map.element, entry, path, problems);
                    path.truncate(length);
                }
            }
            _ => expect(false, "map"),
        },
        Type::List(list) => match value {
            Value::Array(elements) => typed_list(list, elements, path, problems),
            _ => expect(false, "list"),
        },
        Type::String => expect(value.is_string(), "string"),
        Type::Bool => expect(value.is_boolean(), "boolean"),
        Type::Int32 | Type::Int64 | Type::Double => expect(value.is_number(), "numeric (int or float)"),
        _ => {}
    }
}

fn typed_list(list: &List, elements: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, element) in elements.iter().enumerate() {
        if list.kind != ListKind::Atomic {
            match list.path_element(element) {
                None => {
                    let ListKind::Map(keys) = &list.kind else { continue };
                    let key = keys.first().map(AsRef::as_ref).unwrap_or("");
                    problems.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} \
                         (and doesn't have default value)"
                    ));
                    continue;
                }
                Some(element) if !seen.insert(element.clone()) => {
                    let set = FieldSet { member: false, children: [(element, FieldSet::here())].into() };
                    problems.push(format!("{path}: duplicate entries for key {}", set.paths().concat()));
                    continue;
                }
                Some(_) => {}
            }
        }
        let length = path.len();
        path.push_str(&format!("[{index}]"));
        typed(&list.element, element, path, problems);
        path.truncate(length);
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

// Merging.

fn merge_object(object: &Object, live: Option<&Map<String, Value>>, config: &Map<String, Value>) -> Map<String, Value> {
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

// Pruning.

/// Removes what the manager owned at `last` and nobody owns now. Named fields count as owned with anything below them; elements of
/// lists and entries of maps only by themselves.
fn prune_object(object: &Object, map: &mut Map<String, Value>, last: &FieldSet, owned: &FieldSet) {
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

#[cfg(test)]
mod tests {
    use super::super::managed_fields::{managed, track_update};
    use super::super::table::builtin;
    use super::*;
    use proptest::prelude::*;

    fn deployment() -> ObjectRef {
        builtin().kind("apps", "v1", "Deployment").expect("a built-in kind")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).expect("a time")
    }

    fn by(name: &str) -> Manager<'_> {
        Manager { name, api_version: "apps/v1", subresource: "" }
    }

    fn config(metadata: Value, spec: Value) -> Value {
        let mut metadata = metadata;
        metadata["name"] = "ssa1".into();
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    }

    fn pod_spec(container: Value) -> Value {
        json!({"selector": {"matchLabels": {"app": "x"}},
               "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}})
    }

    fn with(mut spec: Value, key: &str, value: Value) -> Value {
        spec[key] = value;
        spec
    }

    /// What defaulting adds after an apply; nobody owns it.
    fn defaulted(mut value: Value) -> Value {
        value["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}});
        value["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        value["status"] = json!({});
        value
    }

    fn owned(value: &Value, name: &str) -> Option<Value> {
        managed(value).iter().find(|entry| text(entry, "manager") == name).map(|entry| entry["fieldsV1"].clone())
    }

    fn first() -> Value {
        let container = json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]});
        let spec = with(pod_spec(container), "replicas", json!(0));
        let applied = apply(&deployment(), None, &config(json!({"labels": {"a": "1"}}), spec), &by("m1"), false, at(0));
        defaulted(applied.expect("nobody else is there"))
    }

    #[test]
    fn the_first_applier_owns_its_configuration() {
        let created = first();
        let entry = &managed(&created)[0];
        assert_eq!(entry["operation"], "Apply");
        assert_eq!(
            entry["fieldsV1"],
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": {"f:labels": {"f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                            ".": {},
                            "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
                        }}}
                    }
                }
            })
        );
    }

    #[test]
    fn another_appliers_field_is_a_conflict_unless_it_stays_as_it_is() {
        let live = first();
        let wish = config(json!({}), json!({"replicas": 3}));
        let error = apply(&deployment(), Some(&live), &wish, &by("m2"), false, at(1)).expect_err("m1 owns it");
        let status = Status::from(error);
        assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"m1\": .spec.replicas");
        assert_eq!((status.code, status.reason), (409, "Conflict"));
        assert_eq!(
            status.details,
            Some(
                json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"m1\"", "field": ".spec.replicas"}]})
            )
        );
        let same = config(json!({}), json!({"replicas": 0}));
        let shared = apply(&deployment(), Some(&live), &same, &by("m2"), false, at(1)).expect("no change, no conflict");
        assert_eq!(owned(&shared, "m2"), Some(json!({"f:spec": {"f:replicas": {}}})));
        assert_eq!(owned(&shared, "m1"), owned(&live, "m1"));
    }

    #[test]
    fn force_takes_the_field_over() {
        let live = first();
        let wish = config(json!({}), json!({"replicas": 3}));
        let taken = apply(&deployment(), Some(&live), &wish, &by("m2"), true, at(1)).expect("forced");
        assert_eq!(taken["spec"]["replicas"], 3);
        assert_eq!(owned(&taken, "m2"), Some(json!({"f:spec": {"f:replicas": {}}})));
        let mut expected = owned(&live, "m1").expect("m1");
        expected["f:spec"].as_object_mut().expect("an object").remove("f:replicas");
        assert_eq!(owned(&taken, "m1"), Some(expected));
    }

    #[test]
    fn what_the_applier_no_longer_mentions_and_nobody_owns_is_pruned() {
        let live = first();
        let wish = config(json!({}), json!({"replicas": 3}));
        let shared = apply(&deployment(), Some(&live), &wish, &by("m2"), true, at(1)).expect("forced");
        let less = config(json!({}), pod_spec(json!({"name": "c", "image": "i:1"})));
        let pruned = apply(&deployment(), Some(&shared), &less, &by("m1"), false, at(2)).expect("only less");
        assert!(pruned["metadata"].get("labels").is_none());
        assert_eq!(pruned["spec"]["replicas"], 3);
        assert_eq!(pruned["spec"]["template"]["spec"]["containers"], json!([{"name": "c", "image": "i:1"}]));
        assert_eq!(pruned["spec"]["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(pruned["spec"]["strategy"]["type"], "RollingUpdate");
        assert_eq!(
            owned(&pruned, "m1").expect("m1")["f:spec"]["f:template"]["f:spec"]["f:containers"],
            json!({"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}})
        );
    }

    #[test]
    fn an_ordinary_write_takes_fields_from_appliers_and_is_named_with_its_version() {
        let live = first();
        let mut changed = live.clone();
        changed["spec"]["replicas"] = json!(5);
        changed["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        track_update(&deployment(), Some(&live), &mut changed, &by("u1"), at(1));
        assert_eq!(
            owned(&changed, "u1"),
            Some(json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:nodeSelector": {}}}}}))
        );
        let mut spec = with(pod_spec(json!({"name": "c", "image": "i:1"})), "replicas", json!(1));
        spec["template"]["spec"]["nodeSelector"] = json!({"c": "d"});
        let error = apply(&deployment(), Some(&changed), &config(json!({}), spec), &by("m1"), false, at(2))
            .expect_err("u1 owns");
        assert_eq!(
            error.to_string(),
            "Apply failed with 2 conflicts: conflicts with \"u1\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.nodeSelector"
        );
    }

    #[test]
    fn an_object_from_before_the_first_apply_belongs_to_a_manager_of_that_name() {
        let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1"}},
                          "spec": {"replicas": 1}});
        let error =
            apply(&deployment(), Some(&live), &config(json!({}), json!({"replicas": 2})), &by("m"), false, at(0));
        assert_eq!(
            error.expect_err("somebody owns it").to_string(),
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
        );
    }

    #[test]
    fn kubectl_takes_over_what_its_client_side_apply_set() {
        let last = config(json!({}), json!({"replicas": 1})).to_string();
        let mut live = config(json!({"annotations": {LAST_APPLIED: last}}), json!({"replicas": 1, "paused": true}));
        track_update(&deployment(), None, &mut live, &by("kubectl-client-side-apply"), at(0));
        let wish = config(json!({}), json!({"replicas": 2}));
        assert!(apply(&deployment(), Some(&live), &wish, &by("other"), false, at(1)).is_err());
        let taken = apply(&deployment(), Some(&live), &wish, &by("kubectl"), false, at(1)).expect("its own");
        assert_eq!(taken["spec"]["replicas"], 2);
        let more = config(json!({}), json!({"replicas": 2, "paused": false}));
        assert!(apply(&deployment(), Some(&live), &more, &by("kubectl"), false, at(1)).is_err());
    }

    #[test]
    fn a_configuration_that_is_not_one_is_refused_as_upstream_does() {
        let refused = |config: Value, manager: &str| {
            let status =
                Status::from(apply(&deployment(), None, &config, &by(manager), false, at(0)).expect_err("refused"));
            (status.code, status.message)
        };
        let good = config(json!({}), json!({}));
        assert_eq!(
            refused(good.clone(), ""),
            (
                422,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
                    .to_owned()
            )
        );
        let mut managed = good.clone();
        managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
        assert_eq!(refused(managed, "m"), (400, "metadata.managedFields must be nil".to_owned()));
        let mut other = good.clone();
        other["apiVersion"] = "apps/v1beta1".into();
        assert_eq!(refused(other, "m").0, 400);
        let typed = "failed to create typed patch object (/ssa1; apps/v1, Kind=Deployment): ";
        for (spec, problem) in [
            (json!({"bogus": 1}), ".spec.bogus: field not declared in schema"),
            (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
            (
                json!({"bogus": 1, "paused": 1}),
                "errors:\n  .spec.bogus: field not declared in schema\n  .spec.paused: expected boolean, got int64",
            ),
            (
                pod_spec(json!({"image": "i"})),
                ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" \
                 (and doesn't have default value)",
            ),
        ] {
            assert_eq!(refused(config(json!({}), spec), "m"), (500, format!("{typed}{problem}")));
        }
        assert_eq!(refused(json!([]), "m").0, 400);
        let twice = json!({"template": {"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}});
        let (_, message) = refused(config(json!({}), twice), "m");
        assert_eq!(message, format!("{typed}.spec.template.spec.containers: duplicate entries for key [name=\"c\"]"));
    }

    #[test]
    fn set_lists_are_united_and_elements_go_with_their_applier() {
        let finalizers = |list: Value| config(json!({"finalizers": list}), json!({}));
        let one = apply(&deployment(), None, &finalizers(json!(["a/1"])), &by("m1"), false, at(0)).expect("new");
        let two =
            apply(&deployment(), Some(&one), &finalizers(json!(["a/2"])), &by("m2"), false, at(1)).expect("another");
        assert_eq!(two["metadata"]["finalizers"], json!(["a/1", "a/2"]));
        let gone = apply(&deployment(), Some(&two), &finalizers(json!([])), &by("m1"), false, at(2)).expect("less");
        assert_eq!(gone["metadata"]["finalizers"], json!(["a/2"]));
        assert_eq!(owned(&gone, "m1"), Some(json!({"f:spec": {}})));
    }

    #[test]
    fn new_elements_keep_their_place_among_those_of_others() {
        let list = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            config(json!({}), json!({"template": {"spec": {"containers": containers}}}))
        };
        let names = |value: &Value| {
            let containers = value["spec"]["template"]["spec"]["containers"].as_array().expect("a list").clone();
            containers.iter().map(|container| text(container, "name").to_owned()).collect::<Vec<_>>().concat()
        };
        let live = apply(&deployment(), None, &list(&["a", "x", "b"]), &by("m1"), false, at(0)).expect("new");
        let more = apply(&deployment(), Some(&live), &list(&["n", "a", "b"]), &by("m2"), false, at(1)).expect("more");
        assert_eq!(names(&more), "naxb");
        let swapped = apply(&deployment(), Some(&live), &list(&["b", "a"]), &by("m2"), false, at(1)).expect("swapped");
        assert_eq!(names(&swapped), "xba");
    }

    fn specs() -> impl Strategy<Value = Value> {
        let container = (
            "[a-c]",
            proptest::option::of("i:[12]"),
            proptest::collection::btree_map("[EF]", "[xy]", 0..2),
            proptest::collection::btree_set(80..83i32, 0..2),
        )
            .prop_map(|(name, image, env, ports)| {
                let mut container = json!({"name": name});
                if let Some(image) = image {
                    container["image"] = image.into();
                }
                if !env.is_empty() {
                    container["env"] =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                }
                if !ports.is_empty() {
                    container["ports"] = ports.into_iter().map(|port| json!({"containerPort": port})).collect();
                }
                container
            });
        let containers = proptest::collection::vec(container, 0..3).prop_map(|mut containers| {
            containers.sort_by_key(|container| text(container, "name").to_owned());
            containers.dedup_by_key(|container| text(container, "name").to_owned());
            containers
        });
        (proptest::option::of(0..3i32), containers, proptest::collection::btree_map("[lm]", "[01]", 0..3)).prop_map(
            |(replicas, containers, labels)| {
                let mut spec = json!({});
                if let Some(replicas) = replicas {
                    spec["replicas"] = replicas.into();
                }
                if !containers.is_empty() {
                    spec["template"] = json!({"spec": {"containers": containers}});
                }
                let metadata = if labels.is_empty() { json!({}) } else { json!({"labels": labels}) };
                config(metadata, spec)
            },
        )
    }

    /// Every value of the configuration stands in the object, list elements by their keys.
    fn contains(object: &Object, value: &Value, config: &Value) -> bool {
        let Value::Object(config) = config else { return false };
        value.as_object().is_some_and(|value| merge_object(object, Some(value), config) == *value)
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(first in specs(), second in specs()) {
            let deployment = deployment();
            let live = apply(&deployment, None, &first, &by("m1"), false, at(0)).unwrap();
            let once = apply(&deployment, Some(&live), &second, &by("m2"), true, at(1)).unwrap();
            let twice = apply(&deployment, Some(&once), &second, &by("m2"), true, at(2)).unwrap();
            prop_assert!(contains(&deployment, &once, &second));
            prop_assert_eq!(&twice, &once);
            // What nobody takes away from the first applier is still as it wished.
            let again = apply(&deployment, Some(&once), &first, &by("m1"), true, at(3)).unwrap();
            prop_assert!(contains(&deployment, &again, &first));
        }

        #[test]
        fn the_only_applier_gets_exactly_its_configuration(first in specs(), second in specs()) {
            let deployment = deployment();
            let live = apply(&deployment, None, &first, &by("m"), false, at(0)).unwrap();
            let mut now = apply(&deployment, Some(&live), &second, &by("m"), false, at(1)).unwrap();
            managed_fields::take(&mut now);
            // An object whose last field is gone stays behind empty only at the top, where it always is.
            let spec = now["spec"].take();
            prop_assert_eq!(spec.as_object().cloned().unwrap_or_default(), second["spec"].as_object().cloned().unwrap());
            prop_assert_eq!(now["metadata"].get("labels"), second["metadata"].get("labels"));
        }
    }
}
