//! What policies cost: building the table, changing one policy of many, and judging one flow.
//!
//! `cargo bench -p policy`. A verdict must cost the same with ten policies and fifty pods as with a thousand and five
//! thousand, once the rules that the flow meets have been compiled. Every figure is the median of several rounds.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, NewFlow, PortTag, Protocol};
use policy::{PodInfo, PolicyTable};
use serde_json::json;
use std::fmt::Display;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const NAMESPACES: u32 = 50;
const ROUNDS: usize = 7;
const FLOWS: u32 = 100_000;

struct World {
    namespaces: Vec<Namespace>,
    pods: Vec<(Pod, [IpAddr; 1])>,
    policies: Vec<NetworkPolicy>,
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn pod_ip(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + number).into()
}

/// A policy for one app of one namespace: from another app, from a namespace by its label, and from a range.
fn network_policy(number: u32, port: u32) -> NetworkPolicy {
    from(json!({
        "metadata": { "namespace": format!("ns-{}", number % NAMESPACES), "name": format!("policy-{number}") },
        "spec": {
            "podSelector": { "matchLabels": { "app": format!("app-{}", number / NAMESPACES % 20) } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "from": [{ "podSelector": { "matchLabels": { "app": format!("app-{}", (number + 1) % 20) } } }], "ports": [{ "port": port }] },
                { "from": [{ "namespaceSelector": { "matchLabels": { "team": format!("team-{}", number % 5) } } }], "ports": [{ "port": 9100, "endPort": 9199 }] },
                { "from": [{ "ipBlock": { "cidr": "203.0.0.0/16", "except": [format!("203.0.{}.0/24", number % 256)] } }] },
            ],
            "egress": [{ "to": [{ "namespaceSelector": {} }] }],
        },
    }))
}

fn world(policies: u32, pods: u32) -> World {
    let pod = |number: u32| -> Pod {
        from(json!({
            "metadata": { "namespace": format!("ns-{}", number % NAMESPACES), "name": format!("pod-{number}"), "labels": {
                // As a StatefulSet does: no two pods share all their labels.
                "app": format!("app-{}", number / NAMESPACES % 20), "statefulset.kubernetes.io/pod-name": format!("pod-{number}"),
            } },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "main", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        }))
    };
    let namespace = |number: u32| -> Namespace {
        from(
            json!({ "metadata": { "name": format!("ns-{number}"), "labels": { "team": format!("team-{}", number % 5) } } }),
        )
    };
    World {
        namespaces: (0..NAMESPACES).map(namespace).collect(),
        pods: (0..pods).map(|number| (pod(number), [pod_ip(number)])).collect(),
        policies: (0..policies).map(|number| network_policy(number, 8080)).collect(),
    }
}

fn build(world: &World) -> PolicyTable {
    let pods = world.pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
    PolicyTable::build(&world.policies, &world.namespaces, pods, [])
}

fn flow(number: u32, pods: u32) -> NewFlow {
    let (src, dst) = (number.wrapping_mul(7919) % pods, number.wrapping_mul(104_729) % pods);
    let port = [8080, 9150, 22][number as usize % 3];
    let tuple = FiveTuple {
        protocol: Protocol::Tcp,
        src: SocketAddr::new(pod_ip(src), 40_000),
        dst: SocketAddr::new(pod_ip(dst), port),
    };
    NewFlow { original: tuple, translated: tuple, from: PortTag(1), to: PortTag(2) }
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

fn verdicts(table: &PolicyTable, pods: u32) -> Duration {
    timed(|| {
        for number in 0..FLOWS {
            let _ = black_box(table.allows(&flow(number, pods)));
        }
    }) / FLOWS
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = |name: &str, figure: &dyn Display| writeln!(out, "{name:<66} {figure}");
    for (policies, pods) in [(10, 50), (1_000, 5_000)] {
        let world = world(policies, pods);
        let table = build(&world);
        let size = format!("{policies} policies, {pods} pods");
        let built = median(|| timed(|| drop(black_box(build(&world)))));
        line(&format!("build, {size}"), &format!("{built:?}"))?;
        let changed = network_policy(policies / 2, 8081);
        let change = median(|| timed(|| drop(black_box(table.with_policy(&changed)))));
        line(&format!("change one policy, {size}"), &format!("{change:?}"))?;
        let first = flow(1, pods);
        let destination = 104_729 % pods;
        let changed = network_policy(destination % NAMESPACES, 8081);
        let judged = median(|| {
            let table = table.with_policy(&changed);
            timed(|| {
                let _ = black_box(table.allows(&first));
            })
        });
        line(&format!("first verdict after a change, {size}"), &format!("{judged:?}"))?;
        let compiling = verdicts(&build(&world), pods);
        line(&format!("verdict, rules being compiled, {size}"), &format!("{compiling:?}"))?;
        verdicts(&table, pods);
        let compiled = median(|| verdicts(&table, pods));
        line(&format!("verdict, rules compiled, {size}"), &format!("{compiled:?}"))?;
    }
    Ok(())
}
