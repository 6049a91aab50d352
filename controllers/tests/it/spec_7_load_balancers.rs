//! The built-in load balancer, numbered as in the reference of semantics, chapter 7. Who gets which address of the pool is tested
//! beside the code; what packets do in `proxy`.

use crate::cluster::Cluster;
use serde_json::{Value, json};

/// A Service of type LoadBalancer with this besides.
fn balanced(name: &str, more: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"], "selector": {"app": name}, "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}});
    for (field, value) in more.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

fn ingress(service: Option<Value>) -> Value {
    service.map(|service| service["status"]["loadBalancer"]["ingress"].clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn rule_7_1_a_class_of_somebody_else_s_stays_pending_and_the_own_one_is_served() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", balanced("theirs", json!({"loadBalancerClass": "example.com/lb"}))).await;
    cluster
        .create("v1", "Service", balanced("ours", json!({"loadBalancerClass": "net.coracle.dev/load-balancer"})))
        .await;
    cluster.settled().await;
    let theirs = cluster.get("v1", "Service", "theirs").await.expect("it exists");
    assert_eq!(
        (&theirs["status"]["loadBalancer"]["ingress"], &theirs["metadata"]["finalizers"]),
        (&Value::Null, &Value::Null)
    );
    assert!(ingress(cluster.get("v1", "Service", "ours").await)[0]["ip"].is_string());
}

#[tokio::test(start_paused = true)]
async fn rule_7_2_an_address_comes_with_status_finalizer_and_event() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", balanced("web", json!({}))).await;
    cluster.settled().await;
    let web = cluster.get("v1", "Service", "web").await.expect("it exists");
    assert_eq!(
        web["status"]["loadBalancer"],
        json!({"ingress": [{"ip": "172.18.255.1", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}]})
    );
    assert_eq!(web["metadata"]["finalizers"], json!(["service.kubernetes.io/load-balancer-cleanup"]));
    assert_eq!(cluster.events("EnsuredLoadBalancer").await, ["Ensured load balancer"]);
    // A Service that has what it wants is left alone.
    cluster.merge("v1", "Service", "web", json!({"metadata": {"labels": {"changed": "yes"}}})).await;
    cluster.settled().await;
    assert_eq!(cluster.events("EnsuredLoadBalancer").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_7_2_an_external_address_that_a_service_claims_is_not_given_to_another() {
    let cluster = Cluster::start().await;
    let mut claims = balanced("claims", json!({"externalIPs": ["172.18.255.1"]}));
    claims["spec"]["type"] = json!("ClusterIP");
    cluster.create("v1", "Service", claims).await;
    cluster.settled().await;
    cluster.create("v1", "Service", balanced("web", json!({}))).await;
    cluster.settled().await;
    assert_eq!(ingress(cluster.get("v1", "Service", "web").await)[0]["ip"], "172.18.255.2");
}

#[tokio::test(start_paused = true)]
async fn rule_7_2_an_address_that_cannot_be_given_is_told_and_tried_again_when_another_becomes_free() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", balanced("first", json!({"loadBalancerIP": "172.18.255.4"}))).await;
    cluster.settled().await;
    cluster.create("v1", "Service", balanced("second", json!({"loadBalancerIP": "172.18.255.4"}))).await;
    cluster.settled().await;
    let told = cluster.events("SyncLoadBalancerFailed").await;
    assert!(told[0].contains("\"172.18.255.4\": address is already allocated"), "{told:?}");
    cluster.delete("v1", "Service", "first", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert_eq!(ingress(cluster.get("v1", "Service", "second").await)[0]["ip"], "172.18.255.4");
}

#[tokio::test(start_paused = true)]
async fn rule_7_2_load_balancers_share_the_pool_and_give_their_addresses_back() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        cluster.create("v1", "Service", balanced(name, json!({}))).await;
    }
    cluster.settled().await;
    let address = |service: Option<Value>| {
        service.map(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].clone()).unwrap_or_default()
    };
    let mut given = vec![];
    for name in ["a", "b", "c", "d", "e", "f"] {
        given.push(address(cluster.get("v1", "Service", name).await));
    }
    given.sort_by_key(ToString::to_string);
    assert_eq!(given, (1..=6).map(|n| json!(format!("172.18.255.{n}"))).collect::<Vec<_>>());
    assert_eq!(address(cluster.get("v1", "Service", "g").await), Value::Null, "the pool is used up");

    let freed = address(cluster.get("v1", "Service", "c").await);
    cluster.delete("v1", "Service", "c", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert_eq!(cluster.get("v1", "Service", "c").await, None, "the finalizer is taken out");
    assert_eq!(address(cluster.get("v1", "Service", "g").await), freed);

    cluster.merge("v1", "Service", "a", json!({"spec": {"type": "ClusterIP"}})).await;
    cluster.settled().await;
    let released = cluster.get("v1", "Service", "a").await.expect("it exists");
    assert_eq!((&released["status"]["loadBalancer"], &released["metadata"]["finalizers"]), (&json!({}), &json!([])));
}
