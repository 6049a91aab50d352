//! The server's own housekeeping: metrics, expiry of events.

use crate::support::{CONFIGMAPS, configmap, server};
use serde_json::json;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn metrics_count_requests_watches_and_objects() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    server.get(&format!("{CONFIGMAPS}/none")).await.expect(404);
    server.get("/made/up").await.expect(404);
    let lines = server.watch(&format!("{CONFIGMAPS}?watch=true"), "application/json").await;
    let read = async || server.get("/metrics").await.ok().as_str().unwrap_or_default().to_owned();
    let text = read().await;
    let labels = "group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
    for line in [
        format!("apiserver_request_total{{code=\"404\",{labels}}} 1"),
        format!("apiserver_request_duration_seconds_count{{{labels}}} 1"),
        "apiserver_longrunning_requests{verb=\"WATCH\"} 1".to_owned(),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
    drop(lines);
    assert!(read().await.contains("apiserver_longrunning_requests{verb=\"WATCH\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_forgotten_an_hour_after_its_last_write() {
    let server = server().await;
    let expiring = tokio::spawn({
        let api = server.api.clone();
        async move { api.expire_events(Duration::from_secs(3600)).await }
    });
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str| {
        json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "r",
               "type": "Normal"})
    };
    for name in ["a", "b"] {
        server.post(events, event(name)).await.created();
    }
    tokio::time::sleep(Duration::from_secs(1800)).await;
    server.patch(&format!("{events}/b"), "merge-patch+json", json!({"count": 2})).await.ok();
    tokio::time::sleep(Duration::from_secs(1801)).await;
    server.get(&format!("{events}/a")).await.expect(404);
    server.get(&format!("{events}/b")).await.ok();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    server.get(&format!("{events}/b")).await.expect(404);
    expiring.abort();
}
