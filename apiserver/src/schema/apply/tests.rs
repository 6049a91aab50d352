//! The rules of server-side apply.

use super::super::managed_fields::{managed, track_update};
use super::super::table::builtin;
use super::super::types::Object;
use super::merge::merge_object;
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
    let container =
        json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]});
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
    let error =
        apply(&deployment(), Some(&changed), &config(json!({}), spec), &by("m1"), false, at(2)).expect_err("u1 owns");
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"u1\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.nodeSelector"
    );
}

#[test]
fn an_object_from_before_the_first_apply_belongs_to_a_manager_of_that_name() {
    let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1"}},
                      "spec": {"replicas": 1}});
    let error = apply(&deployment(), Some(&live), &config(json!({}), json!({"replicas": 2})), &by("m"), false, at(0));
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
    let two = apply(&deployment(), Some(&one), &finalizers(json!(["a/2"])), &by("m2"), false, at(1)).expect("another");
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
                container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
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
