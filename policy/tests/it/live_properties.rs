//! What must hold for the running engine, whatever changes and in whatever order: its table is that of the newest state,
//! packets meet what the matrix says, and no packet is judged by half a change.

use crate::dice::{Dice, NAMESPACES};
use crate::naive::World;
use crate::network::{Net, net, node};
use crate::support::{namespace, pod, yaml};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, Host, NewFlow, PortTag, Protocol, Verdict};
use policy::{Denial, Destination};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The world's objects, as the API tells of them.
async fn tell(net: &Net, world: &World) {
    world.namespaces.iter().for_each(|namespace| net.sources.namespaces.apply(namespace.clone()));
    for (ip, info) in &world.nodes {
        net.sources.nodes.apply(labelled(&info.name, *ip, &info.labels));
    }
    for (pod, ips) in &world.pods {
        net.sources.pods.apply(pod.clone());
        net.policy.attach(pod, ips).await;
    }
    let cluster = net.sources.cluster_policies.as_ref().expect("followed");
    world.policies.iter().for_each(|policy| net.sources.policies.apply(policy.clone()));
    world.cluster_policies.iter().for_each(|policy| cluster.cluster.apply(policy.clone()));
    world.admin_policies.iter().for_each(|policy| cluster.admin.apply(policy.clone()));
    world.baseline.iter().for_each(|policy| cluster.baseline.apply(policy.clone()));
    for (name, address) in world.names.addresses() {
        net.policy.answered([(&*name, address, Duration::from_secs(3600))]);
    }
    net.activity.idle().await;
}

fn labelled(
    name: &str,
    ip: IpAddr,
    labels: &std::collections::BTreeMap<String, String>,
) -> k8s_openapi::api::core::v1::Node {
    let mut node = node(name, &ip.to_string());
    node.metadata.labels = Some(labels.clone());
    node
}

#[tokio::test(start_paused = true)]
async fn after_any_single_change_the_table_is_the_one_compiled_from_scratch() {
    for seed in 0..40 {
        let mut dice = Dice::of(seed);
        let mut world = dice.world();
        let net = net(Denial::Drop);
        tell(&net, &world).await;
        for step in 0..12 {
            for _ in 0..5 {
                let _ = net.policy.table().allows(&dice.flow(&world)); // fills what is remembered
            }
            change(&mut dice, &mut world, &net).await;
            let (live, scratch) = (net.policy.table(), world.table());
            for _ in 0..15 {
                let flow = dice.flow(&world);
                let (live, scratch) = (live.explain(&flow), scratch.explain(&flow));
                assert_eq!(live, scratch, "seed {seed}, step {step}: {flow:?}");
            }
        }
    }
}

/// One thing changes: a pod's, a namespace's or a node's labels, a pod, or a policy.
async fn change(dice: &mut Dice, world: &mut World, net: &Net) {
    match dice.up_to(6) {
        0 => {
            let index = dice.up_to(world.pods.len() - 1);
            let labels = pod("x/x", &dice.labels(), "", "").metadata.labels;
            world.pods[index].0.metadata.labels = labels;
            net.sources.pods.apply(world.pods[index].0.clone());
        }
        1 => {
            let name = *dice.pick(&NAMESPACES);
            let changed = namespace(name, &dice.labels());
            world.namespaces.retain(|known| known.metadata.name != changed.metadata.name);
            world.namespaces.push(changed.clone());
            net.sources.namespaces.apply(changed);
        }
        2 => {
            let index = dice.up_to(1);
            world.nodes[index] = dice.node(index as u8 + 1);
            let (ip, info) = &world.nodes[index];
            net.sources.nodes.apply(labelled(&info.name, *ip, &info.labels));
        }
        3 => {
            // It ends, and another gets its addresses or new ones.
            let index = dice.up_to(world.pods.len() - 1);
            let (gone, ips) = world.pods.swap_remove(index);
            net.sources.pods.delete(gone.clone());
            if gone.spec.as_ref().and_then(|spec| spec.host_network) != Some(true) {
                net.policy.detach(&ips);
            }
            let number = 100 + index as u8 + 10 * dice.up_to(9) as u8;
            let (mut next, mut next_ips) = dice.pod(number);
            world.pods.retain(|(known, _)| {
                (&known.metadata.namespace, &known.metadata.name) != (&next.metadata.namespace, &next.metadata.name)
            });
            if dice.one_in(2)
                && next.spec.as_ref().and_then(|spec| spec.host_network) != Some(true)
                && ips[0].to_string().starts_with("10.")
            {
                next_ips = ips;
            }
            next.metadata.uid = Some(format!("uid-{number}"));
            if world.pods.iter().all(|(_, ips)| ips.iter().all(|ip| !next_ips.contains(ip))) {
                net.sources.pods.apply(next.clone());
                net.policy.attach(&next, &next_ips).await;
                world.pods.push((next, next_ips));
            }
        }
        4 => {
            let cluster = net.sources.cluster_policies.as_ref().expect("followed");
            let policy = dice.cluster_policy(2);
            world.cluster_policies.retain(|known| known.metadata.name != policy.metadata.name);
            if dice.one_in(2) {
                cluster.cluster.delete(policy);
            } else {
                world.cluster_policies.push(policy.clone());
                cluster.cluster.apply(policy);
            }
        }
        _ => {
            let number = dice.up_to(3);
            let policy = dice.policy(number);
            let same = |known: &NetworkPolicy| {
                (&known.metadata.namespace, &known.metadata.name) == (&policy.metadata.namespace, &policy.metadata.name)
            };
            world.policies.retain(|known| !same(known));
            if dice.one_in(3) {
                net.sources.policies.delete(policy);
            } else {
                world.policies.push(policy.clone());
                net.sources.policies.apply(policy);
            }
        }
    }
    net.activity.idle().await;
}

// ── packets beside the matrix ──────────────────────────────────────────────────────────────────────────────────────

const PORTS: [(Protocol, u16); 4] =
    [(Protocol::Tcp, 80), (Protocol::Tcp, 8080), (Protocol::Udp, 53), (Protocol::Icmp, 0)];
const PATIENCE: Duration = Duration::from_millis(500);

/// A host that answers on all of [`PORTS`].
fn answering(net: &Net, address: &IpAddr) -> Host {
    let host = net.network.attach_host(&[*address], PortTag(1)).expect("a free address");
    for port in [80, 8080] {
        let listener = host.tcp_listen(port).expect("a free port");
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    }
    let socket = host.udp_bind(53).expect("a free port");
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    host
}

/// Whether real packets get there and back.
async fn reaches(host: &Host, to: Destination) -> bool {
    let address = SocketAddr::new(to.address, to.port);
    match to.protocol {
        Protocol::Tcp => {
            matches!(tokio::time::timeout(PATIENCE, host.tcp_connect(address)).await, Ok(Ok(_)))
        }
        Protocol::Udp => {
            let socket = host.udp_bind(0).expect("a free port");
            let asked = async {
                socket.send_to(b"x", address).await?;
                socket.recv_from(&mut [0; 16]).await
            };
            matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(_)))
        }
        _ => host.ping(to.address, 8, PATIENCE).await.is_ok(),
    }
}

#[tokio::test(start_paused = true)]
async fn rule_13_2_packets_meet_what_the_matrix_says_for_200_random_sets_of_policies() {
    let mut cells = [0usize; 2];
    for seed in 0..200 {
        let mut dice = Dice::of(1_000 + seed);
        let mut world = dice.world();
        world.pods.truncate(6);
        world.pods.retain(|(pod, _)| pod.spec.as_ref().and_then(|spec| spec.host_network) != Some(true));
        let net = net(if seed % 2 == 0 { Denial::Drop } else { Denial::Reject });
        tell(&net, &world).await;
        let addresses: Vec<IpAddr> = world.pods.iter().map(|(_, ips)| ips[0]).collect();
        let hosts: Vec<Host> = addresses.iter().map(|address| answering(&net, address)).collect();
        let to: Vec<Destination> = addresses
            .iter()
            .flat_map(|address| PORTS.map(|(protocol, port)| Destination { address: *address, protocol, port }))
            .collect();
        let computed = net.policy.table().matrix(&addresses, &to);
        let probes = hosts.iter().flat_map(|host| to.iter().map(move |to| reaches(host, *to)));
        let probed = join_all(probes).await;
        for (number, (computed, probed)) in computed.iter().flatten().zip(probed).enumerate() {
            let (from, to) = (addresses[number / to.len()], to[number % to.len()]);
            assert_eq!(
                *computed, probed,
                "seed {seed}: {from} → {to:?}\n{:#?}\n{:#?}",
                world.policies, world.cluster_policies
            );
            cells[usize::from(probed)] += 1;
        }
    }
    let [denied, allowed] = cells;
    assert!(denied > 2_000 && allowed > 2_000, "the dice are loaded: {denied} denied, {allowed} allowed");
}

// ── one consistent snapshot ────────────────────────────────────────────────────────────────────────────────────────

/// A cluster whose client and server change their labels, their policy and their namespace's labels, step by step.
fn history() -> Vec<World> {
    let mut dice = Dice::of(7);
    let world = |client: &str, server: &str, team: &str, allowed: &str| World {
        namespaces: vec![namespace("alpha", &format!("team={team}"))],
        pods: vec![
            (pod("alpha/client", &format!("role={client}"), "node-1", ""), vec![IpAddr::from([10, 244, 1, 2])]),
            (pod("alpha/server", &format!("role={server}"), "node-2", ""), vec![IpAddr::from([10, 244, 2, 2])]),
        ],
        policies: vec![yaml(&format!(
            "{{ metadata: {{ namespace: alpha, name: p }}, spec: {{ podSelector: {{ matchLabels: {{ role: server }} }}, ingress: [{{ from: [{{ namespaceSelector: {{ matchLabels: {{ team: red }} }}, podSelector: {{ matchLabels: {{ role: {allowed} }} }} }}] }}] }} }}"
        ))],
        ..World::default()
    };
    let mut state = ["a", "server", "red", "a"];
    let mut history = vec![world(state[0], state[1], state[2], state[3])];
    for _ in 0..150 {
        let which = dice.up_to(3);
        let values: &[&str] = [&["a", "b"][..], &["server", "other"], &["red", "blue"], &["a", "b"]][which];
        let other = values.iter().find(|value| **value != state[which]).expect("two of them");
        state[which] = other;
        history.push(world(state[0], state[1], state[2], state[3]));
    }
    history
}

/// Tells what is different between two states, in one burst.
fn tell_change(net: &Net, old: &World, new: &World) {
    for ((old, _), (new, _)) in old.pods.iter().zip(&new.pods).filter(|(old, new)| old != new) {
        assert_eq!(old.metadata.name, new.metadata.name);
        net.sources.pods.apply(Pod::clone(new));
    }
    if old.namespaces != new.namespaces {
        net.sources.namespaces.apply(new.namespaces[0].clone());
    }
    if old.policies != new.policies {
        net.sources.policies.apply(new.policies[0].clone());
    }
}

/// How far the history has been told, and brought into force.
#[derive(Default)]
struct Asked {
    told: AtomicUsize,
    settled: AtomicUsize,
    over: AtomicBool,
}

fn to_server() -> NewFlow {
    let tuple = FiveTuple {
        protocol: Protocol::Udp,
        src: SocketAddr::from(([10, 244, 1, 2], 40_000)),
        dst: SocketAddr::from(([10, 244, 2, 2], 53)),
    };
    NewFlow { original: tuple, translated: tuple, from: PortTag(1), to: PortTag(1) }
}

fn verdicts(history: &[World]) -> Vec<bool> {
    let flow = to_server();
    history.iter().map(|world| world.allows(&flow)).map(|(egress, ingress)| egress && ingress).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_11_16_under_live_traffic_every_packet_is_judged_by_the_state_before_a_change_or_the_state_after_it() {
    let (history, net) = (history(), net(Denial::Drop));
    let allowed = verdicts(&history);
    assert!(allowed.iter().filter(|allowed| **allowed).count() > 10, "the history must have both verdicts");
    tell(&net, &history[0]).await;
    let (client, server) = (net.host("10.244.1.2"), net.host("10.244.2.2"));
    let socket = client.udp_bind(40_000).expect("a free port");
    let echo = server.udp_bind(53).expect("a free port");
    let arrives = async || {
        socket.send_to(b"x", to_server().original.dst).await.expect("sent");
        tokio::time::timeout(Duration::from_millis(1), echo.recv_from(&mut [0; 16])).await.is_ok()
    };
    for step in 1..history.len() {
        assert_eq!(arrives().await, allowed[step - 1], "settled at step {}", step - 1);
        tell_change(&net, &history[step - 1], &history[step]);
        // Told, and perhaps not in force yet: the packet must meet one of the two states.
        let met = arrives().await;
        assert!([allowed[step - 1], allowed[step]].contains(&met), "step {step}");
        net.activity.idle().await;
        assert_eq!(arrives().await, allowed[step], "from the commit of step {step}");
    }
}

#[tokio::test]
async fn rule_11_16_no_verdict_mixes_two_states_however_many_threads_ask() {
    let (history, net) = (history(), net(Denial::Drop));
    let allowed = Arc::new(verdicts(&history));
    tell(&net, &history[0]).await;
    let asked = Arc::new(Asked::default());
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let (asked, allowed, filter) = (asked.clone(), allowed.clone(), net.policy.filter());
            std::thread::spawn(move || {
                while !asked.over.load(Ordering::Acquire) {
                    let first = asked.settled.load(Ordering::Acquire);
                    let verdict = filter.verdict(&to_server()) == Verdict::Accept;
                    let last = asked.told.load(Ordering::Acquire);
                    assert!(allowed[first..=last].contains(&verdict), "{verdict} between {first} and {last}");
                }
            })
        })
        .collect();
    for step in 1..history.len() {
        asked.told.store(step, Ordering::Release);
        tell_change(&net, &history[step - 1], &history[step]);
        net.activity.idle().await;
        asked.settled.store(step, Ordering::Release);
    }
    asked.over.store(true, Ordering::Release);
    asking.into_iter().for_each(|thread| thread.join().expect("every verdict was of one state"));
}
