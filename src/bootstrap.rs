//! The objects every cluster begins with: default roles, priority and runtime classes, and the Services and workloads of the cluster itself.
//!
//! Written through the API, as anybody else would; what stands there already (from an earlier run) stays.

use crate::cluster::{Addresses, ZONE};
use crate::in_process::{self, API_PORT};
use anyhow::{Context, Result};
use apiserver::ApiServer;
use apiserver::authn::UserInfo;
use apiserver::flow_control;
use apiserver::rbac_bootstrap;
use futures::future::try_join_all;
use http::Method;
use kubelet::FUNCTION_IMAGE;
use serde_json::{Value, json};

/// Name of the in-process function that is the DNS server.
pub(crate) const DNS_FUNCTION: &str = "dns";

/// Writes what is missing.
pub(crate) async fn objects(api: &ApiServer, addresses: &Addresses) -> Result<()> {
    let client = in_process::client(api, UserInfo::admin());
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(&client, "/api/v1/namespaces", &namespace).await?;
        // The controller would make it; the cluster's own pods are not to wait for that.
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        create(&client, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    }
    // All at once, so that the store makes them durable together.
    let roles = rbac_bootstrap::objects();
    try_join_all(roles.iter().map(|object| reconcile(&client, object))).await?;
    let flows = flow_control::objects();
    try_join_all(flows.iter().map(|object| reconcile_flow(&client, object))).await?;
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description});
        create(&client, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await?;
    }
    // The ways in which the nodes can run a pod, which is chosen by name.
    for name in ["virtual", "standin"] {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name});
        create(&client, "/apis/node.k8s.io/v1/runtimeclasses", &class).await?;
    }
    for service in [kubernetes_service(addresses), dns_service(addresses)] {
        let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        create(&client, &format!("/api/v1/namespaces/{namespace}/services"), &service).await?;
    }
    let (network, prefix) = addresses.services;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [format!("{network}/{prefix}")]}});
    create(&client, "/apis/networking.k8s.io/v1/servicecidrs", &range).await?;
    create(&client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &kubernetes_slice(addresses))
        .await?;
    create(&client, "/api/v1/namespaces/default/endpoints", &kubernetes_endpoints(addresses)).await?;
    create(&client, "/apis/apps/v1/namespaces/kube-system/deployments", &dns_deployment()).await?;
    Ok(())
}

async fn create(client: &kube::Client, path: &str, object: &Value) -> Result<()> {
    created(client, path, object).await.map(drop)
}

/// Creates an object; false if there is one of its name.
async fn created(client: &kube::Client, path: &str, object: &Value) -> Result<bool> {
    match send(client, Method::POST, path, object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
        Err(error) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            Err(error).with_context(|| format!("creating {} {name:?}", object["kind"].as_str().unwrap_or_default()))
        }
    }
}

async fn send(client: &kube::Client, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request(request.body(body).map_err(kube::Error::HttpError)?).await
}

/// Creates a default object of flow control, or brings the one that stands there up to date.
async fn reconcile_flow(client: &kube::Client, wanted: &Value) -> Result<()> {
    let collection = flow_control::collection(wanted);
    if created(client, collection, wanted).await? {
        return Ok(());
    }
    let path = format!("{collection}/{}", wanted["metadata"]["name"].as_str().unwrap_or_default());
    let existing = send(client, Method::GET, &path, &Value::Null).await?;
    if let Some(new) = flow_control::reconciled(&existing, wanted) {
        send(client, Method::PUT, &path, &new).await?;
    }
    Ok(())
}

/// Creates a default role or binding, or gives back to the one that stands there what it must have.
async fn reconcile(client: &kube::Client, wanted: &Value) -> Result<()> {
    let collection = rbac_bootstrap::collection(wanted);
    if created(client, &collection, wanted).await? {
        return Ok(());
    }
    let path = format!("{collection}/{}", wanted["metadata"]["name"].as_str().unwrap_or_default());
    let existing = send(client, Method::GET, &path, &Value::Null).await?;
    let Some(new) = rbac_bootstrap::reconciled(&existing, wanted) else { return Ok(()) };
    if new["roleRef"] == existing["roleRef"] {
        send(client, Method::PUT, &path, &new).await?;
    } else {
        // A binding cannot be changed to another role.
        send(client, Method::DELETE, &path, &Value::Null).await?;
        create(client, &collection, wanted).await?;
    }
    Ok(())
}

fn kubernetes_service(addresses: &Addresses) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": addresses.kubernetes().to_string(), "ports": [{"name": "https", "port": 443, "targetPort": API_PORT}]}})
}

/// The API's endpoint is no pod: no controller writes its slice.
fn kubernetes_slice(addresses: &Addresses) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [addresses.gateway.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}]})
}

fn kubernetes_endpoints(addresses: &Addresses) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": addresses.gateway.to_string()}],
            "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}]}]})
}

fn dns_service(addresses: &Addresses) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"clusterIP": addresses.dns().to_string(), "selector": {"k8s-app": "kube-dns"}, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]}})
}

fn dns_deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coracle-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"k8s-app": "kube-dns"}}, "template": {
            "metadata": {"labels": {"k8s-app": "kube-dns"}},
            "spec": {"priorityClassName": "system-cluster-critical", "dnsPolicy": "Default", "containers": [{"name": "dns",
                "image": format!("{FUNCTION_IMAGE}{DNS_FUNCTION}"), "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "ZONE", "value": ZONE}],
                "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"}]}]}}}})
}
