//! The figures that Coracle is to reach, each beside its target and, where there is one, beside its yardstick measured in the same
//! run: start, memory, a hundred replicas, readiness to packet among many Services, and the data plane beside the kernel's veth.
//!
//! ```text
//! cargo bench --bench first_light                        # everything, about two minutes
//! cargo bench --bench first_light -- start replicas      # some: start, replicas, readiness, network
//! ```
//!
//! Medians over several rounds; what is compared takes turns, so that a machine that slows down slows both.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod network;
mod process;
mod readiness;
mod replicas;
mod table;
#[path = "../../netstack/examples/bench/veth.rs"]
mod veth;

use anyhow::{Result, bail};
use table::Table;

fn main() -> Result<()> {
    if veth::is_one_side() {
        return Ok(());
    }
    // cargo adds `--bench`.
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let known = ["start", "replicas", "readiness", "network"];
    if let Some(unknown) = parts.iter().find(|part| !known.contains(&part.as_str())) {
        bail!("no benchmark {unknown:?}: must be one of {}", known.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|given| given == part);
    let table = Table::begin();
    if wanted("start") {
        process::measure(&table)?;
    }
    if wanted("replicas") {
        replicas::measure(&table)?;
    }
    if wanted("readiness") {
        readiness::measure(&table)?;
    }
    if wanted("network") {
        network::measure(&table)?;
    }
    Ok(())
}

/// As the binary runs it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
