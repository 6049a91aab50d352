//! What goes, and what goes with it.

use crate::cluster::{Cluster, deployment, service};
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::{Value, json};

fn owned_by(name: &str, owner: &Value) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Widget",
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]}})
}

#[tokio::test(start_paused = true)]
async fn deleting_a_deployment_takes_its_replica_sets_and_pods_along() {
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        let cluster = Cluster::start().await;
        cluster.create("apps/v1", "Deployment", deployment("web", 3, "v1")).await;
        cluster.settled().await;
        cluster.delete("apps/v1", "Deployment", "web", params).await;
        cluster.settled().await;
        for (version, kind) in [("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("v1", "Pod")] {
            assert_eq!(cluster.names(version, kind).await, [""; 0], "{kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn orphaning_leaves_the_pods_and_another_deployment_adopts_them() {
    let cluster = Cluster::start().await;
    cluster.create("apps/v1", "Deployment", deployment("web", 2, "v1")).await;
    cluster.settled().await;
    let pods = cluster.names("v1", "Pod").await;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    cluster.delete("apps/v1", "Deployment", "web", orphan).await;
    cluster.settled().await;
    assert_eq!(cluster.names("apps/v1", "Deployment").await, [""; 0]);
    assert_eq!(cluster.list("apps/v1", "ReplicaSet").await[0]["metadata"]["ownerReferences"], json!([]));
    assert_eq!(cluster.names("v1", "Pod").await, pods);

    let adopter = cluster.create("apps/v1", "Deployment", deployment("web", 2, "v1")).await;
    cluster.settled().await;
    let sets = cluster.list("apps/v1", "ReplicaSet").await;
    assert_eq!((sets.len(), &sets[0]["metadata"]["ownerReferences"][0]["uid"]), (1, &adopter["metadata"]["uid"]));
    assert_eq!(cluster.names("v1", "Pod").await, pods);
}

#[tokio::test(start_paused = true)]
async fn custom_resources_own_as_any_other() {
    let cluster = Cluster::start().await;
    let owner = cluster.create("example.com/v1", "Widget", json!({"metadata": {"name": "owner"}})).await;
    cluster.create("v1", "Secret", owned_by("child", &owner)).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Secret").await, ["child"]);
    cluster.delete("example.com/v1", "Widget", "owner", DeleteParams::foreground()).await;
    cluster.gone("v1", "Secret", "child").await;
    cluster.gone("example.com/v1", "Widget", "owner").await;
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_owner_never_existed_is_collected() {
    let cluster = Cluster::start().await;
    let nobody = json!({"metadata": {"name": "nobody", "uid": "never"}});
    cluster.create("v1", "Secret", owned_by("child", &nobody)).await;
    cluster.gone("v1", "Secret", "child").await;
}

#[tokio::test(start_paused = true)]
async fn the_slices_and_endpoints_of_a_deleted_service_go() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", service("web")).await;
    cluster.settled().await;
    assert_eq!(cluster.names("discovery.k8s.io/v1", "EndpointSlice").await.len(), 1);
    assert_eq!(cluster.names("v1", "Endpoints").await, ["web"]);
    cluster.delete("v1", "Service", "web", DeleteParams::background()).await;
    cluster.settled().await;
    assert_eq!(cluster.names("discovery.k8s.io/v1", "EndpointSlice").await, [""; 0]);
    assert_eq!(cluster.names("v1", "Endpoints").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_empties_itself_and_goes() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Namespace", json!({"metadata": {"name": "team"}})).await;
    cluster.settled().await;
    let mut web = deployment("web", 3, "v1");
    web["metadata"]["namespace"] = json!("team");
    cluster.create("apps/v1", "Deployment", web).await;
    cluster.create("example.com/v1", "Widget", json!({"metadata": {"name": "w", "namespace": "team"}})).await;
    cluster.settled().await;
    cluster.delete("v1", "Namespace", "team", DeleteParams::background()).await;
    cluster.gone("v1", "Namespace", "team").await;
    for (version, kind) in [("apps/v1", "Deployment"), ("v1", "Pod"), ("example.com/v1", "Widget")] {
        assert_eq!(cluster.names(version, kind).await, [""; 0], "{kind}");
    }
    assert_eq!(cluster.names("v1", "ServiceAccount").await.len(), 4, "those of the default namespaces stay");
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_keeps_a_namespace_until_it_is_done() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Namespace", json!({"metadata": {"name": "team"}})).await;
    let held = json!({"metadata": {"name": "held", "namespace": "team", "finalizers": ["example.com/wait"]}});
    cluster.create("example.com/v1", "Widget", held).await;
    cluster.settled().await;
    cluster.delete("v1", "Namespace", "team", DeleteParams::background()).await;
    cluster.settled().await;
    let namespace = cluster.get("v1", "Namespace", "team").await.expect("still there");
    let condition = &namespace["status"]["conditions"][0];
    assert_eq!(condition["type"], "NamespaceContentRemaining");
    assert_eq!(condition["message"], "Some resources are remaining: widgets.example.com has 1 resource instances");
    let done = json!({"metadata": {"namespace": "team", "finalizers": []}});
    cluster.merge("example.com/v1", "Widget", "held", done).await;
    cluster.gone("v1", "Namespace", "team").await;
}
