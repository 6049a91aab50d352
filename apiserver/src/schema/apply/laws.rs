//! The laws of owners: whatever appliers and updaters do, in whatever order.

use super::super::field_set::{FieldSet, difference};
use super::super::managed_fields::{managed, track_update};
use super::super::table::builtin;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn deployment() -> ObjectRef {
    builtin().kind("apps", "v1", "Deployment").expect("a built-in kind")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).expect("a time")
}

fn by(name: &str) -> Manager<'_> {
    Manager { name, api_version: "apps/v1", subresource: "" }
}

/// A configuration whose labels and containers have names out of `names`.
fn wishes(names: &'static str) -> impl Strategy<Value = Value> {
    let container =
        (names, "[ij]", proptest::collection::btree_set(80..82i32, 0..3)).prop_map(|(name, image, ports)| {
            let ports: Vec<Value> = ports.into_iter().map(|port| json!({"containerPort": port})).collect();
            let mut container = json!({"name": name, "image": image});
            if !ports.is_empty() {
                container["ports"] = ports.into();
            }
            container
        });
    let containers = proptest::collection::vec(container, 0..3).prop_map(|mut containers| {
        containers.sort_by_key(|container| container["name"].to_string());
        containers.dedup_by_key(|container| container["name"].to_string());
        containers
    });
    (containers, proptest::collection::btree_map(names, "[01]", 0..3)).prop_map(|(containers, labels)| {
        let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        if !labels.is_empty() {
            config["metadata"]["labels"] = json!(labels);
        }
        if !containers.is_empty() {
            config["spec"]["template"]["spec"]["containers"] = containers.into();
        }
        config
    })
}

/// Who owns what, whenever they wrote it.
fn owners(object: &Value) -> BTreeMap<String, FieldSet> {
    let name = |entry: &Value| format!("{} {}", text(entry, "manager"), text(entry, "operation"));
    managed(object).iter().map(|entry| (name(entry), FieldSet::from_json(&entry["fieldsV1"]))).collect()
}

/// The object without owners, lists in the order of their keys, and without what is empty.
fn content(object: &Value) -> Value {
    fn tidy(value: &mut Value) -> bool {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| tidy(value));
                !map.is_empty()
            }
            Value::Array(elements) => {
                for element in &mut *elements {
                    tidy(element);
                }
                elements.sort_by_key(ToString::to_string);
                !elements.is_empty()
            }
            _ => true,
        }
    }
    let mut object = object.clone();
    managed_fields::take(&mut object);
    tidy(&mut object);
    object
}

fn all_of(object: &Value) -> FieldSet {
    let mut object = object.clone();
    managed_fields::take(&mut object);
    difference(&deployment(), None, &object).changed
}

/// Without the containers of what is in the set: those of an applier's own are nobody's.
fn leaves(set: &FieldSet) -> FieldSet {
    let children = set.children.iter().map(|(element, below)| (element.clone(), leaves(below))).collect();
    FieldSet { member: set.member && set.children.is_empty(), children }
}

/// What somebody does to the object.
#[derive(Clone, Debug)]
enum Step {
    Apply { manager: &'static str, config: Value },
    Update { manager: &'static str, config: Value },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let manager = prop::sample::select(vec!["m1", "m2", "m3"]);
    let step = (any::<bool>(), manager, wishes("[a-c]")).prop_map(|(apply, manager, config)| {
        if apply { Step::Apply { manager, config } } else { Step::Update { manager, config } }
    });
    proptest::collection::vec(step, 1..6)
}

fn walk(steps: &[Step]) -> Value {
    let deployment = deployment();
    let mut object = apply(&deployment, None, &steps_start(), &by("m0"), false, at(0)).expect("the first");
    for (second, step) in (1..).zip(steps) {
        object = match step {
            Step::Apply { manager, config } => {
                apply(&deployment, Some(&object), config, &by(manager), true, at(second)).expect("forced")
            }
            Step::Update { manager, config } => {
                let mut after = config.clone();
                // The first applier's; an object that nobody owns any more is no longer tracked.
                after["spec"]["replicas"] = 1.into();
                managed_fields::put(&mut after, managed(&object).to_vec());
                track_update(&deployment, Some(&object), &mut after, &by(manager), at(second));
                after
            }
        };
    }
    object
}

fn steps_start() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}})
}

proptest! {
    #[test]
    fn appliers_of_different_fields_may_come_in_any_order(one in wishes("[a-c]"), other in wishes("[x-z]")) {
        let deployment = deployment();
        let both = |first: &Value, (a, b): (&str, &str), second: &Value| {
            let live = apply(&deployment, None, first, &by(a), false, at(0)).unwrap();
            apply(&deployment, Some(&live), second, &by(b), false, at(1))
        };
        // Nothing is owned by two, so nobody has to force.
        let here = both(&one, ("m1", "m2"), &other).unwrap();
        let there = both(&other, ("m2", "m1"), &one).unwrap();
        prop_assert_eq!(content(&here), content(&there));
        prop_assert_eq!(owners(&here), owners(&there));
    }

    #[test]
    fn every_field_has_an_owner_and_no_owner_a_field_that_is_not_there(steps in steps()) {
        let object = walk(&steps);
        let all = all_of(&object);
        let mut owned = FieldSet::default();
        for set in owners(&object).values() {
            owned.extend(set);
        }
        let (mut nobodys, mut nowhere) = (leaves(&all), owned.clone());
        nobodys.subtract(&owned);
        nowhere.subtract(&all);
        prop_assert!(nobodys.is_empty(), "{:?} of {}", nobodys.paths(), object);
        prop_assert!(nowhere.is_empty(), "{:?} of {}", nowhere.paths(), object);
    }

    #[test]
    fn two_owners_of_a_field_agree_and_at_most_one_of_them_updated_it(steps in steps()) {
        let object = walk(&steps);
        let owners: Vec<(String, FieldSet)> = owners(&object).into_iter().collect();
        for (index, (name, set)) in owners.iter().enumerate() {
            for (other, others) in &owners[index + 1..] {
                let shared = set.intersection(others);
                let update = |name: &str| name.ends_with("Update");
                // An update takes what it changes from all others; appliers may share what they agree on.
                prop_assert!(shared.is_empty() || !(update(name) && update(other)), "{name} {other} {:?}", shared.paths());
            }
        }
    }

    #[test]
    fn owners_come_back_from_their_encoding_and_are_sorted(steps in steps()) {
        let object = walk(&steps);
        let entries = managed(&object);
        for entry in entries {
            prop_assert_eq!(FieldSet::from_json(&entry["fieldsV1"]).to_json(), entry["fieldsV1"].clone());
            prop_assert!(entry["fieldsV1"] != json!({}), "an owner of nothing: {}", entry);
        }
        let mut sorted = entries.to_vec();
        managed_fields::sort(&mut sorted);
        prop_assert_eq!(sorted.as_slice(), entries);
    }

    #[test]
    fn force_takes_what_is_wished_for_and_nothing_else(steps in steps(), wish in wishes("[a-d]")) {
        let deployment = deployment();
        let before = walk(&steps);
        let after = apply(&deployment, Some(&before), &wish, &by("m9"), true, at(90)).unwrap();
        let own = fields_of(&deployment, wish.as_object().unwrap());
        let now = owners(&after);
        prop_assert_eq!(now.get("m9 Apply").cloned().unwrap_or_default(), own.clone());
        let changed = difference(&deployment, Some(&before), &after).changed;
        for (name, set) in owners(&before) {
            let left = now.get(&name).cloned().unwrap_or_default();
            let mut lost = set.clone();
            lost.subtract(&left);
            // Only what the wish has changed is taken away.
            let mut beyond = lost.clone();
            beyond.subtract(&changed);
            prop_assert!(beyond.is_empty(), "{name} lost {:?}", beyond.paths());
            prop_assert!(left.intersection(&changed).is_empty(), "{name} still has {:?}", left.paths());
        }
        // Without force it is a conflict exactly if somebody loses something.
        let quiet = apply(&deployment, Some(&before), &wish, &by("m9"), false, at(90));
        let taken = owners(&before).values().any(|set| !set.intersection(&changed).is_empty());
        prop_assert_eq!(quiet.is_err(), taken);
    }

    #[test]
    fn what_an_applier_no_longer_wishes_goes_unless_others_do(mine in wishes("[a-c]"), theirs in wishes("[a-c]")) {
        let deployment = deployment();
        let live = apply(&deployment, None, &mine, &by("m1"), false, at(0)).unwrap();
        let shared = apply(&deployment, Some(&live), &theirs, &by("m2"), true, at(1)).unwrap();
        let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        let left = apply(&deployment, Some(&shared), &nothing, &by("m1"), false, at(2)).unwrap();
        prop_assert!(!owners(&left).contains_key("m1 Apply"));
        // As if the other had been alone.
        let alone = apply(&deployment, None, &theirs, &by("m2"), false, at(1)).unwrap();
        prop_assert_eq!(content(&left), content(&alone));
    }

    #[test]
    fn an_update_owns_what_it_changes_and_takes_it_from_all_others(mut first in wishes("[a-c]"), second in wishes("[a-c]")) {
        let deployment = deployment();
        first["spec"]["replicas"] = 1.into();
        let live = apply(&deployment, None, &first, &by("m1"), false, at(0)).unwrap();
        let mut after = second.clone();
        managed_fields::put(&mut after, managed(&live).to_vec());
        track_update(&deployment, Some(&live), &mut after, &by("u"), at(1));
        let difference = difference(&deployment, Some(&live), &after);
        let now = owners(&after);
        prop_assert_eq!(now.get("u Update").cloned().unwrap_or_default(), difference.changed.clone());
        let left = now.get("m1 Apply").cloned().unwrap_or_default();
        prop_assert!(left.intersection(&difference.changed).is_empty());
        prop_assert!(left.intersection(&difference.removed).is_empty());
        prop_assert_eq!(content(&after), content(&second));
    }
}
