//! What the API server does on a real wire, each figure beside its target and beside a yardstick: durable creates, reads, lists,
//! a thousand watchers, memory, idle connections.
//!
//! ```text
//! cargo bench --bench api                     # everything, about two minutes
//! cargo bench --bench api -- creates lists    # some: creates, gets, lists, watchers, memory, connections
//! ```
//!
//! The server is the `coracle` binary as users run it: a whole cluster with its controllers, the store on disk, TLS, the
//! administrator's client certificate. The load comes from this process, on one thread, over HTTP/1.1 connections that are kept
//! alive; both share the machine's cores. Medians over several rounds. Where the wire itself is the bound, a server that answers
//! the same bytes without thinking is measured in the same rounds ([`fixed`]); [`yardstick`] is what kube-apiserver did.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod connections;
mod creates;
mod fixed;
mod memory;
mod reads;
mod server;
#[path = "../first_light/table.rs"]
#[allow(dead_code, reason = "every figure is there, so there is nothing to remark")]
mod table;
#[path = "../../netstack/examples/bench/veth.rs"]
#[allow(dead_code, reason = "only its clocks are of use here")]
mod veth;
mod watchers;

use anyhow::{Result, bail};
use serde_json::json;
use table::Table;

/// kube-apiserver 1.35 over etcd 3.5 without fsync, on two cores shared with the same kind of load (HTTP/1.1, TLS, ConfigMaps of
/// 0.9 KB): measured once, by hand.
mod yardstick {
    pub(crate) const CREATES_64: f64 = 1570.0;
    pub(crate) const CREATES_1: f64 = 700.0;
    pub(crate) const GETS_64: f64 = 3280.0;
    /// Milliseconds, 6,500 objects.
    pub(crate) const LIST: f64 = 72.0;
    /// Milliseconds, a page of 500.
    pub(crate) const PAGE: f64 = 1000.0 / 245.0;
    /// MB, without the controller manager and etcd, which had 134 and 73.
    pub(crate) const RESIDENT: f64 = 460.0;
}

/// As many connections as the yardstick's.
const CLIENTS: usize = 64;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    // cargo adds `--bench`.
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if parts.first().is_some_and(|part| part == fixed::ARGUMENT) {
        return fixed::serve();
    }
    let known = ["creates", "gets", "lists", "watchers", "memory", "connections"];
    if let Some(unknown) = parts.iter().find(|part| !known.contains(&part.as_str())) {
        bail!("no benchmark {unknown:?}: must be one of {}", known.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|given| given == part);
    let table = Table::begin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if wanted("creates") {
            creates::measure(&table).await?;
        }
        if wanted("gets") {
            reads::gets(&table).await?;
        }
        if wanted("lists") {
            reads::lists(&table).await?;
        }
        if wanted("watchers") {
            watchers::measure(&table).await?;
        }
        if wanted("memory") {
            memory::measure(&table).await?;
        }
        if wanted("connections") {
            connections::measure(&table).await?;
        }
        Ok(())
    })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A ConfigMap of which the values have `bytes` bytes together.
fn config_map(name: &str, bytes: usize) -> String {
    let data: serde_json::Map<_, _> = (0..8).map(|key| (format!("key-{key}"), "v".repeat(bytes / 8).into())).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}}, "data": data}).to_string()
}
