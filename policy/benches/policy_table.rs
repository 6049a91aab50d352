//! What policies cost: new connections, compiling, changing one policy or one pod of many, and the matrix.
//!
//! `cargo bench -p policy`. What policies cost is told beside what the same costs without any, in the same run. Every
//! other figure is the median of several rounds. What takes long is measured in processor time of the one thread that does
//! it all (Linux; elapsed time elsewhere), so that it does not count what else the machine has to do.

use informer::{Activity, Informer};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, Hooks, Host, Network, NewFlow, PortTag, Protocol, Translate, Translation};
use policy::{Destination, PodInfo, Policy, PolicyTable, Sources};
use serde_json::json;
use std::fmt::Display;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAMESPACES: u32 = 50;
const ROUNDS: usize = 9;
const FLOWS: u32 = 100_000;
const CONNECTIONS: usize = 4_000;
const PORT: u16 = 8080;

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
fn network_policy(number: u32, port: u16) -> NetworkPolicy {
    from(json!({
        "metadata": { "namespace": format!("ns-{}", number % NAMESPACES), "name": format!("policy-{number}") },
        "spec": {
            "podSelector": { "matchLabels": { "app": format!("app-{}", number / NAMESPACES % 20) } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "from": [{ "podSelector": { "matchLabels": { "app": format!("app-{}", (number + 1) % 20) } } }], "ports": [{ "port": port }] },
                { "from": [{ "namespaceSelector": { "matchLabels": { "team": format!("team-{}", number % 5) } } }], "ports": [{ "port": 8000, "endPort": 9199 }] },
                { "from": [{ "ipBlock": { "cidr": "203.0.0.0/16", "except": [format!("203.0.{}.0/24", number % 256)] } }] },
            ],
            "egress": [{ "to": [{ "namespaceSelector": {} }] }],
        },
    }))
}

fn pod(number: u32, extra: &str) -> Pod {
    from(json!({
        "metadata": { "namespace": format!("ns-{}", number % NAMESPACES), "name": format!("pod-{number}"), "labels": {
            // As a StatefulSet does: no two pods share all their labels.
            "app": format!("app-{}", number / NAMESPACES % 20), "statefulset.kubernetes.io/pod-name": format!("pod-{number}{extra}"),
        } },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "main", "ports": [{ "name": "http", "containerPort": PORT }] }] },
    }))
}

fn world(policies: u32, pods: u32) -> World {
    let namespace = |number: u32| -> Namespace {
        from(
            json!({ "metadata": { "name": format!("ns-{number}"), "labels": { "team": format!("team-{}", number % 5) } } }),
        )
    };
    World {
        namespaces: (0..NAMESPACES).map(namespace).collect(),
        pods: (0..pods).map(|number| (pod(number, ""), [pod_ip(number)])).collect(),
        policies: (0..policies).map(|number| network_policy(number, PORT)).collect(),
    }
}

fn build(world: &World) -> PolicyTable {
    let pods = world.pods.iter().map(|(pod, ips)| PodInfo { pod, ips });
    PolicyTable::build(&world.policies, &world.namespaces, pods, [])
}

fn flow(src: u32, dst: u32, port: u16) -> NewFlow {
    let tuple = FiveTuple {
        protocol: Protocol::Tcp,
        src: SocketAddr::new(pod_ip(src), 40_000),
        dst: SocketAddr::new(pod_ip(dst), port),
    };
    NewFlow { original: tuple, translated: tuple, from: PortTag(1), to: PortTag(2) }
}

fn pair(number: u32, pods: u32) -> (u32, u32) {
    (number.wrapping_mul(7919) % pods, number.wrapping_mul(104_729) % pods)
}

fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

/// Starts to measure; what it returns says how much time has been used since.
fn stopwatch() -> impl FnOnce() -> Duration {
    let used = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let (start, before) = (Instant::now(), used());
    move || match (before, used()) {
        (Some(before), Some(after)) => after - before,
        _ => start.elapsed(),
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let (start, time) = (Instant::now(), stopwatch());
    work();
    let (elapsed, used) = (start.elapsed(), time());
    // The kernel counts in ticks of some milliseconds.
    if elapsed < Duration::from_millis(10) { elapsed } else { used }
}

fn verdicts(table: &PolicyTable, pods: u32) -> Duration {
    timed(|| {
        for number in 0..FLOWS {
            let (src, dst) = pair(number, pods);
            let _ = black_box(table.allows(&flow(src, dst, [PORT, 9150, 22][number as usize % 3])));
        }
    }) / FLOWS
}

/// Every pod's rules, both ways.
fn compile_all(table: &PolicyTable, pods: u32) {
    for number in 0..pods {
        let _ = black_box(table.allows(&flow(number, (number + 1) % pods, PORT)));
    }
}

struct PassAll;

impl Translate for PassAll {
    fn translate(&self, _: &FiveTuple, _: PortTag, _: tokio::time::Instant) -> Translation {
        Translation::Pass
    }
}

/// The policy engine as it runs in a cluster, with a host for every pod.
struct Live {
    activity: Activity,
    policy: Policy,
    sources: Sources,
    hosts: Vec<Host>,
}

impl Live {
    async fn start(world: &World) -> Live {
        let activity = Activity::default();
        let network = Network::new(netstack::Config { mtu: 1500, seed: 1 });
        let sources = Sources {
            policies: Informer::detached(activity.clone()),
            namespaces: Informer::detached(activity.clone()),
            cluster_policies: None,
            pods: Informer::detached(activity.clone()),
            nodes: Informer::detached(activity.clone()),
        };
        let policy = policy::start_with(sources.clone(), network.clone(), policy::Config::default());
        network.install(Hooks { translate: Arc::new(PassAll), filter: policy.filter() });
        world.namespaces.iter().for_each(|namespace| sources.namespaces.apply(namespace.clone()));
        let mut hosts = Vec::new();
        for (pod, ips) in &world.pods {
            sources.pods.apply(pod.clone());
            policy.attach(pod, ips).await;
            let host = network.attach_host(ips, PortTag(1)).expect("a free address");
            let listener = host.tcp_listen(PORT).expect("a free port");
            tokio::spawn(async move { while listener.accept().await.is_ok() {} });
            hosts.push(host);
        }
        Live { activity, policy, sources, hosts }
    }

    async fn apply(&self, policies: &[NetworkPolicy]) {
        policies.iter().for_each(|policy| self.sources.policies.apply(policy.clone()));
        self.activity.idle().await;
    }

    async fn delete(&self, policies: &[NetworkPolicy]) {
        policies.iter().for_each(|policy| self.sources.policies.delete(policy.clone()));
        self.activity.idle().await;
    }

    /// The time that connections take, one after the other.
    async fn connect(&self, pairs: &[(u32, u32)]) -> Duration {
        let time = stopwatch();
        for (src, dst) in pairs {
            let to = SocketAddr::new(pod_ip(*dst), PORT);
            drop(self.hosts[*src as usize].tcp_connect(to).await.expect("connected"));
        }
        time()
    }
}

async fn live(line: &mut impl FnMut(&str, &dyn Display) -> io::Result<()>) -> io::Result<()> {
    let (policies, pods) = (1_000, 5_000);
    let world = world(policies, pods);
    let table = build(&world);
    let allowed = |(src, dst): &(u32, u32)| src != dst && table.allows(&flow(*src, *dst, PORT)).is_ok();
    let pairs: Vec<(u32, u32)> = (0..).map(|number| pair(number, pods)).filter(allowed).take(CONNECTIONS).collect();
    let live = Live::start(&world).await;
    // None and some by turns, each measured twice: when pods meet for the first time under these policies, and once they
    // know one another. The sums are compared: the processor time of one round is known to a few milliseconds only.
    let [mut first_without, mut without, mut first_with, mut with] = [Duration::ZERO; 4];
    for round in 0..=2 * ROUNDS {
        let none = [live.connect(&pairs).await, live.connect(&pairs).await];
        live.apply(&world.policies).await;
        let some = [live.connect(&pairs).await, live.connect(&pairs).await];
        live.delete(&world.policies).await;
        if round > 0 {
            first_without += none[0];
            without += none[1];
            first_with += some[0];
            with += some[1];
        }
    }
    let rate = |time: Duration| format!("{:.0}", (2 * ROUNDS * CONNECTIONS) as f64 / time.as_secs_f64());
    let ratio = |without: Duration, with: Duration| format!("{:.3}", without.as_secs_f64() / with.as_secs_f64());
    line("new connections per second, no policy, 5000 pods", &rate(without))?;
    line("new connections per second, 1000 policies, 5000 pods", &rate(with))?;
    line("  relative to none", &ratio(without, with))?;
    line("  relative to none, between pods that meet for the first time", &ratio(first_without, first_with))?;
    live.apply(&world.policies).await;
    let at = ROUNDS / 2;
    let mut changes = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        live.sources.pods.apply(pod(7, &format!("-{round}")));
        live.activity.idle().await;
        let _ = black_box(live.policy.table().allows(&flow(6, 7, PORT)));
        changes.push(start.elapsed());
    }
    changes.sort();
    line("one pod's labels changed, in force, 1000 policies, 5000 pods", &format!("{:?}", changes[at]))?;
    let mut changes = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        live.sources.policies.apply(network_policy(7, 8100 + round as u16));
        live.activity.idle().await;
        changes.push(start.elapsed());
    }
    changes.sort();
    line("one policy changed, in force, 1000 policies, 5000 pods", &format!("{:?}", changes[at]))
}

/// Memory that the process holds (Linux; 0 elsewhere).
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

/// What is held once every pod has met a pod of every set of rules, in both directions.
fn remembered(line: &mut impl FnMut(&str, &dyn Display) -> io::Result<()>) -> io::Result<()> {
    let (policies, pods) = (1_000, 5_000);
    let world = world(policies, pods);
    let table = build(&world);
    compile_all(&table, pods);
    let before = resident();
    // The first pods are of all the policies' pods.
    let met = timed(|| {
        for one in 0..policies {
            for other in 0..pods {
                let _ = black_box((table.allows(&flow(one, other, PORT)), table.allows(&flow(other, one, PORT))));
            }
        }
    });
    let held = resident().saturating_sub(before);
    line("remembered of peers, 1000 policies, 5000 pods that have all met", &format!("{} MiB", held >> 20))?;
    line("  a verdict meanwhile", &format!("{:?}", met / (2 * policies * pods)))?;
    let again = verdicts(&table, pods);
    line("  a verdict, random pairs, afterwards", &format!("{again:?}"))
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = |name: &str, figure: &dyn Display| writeln!(out, "{name:<66} {figure}");
    for (policies, pods) in [(0, 5_000), (10, 50), (1_000, 5_000)] {
        let world = world(policies, pods);
        let table = build(&world);
        let size = format!("{policies} policies, {pods} pods");
        let built = median(|| timed(|| drop(black_box(build(&world)))));
        line(&format!("read, {size}"), &format!("{built:?}"))?;
        let built = median(|| timed(|| compile_all(&build(&world), pods)));
        line(&format!("read and compile for every pod, {size}"), &format!("{built:?}"))?;
        verdicts(&table, pods);
        let compiled = median(|| verdicts(&table, pods));
        line(&format!("verdict, random pairs, {size}"), &format!("{compiled:?}"))?;
        let few = median(|| verdicts(&table, 50));
        line(&format!("verdict, pairs of 50 pods, {size}"), &format!("{few:?}"))?;
    }
    let from: Vec<IpAddr> = (0..1_000).map(pod_ip).collect();
    let ports = [PORT, 9150, 22];
    let to = from.iter().flat_map(|address| ports.map(|port| (*address, port)));
    let to: Vec<Destination> =
        to.map(|(address, port)| Destination { address, protocol: Protocol::Tcp, port }).collect();
    let world = world(1_000, 5_000);
    let first = median(|| {
        let table = build(&world);
        timed(|| drop(black_box(table.matrix(&from, &to))))
    });
    line("matrix of 1000 x 1000 pods x 3 ports, nothing compiled before", &format!("{first:?}"))?;
    let table = build(&world);
    let again = median(|| timed(|| drop(black_box(table.matrix(&from, &to)))));
    line("matrix of 1000 x 1000 pods x 3 ports, again", &format!("{again:?}"))?;
    let one_by_one = timed(|| {
        for source in 0..1_000 {
            for destination in 0..1_000 {
                for port in ports {
                    let _ = black_box(table.allows(&flow(source, destination, port)));
                }
            }
        }
    });
    line("  the same, verdict by verdict", &format!("{one_by_one:?}"))?;
    remembered(&mut line)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live(&mut line))
}
