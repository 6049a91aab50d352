//! Server-side apply and the owners of fields.

use crate::support::{Answer, Server, server};
use http::Method;
use serde_json::{Value, json};

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

async fn apply(server: &Server, query: &str, config: Value) -> Answer {
    let headers = [("content-type", "application/apply-patch+yaml")];
    server.send(Method::PATCH, &format!("{WEB}{query}"), &headers, config.to_string()).await
}

fn web(replicas: u32) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn apply_creates_then_changes_then_conflicts_then_forces() {
    let server = server().await;
    let created = apply(&server, "?fieldManager=m1", web(1)).await.created();
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "m1");
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(apply(&server, "?fieldManager=m1", web(1)).await.ok(), created, "applying again changes nothing");
    assert_eq!(apply(&server, "?fieldManager=m1", web(2)).await.ok()["spec"]["replicas"], 2);
    let conflict = apply(&server, "?fieldManager=m2", web(3)).await.expect(409);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"m1\": .spec.replicas");
    assert_eq!(apply(&server, "?fieldManager=m2&force=true", web(3)).await.ok()["spec"]["replicas"], 3);
    apply(&server, "", web(3)).await.expect(422);
    let mut wrong = web(3);
    wrong["apiVersion"] = "apps/v2".into();
    apply(&server, "?fieldManager=m2", wrong).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn every_write_notes_who_owns_what_it_changed() {
    let server = server().await;
    apply(&server, "?fieldManager=m1", web(1)).await.created();
    let headers = [("content-type", "application/merge-patch+json"), ("user-agent", "robot/1.0 (linux)")];
    let scale = json!({"spec": {"replicas": 5}}).to_string();
    server.send(Method::PATCH, &format!("{WEB}/scale"), &headers, scale).await.ok();
    let web = server.get(WEB).await.ok();
    let managers = web["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let robot = managers.iter().find(|entry| entry["manager"] == "robot").expect("the robot owns something");
    assert_eq!(robot["subresource"], "scale");
    assert_eq!(robot["operation"], "Update");
    assert_eq!(robot["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(managers[0]["fieldsV1"]["f:spec"].get("f:replicas"), None, "it is no longer m1's");
}

#[tokio::test(start_paused = true)]
async fn scale_and_status_can_be_applied() {
    let server = server().await;
    apply(&server, "?fieldManager=m1", web(1)).await.created();
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    apply(&server, "/scale?fieldManager=m2", scale.clone()).await.expect(409);
    let scale = apply(&server, "/scale?fieldManager=m2&force=true", scale).await.ok();
    assert_eq!(scale["spec"]["replicas"], 4);
    let status =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 4}});
    let web = apply(&server, "/status?fieldManager=m3", status).await.ok();
    assert_eq!((&web["spec"]["replicas"], &web["status"]["replicas"]), (&json!(4), &json!(4)));
}

#[tokio::test(start_paused = true)]
async fn the_last_label_goes_and_the_rest_of_the_metadata_stays() {
    let server = server().await;
    let mut labelled = web(1);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let created = apply(&server, "?fieldManager=m1", labelled).await.created();
    let applied = apply(&server, "?fieldManager=m1", web(1)).await.ok();
    assert_eq!(applied["metadata"].get("labels"), None);
    for kept in ["name", "namespace", "uid", "creationTimestamp"] {
        assert_eq!(applied["metadata"][kept], created["metadata"][kept], "{kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_of_another_kind_is_refused() {
    let server = server().await;
    apply(&server, "?fieldManager=m1", web(1)).await.created();
    for kind in [json!("DepLoyment"), json!("ReplicaSet"), json!(7), Value::Null] {
        let mut other = web(1);
        other["kind"] = kind;
        apply(&server, "?fieldManager=m1", other).await.expect(400);
    }
    assert_eq!(server.get(WEB).await.ok()["kind"], "Deployment");
}
