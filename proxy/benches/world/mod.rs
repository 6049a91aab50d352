//! Many Services, their endpoints and nodes, for benchmarks.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy::Addressing;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub(crate) const SERVICES: u32 = 10_000;
pub(crate) const ENDPOINTS: u32 = 10;
pub(crate) const NODES: u32 = 100;
pub(crate) const ROUNDS: usize = 7;

pub(crate) struct World {
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) nodes: Vec<Arc<Node>>,
}

pub(crate) fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

pub(crate) fn pod_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number)
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

pub(crate) fn slice(number: u32, endpoints: u32) -> EndpointSlice {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|index| {
            let pod = number * ENDPOINTS + index;
            json!({ "addresses": [pod_ip(pod)], "nodeName": format!("node-{}", pod % NODES), "conditions": { "ready": true } })
        })
        .collect();
    from(json!({
        "metadata": { "namespace": "default", "name": format!("s{number}-1"), "labels": { "kubernetes.io/service-name": format!("s{number}") } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints,
    }))
}

pub(crate) fn world(services: u32) -> World {
    let service = |number: u32| {
        from(json!({
            "metadata": { "namespace": "default", "name": format!("s{number}") },
            // A fourth of them has node ports: what the outside reaches is kept up to date as well.
            "spec": {
                "type": if number.is_multiple_of(4) { "NodePort" } else { "ClusterIP" },
                "clusterIPs": [cluster_ip(number)],
                "ports": [{ "port": 80, "protocol": "TCP", "nodePort": number.is_multiple_of(4).then(|| 20_000 + number) }],
            },
        }))
    };
    let node = |number: u32| {
        let (second, third) = (128 + number / 256, number % 256);
        from(json!({
            "metadata": { "name": format!("node-{number}") },
            "spec": { "podCIDR": format!("10.{second}.{third}.0/24") },
            "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.18.1.{number}") }] },
        }))
    };
    World {
        services: (0..services).map(|number| Arc::new(service(number))).collect(),
        slices: (0..services).map(|number| Arc::new(slice(number, ENDPOINTS))).collect(),
        nodes: (0..NODES).map(|number| Arc::new(node(number))).collect(),
    }
}

pub(crate) fn addressing() -> Addressing {
    Addressing {
        service_cidrs: vec![(IpAddr::from([10, 96, 0, 0]), 12)],
        cluster_cidrs: vec![(IpAddr::from([10, 128, 0, 0]), 9)],
        gateway_addresses: vec![IpAddr::from([172, 18, 0, 1])],
    }
}
