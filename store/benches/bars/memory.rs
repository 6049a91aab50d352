//! Peak memory beside the live data: every object written three times, read back, checkpointed, and opened again.
//!
//! The store is measured in a process of its own (this program again), so that nothing else counts.

use crate::etcd::Etcd;
use crate::ours::Ours;
use crate::report::Report;
use crate::work::{Subject, VALUE, fill};
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIRECTORY: &str = "STORE_BENCH_MEMORY_DIRECTORY";
const REOPEN: &str = "STORE_BENCH_MEMORY_REOPEN";
const OBJECTS: usize = 100_000;

/// Whether this process is there to measure itself.
pub(crate) fn is_child() -> bool {
    std::env::var_os(DIRECTORY).is_some()
}

/// Does the work and prints its peak memory in bytes.
pub(crate) fn child() -> Result<(), Box<dyn Error>> {
    let dir = std::env::var_os(DIRECTORY).ok_or("no directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let ours = Arc::new(Ours::open(Path::new(&dir))?);
        if std::env::var_os(REOPEN).is_some() {
            assert_eq!(ours.list().await, OBJECTS);
        } else {
            work(&ours).await;
            ours.checkpoint().await?;
        }
        ours.close().await;
        Ok::<_, Box<dyn Error>>(())
    })?;
    let peak = peak(std::process::id())?;
    std::io::Write::write_all(&mut std::io::stdout(), format!("{peak}\n").as_bytes())?;
    Ok(())
}

async fn work(subject: &Arc<impl Subject>) {
    for _ in 0..3 {
        fill(subject, OBJECTS).await;
    }
    assert_eq!(subject.list().await, OBJECTS);
}

/// Compares both.
pub(crate) async fn measure(dir: &Path, program: &Path, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let dir_of_ours = dir.join("memory of ours");
    let ours = |reopen: bool| {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(DIRECTORY, &dir_of_ours).stderr(Stdio::inherit());
        if reopen {
            command.env(REOPEN, "1");
        }
        let output = command.output()?;
        let peak: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        Ok::<_, Box<dyn Error>>(peak)
    };
    let (written, reopened) = (ours(false)?, ours(true)?);
    let etcd = Arc::new(Etcd::start(program, &dir.join("memory of etcd")).await?);
    work(&etcd).await;
    let there = peak(etcd.id())?;
    let live = (OBJECTS * VALUE) as f64;
    let name = format!("peak memory in live data of {:.0} MB", live / 1e6);
    report.below(&format!("{name}, written"), written / live, Some(there / live), 3.0)?;
    report.below(&format!("{name}, opened"), reopened / live, None, 3.0)?;
    Ok(())
}

/// `VmHWM` of a process, in bytes.
fn peak(process: u32) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .map_err(|error| format!("peak memory is read from /proc, which only Linux has: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in the status")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}
