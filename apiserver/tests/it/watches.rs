//! Watches: what a client sees of changes, in which order, and how a watch ends.

use crate::support::{CONFIGMAPS, configmap, server};
use serde_json::{Value, json};

const JSON: &str = "application/json";

fn labelled(name: &str, app: &str) -> Value {
    let mut object = configmap(name);
    object["metadata"]["labels"] = json!({"app": app});
    object
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_the_state_and_goes_on_with_every_change() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true"), JSON).await;
    assert_eq!(lines.short().await, "ADDED a");
    server.post(CONFIGMAPS, configmap("b")).await.created();
    server.put(&format!("{CONFIGMAPS}/b"), labelled("b", "x")).await.ok();
    server.delete(&format!("{CONFIGMAPS}/a"), Value::Null).await.ok();
    assert_eq!(lines.short().await, "ADDED b");
    assert_eq!(lines.short().await, "MODIFIED b");
    let deleted = lines.next().await.expect("an event");
    assert_eq!(deleted["type"], "DELETED");
    // The revision of the deletion, so that a watch can go on from it.
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], server.api.revision().0.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_has_what_came_after_it() {
    let server = server().await;
    let a = server.post(CONFIGMAPS, configmap("a")).await.created();
    server.post(CONFIGMAPS, configmap("b")).await.created();
    let version = a["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true&resourceVersion={version}"), JSON).await;
    assert_eq!(lines.short().await, "ADDED b");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_begins_or_ceases_to_match_is_added_or_deleted() {
    let server = server().await;
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=1&labelSelector=app%3Dweb"), JSON).await;
    for (name, app) in [("a", "db"), ("b", "web")] {
        server.post(CONFIGMAPS, labelled(name, app)).await.created();
    }
    for (name, app) in [("a", "web"), ("b", "db")] {
        server.put(&format!("{CONFIGMAPS}/{name}"), labelled(name, app)).await.ok();
    }
    assert_eq!(lines.short().await, "ADDED b");
    assert_eq!(lines.short().await, "ADDED a");
    let gone = lines.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["app"], "web", "its last state that matched");
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], server.api.revision().0.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_watch_list_marks_the_end_of_the_initial_state() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = server.watch(&format!("{CONFIGMAPS}?{query}"), JSON).await;
    assert_eq!(lines.short().await, "ADDED a");
    let mark = lines.next().await.expect("a bookmark");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], server.api.revision().0.to_string());
    server.post(CONFIGMAPS, configmap("b")).await.created();
    assert_eq!(lines.short().await, "ADDED b");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_on_progress_each_minute_and_at_the_end() {
    let server = server().await;
    let query = "watch=true&allowWatchBookmarks=true&timeoutSeconds=100";
    let mut lines = server.watch(&format!("{CONFIGMAPS}?{query}"), JSON).await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.created();
    server.api.request_progress();
    let progress = lines.next().await.expect("a bookmark");
    assert_eq!(progress["type"], "BOOKMARK");
    assert_eq!(progress["object"]["metadata"]["resourceVersion"], server.api.revision().0.to_string());
    let start = tokio::time::Instant::now();
    assert_eq!(lines.short().await, "BOOKMARK -");
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_eq!(lines.short().await, "BOOKMARK -");
    assert_eq!(lines.short().await, "the end");
    assert_eq!(start.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_is_expired_and_one_to_come_is_too_large() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIGMAPS, configmap(name)).await.created();
    }
    server.api.store().compact(server.api.revision()).await.unwrap();
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true&resourceVersion=1"), JSON).await;
    let error = lines.next().await.expect("an event");
    assert_eq!(error["type"], "ERROR");
    assert_eq!((&error["object"]["code"], &error["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert_eq!(lines.short().await, "the end");
    let exact = format!("{CONFIGMAPS}?resourceVersion=1&resourceVersionMatch=Exact");
    assert_eq!(server.get(&exact).await.expect(410)["reason"], "Expired");
    let status = server.get(&format!("{CONFIGMAPS}?watch=true&resourceVersion=9999")).await.expect(504);
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test(start_paused = true)]
async fn stopping_the_server_ends_its_watches() {
    let server = server().await;
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true&resourceVersion=1"), JSON).await;
    server.api.stop();
    assert_eq!(lines.short().await, "the end");
}
