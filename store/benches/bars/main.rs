//! The store beside etcd: the same work on the same disk in the same run, and the bars which the store has to clear.
//!
//! `cargo bench -p store --bench bars`. etcd 3.5 is fetched once into `target/tools` (see [`fetch`]) and is spoken to over
//! gRPC on loopback, as an API server would; the store is called in process, as ours does. Figures are medians of rounds
//! taken in turns. `STORE_BENCH_DIR` says on which disk (a directory below `target` otherwise), `ETCD` which etcd, and
//! `STORE_BENCH_ONLY` (`puts`, `watchers`, `backlog`, `list`, `restart` or `memory`) what alone to measure.
//!
//! The line `append + fdatasync` is the least that durability costs there: the same bytes appended to a preallocated
//! file, one sync per group, and nothing else.

mod etcd;
mod fetch;
mod grpc;
mod memory;
mod ours;
mod report;
mod work;

use etcd::Etcd;
use ours::Ours;
use report::Report;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use work::{Puts, Subject, VALUE, fill, median, puts};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);
/// Clients, and how many puts of etcd's the store has to make at least.
const CLIENTS: [(usize, f64); 3] = [(1, 1.0), (8, 1.5), (64, 2.0)];
const LISTED: usize = 10_000;
const RESTARTED: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    // The child that measures its own memory.
    if memory::is_child() {
        return memory::child();
    }
    let only = std::env::var("STORE_BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = match std::env::var_os("STORE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
    };
    let program = fetch::etcd()?;
    let mut report = Report::new();
    report.heading(&format!("{} values of {VALUE} bytes, medians of {ROUNDS} rounds", fetch::version(&program)?))?;
    runtime.block_on(async {
        if wanted("puts") {
            writes(dir.path(), &program, &mut report).await?;
        }
        if wanted("watchers") {
            watchers(dir.path(), &program, &mut report).await?;
        }
        if wanted("backlog") {
            backlog(dir.path(), &mut report).await?;
        }
        if wanted("list") {
            lists(dir.path(), &program, &mut report).await?;
        }
        if wanted("restart") {
            restarts(dir.path(), &program, &mut report).await?;
        }
        if wanted("memory") {
            memory::measure(dir.path(), &program, &mut report).await?;
        }
        Ok(())
    })
}

type Outcome = Result<(), Box<dyn Error>>;

async fn writes(dir: &Path, program: &Path, report: &mut Report) -> Outcome {
    let ours = Arc::new(Ours::open(&dir.join("puts of ours"))?);
    let etcd = Arc::new(Etcd::start(program, &dir.join("puts of etcd")).await?);
    for (clients, bar) in CLIENTS {
        let (mut raw, mut here, mut there) = (Vec::new(), Puts::default(), Puts::default());
        for _ in 0..ROUNDS {
            raw.push(raw_appends(&dir.join("raw"), clients)?);
            here.add(puts(&ours, clients, ROUND).await);
            there.add(puts(&etcd, clients, ROUND).await);
        }
        let name = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        report.at_least(&format!("puts/s, {name}"), here.rate(), there.rate(), bar)?;
        report.no_more(&format!("p50 of a put in ms, {name}"), here.p50(), there.p50(), None)?;
        report.no_more(&format!("p99 of a put in ms, {name}"), here.p99(), there.p99(), Some(1.0))?;
        report.yardstick(&format!("append + fdatasync, groups of {clients}: records/s"), median(&mut raw))?;
    }
    ours.close().await;
    Ok(())
}

/// What watchers that do not read cost 64 writers, and how fast one of them then catches up.
async fn backlog(dir: &Path, report: &mut Report) -> Outcome {
    const CLIENTS: usize = 64;
    let ours = Arc::new(Ours::open(&dir.join("backlog"))?);
    let mut losses = Vec::new();
    for _ in 0..ROUNDS {
        let alone = puts(&ours, CLIENTS, ROUND).await;
        let asleep = ours.asleep(10);
        let slow = puts(&ours, CLIENTS, ROUND).await;
        losses.push((1.0 - slow.rate / alone.rate) * 100.0);
        drop(asleep);
    }
    report.below("loss of 64 writers to 10 watchers that stand still in %", median(&mut losses), None, 25.0)?;
    let mut asleep = ours.asleep(1);
    // As much as the history has room for.
    fill(&ours, 30_000).await;
    let start = Instant::now();
    let read = ours.catch_up(&mut asleep[0], 30_000).await;
    report
        .yardstick("events/s read from the log by one that catches up", read as f64 / start.elapsed().as_secs_f64())?;
    ours.close().await;
    Ok(())
}

/// What 100 watchers, each of a tenth of what is written, cost 64 writers.
async fn watchers(dir: &Path, program: &Path, report: &mut Report) -> Outcome {
    const WATCHERS: usize = 100;
    const CLIENTS: usize = 64;
    let ours = Arc::new(Ours::open(&dir.join("watched, ours"))?);
    let etcd = Arc::new(Etcd::start(program, &dir.join("watched, etcd")).await?);
    let mut losses = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        losses[0].push(loss(&ours, CLIENTS, WATCHERS).await);
        losses[1].push(loss(&etcd, CLIENTS, WATCHERS).await);
    }
    let [here, there] = losses.each_mut().map(|losses| median(losses) * 100.0);
    report.below("loss of 64 writers to 100 watchers in %", here, Some(there), 25.0)?;
    ours.close().await;
    Ok(())
}

async fn loss<S: Subject>(subject: &Arc<S>, clients: usize, watchers: usize) -> f64 {
    let alone = puts(subject, clients, ROUND).await;
    let watching = subject.watch(watchers).await;
    let watched = puts(subject, clients, ROUND).await;
    let seen = watching.end().await;
    assert!(seen > 0, "the watchers saw nothing");
    1.0 - watched.rate / alone.rate
}

async fn lists(dir: &Path, program: &Path, report: &mut Report) -> Outcome {
    let ours = Arc::new(Ours::open(&dir.join("list of ours"))?);
    let etcd = Arc::new(Etcd::start(program, &dir.join("list of etcd")).await?);
    fill(&ours, LISTED).await;
    fill(&etcd, LISTED).await;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS * 2 {
        times[0].push(list(&*ours).await);
        times[1].push(list(&*etcd).await);
    }
    let [here, there] = times.each_mut().map(|times| median(times));
    report.no_more("list of 10,000 in ms", here, there, Some(1.0 / 3.0))?;
    ours.close().await;
    Ok(())
}

async fn list(subject: &impl Subject) -> f64 {
    let start = Instant::now();
    assert_eq!(subject.list().await, LISTED);
    start.elapsed().as_secs_f64() * 1000.0
}

/// From nothing to the first answer, with the log alone and with a checkpoint.
async fn restarts(dir: &Path, program: &Path, report: &mut Report) -> Outcome {
    let (here, there) = (dir.join("restart of ours"), dir.join("restart of etcd"));
    let ours = Arc::new(Ours::open_without_checkpoints(&here)?);
    fill(&ours, RESTARTED).await;
    ours.close().await;
    let start = Instant::now();
    let ours = Ours::open_without_checkpoints(&here)?;
    assert_eq!(ours.list().await, RESTARTED);
    let log_only = start.elapsed().as_secs_f64();
    let written = Instant::now();
    ours.checkpoint().await?;
    let written = written.elapsed().as_secs_f64();
    // Two generations, so that the log no longer reaches back to the beginning.
    ours.put("/last".to_owned()).await;
    ours.checkpoint().await?;
    ours.close().await;
    let start = Instant::now();
    let ours = Ours::open_without_checkpoints(&here)?;
    assert_eq!(ours.list().await, RESTARTED);
    let from_checkpoint = start.elapsed().as_secs_f64();
    ours.close().await;

    let etcd = Arc::new(Etcd::start(program, &there).await?);
    fill(&etcd, RESTARTED).await;
    Arc::into_inner(etcd).ok_or("somebody still uses etcd")?.stop()?;
    let start = Instant::now();
    let etcd = Etcd::start(program, &there).await?;
    assert_eq!(etcd.list().await, RESTARTED);
    let again = start.elapsed().as_secs_f64();
    report.below("restart and list 100,000 in s, from the log", log_only, Some(again), 2.0)?;
    report.below("restart and list 100,000 in s, from checkpoints", from_checkpoint, Some(again), 2.0)?;
    report.yardstick("writing a checkpoint of 100,000 in s", written)?;
    Ok(())
}

/// Records per second, so many of them with each sync.
fn raw_appends(path: &Path, group: usize) -> io::Result<f64> {
    const CAPACITY: u64 = 256 << 20;
    const RECORD: usize = VALUE + 100;
    let fresh = !path.exists();
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if fresh {
        for _ in 0..CAPACITY >> 20 {
            file.write_all(&vec![0; 1 << 20])?;
        }
        file.sync_all()?;
    }
    file.rewind()?;
    let buffer = vec![b'x'; RECORD * group];
    let (start, mut records, mut written) = (Instant::now(), 0, 0);
    while start.elapsed() < ROUND {
        if written + buffer.len() as u64 > CAPACITY {
            file.rewind()?;
            written = 0;
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        records += group;
        written += buffer.len() as u64;
    }
    Ok(records as f64 / start.elapsed().as_secs_f64())
}
