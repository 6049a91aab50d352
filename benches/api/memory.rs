//! Resident memory of the whole cluster with 10,000 ConfigMaps of 2 KB, some seconds after the last was written.

use crate::client::{Until, closed_loop, post};
use crate::server::Server;
use crate::table::{Table, Target};
use crate::{config_map, yardstick};
use anyhow::Result;
use std::time::Duration;

const OBJECTS: u64 = 10_000;
const IDLE: Duration = Duration::from_secs(5);

pub(crate) async fn measure(table: &Table) -> Result<()> {
    let server = Server::start()?;
    server.namespace("memory").await?;
    let empty = server.resident()?;
    let mut connections = vec![server.connect().await?, server.connect().await?, server.connect().await?];
    let path = "/api/v1/namespaces/memory/configmaps";
    let request = |number| post(path, &config_map(&format!("c{number}"), 1850));
    closed_loop(&mut connections, Until::Count(OBJECTS), 201, request).await?;
    let loaded = server.resident()?;
    drop(connections);
    tokio::time::sleep(IDLE).await;
    let idle = server.resident()?;
    let beside = format!(
        "{:.2} of kube-apiserver's alone; {empty:.0} MB without them, {loaded:.0} MB right after the last",
        idle / yardstick::RESIDENT
    );
    table.row("resident with 10,000 objects of 2 KB, idle", idle, "MB", Target { at_least: 120.0, aim: 60.0 }, &beside);
    Ok(())
}
