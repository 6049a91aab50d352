//! Durable creates of ConfigMaps: 64 clients, then one.

use crate::client::{Connection, Until, closed_loop, post};
use crate::server::Server;
use crate::table::{Table, Target};
use crate::{CLIENTS, ROUNDS, config_map, median, yardstick};
use anyhow::Result;

const PATH: &str = "/api/v1/namespaces/creates/configmaps";
/// In one round.
const BY_MANY: u64 = 10_000;
const BY_ONE: u64 = 2_000;

pub(crate) async fn measure(table: &Table) -> Result<()> {
    let server = Server::start()?;
    server.namespace("creates").await?;
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(server.connect().await?);
    }
    let many = load(&server, &mut connections, "many", BY_MANY).await?;
    let one = load(&server, &mut connections[..1], "one", BY_ONE).await?;
    for (clients, load, target, yardstick) in [
        ("64 clients", many, Target { at_least: 5000.0, aim: 12_000.0 }, yardstick::CREATES_64),
        ("1 client", one, Target { at_least: 1000.0, aim: 2000.0 }, yardstick::CREATES_1),
    ] {
        let Load { rate, p50, p99, cpu } = load;
        let times = rate / yardstick;
        let beside =
            format!("{times:.1} × kube-apiserver's; p50 {p50:.2} ms, p99 {p99:.2} ms; {cpu:.0} µs of CPU each");
        table.row(&format!("durable creates of 0.9 KB, {clients}"), rate, "/s", target, &beside);
    }
    Ok(())
}

struct Load {
    rate: f64,
    p50: f64,
    p99: f64,
    /// The server's, in µs for each request.
    cpu: f64,
}

async fn load(server: &Server, connections: &mut [Connection], who: &str, count: u64) -> Result<Load> {
    let (mut rates, mut p50, mut p99, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let busy = server.cpu();
        let request = |number| post(PATH, &config_map(&format!("{who}-{round}-{number}"), 720));
        let achieved = closed_loop(connections, Until::Count(count), 201, request).await?;
        cpu.push((server.cpu() - busy).as_secs_f64() * 1e6 / count as f64);
        rates.push(achieved.per_second);
        p50.push(achieved.latency[0] / 1e3);
        p99.push(achieved.latency[1] / 1e3);
    }
    Ok(Load { rate: median(rates), p50: median(p50), p99: median(p99), cpu: median(cpu) })
}
