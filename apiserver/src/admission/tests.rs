//! The plug-ins together, on objects written into a store.

use super::{AdmissionOperation, AdmissionRequest, standard};
use crate::authn::UserInfo;
use crate::kinds::{Networking, registry};
use crate::status::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{MemoryStore, Operation, Store, Txn};

async fn cluster(objects: &[(&str, Value)]) -> MemoryStore {
    let store = MemoryStore::new();
    let operations = objects
        .iter()
        .map(|(key, object)| Operation::Put {
            key: format!("/registry/{key}").into(),
            value: Bytes::from(object.to_string()),
        })
        .collect();
    store.txn(Txn { compares: Vec::new(), operations }).await.expect("a first write");
    store
}

async fn admitted(store: &MemoryStore, group: &str, kind: &str, mut object: Value) -> Result<Value, Status> {
    let (registry, user) = (registry(Networking::default()), UserInfo::default());
    let kind = registry.by_kind(group, "v1", kind).expect("a row");
    let warnings = Mutex::default();
    let request = AdmissionRequest {
        operation: AdmissionOperation::Create,
        kind,
        namespace: "shop",
        name: "web",
        subresource: "",
        user: &user,
        old: None,
        dry_run: false,
        store,
        registry: &registry,
        warnings: &warnings,
    };
    for plug_in in standard().iter().filter(|plug_in| plug_in.handles(&request)) {
        plug_in.mutate(&request, &mut object).await?;
    }
    for plug_in in standard().iter().filter(|plug_in| plug_in.handles(&request)) {
        plug_in.validate(&request, &object).await?;
    }
    Ok(object["spec"].take())
}

fn pod(fields: Value) -> Value {
    let mut spec = json!({"serviceAccountName": "default", "containers": [{"name": "a"}]});
    for (key, value) in fields.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    json!({"spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_as_a_service_account_that_exists() {
    let store = cluster(&[
        ("serviceaccounts/shop/default", json!({"metadata": {}, "imagePullSecrets": [{"name": "s"}]})),
        ("serviceaccounts/shop/quiet", json!({"metadata": {}, "automountServiceAccountToken": false})),
    ])
    .await;
    let spec = admitted(&store, "", "Pod", pod(json!({}))).await.expect("admitted");
    assert!(spec["volumes"][0]["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")), "{spec}");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
    let spec = admitted(&store, "", "Pod", pod(json!({"serviceAccountName": "quiet"}))).await.expect("admitted");
    assert_eq!(spec.get("volumes"), None);
    let refused = admitted(&store, "", "Pod", pod(json!({"serviceAccountName": "bot"}))).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"web\" is forbidden: error looking up service account shop/bot: serviceaccount \"bot\" not found"
    );
}

#[tokio::test]
async fn a_pods_priority_is_that_of_its_class() {
    let store = cluster(&[
        ("serviceaccounts/shop/default", json!({"metadata": {}})),
        (
            "priorityclasses.scheduling.k8s.io/high",
            json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        ),
        (
            "priorityclasses.scheduling.k8s.io/usual",
            json!({"metadata": {"name": "usual"}, "value": 10, "globalDefault": true}),
        ),
    ])
    .await;
    let spec = admitted(&store, "", "Pod", pod(json!({"priorityClassName": "high"}))).await.expect("admitted");
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    let spec = admitted(&store, "", "Pod", pod(json!({}))).await.expect("admitted");
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(10), &json!("usual")));
    let refused = admitted(&store, "", "Pod", pod(json!({"priorityClassName": "none"}))).await.unwrap_err();
    assert_eq!(refused.message, "pods \"web\" is forbidden: no PriorityClass with name none was found");
}

#[tokio::test]
async fn rule_14_1_an_ingress_gets_the_one_default_class() {
    let default = |name: &str| json!({"metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
    let class = |name: &str| (format!("ingressclasses.networking.k8s.io/{name}"), default(name));
    let (one, other) = (class("a"), class("b"));
    let store = cluster(&[(&one.0, one.1.clone())]).await;
    let spec = admitted(&store, "networking.k8s.io", "Ingress", json!({"spec": {}})).await.expect("admitted");
    assert_eq!(spec["ingressClassName"], "a");
    let store = cluster(&[(&one.0, one.1.clone()), (&other.0, other.1.clone())]).await;
    let spec = admitted(&store, "networking.k8s.io", "Ingress", json!({"spec": {}})).await.expect("admitted");
    assert_eq!(spec["ingressClassName"], "a", "of two as old as each other the first by name");
}

#[tokio::test]
async fn a_claim_gets_the_newest_default_class() {
    let class = |name: &str, born: &str| json!({"metadata": {"name": name, "creationTimestamp": born, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    let store = cluster(&[
        ("storageclasses.storage.k8s.io/old", class("old", "2026-01-01T00:00:00Z")),
        ("storageclasses.storage.k8s.io/young", class("young", "2026-01-02T00:00:00Z")),
    ])
    .await;
    let spec = admitted(&store, "", "PersistentVolumeClaim", json!({"spec": {}})).await.expect("admitted");
    assert_eq!(spec["storageClassName"], "young");
    let asked = json!({"spec": {"storageClassName": ""}});
    let spec = admitted(&store, "", "PersistentVolumeClaim", asked).await.expect("admitted");
    assert_eq!(spec["storageClassName"], "", "the user wants none");
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_its_namespaces_defaults_and_stays_within_its_limits() {
    let limit = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"},
        "max": {"cpu": "1"}});
    let store = cluster(&[
        ("serviceaccounts/shop/default", json!({"metadata": {}})),
        ("limitranges/shop/cpu", json!({"metadata": {"name": "cpu"}, "spec": {"limits": [limit]}})),
        ("limitranges/shopping/none", json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "0"}}]}})),
    ])
    .await;
    let spec = admitted(&store, "", "Pod", pod(json!({}))).await.expect("admitted");
    let resources = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "250m"}});
    assert_eq!(spec["containers"][0]["resources"], resources);
    let greedy = json!([{"name": "a", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]);
    let status = admitted(&store, "", "Pod", pod(json!({"containers": greedy}))).await.expect_err("too much");
    assert_eq!(
        (status.code, status.message.as_str()),
        (403, "pods \"web\" is forbidden: maximum cpu usage per Container is 1, but limit is 2")
    );
}
