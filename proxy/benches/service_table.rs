//! What Services cost: building the table, changing one Service of many, and translating one flow.
//!
//! `cargo bench -p proxy`. A translation must cost the same with one Service as with ten thousand. Every figure is the
//! median of several rounds.

mod world;

use netstack::{FiveTuple, PortTag, Protocol, Translate, Translation};
use proxy::{ServiceTable, Translator};
use std::fmt::Display;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::{ENDPOINTS, NODES, ROUNDS, SERVICES, World, addressing, cluster_ip, pod_ip, slice, world};

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
    let changed = Arc::new(slice(SERVICES / 2, ENDPOINTS - 1));
    let service = &many.services[SERVICES as usize / 2];
    line(
        &format!("change one Service of {SERVICES}"),
        &format!("{:?}", median(|| timed(|| drop(black_box(table.with_service(service, std::iter::once(&changed))))))),
    )?;
    line(
        "change one Service of 1",
        &format!("{:?}", {
            let changed = Arc::new(slice(0, ENDPOINTS - 1));
            median(|| timed(|| drop(black_box(one_table.with_service(&one.services[0], std::iter::once(&changed))))))
        }),
    )?;
    line("translate one flow, 1 Service", &format!("{:?}", translation(&one_table, 1)))?;
    line(&format!("translate one flow, {SERVICES} Services"), &format!("{:?}", translation(&table, SERVICES)))
}
