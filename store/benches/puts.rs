//! How fast the store is, beside the least that durability costs on the same disk in the same run.
//!
//! `cargo bench -p store`. The yardstick appends the same bytes to a preallocated file with one `fdatasync` per group,
//! and does nothing else. Every figure is the median of several rounds, taken in turns.

use futures::StreamExt;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::{EmbeddedStore, MemoryStore, Operation, Options, Range, Revision, Store, Txn};

const VALUE: usize = 2048;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let mut out = io::stdout().lock();
    let mut line = |name: &str, figure: &dyn Display| writeln!(out, "{name:<52} {figure}");

    let mut raw = [Vec::new(), Vec::new()];
    let mut puts = [Vec::new(), Vec::new()];
    let (mut watched, mut latencies) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 0..ROUNDS {
        for (index, writers) in [1, 64].into_iter().enumerate() {
            raw[index].push(raw_appends(&dir.path().join("raw"), writers)?);
            let store_dir = dir.path().join(format!("store {round} {writers}"));
            let (rate, latency) = runtime.block_on(embedded_puts(&store_dir, writers, 0));
            puts[index].push(rate);
            latencies[index].push(latency);
        }
        watched.push(runtime.block_on(embedded_puts(&dir.path().join(format!("watched {round}")), 64, 100)).0);
    }
    for (index, writers) in [1, 64].into_iter().enumerate() {
        let (raw, puts) = (median(&mut raw[index]), median(&mut puts[index]));
        let p99 = median(&mut latencies[index]);
        line(&format!("append + fdatasync, groups of {writers}: records/s"), &format_args!("{raw:.0}"))?;
        line(
            &format!("embedded store, {writers} writers: puts/s"),
            &format_args!("{puts:.0}   {:.2} of the yardstick   p99 {p99:.2} ms", puts / raw),
        )?;
    }
    let (alone, watched) = (median(&mut puts[1]), median(&mut watched));
    line("the same with 100 watchers: puts/s", &format_args!("{watched:.0}   {:.2} of without", watched / alone))?;

    let memory = runtime.block_on(async {
        let store = MemoryStore::new();
        fill(&store, 10_000).await;
        list(&store).await
    });
    line("list of 10,000 keys: ms", &format_args!("{memory:.2}"))?;
    let reopened = runtime.block_on(reopen(&dir.path().join("large"), 100_000))?;
    line("open with 100,000 keys, log only / checkpoint: ms", &reopened)
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn put(key: String) -> Txn {
    Txn { compares: Vec::new(), operations: vec![Operation::Put { key: key.into(), value: vec![b'x'; VALUE].into() }] }
}

/// Records per second, so many of them with each sync.
fn raw_appends(path: &Path, group: usize) -> io::Result<f64> {
    const CAPACITY: u64 = 256 << 20;
    const RECORD: usize = VALUE + 100;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    for _ in 0..CAPACITY >> 20 {
        file.write_all(&vec![0; 1 << 20])?;
    }
    file.sync_all()?;
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

/// Puts per second, and their 99th percentile in milliseconds. Watchers watch a tenth of the keys each.
async fn embedded_puts(dir: &Path, writers: usize, watchers: usize) -> (f64, f64) {
    let store = Arc::new(EmbeddedStore::open(dir, Options::default()).expect("an empty directory opens"));
    let seen = Arc::new(AtomicUsize::new(0));
    let watchers: Vec<_> = (0..watchers)
        .map(|watcher| {
            let mut watch = store.watch(&format!("/registry/pods/{}", watcher % 10), Revision(0));
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Some(Ok(batch)) = watch.next().await {
                    seen.fetch_add(batch.events.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < ROUND {
                    let begun = Instant::now();
                    let key = format!("/registry/pods/{}/{writer}", latencies.len() % 1000);
                    store.txn(put(key)).await.expect("the disk is well");
                    latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a writer does not panic"));
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    store.close().await;
    for watcher in watchers {
        watcher.await.expect("a watcher does not panic");
    }
    (rate, latencies[latencies.len() * 99 / 100])
}

async fn fill(store: &dyn Store, keys: usize) {
    const TOGETHER: usize = 500;
    for first in (0..keys).step_by(TOGETHER) {
        let puts = (first..first + TOGETHER).map(|n| store.txn(put(format!("/registry/pods/{n:06}"))));
        for committed in futures::future::join_all(puts).await {
            committed.expect("the disk is well");
        }
    }
}

/// Milliseconds for one list of everything.
async fn list(store: &dyn Store) -> f64 {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let page = store.range(Range::default()).await.expect("the newest revision is there");
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(page.items.len(), 10_000);
    }
    median(&mut times)
}

async fn reopen(dir: &Path, keys: usize) -> io::Result<String> {
    let open = |checkpoint_bytes| {
        let start = Instant::now();
        let options = Options { checkpoint_bytes, ..Options::default() };
        let store = EmbeddedStore::open(dir, options).map_err(io::Error::other)?;
        Ok::<_, io::Error>((store, start.elapsed().as_secs_f64() * 1000.0))
    };
    let (store, _) = open(u64::MAX)?;
    fill(&store, keys).await;
    store.close().await;
    let (store, log_only) = open(u64::MAX)?;
    // Two generations, so that the log no longer reaches back to the beginning.
    let start = Instant::now();
    store.checkpoint().await.map_err(io::Error::other)?;
    let written = start.elapsed().as_secs_f64() * 1000.0;
    fill(&store, 500).await;
    store.checkpoint().await.map_err(io::Error::other)?;
    store.close().await;
    let (store, from_checkpoint) = open(u64::MAX)?;
    assert_eq!(store.range(Range::default()).await.map_err(io::Error::other)?.items.len(), keys);
    store.close().await;
    Ok(format!("{log_only:.0} / {from_checkpoint:.0}   (checkpoint written in {written:.0})"))
}
