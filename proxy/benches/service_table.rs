//! What Services cost: building the table, changing one Service of many, and translating one flow.
//!
//! `cargo bench -p proxy`. A translation must cost the same with one Service as with ten thousand. Every figure is the
//! median of several rounds.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netstack::{FiveTuple, PortTag, Protocol, Translate, Translation};
use proxy::{Addressing, ServiceTable, Translator};
use serde_json::json;
use std::fmt::Display;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
const NODES: u32 = 100;
const ROUNDS: usize = 7;

struct World {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    nodes: Vec<Arc<Node>>,
}

fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

fn pod_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number)
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn slice(number: u32, endpoints: u32) -> EndpointSlice {
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

fn world(services: u32) -> World {
    let service = |number: u32| {
        from(json!({
            "metadata": { "namespace": "default", "name": format!("s{number}") },
            "spec": { "clusterIPs": [cluster_ip(number)], "ports": [{ "port": 80, "protocol": "TCP" }] },
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

fn addressing() -> Addressing {
    Addressing {
        service_cidrs: vec![(IpAddr::from([10, 96, 0, 0]), 12)],
        cluster_cidrs: vec![(IpAddr::from([10, 128, 0, 0]), 9)],
        gateway_addresses: vec![IpAddr::from([172, 18, 0, 1])],
    }
}

fn build(world: &World) -> ServiceTable {
    ServiceTable::build(&addressing(), &world.services, &world.slices, &world.nodes)
}

fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn translation(table: &ServiceTable, services: u32) -> Duration {
    const FLOWS: u32 = 200_000;
    let translator = Translator::new(table.clone(), 1);
    let now = tokio::time::Instant::now();
    median(|| {
        let work = || {
            for number in 0..FLOWS {
                // A stride that visits the Services in no order, so that caches get no help that real clients lack.
                let service = number.wrapping_mul(7919) % services;
                let flow = FiveTuple {
                    protocol: Protocol::Tcp,
                    src: SocketAddr::new(pod_ip(number % 50_000).into(), 40_000),
                    dst: SocketAddr::new(cluster_ip(service).into(), 80),
                };
                let translation = black_box(translator.translate(&flow, PortTag(1), now));
                assert!(matches!(translation, Translation::To { .. }));
            }
        };
        timed(work) / FLOWS
    })
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = |name: &str, figure: &dyn Display| writeln!(out, "{name:<66} {figure}");
    let (one, many) = (world(1), world(SERVICES));
    let (one_table, table) = (build(&one), build(&many));
    line(
        &format!("build, {SERVICES} Services × {ENDPOINTS} endpoints, {NODES} nodes"),
        &format!("{:?}", median(|| timed(|| drop(black_box(build(&many)))))),
    )?;
    let changed = slice(SERVICES / 2, ENDPOINTS - 1);
    let service = &many.services[SERVICES as usize / 2];
    line(
        &format!("change one Service of {SERVICES}"),
        &format!("{:?}", median(|| timed(|| drop(black_box(table.with_service(service, std::iter::once(&changed))))))),
    )?;
    line(
        "change one Service of 1",
        &format!("{:?}", {
            let changed = slice(0, ENDPOINTS - 1);
            median(|| timed(|| drop(black_box(one_table.with_service(&one.services[0], std::iter::once(&changed))))))
        }),
    )?;
    line("translate one flow, 1 Service", &format!("{:?}", translation(&one_table, 1)))?;
    line(&format!("translate one flow, {SERVICES} Services"), &format!("{:?}", translation(&table, SERVICES)))
}
