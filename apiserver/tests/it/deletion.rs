//! Deletion: finalizers, grace, propagation, namespaces, collections, eviction.

use crate::support::{CONFIGMAPS, Server, configmap, server};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn bound_pod(server: &Server, name: &str) -> Value {
    server.post(PODS, pod(name)).await.created();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    server.post(&format!("{PODS}/{name}/binding"), binding).await.created();
    server.get(&format!("{PODS}/{name}")).await.ok()
}

#[tokio::test(start_paused = true)]
async fn an_object_with_finalizers_stays_until_the_last_is_removed() {
    let server = server().await;
    let path = format!("{CONFIGMAPS}/a");
    let mut object = configmap("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CONFIGMAPS, object).await.created();
    let marked = server.delete(&path, Value::Null).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = server.delete(&path, Value::Null).await.ok();
    assert_eq!(again, marked, "a second delete changes nothing");
    let mut more = marked.clone();
    more["metadata"]["finalizers"] = json!(["example.com/hold", "example.com/late"]);
    let status = server.put(&path, more).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.finalizers");
    server.patch(&path, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await.ok();
    server.get(&path).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_cannot_be_without_is_not_deleted() {
    let server = server().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for (collection, name, why) in [
        ("/api/v1/namespaces", "default", "this namespace may not be deleted"),
        ("/api/v1/namespaces", "kube-system", "this namespace may not be deleted"),
        (classes, "system-node-critical", "this is a system priority class and cannot be deleted"),
        (classes, "system-cluster-critical", "this is a system priority class and cannot be deleted"),
    ] {
        let refused = server.delete(&format!("{collection}/{name}"), Value::Null).await.expect(403);
        assert!(refused["message"].as_str().is_some_and(|message| message.ends_with(why)), "{refused}");
    }
    server.post(classes, json!({"metadata": {"name": "mine"}, "value": 5})).await.created();
    server.delete(&format!("{classes}/mine"), Value::Null).await.ok();
}

#[tokio::test(start_paused = true)]
async fn propagation_is_said_to_the_garbage_collector_by_finalizers() {
    let server = server().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let path = format!("{CONFIGMAPS}/{}", policy.to_lowercase());
        server.post(CONFIGMAPS, configmap(&policy.to_lowercase())).await.created();
        let marked = server.delete(&path, json!({"propagationPolicy": policy})).await.ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        server.delete(&path, json!({"propagationPolicy": "Background"})).await.ok();
        server.get(&path).await.expect(404);
    }
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let status = server.delete(&format!("{CONFIGMAPS}/a"), json!({"propagationPolicy": "Sideways"})).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "propagationPolicy");
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_is_given_its_grace_period_and_its_kubelet_ends_it() {
    let server = server().await;
    let path = format!("{PODS}/a");
    let pod = bound_pod(&server, "a").await;
    assert_eq!(pod["spec"]["nodeName"], "n1");
    let marked = server.delete(&path, Value::Null).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = server.delete(&path, json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.delete(&path, json!({"gracePeriodSeconds": 60})).await.ok();
    assert_eq!(longer, shorter);
    let last = server
        .delete(&path, json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}))
        .await
        .ok();
    assert_eq!(last["kind"], "Pod");
    server.get(&path).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_kubelet_runs_goes_at_once() {
    let server = server().await;
    server.post(PODS, pod("a")).await.created();
    server.delete(&format!("{PODS}/a"), Value::Null).await.ok();
    server.get(&format!("{PODS}/a")).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once() {
    let server = server().await;
    bound_pod(&server, "a").await;
    let binding = json!({"target": {"kind": "Node", "name": "n2"}});
    let status = server.post(&format!("{PODS}/a/binding"), binding).await.expect(409);
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
    let pod = server.get(&format!("{PODS}/a")).await.ok();
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    assert!(conditions.iter().any(|known| known["type"] == "PodScheduled" && known["status"] == "True"), "{pod}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_terminates_takes_nothing_new_and_goes_when_it_is_finalized() {
    let server = server().await;
    let path = "/api/v1/namespaces/gone";
    let created = server.post("/api/v1/namespaces", json!({"metadata": {"name": "gone"}})).await.created();
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "gone");
    let mut marked = server.delete(path, Value::Null).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    let status = server.post("/api/v1/namespaces/gone/configmaps", configmap("a")).await.expect(403);
    assert_eq!(
        status["message"],
        "configmaps \"a\" is forbidden: unable to create new content in namespace gone because it is being terminated"
    );
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    marked["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), marked).await.ok();
    server.get(path).await.expect(404);
    assert_eq!(server.delete("/api/v1/namespaces/default", Value::Null).await.expect(403)["reason"], "Forbidden");
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector_and_a_dry_run_deletes_nothing() {
    let server = server().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = configmap(name);
        object["metadata"]["labels"] = json!({"app": app});
        server.post(CONFIGMAPS, object).await.created();
    }
    let names = async || {
        let list = server.get(CONFIGMAPS).await.ok();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default()).collect::<String>()
    };
    let path = format!("{CONFIGMAPS}?labelSelector=app%3Dweb");
    server.delete(&format!("{path}&dryRun=All"), Value::Null).await.ok();
    server.delete(&path, json!({"dryRun": ["All"]})).await.ok();
    assert_eq!(names().await, "abc");
    let deleted = server.delete(&path, Value::Null).await.ok();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(names().await, "b");
}

#[tokio::test(start_paused = true)]
async fn an_eviction_waits_for_the_budget() {
    let server = server().await;
    bound_pod(&server, "a").await;
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server.patch(&format!("{PODS}/a/status"), "merge-patch+json", running).await.ok();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "web"},
                        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let mut budget = server.post(budgets, budget).await.created();
    let allowed = |allowed: i64| json!({"disruptionsAllowed": allowed, "currentHealthy": 1 + allowed, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 1});
    budget["status"] = allowed(0);
    let mut budget = server.put(&format!("{budgets}/web/status"), budget).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let evict = format!("{PODS}/a/eviction");
    let status = server.post(&evict, eviction.clone()).await.expect(429);
    assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
    budget["status"] = allowed(1);
    server.put(&format!("{budgets}/web/status"), budget).await.ok();
    assert_eq!(server.post(&evict, eviction).await.created()["status"], "Success");
    let pod = server.get(&format!("{PODS}/a")).await.ok();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let budget = server.get(&format!("{budgets}/web")).await.ok();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
}
