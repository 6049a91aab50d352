//! Server-side apply, one case after another, as kube-apiserver v1.35 answered them on one Deployment.
//!
//! The controllers of that server wrote the status in between; here a client does so in their name.

use crate::support::{Answer, CONFIGMAPS, Server, complete};
use http::Method;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SSA1: &str = "/apis/apps/v1/namespaces/default/deployments/ssa1";

async fn apply(server: &Server, query: &str, config: &Value) -> Answer {
    let headers = [("content-type", "application/apply-patch+yaml")];
    server.send(Method::PATCH, &format!("{SSA1}?{query}"), &headers, config.to_string()).await
}

/// What m1 wishes for at first.
fn full() -> Value {
    let container =
        json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]});
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa1", "labels": {"a": "1"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template}})
}

/// What m1 wishes for later: no label, no port, no environment.
fn less() -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa1"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template}})
}

/// A wish for so many replicas and no more.
fn replicas(count: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ssa1"}, "spec": {"replicas": count}})
}

/// Every entry as `MANAGER OPERATION [SUBRESOURCE]: PATH…`, in order.
fn managers(object: &Value) -> Vec<String> {
    fn paths(set: &Value, prefix: &str, out: &mut Vec<String>) {
        for (key, inner) in set.as_object().into_iter().flatten() {
            if key == "." {
                out.push(prefix.to_owned());
                continue;
            }
            let path = match key.strip_prefix("f:") {
                Some(name) => format!("{prefix}.{name}"),
                None => format!("{prefix}[{}]", key.split_once(':').map_or("", |(_, key)| key)),
            };
            if *inner == json!({}) {
                out.push(path);
            } else {
                paths(inner, &path, out);
            }
        }
    }
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    let text = |entry: &Value| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert!(entry["time"].is_string(), "{entry}");
        let word = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let mut owned = Vec::new();
        paths(&entry["fieldsV1"], "", &mut owned);
        let head = format!("{} {} {} {}", word("manager"), word("operation"), word("apiVersion"), word("subresource"));
        format!("{}: {}", head.trim(), owned.join(" "))
    };
    entries.iter().map(text).collect()
}

fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let word = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    causes
        .iter()
        .map(|cause| format!("{} | {} | {}", word(cause, "reason"), word(cause, "message"), word(cause, "field")))
        .collect()
}

const M1_FULL: &str = "m1 Apply apps/v1: .metadata.labels.a .spec.replicas .spec.selector .spec.template.metadata.labels.app \
     .spec.template.spec.containers[{\"name\":\"c\"}] .spec.template.spec.containers[{\"name\":\"c\"}].env[{\"name\":\"E\"}] \
     .spec.template.spec.containers[{\"name\":\"c\"}].env[{\"name\":\"E\"}].name \
     .spec.template.spec.containers[{\"name\":\"c\"}].env[{\"name\":\"E\"}].value \
     .spec.template.spec.containers[{\"name\":\"c\"}].image .spec.template.spec.containers[{\"name\":\"c\"}].name \
     .spec.template.spec.containers[{\"name\":\"c\"}].ports[{\"containerPort\":80,\"protocol\":\"TCP\"}] \
     .spec.template.spec.containers[{\"name\":\"c\"}].ports[{\"containerPort\":80,\"protocol\":\"TCP\"}].containerPort";
const M1_LESS: &str = "m1 Apply apps/v1: .spec.selector .spec.template.metadata.labels.app \
     .spec.template.spec.containers[{\"name\":\"c\"}] .spec.template.spec.containers[{\"name\":\"c\"}].image \
     .spec.template.spec.containers[{\"name\":\"c\"}].name";
const M2: &str = "m2 Apply apps/v1: .spec.replicas";
const CONTROLLER: &str = "kube-controller-manager Update apps/v1 status: .metadata.annotations \
     .metadata.annotations.deployment.kubernetes.io/revision .status.conditions \
     .status.conditions[{\"type\":\"Available\"}] .status.conditions[{\"type\":\"Available\"}].lastTransitionTime \
     .status.conditions[{\"type\":\"Available\"}].lastUpdateTime .status.conditions[{\"type\":\"Available\"}].message \
     .status.conditions[{\"type\":\"Available\"}].reason .status.conditions[{\"type\":\"Available\"}].status \
     .status.conditions[{\"type\":\"Available\"}].type .status.observedGeneration .status.terminatingReplicas";

/// The Deployment's controller notes what it did.
async fn control(server: &Server) -> Value {
    let mut object = server.get(SSA1).await.ok();
    object["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    let time = "2026-01-01T00:00:00Z";
    let available = json!({"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "m",
        "lastUpdateTime": time, "lastTransitionTime": time});
    object["status"] = json!({"observedGeneration": 1, "terminatingReplicas": 0, "conditions": [available]});
    let uri = format!("{SSA1}/status?fieldManager=kube-controller-manager");
    server.put(&uri, object).await.ok()
}

#[tokio::test(start_paused = true)]
async fn the_owners_of_a_deployment_change_as_upstream_changes_them() {
    let server = complete().await;
    let created = apply(&server, "fieldManager=m1", &full()).await.created();
    assert_eq!(managers(&created), [M1_FULL]);
    assert_eq!(created["metadata"]["generation"], 1);
    let spec = &created["spec"];
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
    let port = json!([{"containerPort": 80, "protocol": "TCP"}]);
    assert_eq!(spec["template"]["spec"]["containers"][0]["ports"], port);
    assert_eq!(created["status"], json!({}), "written although it is empty");

    let conflict = apply(&server, "fieldManager=m2", &replicas(3)).await.expect(409);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"m1\": .spec.replicas");
    assert_eq!((&conflict["reason"], &conflict["metadata"]), (&json!("Conflict"), &json!({})));
    assert_eq!(causes(&conflict), ["FieldManagerConflict | conflict with \"m1\" | .spec.replicas"]);
    assert_eq!(conflict["details"].as_object().map(|details| details.len()), Some(1), "only causes: {conflict}");

    control(&server).await;
    let forced = apply(&server, "fieldManager=m2&force=true", &replicas(3)).await.ok();
    let m1 = M1_FULL.replace(" .spec.replicas", "");
    assert_eq!(managers(&forced), [m1.as_str(), M2, CONTROLLER]);
    assert_eq!((&forced["metadata"]["generation"], &forced["spec"]["replicas"]), (&json!(2), &json!(3)));

    let dropped = apply(&server, "fieldManager=m1", &less()).await.ok();
    assert_eq!(managers(&dropped), [M1_LESS, M2, CONTROLLER]);
    assert_eq!(dropped["metadata"].get("labels"), None, "nobody wants the label any more");
    let container = &dropped["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((container.get("ports"), container.get("env")), (None, None));
    assert_eq!((&dropped["metadata"]["generation"], &dropped["spec"]["replicas"]), (&json!(3), &json!(3)));

    let merge = json!({"spec": {"replicas": 5, "template": {"spec": {"nodeSelector": {"q": "r"}}}}});
    let uri = format!("{SSA1}?fieldManager=u1");
    let headers = [("content-type", "application/merge-patch+json")];
    let updated = server.send(Method::PATCH, &uri, &headers, merge.to_string()).await.ok();
    let u1 = "u1 Update apps/v1: .spec.replicas .spec.template.spec.nodeSelector";
    // Nothing is left of m2, which owned no more than what u1 changed.
    assert_eq!(managers(&updated), [M1_LESS, CONTROLLER, u1]);
    assert_eq!(updated["metadata"]["generation"], 4);

    let mut wish = replicas(1);
    wish["spec"]["template"] = json!({"spec": {"nodeSelector": {"q": "s"}}});
    let conflict = apply(&server, "fieldManager=m2", &wish).await.expect(409);
    assert_eq!(
        conflict["message"],
        "Apply failed with 2 conflicts: conflicts with \"u1\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.nodeSelector"
    );
    let cause = "FieldManagerConflict | conflict with \"u1\" using apps/v1 |";
    assert_eq!(
        causes(&conflict),
        [format!("{cause} .spec.replicas"), format!("{cause} .spec.template.spec.nodeSelector")]
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_applied_is_refused_in_upstreams_words() {
    let server = complete().await;
    apply(&server, "fieldManager=m1", &full()).await.created();

    let status = apply(&server, "", &full()).await.expect(422);
    assert_eq!(
        status["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let cause = json!({"reason": "FieldValueRequired", "message": "Required value: is required for apply patch", "field": "fieldManager"});
    assert_eq!(status["details"], json!({"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]}));

    let mut config = full();
    config["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    let status = apply(&server, "fieldManager=m1", &config).await.expect(400);
    assert_eq!(status["message"], "metadata.managedFields must be nil");
    assert_eq!((&status["reason"], status.get("details")), (&json!("BadRequest"), None));

    let mut config = full();
    config["spec"]["bogus"] = 1.into();
    let status = apply(&server, "fieldManager=m1", &config).await.expect(500);
    assert_eq!(
        status["message"],
        "failed to create typed patch object (/ssa1; apps/v1, Kind=Deployment): .spec.bogus: field not declared in schema"
    );
    assert_eq!((status.get("reason"), status.get("details")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_field_is_refused_or_warned_of() {
    let server = complete().await;
    let bogus = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "zz1"}, "bogus": 1});
    let status = server.post(&format!("{CONFIGMAPS}?fieldValidation=Strict"), bogus).await.expect(400);
    assert_eq!(
        status["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"bogus\""
    );
    assert_eq!((&status["reason"], status.get("details")), (&json!("BadRequest"), None));

    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"zz2"},"data":{"a":"1","a":"2"},"bogus":1}"#;
    let headers = [("content-type", "application/json"), ("user-agent", "curl/8")];
    let uri = format!("{CONFIGMAPS}?fieldValidation=Warn");
    let answer = server.send(Method::POST, &uri, &headers, body).await;
    let warnings: Vec<&str> =
        answer.headers.get_all("warning").iter().map(|value| value.to_str().expect("text")).collect();
    assert_eq!(warnings, ["299 - \"duplicate field \\\"data.a\\\"\"", "299 - \"unknown field \\\"bogus\\\"\""]);
    let created = answer.created();
    assert_eq!(created["data"], json!({"a": "2"}));
    assert_eq!(managers(&created), ["curl Update v1: .data .data.a"]);
}

#[tokio::test(start_paused = true)]
async fn a_created_object_has_no_status_of_its_own() {
    let server = complete().await;
    let mut object = full();
    object["metadata"]["name"] = "made".into();
    object["status"] = json!({"replicas": 9});
    let created = server.post(DEPLOYMENTS, object).await.created();
    assert_eq!(created["status"], json!({}));
}
