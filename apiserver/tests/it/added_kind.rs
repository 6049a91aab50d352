//! A kind that is added at run time with its own schema goes the way of every other kind: no path of the server knows of it.

use crate::support::{Server, config, with};
use apiserver::authentication::TokenAuthenticator;
use apiserver::registry::{Column, ResourceKind};
use apiserver::schema::structural::object_type;
use apiserver::tokens::TokenSigner;
use apiserver::{Config, admission};
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "/apis/example.dev/v1";
const WIDGETS: &str = "/apis/example.dev/v1/namespaces/default/widgets";

/// A complete server to which `widgets.example.dev` has been added.
async fn server() -> Server {
    let mut server = with(Config { admission: admission::standard(), ..config() }).await;
    let signer = Arc::new(TokenSigner::generate().expect("a key"));
    let tokens = Arc::new(TokenAuthenticator::new(
        server.api.store().clone(),
        signer.clone(),
        String::new(),
        jiff::Timestamp::now,
    ));
    apiserver::install_defaults(&server.api, &tokens, &signer);
    server.router = server.api.router_as(apiserver::authn::UserInfo::admin());
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "description": "How big."},
            "colour": {"type": "string", "default": "red"}}},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}});
    let kind = ResourceKind::new("example.dev", "v1", "Widget", "widgets")
        .with_schema(object_type("dev.example.v1.Widget", &schema).expect("structural"))
        .with_short_names(&["wd"])
        .with_generation()
        .with_status()
        .with_table([Column::new("Size", "integer")], |_, object, _| {
            vec![object["metadata"]["name"].clone(), object["spec"]["size"].clone()]
        });
    server.api.add_kind(kind);
    server
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn it_is_discovered_and_documented() {
    let server = server().await;
    let groups = server.get("/apis").await.ok();
    let group = groups["groups"].as_array().expect("groups").iter().find(|group| group["name"] == "example.dev");
    assert_eq!(group.expect("the group")["preferredVersion"]["groupVersion"], "example.dev/v1");
    let resources = server.get(GROUP).await.ok()["resources"].clone();
    let names: Vec<&str> =
        resources.as_array().expect("resources").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/status"]);
    assert_eq!(resources[0]["shortNames"], json!(["wd"]));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = server.get_as("/apis", aggregated).await.ok();
    let ours = all["items"].as_array().expect("items").iter().find(|group| group["metadata"]["name"] == "example.dev");
    assert_eq!(ours.expect("the group")["versions"][0]["resources"][0]["responseKind"]["kind"], "Widget");
    assert!(server.get("/openapi/v3").await.ok()["paths"].get("apis/example.dev/v1").is_some());
    let document = server.get("/openapi/v3/apis/example.dev/v1").await.ok();
    let schema = &document["components"]["schemas"]["dev.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["description"], "How big.");
}

#[tokio::test(start_paused = true)]
async fn it_is_written_patched_applied_and_shown_as_a_table() {
    let server = server().await;
    let created = server.post(WIDGETS, widget("a", json!({"size": 1}))).await.created();
    assert_eq!(created["spec"], json!({"size": 1, "colour": "red"}));
    let path = format!("{WIDGETS}/a");
    let patched =
        server.patch(&path, "merge-patch+json", json!({"spec": {"size": 2}, "status": {"ready": true}})).await.ok();
    assert_eq!((&patched["metadata"]["generation"], patched.get("status")), (&json!(2), None));
    let op = json!([{"op": "replace", "path": "/spec/size", "value": "big"}]);
    server.patch(&path, "json-patch+json", op).await.expect(400);
    let status = json!({"status": {"ready": true}, "spec": {"size": 9}});
    let patched = server.patch(&format!("{path}/status"), "merge-patch+json", status).await.ok();
    assert_eq!((&patched["status"]["ready"], &patched["spec"]["size"]), (&json!(true), &json!(2)));
    let apply = |manager: &str, size: u8| {
        let (path, body) = (format!("{path}?fieldManager={manager}"), widget("a", json!({"size": size})));
        let server = &server;
        async move { server.patch(&path, "apply-patch+yaml", body).await }
    };
    server.delete(&path, Value::Null).await.ok();
    apply("one", 3).await.created();
    let conflict = apply("two", 4).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.size");
    let table = server.get_as(WIDGETS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["columnDefinitions"][1]["name"], "Size");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3]));
}

#[tokio::test(start_paused = true)]
async fn it_is_watched_and_selected() {
    let server = server().await;
    let mut lines = server.watch(&format!("{GROUP}/widgets?watch=true&labelSelector=a%3Db"), "application/json").await;
    server.post(WIDGETS, widget("plain", json!({}))).await.created();
    let mut labelled = widget("labelled", json!({}));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    server.post(WIDGETS, labelled).await.created();
    assert_eq!(lines.short().await, "ADDED labelled");
    server.delete(WIDGETS, Value::Null).await.ok();
    assert_eq!(lines.short().await, "DELETED labelled");
}
