//! What is pruned, what is refused, and in which words.

use super::super::table::builtin;
use super::super::testing::any_json;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn kind(group: &str, kind: &str) -> ObjectRef {
    builtin().kind(group, "v1", kind).expect("a built-in kind")
}

fn deployment(container: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
           "spec": {"template": {"spec": {"containers": [container]}}}})
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    let mut value = deployment(json!({"name": "c", "imagee": "i"}));
    value["spec"]["foo"] = json!(1);
    let checked = check(&kind("apps", "Deployment"), &mut value);
    assert_eq!(checked.error, None);
    assert_eq!(
        checked.unknown,
        [r#"unknown field "spec.foo""#, r#"unknown field "spec.template.spec.containers[0].imagee""#]
    );
    assert_eq!(value, deployment(json!({"name": "c"})));
}

#[test]
fn nulls_are_dropped_from_objects_and_become_zero_in_maps() {
    let mut value = json!({"metadata": {"labels": {"a": null}, "annotations": null}, "data": null});
    let checked = check(&kind("", "ConfigMap"), &mut value);
    assert_eq!(checked, Checked::default());
    assert_eq!(value, json!({"metadata": {"labels": {"a": ""}}}));
}

#[test]
fn a_wrong_type_is_reported_in_the_words_of_the_decoder() {
    let cases = [
        (json!({"spec": {"replicas": "x"}}), "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (
            json!({"spec": {"replicas": 1.5}}),
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 99999999999i64}}),
            "number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(json!({"env": [{"name": "A", "value": 1}]})),
            "number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            deployment(json!({"ports": {}})),
            "object into Go struct field Container.spec.template.spec.containers.ports of type []v1.ContainerPort",
        ),
        (
            deployment(json!({"imagePullPolicy": 1})),
            "number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            json!({"metadata": {"labels": []}}),
            "array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (json!({"spec": []}), "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
    ];
    for (mut value, expected) in cases {
        let checked = check(&kind("apps", "Deployment"), &mut value);
        assert_eq!(checked.error, Some(format!("json: cannot unmarshal {expected}")));
    }
    let checked = check(&kind("", "Pod"), &mut json!([]));
    assert_eq!(checked.error.as_deref(), Some("json: cannot unmarshal array into Go value of type v1.Pod"));
}

#[test]
fn scalars_take_their_canonical_form() {
    let mut value = json!({
        "metadata": {"creationTimestamp": "2026-11-23T06:04:02.5+01:00"},
        "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                                 "readinessProbe": {"httpGet": {"port": "http"}}}]}
    });
    assert_eq!(check(&kind("", "Pod"), &mut value), Checked::default());
    assert_eq!(value["metadata"]["creationTimestamp"], "2026-11-23T05:04:02Z");
    assert_eq!(value["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));

    let mut secret = json!({"data": {"a": "aGVs\nbG8=", "b": "?"}});
    assert_eq!(check(&kind("", "Secret"), &mut secret).error.as_deref(), Some("illegal base64 data at input byte 0"));
    assert_eq!(secret["data"]["a"], "aGVsbG8=");
}

#[test]
fn strict_refuses_warn_warns_and_ignore_is_silent() {
    let mut value = json!({"data": {"a": "2"}, "bogus": 1});
    let checked = check(&kind("", "ConfigMap"), &mut value);
    let duplicates = ["duplicate field \"data.a\"".to_owned()];
    let verdict = |validation| checked.verdict(&duplicates, validation, "v1", "ConfigMap");
    assert_eq!(verdict(FieldValidation::Ignore), Ok(vec![]));
    let warnings = verdict(FieldValidation::Warn).expect("only warnings");
    assert_eq!(warnings, ["duplicate field \"data.a\"", "unknown field \"bogus\""]);
    assert_eq!(warning_header(&warnings[1]), r#"299 - "unknown field \"bogus\"""#);
    let refusal = verdict(FieldValidation::Strict).expect_err("refused");
    assert_eq!(refusal.code, 400);
    assert_eq!(
        refusal.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         duplicate field \"data.a\", unknown field \"bogus\""
    );
    assert_eq!(FieldValidation::parse("Loose", "CreateOptions").expect_err("no such value").code, 422);
    let refusal = checked.patch_verdict(&value, FieldValidation::Strict).expect_err("refused");
    assert_eq!(refusal.code, 422);
    assert_eq!(
        refusal.message,
        " \"\" is invalid: patch: Invalid value: \"{\\\"data\\\":{\\\"a\\\":\\\"2\\\"}}\": strict decoding error: unknown field \"bogus\""
    );
}

#[test]
fn empty_objects_that_are_always_written_are_put_in() {
    let mut value = deployment(json!({"name": "c"}));
    complete(&kind("apps", "Deployment"), &mut value);
    assert_eq!(value["status"], json!({}));
    assert_eq!(value["spec"]["strategy"], json!({}));
    assert_eq!(value["spec"]["template"]["metadata"], json!({}));
    assert_eq!(value["spec"]["template"]["spec"]["containers"][0], json!({"name": "c", "resources": {}}));
    assert!(value["spec"].get("selector").is_none());
    let mut service = json!({"spec": {}});
    complete(&kind("", "Service"), &mut service);
    assert_eq!(service["status"], json!({"loadBalancer": {}}));
}

#[test]
fn zero_values_that_are_never_written_are_left_out() {
    let mut value = json!({
        "metadata": {"name": "a", "annotations": {}, "labels": {"a": ""}, "ownerReferences": []},
        "spec": {"containers": [], "hostNetwork": false, "automountServiceAccountToken": false, "nodeName": "", "volumes": [
            {"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0, "nodeSelector": {}},
    });
    complete(&kind("", "Pod"), &mut value);
    assert_eq!(value["metadata"], json!({"name": "a", "labels": {"a": ""}}));
    let expected = json!({"containers": [], "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "emptyDir": {}}]});
    assert_eq!(value["spec"], expected);
}

proptest! {
    #[test]
    fn any_value_is_checked_without_panic_and_a_checked_value_stays_as_it_is(mut value in any_json()) {
        let deployment = kind("apps", "Deployment");
        let first = check(&deployment, &mut value);
        if first.error.is_none() {
            let once = value.clone();
            prop_assert_eq!(check(&deployment, &mut value), Checked::default());
            prop_assert_eq!(once, value);
        }
    }
}
