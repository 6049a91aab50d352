//! What kubectl and helm read: every request finds what it found on a real server.

use super::{Differences, facts};
use crate::support::{Server, complete};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// The objects that are read.
async fn world() -> Server {
    let server = complete().await;
    let in_default = |path: &str| format!("{path}/namespaces/default");
    let (core, apps) = (in_default("/api/v1"), in_default("/apis/apps/v1"));
    let networking = in_default("/apis/networking.k8s.io/v1");
    let containers = json!([{"name": "c", "image": "i:1"}]);
    let deployment = |name: &str| {
        let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}});
        json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "template": template}})
    };
    let named = |name: &str| json!({"metadata": {"name": name}});
    // Without these no server is ready.
    let critical = json!({"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000});
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let pod = json!({"metadata": {"name": "p1", "labels": {"app": "web"}}, "spec": {"containers": containers}});
    let policy = json!({"metadata": {"name": "np"}, "spec": {"podSelector": {}}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "ing"}, "spec": {"defaultBackend": backend}});
    for (path, object) in [
        ("/api/v1/namespaces".to_owned(), named("kube-system")),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(), named("cluster-admin")),
        ("/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(), critical),
        ("/api/v1/namespaces".to_owned(), named("n1")),
        ("/api/v1/nodes".to_owned(), named("node1")),
        (format!("{core}/configmaps"), named("cm1")),
        (format!("{core}/pods"), pod),
        (format!("{core}/secrets"), named("sh.helm.release.v1.rel.v1")),
        (format!("{core}/serviceaccounts"), named("rel-chart")),
        (format!("{core}/services"), service("web")),
        (format!("{core}/services"), service("rel-chart")),
        (format!("{apps}/deployments"), deployment("web")),
        (format!("{apps}/deployments"), deployment("rel-chart")),
        (format!("{networking}/networkpolicies"), policy),
        (format!("{networking}/ingresses"), ingress),
    ] {
        server.post(&path, object).await.created();
    }
    server
}

#[tokio::test(start_paused = true)]
async fn every_read_of_kubectl_and_helm_is_answered_as_upstream_answers() {
    let server = world().await;
    let upstream = facts(include_str!("wire.txt"));
    let mut ours = Vec::new();
    for line in &upstream {
        let mut words = line.split(' ');
        let (_, accept, uri) = (words.next(), words.next().expect("a word"), words.next().expect("a path"));
        let header = match accept {
            "json" => "application/json",
            "any" => "application/json, */*",
            "table" => TABLE,
            "discovery" => DISCOVERY,
            "protobuf" => "application/vnd.kubernetes.protobuf,application/json",
            other => panic!("{other} is no word of this table"),
        };
        let request = Request::builder().uri(uri).header("accept", header).body(Body::empty()).expect("a request");
        // A watch's body never ends; its head is enough.
        let response = server.router.clone().oneshot(request).await.expect("an answer");
        let media = response.headers()["content-type"].to_str().expect("text");
        ours.push(format!("{} {accept} {uri} {media}", response.status().as_u16()));
    }
    Differences::of("read").check(&upstream, &ours);
}

#[tokio::test(start_paused = true)]
async fn a_table_is_of_the_version_that_was_asked_for_first() {
    let server = world().await;
    let table = server.get_as("/api/v1/namespaces/default/pods?limit=500", TABLE).await.ok();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let whole = server.get_as("/api/v1/namespaces/default/pods?includeObject=Object", TABLE).await.ok();
    assert_eq!(whole["rows"][0]["object"]["kind"], "Pod");
    let none = server.get_as("/api/v1/namespaces/default/pods?includeObject=None", TABLE).await.ok();
    assert!(none["rows"][0].get("object").is_none_or(Value::is_null));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_kubernetes_has_given_up_says_so() {
    let server = world().await;
    let answer = server.get_as("/api/v1/namespaces/default/endpoints?limit=500", TABLE).await;
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(answer.headers["warning"], warning);
}
