//! `metadata.managedFields`: who owns which field of an object.
//!
//! [`track_update`] is called on every ordinary write (create, update, patch, also of subresources) just before the object is
//! stored, and gives the writer what it changed. Server-side apply ([`apply`](super::apply())) is the other writer of this field.
//!
//! Most writes change what their writer owns already, so that nobody's set has to be read or written: the difference is
//! compared with the sets as they stand in JSON.
//!
//! Follows KEP-555.

use super::field_set::{Difference, FieldSet, difference};
use super::time;
use super::types::Object;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// At most so many managers of ordinary writes are told apart.
const MAX_UPDATE_MANAGERS: usize = 10;

/// Who owns what older managers owned.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    /// The `fieldManager` of the request, or what stands in for it.
    pub name: &'a str,
    /// API version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// Subresource that is written; empty for the object itself.
    pub subresource: &'a str,
}

impl Manager<'_> {
    fn is(&self, entry: &Value, operation: Operation) -> bool {
        text(entry, "manager") == self.name
            && text(entry, "operation") == operation.name()
            && text(entry, "subresource") == self.subresource
            // An applier is the same whatever version it applies in.
            && (operation == Operation::Apply || text(entry, "apiVersion") == self.api_version)
    }

    pub(crate) fn entry(&self, operation: Operation, fields: Value, now: &str) -> Value {
        let mut entry = Map::new();
        entry.insert("manager".to_owned(), self.name.into());
        entry.insert("operation".to_owned(), operation.name().into());
        entry.insert("apiVersion".to_owned(), self.api_version.into());
        entry.insert("time".to_owned(), now.into());
        entry.insert("fieldsType".to_owned(), "FieldsV1".into());
        entry.insert("fieldsV1".to_owned(), fields);
        if !self.subresource.is_empty() {
            entry.insert("subresource".to_owned(), self.subresource.into());
        }
        Value::Object(entry)
    }

    /// The place of this manager's entry.
    pub(crate) fn position(&self, entries: &[Value], operation: Operation) -> Option<usize> {
        entries.iter().position(|entry| self.is(entry, operation))
    }
}

pub(crate) fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Notes in `after` what this write changed: `manager` owns it from now on, and nobody else does.
///
/// `before` is `None` on create. Managed fields that stand in `after` are taken as the client's wish, unless they are
/// empty or malformed; then those of `before` count. One empty entry (`[{}]`) is the way to forget all of them. An object
/// that exists without managed fields stays without, until it is first applied.
pub fn track_update(object: &Object, before: Option<&Value>, after: &mut Value, manager: &Manager<'_>, now: Timestamp) {
    let given = take(after);
    if let Some([Value::Object(only)]) = given.as_deref()
        && only.is_empty()
    {
        return;
    }
    let entries = match given.filter(|entries| !entries.is_empty() && entries.iter().all(is_well_formed)) {
        Some(entries) => entries,
        None => before.map(managed).unwrap_or_default().to_vec(),
    };
    if before.is_some() && entries.is_empty() {
        return;
    }
    let difference = difference(object, before, after);
    put(after, updated(entries, &difference, manager, now));
}

/// The entries after a write that made this difference.
pub(crate) fn updated(
    mut entries: Vec<Value>,
    difference: &Difference,
    manager: &Manager<'_>,
    now: Timestamp,
) -> Vec<Value> {
    if difference.is_empty() {
        return entries;
    }
    let mut own = false;
    entries.retain_mut(|entry| {
        let is_own = manager.is(entry, Operation::Update);
        own |= is_own;
        let Value::Object(map) = entry else { return false };
        let fields = map.get("fieldsV1").unwrap_or(&Value::Null);
        let touched = difference.removed.meets(fields)
            || if is_own { !difference.changed.is_within(fields) } else { difference.changed.meets(fields) };
        if touched {
            let mut set = FieldSet::from_json(fields);
            set.subtract(&difference.removed);
            if is_own {
                set.extend(&difference.changed)
            } else {
                set.subtract(&difference.changed)
            }
            if set.is_empty() {
                return false;
            }
            map.insert("fieldsV1".to_owned(), set.to_json());
        }
        if is_own && !difference.changed.is_empty() {
            map.insert("time".to_owned(), time::seconds(now).into());
        }
        true
    });
    if !own && !difference.changed.is_empty() {
        entries.push(manager.entry(Operation::Update, difference.changed.to_json(), &time::seconds(now)));
    }
    cap(&mut entries);
    sort(&mut entries);
    entries
}

/// The entries of an object.
pub(crate) fn managed(value: &Value) -> &[Value] {
    let entries = value.get("metadata").and_then(|metadata| metadata.get("managedFields")).and_then(Value::as_array);
    entries.map_or(&[], Vec::as_slice)
}

/// Takes the entries out of an object; `None` if it has none.
pub(crate) fn take(value: &mut Value) -> Option<Vec<Value>> {
    match value.get_mut("metadata")?.as_object_mut()?.remove("managedFields")? {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// Puts entries into an object, or nothing if there are none.
pub(crate) fn put(value: &mut Value, entries: Vec<Value>) {
    let Value::Object(map) = value else { return };
    if entries.is_empty() {
        return;
    }
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// In the order Kubernetes keeps them: appliers first, then by time, then by name.
pub(crate) fn sort(entries: &mut [Value]) {
    let key = |entry: &Value| {
        ["operation", "time", "manager", "apiVersion", "subresource"].map(|key| text(entry, key).to_owned())
    };
    if !entries.is_sorted_by_key(key) {
        entries.sort_by_cached_key(key);
    }
}

fn is_well_formed(entry: &Value) -> bool {
    matches!(text(entry, "operation"), "Apply" | "Update")
        && !text(entry, "apiVersion").is_empty()
        && text(entry, "fieldsType") == "FieldsV1"
        && entry.get("fieldsV1").is_some_and(Value::is_object)
}

/// Merges the oldest of too many managers into one per API version.
fn cap(entries: &mut Vec<Value>) {
    let mut count = entries.iter().filter(|entry| text(entry, "operation") == "Update").count();
    if count <= MAX_UPDATE_MANAGERS {
        return;
    }
    entries.sort_by_cached_key(|entry| (text(entry, "time").to_owned(), text(entry, "manager").to_owned()));
    let mut buckets: HashMap<String, usize> = HashMap::new();
    let mut index = 0;
    while index < entries.len() && count > MAX_UPDATE_MANAGERS {
        let version = text(&entries[index], "apiVersion").to_owned();
        if text(&entries[index], "operation") != "Update" {
            index += 1;
            continue;
        }
        let Some(&bucket) = buckets.get(&version) else {
            buckets.insert(version, index);
            index += 1;
            continue;
        };
        let merged = entries.remove(index);
        count -= 1;
        let mut fields = FieldSet::from_json(&entries[bucket]["fieldsV1"]);
        fields.extend(&FieldSet::from_json(&merged["fieldsV1"]));
        let ancient = Manager { name: ANCIENT, api_version: &version, subresource: "" };
        entries[bucket] = ancient.entry(Operation::Update, fields.to_json(), text(&merged, "time"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::builtin;
    use super::super::types::ObjectRef;
    use super::*;
    use serde_json::json;

    fn config_map() -> ObjectRef {
        builtin().kind("", "v1", "ConfigMap").expect("a built-in kind")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).expect("a time")
    }

    fn write(before: Option<&Value>, mut after: Value, name: &str, second: i64) -> Value {
        let manager = Manager { name, api_version: "v1", subresource: "" };
        track_update(&config_map(), before, &mut after, &manager, at(second));
        after
    }

    fn owners(value: &Value) -> Vec<(&str, Vec<String>)> {
        managed(value).iter().map(|e| (text(e, "manager"), FieldSet::from_json(&e["fieldsV1"]).paths())).collect()
    }

    fn strings<const N: usize>(list: [&str; N]) -> Vec<String> {
        list.map(str::to_owned).to_vec()
    }

    #[test]
    fn the_creator_owns_what_it_wrote() {
        let created = write(None, json!({"metadata": {"name": "c"}, "data": {"a": "1"}}), "curl", 0);
        assert_eq!(
            created["metadata"]["managedFields"],
            json!([{"manager": "curl", "operation": "Update", "apiVersion": "v1", "time": time::seconds(at(0)),
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}}])
        );
    }

    #[test]
    fn who_changes_a_field_takes_it_from_the_others() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1", "b": "1"}}), "one", 0);
        let mut changed = first.clone();
        changed["data"] = json!({"a": "2", "b": "1", "c": "1"});
        let second = write(Some(&first), changed, "two", 1);
        assert_eq!(owners(&second), [("one", strings([".data", ".data.b"])), ("two", strings([".data.a", ".data.c"]))]);
        let mut removed = second.clone();
        removed["data"] = json!({"a": "2"});
        let third = write(Some(&second), removed, "three", 2);
        assert_eq!(owners(&third), [("one", strings([".data"])), ("two", strings([".data.a"]))]);
    }

    #[test]
    fn a_write_that_changes_nothing_changes_no_times() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1"}}), "one", 0);
        assert_eq!(write(Some(&first), first.clone(), "two", 5), first);
    }

    #[test]
    fn the_time_is_that_of_the_last_real_change() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1"}}), "one", 0);
        let mut changed = first.clone();
        changed["data"]["a"] = json!("2");
        let second = write(Some(&first), changed, "one", 7);
        assert_eq!(managed(&second)[0]["time"], time::seconds(at(7)));
        assert_eq!(managed(&second)[0]["fieldsV1"], managed(&first)[0]["fieldsV1"]);
    }

    #[test]
    fn a_client_that_sends_no_managed_fields_does_not_delete_them() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1"}}), "one", 0);
        let second = write(Some(&first), json!({"metadata": {}, "data": {"a": "1", "b": "1"}}), "two", 1);
        assert_eq!(owners(&second), [("one", strings([".data", ".data.a"])), ("two", strings([".data.b"]))]);
        let forgotten =
            write(Some(&second), json!({"metadata": {"managedFields": [{}]}, "data": {"a": "9"}}), "two", 2);
        assert!(managed(&forgotten).is_empty());
        assert!(managed(&write(Some(&forgotten), json!({"metadata": {}, "data": {}}), "two", 3)).is_empty());
    }

    #[test]
    fn a_client_may_rewrite_managed_fields() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1"}}), "one", 0);
        let mut renamed = first.clone();
        renamed["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
        assert_eq!(owners(&write(Some(&first), renamed, "two", 1)), [("kubectl", strings([".data", ".data.a"]))]);
    }

    #[test]
    fn the_oldest_of_more_than_ten_managers_are_merged() {
        let mut value = write(None, json!({"metadata": {}, "data": {"k0": "v"}}), "m0", 0);
        for number in 1..14 {
            let mut next = value.clone();
            next["data"][format!("k{number}")] = json!("v");
            value = write(Some(&value), next, &format!("m{number}"), number);
        }
        let names: Vec<&str> = managed(&value).iter().map(|entry| text(entry, "manager")).collect();
        assert_eq!(names.len(), 10);
        assert_eq!(names[0], "ancient-changes");
        assert_eq!(names[9], "m13");
        assert_eq!(owners(&value)[0].1, strings([".data", ".data.k0", ".data.k1", ".data.k2", ".data.k3", ".data.k4"]));
    }

    #[test]
    fn a_subresource_has_managers_of_its_own() {
        let first = write(None, json!({"metadata": {}, "data": {"a": "1"}}), "one", 0);
        let mut changed = first.clone();
        changed["data"]["b"] = json!("1");
        let manager = Manager { name: "one", api_version: "v1", subresource: "status" };
        track_update(&config_map(), Some(&first), &mut changed, &manager, at(1));
        assert_eq!(managed(&changed).len(), 2);
        assert_eq!(managed(&changed)[1]["subresource"], "status");
    }
}
