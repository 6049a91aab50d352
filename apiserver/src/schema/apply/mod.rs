//! Server-side apply: the wish of one applier, merged into an object that has other owners.
//!
//! The configuration is merged into the live object by the rules of its type; fields that its applier no longer mentions and nobody else
//! owns are pruned; fields that somebody else owns and that would change are conflicts, unless the applier forces them.
//! The generic handler calls [`apply`] for `application/apply-patch+yaml`, and stores what comes back after defaulting and
//! validation.
//!
//! Follows KEP-555; differs in that sets of other API versions of the same kind are compared path by path, without conversion.

mod merge;
mod typed;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use self::merge::{merge_object, prune_object};
use self::typed::typed_object;
use super::check::check;
use super::field_set::{FieldSet, difference, field_element, fields_of};
use super::managed_fields::{self, Manager, Operation, text};
use super::time;
use super::types::ObjectRef;
use crate::status::{FieldError, Status};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

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
        /// `namespace/name; group/version, Kind=Kind`.
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
        // The name belongs to nobody, but with it the metadata is the configuration's, even if all else in it has gone.
        let mut metadata = FieldSet::default();
        metadata.attach(|| field_element("metadata"), FieldSet::here());
        owned.extend(&metadata);
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
    let noted = own.filter(|_| unchanged).map(|own| text(&entries[own], "time").to_owned());
    let entry_time = noted.unwrap_or_else(|| time::seconds(now));
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
        // As Go writes a GroupVersionKind, whose group may be empty.
        let slash = if given.contains('/') { "" } else { "/" };
        let object = format!("{}/{}; {slash}{given}, Kind={kind}", named("namespace"), named("name"));
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
