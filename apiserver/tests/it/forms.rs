//! Forms of answers, and answers to what is no good request.

use crate::support::{CONFIGMAPS, config, configmap, server, with};
use apiserver::Config;
use http::Method;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test(start_paused = true)]
async fn a_table_has_the_cells_of_the_rows_and_as_much_of_the_objects_as_asked() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let table = server.get_as(CONFIGMAPS, TABLE).await.ok();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["metadata"]["resourceVersion"], server.api.revision().0.to_string());
    let table = server.get_as(&format!("{CONFIGMAPS}?includeObject=Object"), TABLE).await.ok();
    assert_eq!(table["rows"][0]["object"]["data"]["a"], "1");
    let table = server.get_as(&format!("{CONFIGMAPS}/a?includeObject=None"), TABLE).await.ok();
    assert_eq!(table["rows"][0].get("object"), None);
    let status = server.get_as(&format!("{CONFIGMAPS}/none"), TABLE).await.expect(404);
    assert_eq!(status["kind"], "Status");
}

#[tokio::test(start_paused = true)]
async fn the_first_table_of_a_watch_has_headers_and_the_others_have_none() {
    let server = server().await;
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true"), TABLE).await;
    for name in ["a", "b"] {
        server.post(CONFIGMAPS, configmap(name)).await.created();
    }
    let first = lines.next().await.expect("an event");
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert!(first["object"]["columnDefinitions"].is_array());
    let second = lines.next().await.expect("an event");
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_can_be_asked_for() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = server.get_as(CONFIGMAPS, accept).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test(start_paused = true)]
async fn people_get_indented_json_or_yaml() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a");
    let answer = server.send(Method::GET, &path, &[("user-agent", "curl/8"), ("accept", "*/*")], "").await;
    assert_eq!(answer.ok()["data"]["a"], "1");
    let yaml = server.get_as(&path, "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.ok().as_str().is_some_and(|text| text.contains("kind: ConfigMap")));
    assert_eq!(server.get_as(&path, "text/html").await.expect(406)["reason"], "NotAcceptable");
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_compressed_for_those_who_take_it() {
    let server = server().await;
    let mut object = configmap("a");
    object["data"]["a"] = "x".repeat(200 * 1024).into();
    server.post(CONFIGMAPS, object).await.created();
    let path = format!("{CONFIGMAPS}/a");
    let zipped = server.send(Method::GET, &path, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(!server.get(&path).await.headers.contains_key("content-encoding"));
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true"), "application/json").await;
    assert_eq!(lines.short().await, "ADDED a");
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_get_a_status_that_says_why() {
    let server = with(Config { body_limit: 2048, ..config() }).await;
    for (method, path, content_type, body, code, reason) in [
        (Method::POST, CONFIGMAPS, "application/json", "{", 400, "BadRequest"),
        (Method::POST, CONFIGMAPS, "application/json", "", 400, "BadRequest"),
        (Method::POST, CONFIGMAPS, "text/plain", "x", 415, "UnsupportedMediaType"),
        (Method::POST, CONFIGMAPS, "application/yaml", "a: [", 400, "BadRequest"),
        (Method::POST, CONFIGMAPS, "application/vnd.kubernetes.protobuf", "k8s", 400, "BadRequest"),
        (Method::POST, CONFIGMAPS, "application/json", "{\"metadata\":5}", 400, "BadRequest"),
        (Method::POST, "/api/v1/configmaps", "application/json", "{}", 405, "MethodNotAllowed"),
        (Method::DELETE, "/api/v1/configmaps", "application/json", "", 405, "MethodNotAllowed"),
        (Method::PUT, CONFIGMAPS, "application/json", "{}", 405, "MethodNotAllowed"),
        (Method::POST, "/api/v1/namespaces/default/configmaps/a/status", "application/json", "{}", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/nodes", "", "", 404, "NotFound"),
        (Method::OPTIONS, CONFIGMAPS, "", "", 405, "MethodNotAllowed"),
    ] {
        let status = server.send(method.clone(), path, &[("content-type", content_type)], body).await.expect(code);
        assert_eq!(status["reason"], reason, "{method} {path} {status}");
    }
    let large = server.post(CONFIGMAPS, json!({"data": {"a": "x".repeat(4096)}})).await.expect(413);
    assert_eq!(large["reason"], "RequestEntityTooLarge");
}

#[tokio::test(start_paused = true)]
async fn who_brings_no_identity_stays_outside() {
    let server = server().await;
    let outside = crate::support::Server { router: server.api.router(), api: server.api.clone() };
    let status = outside.get(CONFIGMAPS).await.expect(401);
    assert_eq!((&status["message"], &status["reason"]), (&json!("Unauthorized"), &json!("Unauthorized")));
}
