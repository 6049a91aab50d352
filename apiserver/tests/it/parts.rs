//! Patches and subresources.

use crate::support::{CONFIGMAPS, Server, configmap, server};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn deployment(server: &Server) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let status = json!({"replicas": 9});
    let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
    server.post(DEPLOYMENTS, object).await.created()
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_patch_is_applied() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a");
    let merged = server.patch(&path, "merge-patch+json", json!({"data": {"a": null, "b": "2"}})).await.ok();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let operations =
        json!([{"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/c", "value": "3"}]);
    let patched = server.patch(&path, "json-patch+json", operations.clone()).await.ok();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
    let failed = json!([{"op": "test", "path": "/data/b", "value": "9"}]);
    server.patch(&path, "json-patch+json", failed).await.expect(422);
    server.patch(&path, "json", json!({})).await.expect(415);
    server.patch(&format!("{CONFIGMAPS}/none"), "merge-patch+json", json!({})).await.expect(404);

    deployment(&server).await;
    let more = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j"}]}}}});
    let patched = server.patch(&format!("{DEPLOYMENTS}/web"), "strategic-merge-patch+json", more).await.ok();
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len);
    assert_eq!(containers, Some(2), "containers are merged by name");
}

#[tokio::test(start_paused = true)]
async fn a_patch_with_a_stale_resource_version_is_a_conflict() {
    let server = server().await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a");
    let patch = json!({"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"b": "1"}});
    server.patch(&path, "merge-patch+json", patch.clone()).await.ok();
    assert_eq!(server.patch(&path, "merge-patch+json", patch).await.expect(409)["reason"], "Conflict");
}

#[tokio::test(start_paused = true)]
async fn status_is_changed_through_its_subresource_only() {
    let server = server().await;
    let created = deployment(&server).await;
    assert_ne!(created["status"]["replicas"], 9, "a client does not create status");
    assert_eq!(created["metadata"]["generation"], 1);
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 5}});
    let path = format!("{DEPLOYMENTS}/web");
    let status = server.patch(&format!("{path}/status"), "merge-patch+json", both.clone()).await.ok();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(5)));
    assert_eq!(status["metadata"]["generation"], 1);
    let spec =
        server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": 7}, "status": {"replicas": 7}})).await.ok();
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(7), &json!(5)));
    assert_eq!(spec["metadata"]["generation"], 2, "a changed spec is a new generation");
    assert_eq!(server.get(&format!("{path}/status")).await.ok(), spec);
}

#[tokio::test(start_paused = true)]
async fn scale_shows_and_changes_three_numbers() {
    let server = server().await;
    deployment(&server).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let table = server.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["rows"][0]["cells"], json!(["web", 2, 0, "0s"]));
    let mut scale = server.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=web"}));
    scale["spec"]["replicas"] = 4.into();
    let stale = scale.clone();
    assert_eq!(server.put(&path, scale).await.ok()["spec"]["replicas"], 4);
    assert_eq!(server.put(&path, stale).await.expect(409)["reason"], "Conflict");
    let patched = server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": 6}})).await.ok();
    assert_eq!((&patched["kind"], &patched["spec"]["replicas"]), (&json!("Scale"), &json!(6)));
    let status = server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": -1}})).await.expect(422);
    assert_eq!(
        status["message"],
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let deployment = server.get(&format!("{DEPLOYMENTS}/web")).await.ok();
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(6), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let server = server().await;
    let revision = server.api.revision();
    let answer = server.post(&format!("{CONFIGMAPS}?dryRun=All"), configmap("a")).await.created();
    assert_eq!(answer["data"]["a"], "1");
    server.get(&format!("{CONFIGMAPS}/a")).await.expect(404);
    server.post(&format!("{CONFIGMAPS}?dryRun=Some"), configmap("a")).await.expect(422);
    assert_eq!(server.api.revision(), revision);
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a?dryRun=All");
    let patched = server.patch(&path, "merge-patch+json", json!({"data": {"a": "2"}})).await.ok();
    assert_eq!(patched["data"]["a"], "2");
    server.delete(&path, Value::Null).await.ok();
    assert_eq!(server.get(&format!("{CONFIGMAPS}/a")).await.ok(), created);
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_refused_named_or_dropped_as_the_client_wants() {
    let server = server().await;
    let mut object = configmap("a");
    object["bogus"] = 1.into();
    let status = server.post(&format!("{CONFIGMAPS}?fieldValidation=Strict"), object.clone()).await.expect(400);
    assert!(status["message"].as_str().is_some_and(|text| text.contains("unknown field \"bogus\"")), "{status}");
    let answer = server.post(CONFIGMAPS, object.clone()).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"bogus\\\"\"");
    assert_eq!(answer.created().get("bogus"), None);
    object["metadata"]["name"] = "b".into();
    let answer = server.post(&format!("{CONFIGMAPS}?fieldValidation=Ignore"), object.clone()).await;
    assert!(!answer.headers.contains_key("warning"));
    server.post(&format!("{CONFIGMAPS}?fieldValidation=Maybe"), object.clone()).await.expect(422);
    object["data"] = json!({"a": 1});
    server.post(&format!("{CONFIGMAPS}?fieldValidation=Ignore"), object).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn a_put_creates_what_may_be_created_so() {
    let server = server().await;
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a";
    server.put(path, lease.clone()).await.created();
    let status = server.put(path, lease).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.resourceVersion");
    server.put(&format!("{CONFIGMAPS}/a"), configmap("a")).await.expect(404);
}
