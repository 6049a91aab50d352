//! The standard plug-ins.

use crate::support::{Server, config, with};
use apiserver::{Config, admission};
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn server() -> Server {
    with(Config { admission: admission::standard(), ..config() }).await
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn service_account(server: &Server, account: Value) {
    server.post("/api/v1/namespaces/default/serviceaccounts", account).await.created();
}

#[tokio::test(start_paused = true)]
async fn a_pod_finds_the_token_of_its_service_account_mounted() {
    let server = server().await;
    let secrets = json!([{"name": "pull"}]);
    service_account(&server, json!({"metadata": {"name": "default"}, "imagePullSecrets": secrets})).await;
    service_account(&server, json!({"metadata": {"name": "none"}, "automountServiceAccountToken": false})).await;
    let created = server.post(PODS, pod("a")).await.created();
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["spec"]["imagePullSecrets"], secrets);
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], created["spec"]["volumes"][0]["name"]);
    let mut other = pod("b");
    other["spec"]["serviceAccountName"] = "none".into();
    let created = server.post(PODS, other).await.created();
    assert_eq!(created["spec"].get("volumes"), None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_a_moment_for_its_service_account_and_is_refused_without() {
    let server = Arc::new(server().await);
    let status = server.post(PODS, pod("a")).await.expect(403);
    assert_eq!(
        status["message"],
        "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.post(PODS, pod("a")).await.created() }
    });
    tokio::task::yield_now().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    waiting.await.expect("a created pod");
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_the_priority_of_its_class() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    server
        .post(classes, json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}))
        .await
        .created();
    server.post(classes, json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true})).await.created();
    let with_class = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["priorityClassName"] = class.into();
        pod
    };
    let high = server.post(PODS, with_class("a", "high")).await.created();
    assert_eq!((&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    let usual = server.post(PODS, pod("b")).await.created();
    assert_eq!((&usual["spec"]["priority"], &usual["spec"]["priorityClassName"]), (&json!(7), &json!("usual")));
    let system = server.post(PODS, with_class("c", "system-node-critical")).await.created();
    assert_eq!(system["spec"]["priority"], 2_000_001_000);
    let status = server.post(PODS, with_class("d", "none")).await.expect(403);
    assert_eq!(status["message"], "pods \"d\" is forbidden: no PriorityClass with name none was found");
}

#[tokio::test(start_paused = true)]
async fn a_limit_range_is_applied_to_pods_that_can_be_read_and_no_others() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let limits = json!([{"type": "Container", "max": {"memory": "1Gi"}}]);
    let range = json!({"metadata": {"name": "memory"}, "spec": {"limits": limits}});
    server.post("/api/v1/namespaces/default/limitranges", range).await.created();
    let pod = |resources: Value| json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}});
    for wrong in [json!("x"), json!({"limits": "x"}), json!({"limits": []})] {
        server.post(PODS, pod(wrong)).await.expect(400);
    }
    let refused = server.post(PODS, pod(json!({"limits": {"memory": "2Gi"}}))).await.expect(403);
    let why = "pods \"a\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi";
    assert_eq!(refused["message"], why);
    let made = server.post(PODS, pod(json!({}))).await.created();
    let given = json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], given);
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container c; memory limit for container c"
    );
}
