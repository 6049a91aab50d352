//! What must hold for random clusters, policies and flows: the compiled rules beside a naive reading of the API.

use crate::dice::{Dice, NAMESPACES};
use crate::naive::World;
use crate::support::yaml;
use netstack::{NewFlow, Protocol};
use policy::{Destination, PolicyTable, Ruling};
use std::net::IpAddr;
use std::time::Duration;

const CLUSTERS: u64 = 1_100;
const FLOWS: usize = 100;

/// Both readings of a flow agree; what they say.
#[track_caller]
fn agreed(table: &PolicyTable, world: &World, flow: &NewFlow, context: impl std::fmt::Display) -> (bool, bool) {
    let (egress, ingress) = world.allows(flow);
    let compiled = table.allows(flow);
    assert!(
        compiled.is_ok() == (egress && ingress),
        "{context}: {flow:?}\n{compiled:?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
        world.policies,
        world.cluster_policies,
        world.admin_policies,
        world.baseline,
        table.explain(flow)
    );
    (egress, ingress)
}

#[test]
fn rule_13_2_the_compiled_rules_agree_with_a_naive_reading_of_110000_random_flows() {
    let mut denied = 0;
    for seed in 0..CLUSTERS {
        let mut dice = Dice::of(seed);
        let world = dice.world();
        let table = world.table();
        for number in 0..FLOWS {
            let flow = dice.flow(&world);
            let (egress, ingress) = agreed(&table, &world, &flow, format_args!("seed {seed}, flow {number}"));
            denied += usize::from(!(egress && ingress));
        }
    }
    // The dice must not be loaded: both outcomes are common.
    let all = CLUSTERS as usize * FLOWS;
    assert!((all / 10..all * 9 / 10).contains(&denied), "{denied} of {all} denied");
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_names_agree_with_a_naive_reading_at_every_moment_for_new_flows_and_for_open_ones() {
    let mut only_by_age = 0;
    for seed in 0..150 {
        let mut dice = Dice::of(5_000 + seed);
        let mut world = World { answers: Vec::new(), names: Default::default(), ..dice.world() };
        world.cluster_policies.push(yaml(
            "{ metadata: { name: names }, spec: { tier: Admin, priority: 0, subject: { namespaces: {} }, egress: [{ action: Accept, to: [{ domainNames: ['*.example.com', other.org] }] }, { action: Deny, to: [{ networks: [203.0.113.0/24, '2001:db8::/32'] }] }] } }",
        ));
        let table = world.table();
        for step in 0..25 {
            let ttl = *dice.pick(&[0, 1, 4, 20]);
            dice.answer(&mut world, ttl);
            // Whole seconds and the moments just before and after.
            let rest = *dice.pick(&[Duration::ZERO, Duration::from_millis(1), Duration::from_millis(999)]);
            tokio::time::advance(Duration::from_secs(dice.up_to(5) as u64) + rest).await;
            for _ in 0..12 {
                let flow = dice.flow(&world);
                let context = format_args!("seed {seed}, step {step}");
                let (egress, ingress) = agreed(&table, &world, &flow, context);
                let since = dice.pick(&world.answers).from + Duration::from_secs(dice.up_to(3) as u64);
                let (still_egress, still_ingress) = world.still_allows(&flow, since);
                let still = table.still_allows(&flow, since).is_ok();
                assert_eq!(still, still_egress && still_ingress, "{context}: {flow:?}, open since {since:?}");
                only_by_age += usize::from(still && !(egress && ingress));
            }
        }
    }
    assert!(only_by_age > 100, "the dice are loaded: {only_by_age}");
}

#[test]
fn rule_13_1_the_explanation_agrees_with_the_verdict_in_each_direction() {
    for seed in 0..150 {
        let mut dice = Dice::of(seed);
        let world = dice.world();
        let table = world.table();
        for number in 0..FLOWS {
            let flow = dice.flow(&world);
            let (egress, ingress) = agreed(&table, &world, &flow, format_args!("seed {seed}, flow {number}"));
            let explanation = table.explain(&flow);
            let context = || format!("seed {seed}, flow {number}: {flow:?}\n{explanation:#?}");
            assert_eq!(explanation.allowed, egress && ingress, "{}", context());
            assert_eq!(explanation.egress.ruling != Ruling::Denied, egress, "{}", context());
            assert_eq!(explanation.ingress.ruling != Ruling::Denied, ingress, "{}", context());
            let (side, codes) = if egress {
                (&explanation.ingress, [policy::reason::POLICY_DENIED_INGRESS, policy::reason::CNP_DENY_INGRESS])
            } else {
                (&explanation.egress, [policy::reason::POLICY_DENIED_EGRESS, policy::reason::CNP_DENY_EGRESS])
            };
            let reason = match side.tier {
                _ if egress && ingress => None,
                Some("NetworkPolicy") => Some(codes[0]),
                _ => Some(codes[1]),
            };
            assert_eq!(table.allows(&flow).err(), reason, "{}", context());
        }
    }
}

#[test]
fn rule_13_2_the_matrix_says_of_every_pair_what_its_verdict_says() {
    let outside: [IpAddr; 4] = ["203.0.113.7", "172.18.0.2", "2001:db8::9", "10.244.1.200"]
        .map(|address| address.parse().expect("an address"));
    for seed in 0..150 {
        let mut dice = Dice::of(seed);
        let world = dice.world();
        let table = world.table();
        let from: Vec<IpAddr> = world.pods.iter().flat_map(|(_, ips)| ips.clone()).chain(outside).collect();
        let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 8080), (Protocol::Udp, 53), (Protocol::Icmp, 0)];
        let to: Vec<Destination> = from
            .iter()
            .flat_map(|address| ports.map(|(protocol, port)| Destination { address: *address, protocol, port }))
            .collect();
        let rows = table.matrix(&from, &to);
        for (source, row) in from.iter().zip(&rows) {
            for (destination, cell) in to.iter().zip(row) {
                let tuple = netstack::FiveTuple {
                    protocol: destination.protocol,
                    src: std::net::SocketAddr::new(*source, 40_000),
                    dst: std::net::SocketAddr::new(destination.address, destination.port),
                };
                let (from, to) = (netstack::PortTag(1), netstack::PortTag(2));
                let flow = NewFlow { original: tuple, translated: tuple, from, to };
                assert_eq!(table.allows(&flow).is_ok(), *cell, "seed {seed}: {flow:?}\n{:#?}", table.explain(&flow));
            }
        }
    }
}

#[test]
fn a_policy_that_comes_and_goes_leaves_no_trace() {
    for seed in 0..60 {
        let mut dice = Dice::of(seed);
        let mut world = dice.world();
        let mut table = world.table();
        for step in 0..15 {
            for _ in 0..10 {
                // Fills what is remembered, which the next step must not believe.
                let flow = dice.flow(&world);
                agreed(&table, &world, &flow, format_args!("seed {seed}, step {step}"));
            }
            table = changed(&mut dice, &mut world, &table);
            for _ in 0..10 {
                let flow = dice.flow(&world);
                let scratch = world.table();
                assert_eq!(table.explain(&flow), scratch.explain(&flow), "seed {seed}, step {step}: {flow:?}");
            }
        }
    }
}

/// One policy comes, changes or goes.
fn changed(dice: &mut Dice, world: &mut World, table: &PolicyTable) -> PolicyTable {
    let number = dice.up_to(4); // perhaps another state of one that is known
    let goes = dice.one_in(2);
    match dice.up_to(4) {
        0 => {
            let policy = dice.cluster_policy(number);
            let name = policy.metadata.name.clone().expect("set");
            world.cluster_policies.retain(|known| known.metadata.name != policy.metadata.name);
            if goes {
                return table.without_cluster_policy(&name);
            }
            world.cluster_policies.push(policy.clone());
            table.with_cluster_policy(&policy)
        }
        1 => {
            let policy = dice.admin_policy(number);
            world.admin_policies.retain(|known| known.metadata.name != policy.metadata.name);
            if goes {
                return table.without_cluster_policy(&policy.full_name());
            }
            world.admin_policies.push(policy.clone());
            table.with_admin_policy(&policy)
        }
        2 => {
            let policy = dice.baseline();
            world.baseline = (!goes).then(|| policy.clone());
            match &world.baseline {
                Some(policy) => table.with_baseline_policy(policy),
                None => table.without_cluster_policy(&policy.full_name()),
            }
        }
        _ => {
            let mut policy = dice.policy(number);
            policy.metadata.namespace = Some((*dice.pick(&NAMESPACES)).to_owned());
            let same = |known: &k8s_openapi::api::networking::v1::NetworkPolicy| {
                (&known.metadata.namespace, &known.metadata.name) == (&policy.metadata.namespace, &policy.metadata.name)
            };
            world.policies.retain(|known| !same(known));
            if goes {
                let metadata = policy.metadata;
                return table.without_policy(&metadata.namespace.expect("set"), &metadata.name.expect("set"));
            }
            world.policies.push(policy.clone());
            table.with_policy(&policy)
        }
    }
}
