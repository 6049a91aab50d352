//! What connections cost that do nothing: 10,000 of them, over TLS, after one request each.

use crate::client::{Connection, get};
use crate::server::Server;
use crate::table::Table;
use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONNECTIONS: u64 = 10_000;

pub(crate) async fn measure(table: &Table) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // The server does the same at its start; this process has one end of each connection.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let most = limit.maximum.unwrap_or(u64::MAX).saturating_sub(200);
    let connections = CONNECTIONS.min(most);
    let server = Server::start()?;
    let (before, start) = (server.resident()?, Instant::now());
    let mut idle = JoinSet::new();
    for number in 0..connections {
        let mut connection: Connection = server.connect().await?;
        let answer = connection.exchange(&get("/version")).await?;
        ensure!(answer.code == 200, "connection {number} was answered with {}", answer.code);
        idle.spawn(connection.idle());
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / connections as f64;
    let kilobytes = (server.resident()? - before) * 1024.0 / connections as f64;
    let beside = format!("{connections} of them; {each:.0} µs to open one, its first answer included");
    table.note("memory of an idle connection", kilobytes, "KB", &beside);
    let began = Instant::now();
    let answer = server.connect().await?.exchange(&get("/readyz")).await?;
    ensure!(answer.code == 200, "/readyz beside them: {}", answer.code);
    table.note("a new connection and /readyz beside them", began.elapsed().as_secs_f64() * 1e3, "ms", "");
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}
