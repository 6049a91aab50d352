//! The Node object of a virtual node: registered at start, kept alive by its Lease.
//!
//! Follows Kubernetes' "Node status" and KEP-589 (node leases).

use crate::kubelet::Shared;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

const LEASE_SECONDS: u64 = 40;
const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// Registers the node, writes that it is ready.
pub(crate) async fn register(kubelet: &Arc<Shared>) -> Result<(), kube::Error> {
    let config = &kubelet.config;
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let cidrs: Vec<String> =
        config.pod_networks.iter().map(|(network, prefix)| format!("{network}/{prefix}")).collect();
    let mut labels = json!({
        "kubernetes.io/hostname": config.node_name, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture(),
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture(),
        "net.coracle.dev/virtual": "true",
    });
    for (key, value) in &config.labels {
        labels[key] = value.as_str().into();
    }
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": config.node_name, "labels": labels},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs, "providerID": format!("coracle://{}", config.node_name)},
    }))
    .map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = json!({"metadata": {"labels": labels}});
            api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Err(error) => return Err(error),
    }
    let mut patch = json!({"status": status(kubelet, true)});
    // The list's merge key is the type, of which a dual-stack node has two alike: so it is replaced, as upstream's kubelet does.
    if let Some(addresses) = patch["status"]["addresses"].as_array_mut() {
        addresses.push(json!({"$patch": "replace"}));
    }
    api.patch_status(&config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(kubelet: &Shared, ready: bool) -> Value {
    let config = &kubelet.config;
    let now = Time(kubelet.now());
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        json!({"type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let internal = config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip}));
    let addresses: Vec<Value> = internal.chain([json!({"type": "Hostname", "address": config.node_name})]).collect();
    let (cpus, memory, pods) = config.capacity;
    let capacity = json!({"cpu": cpus.to_string(), "memory": format!("{}Ki", memory / 1024), "pods": pods.to_string(),
        "ephemeral-storage": "100Gi"});
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", ready, "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "machineID": config.node_name, "systemUUID": config.node_name, "bootID": config.node_name,
            "kernelVersion": "smoltcp", "osImage": format!("Coracle {}", env!("CARGO_PKG_VERSION")),
            "containerRuntimeVersion": format!("coracle://{}", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": config.version, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": architecture(),
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    })
}

/// Renews the node's Lease for ever.
pub(crate) async fn heartbeat(kubelet: Arc<Shared>) {
    let api: Api<Lease> = Api::namespaced(kubelet.client.clone(), "kube-node-lease");
    let name = kubelet.config.node_name.clone();
    loop {
        // MicroTime has exactly six digits.
        let renewed = kubelet.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed});
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
        if let Err(kube::Error::Api(answer)) = &patched
            && answer.code == 404
        {
            let lease = serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec}),
            );
            if let Ok(lease) = lease
                && let Err(error) = api.create(&PostParams::default(), &lease).await
            {
                warn!(node = name, %error, "lease not created");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        }
        tokio::time::sleep(LEASE_RENEWAL).await;
    }
}
