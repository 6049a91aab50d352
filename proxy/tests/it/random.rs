//! Random clusters: a table that was changed step by step is the table of what is left, and an explanation never
//! disagrees with what packets get.

use crate::support::{addressing, flow, node, service, slice, two_nodes, yaml};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netstack::{PortTag, Protocol, Translate, Translation};
use proxy::{ServiceName, ServiceTable, Translator};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const SOURCES: [&str; 6] = ["10.244.1.2", "10.244.1.50", "10.244.2.50", "172.18.0.2", "172.18.0.4", "203.0.113.7"];

#[derive(Default)]
struct World {
    services: BTreeMap<String, Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    nodes: BTreeMap<String, Arc<Node>>,
}

struct Dice(SmallRng);

impl Dice {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.0).expect("something to choose from")
    }

    fn service(&mut self, name: &str) -> Service {
        let number = SERVICES.iter().position(|known| *known == name).expect("a known name") + 1;
        let kind = self.pick(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
        let headless = self.0.random_ratio(1, 8);
        let ip = if headless { "None".to_owned() } else { format!("10.96.0.{number}") };
        let external = self.pick(&["", ", externalIPs: [192.0.2.1]", ", externalIPs: [192.0.2.1, 192.0.2.2]"]);
        let internal_policy = self.pick(&["Cluster", "Local"]);
        let external_policy = self.pick(&["Cluster", "Local"]);
        let ranges = self.pick(&["", "", ", loadBalancerSourceRanges: [10.244.1.0/24]"]);
        let port = self.pick(&["80", "80, nodePort: 30080", "81, nodePort: 30081"]);
        let mut service = service(
            name,
            &format!(
                "{{ type: {kind}, clusterIPs: [{ip}], ports: [{{ port: {port} }}], internalTrafficPolicy: {internal_policy}, externalTrafficPolicy: {external_policy}{external}{ranges} }}"
            ),
        );
        if kind == "LoadBalancer" {
            let mode = self.pick(&["VIP", "Proxy"]);
            service.status = Some(yaml(&format!(
                "{{ loadBalancer: {{ ingress: [{{ ip: 192.0.2.1{number}, ipMode: {mode} }}] }} }}"
            )));
        }
        service
    }

    fn slice(&mut self, name: &str) -> EndpointSlice {
        let service = self.pick(&SERVICES);
        let count = self.0.random_range(0..4);
        let endpoints: Vec<String> = (0..count)
            .map(|_| {
                let address =
                    self.pick(&["10.244.1.2@node-1", "10.244.1.3@node-1", "10.244.2.2@node-2", "10.244.3.2@node-3"]);
                let state = self.pick(&["", "", "terminating", "notready"]);
                let hints = self.pick(&["", "", "zone=a", "zone=b node=node-2", "zone=a zone=b node=node-1"]);
                format!("{address} {state} {hints}")
            })
            .collect();
        slice(service, name, &endpoints.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// One change, to the world and to the table.
    fn step(&mut self, world: &mut World, table: &ServiceTable) -> ServiceTable {
        let again = |world: &World, table: &ServiceTable, name: &str| {
            let of = |slice: &&Arc<EndpointSlice>| {
                let labels = slice.metadata.labels.as_ref().expect("labels");
                labels["kubernetes.io/service-name"] == name
            };
            match world.services.get(name) {
                Some(service) => table.with_service(service, world.slices.values().filter(of)),
                None => table.without_service(&ServiceName { namespace: "default".into(), name: name.into() }),
            }
        };
        match self.0.random_range(0..10) {
            0..4 => {
                let name = self.pick(&SERVICES);
                if self.0.random_ratio(1, 4) {
                    world.services.remove(name);
                } else {
                    world.services.insert(name.into(), Arc::new(self.service(name)));
                }
                again(world, table, name)
            }
            4..9 => {
                let name = self.pick(&["s1", "s2", "s3", "s4", "s5"]);
                let gone = world.slices.remove(name);
                if !self.0.random_ratio(1, 4) {
                    world.slices.insert(name.into(), Arc::new(self.slice(name)));
                }
                let mut table = table.clone();
                for slice in [gone.as_ref(), world.slices.get(name)].into_iter().flatten() {
                    let labels = slice.metadata.labels.as_ref().expect("labels");
                    table = again(world, &table, &labels["kubernetes.io/service-name"]);
                }
                table
            }
            _ => {
                if world.nodes.remove("node-3").is_none() {
                    let zone = self.pick(&["a", "b"]);
                    let third = node("node-3", "172.18.0.4", "10.244.3.0/24", zone);
                    world.nodes.insert("node-3".into(), Arc::new(third));
                }
                table.with_nodes(world.nodes.values().map(|node| &**node))
            }
        }
    }
}

fn frontends() -> Vec<String> {
    let mut all =
        vec!["192.0.2.1:80".to_owned(), "192.0.2.2:80".into(), "10.96.0.99:80".into(), "10.244.1.2:8080".into()];
    for number in 1..=4 {
        all.extend([format!("10.96.0.{number}:80"), format!("10.96.0.{number}:81"), format!("192.0.2.1{number}:80")]);
    }
    for node in ["172.18.0.2", "172.18.0.3", "172.18.0.4"] {
        all.extend([format!("{node}:30080"), format!("{node}:30081")]);
    }
    all
}

#[test]
fn a_table_changed_step_by_step_is_the_table_of_what_is_left_and_explanations_agree_with_packets() {
    let now = Instant::now();
    let mut balanced = 0;
    for seed in 0..30 {
        let mut dice = Dice(SmallRng::seed_from_u64(seed));
        let mut world = World::default();
        for node in two_nodes() {
            world.nodes.insert(node.metadata.name.clone().expect("a name"), node);
        }
        let mut table = ServiceTable::new(&addressing()).with_nodes(world.nodes.values().map(|node| &**node));
        for step in 0..40 {
            table = dice.step(&mut world, &table);
            let values = |map: &BTreeMap<String, Arc<Service>>| map.values().cloned().collect::<Vec<_>>();
            let slices: Vec<_> = world.slices.values().cloned().collect();
            let nodes: Vec<_> = world.nodes.values().cloned().collect();
            let built = ServiceTable::build(&addressing(), &values(&world.services), &slices, &nodes);
            assert_eq!(table.external_frontends(), built.external_frontends(), "seed {seed}, step {step}");
            let (table, built) = (Translator::new(table.clone(), seed), Translator::new(built, seed));
            for to in frontends() {
                for from in SOURCES {
                    let flow = flow(Protocol::Tcp, from, &to);
                    let explanation = table.explain(&flow, now);
                    let context = || format!("seed {seed}, step {step}, {from} → {to}: {explanation:#?}");
                    assert_eq!(explanation, built.explain(&flow, now), "{}", context());
                    match table.translate(&flow, PortTag(1), now) {
                        Translation::Pass => assert_eq!(explanation.outcome, "pass", "{}", context()),
                        Translation::Reject(reason) => {
                            assert_eq!(
                                (explanation.outcome, explanation.reason),
                                ("reject", Some(reason.0)),
                                "{}",
                                context()
                            );
                        }
                        Translation::Drop(reason) => {
                            assert_eq!(
                                (explanation.outcome, explanation.reason),
                                ("drop", Some(reason.0)),
                                "{}",
                                context()
                            );
                        }
                        Translation::To { dst, snat } if dst == flow.dst => {
                            assert_eq!((explanation.outcome, explanation.snat), ("pass", snat), "{}", context());
                        }
                        Translation::To { dst, .. } => {
                            balanced += 1;
                            assert_eq!(explanation.outcome, "balance", "{}", context());
                            // From outside the flow enters at any node: the explanation follows it through one of them.
                            let outside = from == "203.0.113.7" || explanation.source.starts_with("outside");
                            let candidate = explanation.candidates.iter().any(|candidate| candidate.address == dst);
                            assert!(outside || candidate, "{dst} {}", context());
                        }
                    }
                }
            }
        }
    }
    assert!(balanced > 10_000, "{balanced}");
}
