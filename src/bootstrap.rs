//! The objects every cluster begins with: default roles, priority and runtime classes, and the Services and workloads of the cluster itself.
//!
//! Written through the API, as anybody else would; what stands there already (from an earlier run) stays.

use crate::addresses::Addresses;
use crate::cluster::ZONE;
use crate::in_process::{self, API_PORT, DNS_METRICS_PORT};
use anyhow::{Context, Result};
use apiserver::ApiServer;
use apiserver::authn::UserInfo;
use apiserver::flow_control;
use apiserver::rbac_bootstrap;
use apiserver::registry::Finding;
use futures::future::try_join_all;
use http::Method;
use informer::{Change, Informer, Informers, Update, Working};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubelet::FUNCTION_IMAGE;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;

/// Name of the in-process function that is the DNS server.
pub(crate) const DNS_FUNCTION: &str = "dns";

/// The interval of upstream's reconciler.
const OWN_OBJECTS_RETRY: Duration = Duration::from_secs(10);

const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// Writes what is missing.
pub(crate) async fn objects(api: &ApiServer, addresses: &Addresses, nodes: u32) -> Result<()> {
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
    create(&client, "/api/v1/namespaces/kube-system/services", &dns_service(addresses)).await?;
    own_objects(&client, addresses).await?;
    if addresses.ipv6.is_some() {
        add_second_family(&client, &service_cidr(addresses)).await?;
    }
    forget_other_nodes(&client, addresses, nodes).await?;
    create(&client, "/apis/apps/v1/namespaces/kube-system/deployments", &dns_deployment()).await?;
    Ok(())
}

/// Creates what the API server has of its own, as far as it is missing: its Service with the endpoint, and the range of Services.
async fn own_objects(client: &kube::Client, addresses: &Addresses) -> Result<()> {
    create(client, "/api/v1/namespaces/default/services", &kubernetes_service(addresses)).await?;
    create(client, SERVICE_CIDRS, &service_cidr(addresses)).await?;
    create(client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &kubernetes_slice(addresses)).await?;
    create(client, "/api/v1/namespaces/default/endpoints", &kubernetes_endpoints(addresses)).await
}

/// Puts back what the API server has of its own when somebody deletes it (`kubectl delete service --all`), as upstream's does. Never
/// ends.
pub(crate) async fn keep_own_objects(api: ApiServer, informers: Informers, addresses: Addresses) {
    let client = in_process::client(&api, UserInfo::admin());
    let (sender, mut deleted) = mpsc::unbounded_channel();
    tokio::join!(
        tell_deleted(informers.of::<Service>(), Some("default"), sender.clone()),
        tell_deleted(informers.of::<EndpointSlice>(), Some("default"), sender.clone()),
        tell_deleted(informers.of::<Endpoints>(), Some("default"), sender.clone()),
        tell_deleted(informers.of::<ServiceCIDR>(), None, sender),
        async {
            while let Some(working) = deleted.recv().await {
                while let Err(error) = own_objects(&client, &addresses).await {
                    tracing::warn!(%error, "the API server's own objects cannot be put back; trying again");
                    tokio::time::sleep(OWN_OBJECTS_RETRY).await;
                }
                drop(working);
            }
        }
    );
}

/// Tells when the object `kubernetes` of a kind has been deleted.
async fn tell_deleted<K: informer::Resource>(
    informer: Informer<K>,
    namespace: Option<&str>,
    sender: mpsc::UnboundedSender<Working>,
) {
    let mut changes = informer.subscribe();
    while let Some(Change { update, working }) = changes.next().await {
        let metadata = update.object().metadata();
        let is_own = metadata.name.as_deref() == Some("kubernetes") && metadata.namespace.as_deref() == namespace;
        if is_own && matches!(update, Update::Deleted(_)) && sender.send(working).is_err() {
            return;
        }
    }
}

async fn create(client: &kube::Client, path: &str, object: &Value) -> Result<()> {
    created(client, path, object).await.map(drop)
}

/// Gives what an earlier, single-stack run has left its second family: the range of Services and the DNS Service.
async fn add_second_family(client: &kube::Client, wanted: &Value) -> Result<()> {
    let path = format!("{SERVICE_CIDRS}/kubernetes");
    let mut range = send(client, Method::GET, &path, &Value::Null).await?;
    // As upstream's: one network may be joined by a second; whoever has set another one up has meant it.
    if range["spec"]["cidrs"].as_array().is_some_and(|known| known.len() == 1 && known[0] == wanted["spec"]["cidrs"][0])
    {
        range["spec"]["cidrs"] = wanted["spec"]["cidrs"].clone();
        send(client, Method::PUT, &path, &range).await?;
    }
    let path = "/api/v1/namespaces/kube-system/services/kube-dns";
    let mut service = send(client, Method::GET, path, &Value::Null).await?;
    if service["spec"]["clusterIPs"].as_array().is_some_and(|ips| ips.len() == 1) {
        service["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
        send(client, Method::PUT, path, &service).await?;
    }
    Ok(())
}

/// Removes nodes whose podCIDRs an earlier run has made in fewer or more families: a node's never change, so it registers anew.
async fn forget_other_nodes(client: &kube::Client, addresses: &Addresses, nodes: u32) -> Result<()> {
    let known = send(client, Method::GET, "/api/v1/nodes", &Value::Null).await?;
    for index in 1..=nodes {
        let name = format!("node-{index}");
        let cidrs: Vec<String> =
            addresses.pod_networks_of(index).iter().map(|(network, prefix)| format!("{network}/{prefix}")).collect();
        let is_other = |node: &&Value| node["metadata"]["name"] == *name && node["spec"]["podCIDRs"] != json!(cidrs);
        if known["items"].as_array().into_iter().flatten().any(|node| is_other(&node)) {
            send(client, Method::DELETE, &format!("/api/v1/nodes/{name}"), &Value::Null).await?;
        }
    }
    Ok(())
}

/// Tells as Events what was wrong with allocations when the store was opened, and what has been put right since. Never ends.
pub(crate) async fn keep_repaired(api: ApiServer, found: Vec<Finding>) {
    let client = in_process::client(&api, UserInfo::admin());
    let (sender, mut findings) = mpsc::unbounded_channel();
    for finding in found {
        // The receiver is here.
        let _ = sender.send(finding);
    }
    let tell = async {
        while let Some(Finding { object, reason, message }) = findings.recv().await {
            tracing::warn!(%object, reason, message, "allocation repaired");
            let now = Time(api.now());
            let namespace = object["namespace"].as_str().unwrap_or("default");
            let name = object["name"].as_str().unwrap_or_default().replace(':', "-");
            let event = json!({"apiVersion": "v1", "kind": "Event",
                "metadata": {"generateName": format!("{name}."), "namespace": namespace},
                "involvedObject": object, "type": "Warning", "reason": reason, "message": message, "count": 1,
                "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "ipallocator-repair-controller"}});
            let path = format!("/api/v1/namespaces/{namespace}/events");
            if let Err(error) = send(&client, Method::POST, &path, &event).await {
                tracing::debug!(%error, "event not written");
            }
        }
    };
    tokio::join!(api.keep_repaired(sender), tell);
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

fn service_cidr(addresses: &Addresses) -> Value {
    let networks: Vec<String> =
        addresses.service_networks().iter().map(|(network, prefix)| format!("{network}/{prefix}")).collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": networks}})
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
    let ips = addresses.dns_addresses();
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"clusterIP": ips[0], "clusterIPs": ips, "selector": {"k8s-app": "kube-dns"}, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            {"name": "metrics", "port": DNS_METRICS_PORT, "protocol": "TCP", "targetPort": DNS_METRICS_PORT}]}});
    if addresses.ipv6.is_some() {
        service["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
    }
    service
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
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": DNS_METRICS_PORT, "protocol": "TCP"}]}]}}}})
}
