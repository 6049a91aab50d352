//! Strategic merge patches as kubectl makes them: a naive maker of differences, and the way back.

use super::*;
use crate::schema::table::builtin;
use proptest::prelude::*;
use serde_json::json;

fn pod() -> ObjectRef {
    builtin().kind("", "v1", "Pod").expect("a built-in kind")
}

fn element<'a>(list: &'a [Value], key: &str, of: &Value) -> Option<&'a Value> {
    list.iter().find(|known| known[key] == of[key])
}

/// The difference of two lists of objects told apart by `key`, and their order.
fn list_difference(before: &[Value], after: &[Value], key: &str) -> (Vec<Value>, Vec<Value>) {
    let mut changes = Vec::new();
    for old in before.iter().filter(|old| element(after, key, old).is_none()) {
        changes.push(json!({"$patch": "delete", key: old[key]}));
    }
    for new in after {
        match element(before, key, new) {
            None => changes.push(new.clone()),
            Some(old) if old == new => {}
            Some(old) => {
                let mut change = object_difference(old, new);
                change[key] = new[key].clone();
                changes.push(change);
            }
        }
    }
    (changes, after.iter().map(|new| json!({key: new[key]})).collect())
}

fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

/// The difference of two objects, as kubectl sends it.
fn object_difference(before: &Value, after: &Value) -> Value {
    let nothing = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&nothing), after.as_object().unwrap_or(&nothing));
    let mut patch = json!({});
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch[name] = Value::Null;
    }
    for (name, new) in after {
        let old = before.get(name).unwrap_or(&Value::Null);
        if old == new {
            continue;
        }
        match (old, new, key_of(name)) {
            (Value::Array(old), Value::Array(new), Some(key)) => {
                let (changes, order) = list_difference(old, new, key);
                patch[format!("$setElementOrder/{name}")] = order.into();
                patch[name] = changes.into();
            }
            (Value::Array(old), Value::Array(new), None) if name == "finalizers" => {
                let gone: Vec<&Value> = old.iter().filter(|old| !new.contains(old)).collect();
                let come: Vec<&Value> = new.iter().filter(|new| !old.contains(new)).collect();
                patch[format!("$setElementOrder/{name}")] = json!(new);
                if !gone.is_empty() {
                    patch[format!("$deleteFromPrimitiveList/{name}")] = json!(gone);
                }
                if !come.is_empty() {
                    patch[name] = json!(come);
                }
            }
            (Value::Object(_), Value::Object(_), _) => patch[name] = object_difference(old, new),
            _ => patch[name] = new.clone(),
        }
    }
    patch
}

fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    (prop::sample::subsequence(names, 1..=names.len()), any::<prop::sample::Index>()).prop_map(|(mut some, turn)| {
        let length = some.len();
        some.rotate_left(turn.index(length));
        some
    })
}

fn containers() -> impl Strategy<Value = Vec<Value>> {
    let env = (some_of(&["E", "F", "G"]), "[pq]").prop_map(|(names, value)| {
        names.into_iter().map(|name| json!({"name": name, "value": value})).collect::<Vec<_>>()
    });
    let mounts = some_of(&["/a", "/b"])
        .prop_map(|paths| paths.into_iter().map(|path| json!({"mountPath": path, "name": "v"})).collect::<Vec<_>>());
    let args = proptest::collection::vec("[xy]", 1..3);
    let one = ("[xy]", proptest::option::of(env), proptest::option::of(mounts), proptest::option::of(args));
    (some_of(&["a", "b", "c", "d"]), proptest::collection::vec(one, 4)).prop_map(|(names, parts)| {
        let made = names.into_iter().zip(parts).map(|(name, (image, env, mounts, args))| {
            let mut container = json!({"name": name, "image": image});
            for (field, list) in [("env", env), ("volumeMounts", mounts)] {
                if let Some(list) = list {
                    container[field] = list.into();
                }
            }
            if let Some(args) = args {
                container["args"] = args.into();
            }
            container
        });
        made.collect()
    })
}

fn pods() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[lm]", "[01]", 0..3);
    (containers(), labels, some_of(&["x/a", "x/b", "x/c"]), proptest::option::of(0..3i64)).prop_map(
        |(containers, labels, finalizers, grace)| {
            let mut pod = json!({"metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers}});
            if let Some(grace) = grace {
                pod["spec"]["terminationGracePeriodSeconds"] = grace.into();
            }
            pod
        },
    )
}

proptest! {
    #[test]
    fn the_difference_leads_from_any_pod_to_any_other(before in pods(), after in pods()) {
        let patch = object_difference(&before, &after);
        let patched = strategic_merge(&pod(), &before, &patch).unwrap();
        prop_assert_eq!(patched, after, "{}", patch);
    }

    #[test]
    fn the_difference_to_itself_changes_nothing(pod_value in pods()) {
        prop_assert_eq!(object_difference(&pod_value, &pod_value), json!({}));
        prop_assert_eq!(strategic_merge(&pod(), &pod_value, &json!({})).unwrap(), pod_value);
    }

    #[test]
    fn a_delete_removes_exactly_one_element_and_a_merge_of_it_brings_it_back(before in pods(), at in any::<prop::sample::Index>()) {
        let containers = before["spec"]["containers"].as_array().unwrap();
        let chosen = &containers[at.index(containers.len())];
        let patch = json!({"spec": {"containers": [{"$patch": "delete", "name": chosen["name"]}]}});
        let without = strategic_merge(&pod(), &before, &patch).unwrap();
        let expected: Vec<&Value> = containers.iter().filter(|known| *known != chosen).collect();
        prop_assert_eq!(without["spec"]["containers"].as_array().map(Vec::len).unwrap_or_default(), expected.len());
        let order: Vec<Value> = containers.iter().map(|container| json!({"name": container["name"]})).collect();
        let back = json!({"spec": {"$setElementOrder/containers": order, "containers": [chosen]}});
        prop_assert_eq!(strategic_merge(&pod(), &without, &back).unwrap(), before);
    }

    #[test]
    fn only_the_retained_keys_and_the_new_ones_are_left(secret in "[ab]", name in "[ab]") {
        let volumes = json!([{"name": "v", "secret": {"secretName": secret}}]);
        let before = json!({"spec": {"volumes": volumes}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": name}}]}});
        let patched = strategic_merge(&pod(), &before, &patch).unwrap();
        prop_assert_eq!(patched, json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": name}}]}}));
    }

    #[test]
    fn a_map_is_replaced_emptied_or_merged_as_the_directive_says(before in pods(), labels in proptest::collection::btree_map("[lmn]", "[01]", 0..3)) {
        let with = |directive: &str| {
            let mut patch = json!({"metadata": {"labels": labels}});
            patch["metadata"]["labels"]["$patch"] = directive.into();
            strategic_merge(&pod(), &before, &patch).unwrap()["metadata"]["labels"].clone()
        };
        let mut merged = before["metadata"]["labels"].as_object().unwrap().clone();
        merged.extend(labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
        prop_assert_eq!(with("replace"), json!(labels));
        prop_assert_eq!(with("merge"), Value::Object(merged));
        prop_assert_eq!(with("delete"), json!({}));
    }
}
