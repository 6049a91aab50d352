//! Watchers that have fallen behind what is in memory: they read the log, and nobody waits for them.

use crate::support::*;
use futures::StreamExt;
use std::time::Duration;
use store::{EmbeddedStore, EventKind, Options, Retention, Revision, Store};

fn puts(range: std::ops::RangeInclusive<u64>, key: &str) -> Vec<String> {
    range.map(|n| format!("{n} put {key}={n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_from_the_log_through_memory_into_the_future() {
    let OnDisk { store, dir: _dir } = OnDisk::new(Options { ring_bytes: 2 << 10, ..FROM_LOG });
    for n in 1..=90 {
        put(&store, "a", n.to_string()).await;
    }
    let mut watch = store.watch("a", Revision(10));
    assert_eq!(next(&mut watch).await, "11 put a=11");
    for n in 91..=95 {
        put(&store, "a", n.to_string()).await;
    }
    assert_eq!(caught_up(&mut watch).await, puts(12..=95, "a"));
    put(&store, "a", "96").await;
    assert_eq!(next(&mut watch).await, "96 put a=96");
}

#[tokio::test(start_paused = true)]
async fn an_event_read_from_the_log_has_the_states_before_and_after_also_across_segments() {
    let OnDisk { store, dir: _dir } = OnDisk::new(Options { segment_bytes: 4 << 10, ..FROM_LOG });
    let mut quick = store.watch("", Revision(0));
    let mut expected = Vec::new();
    for n in 0..60u64 {
        let key = format!("key {}", n % 7);
        match n % 5 {
            4 => drop(delete(&store, &key).await),
            _ => drop(put(&store, &key, vec![n as u8; 700]).await),
        }
        while let Some(batch) = futures::FutureExt::now_or_never(quick.next()).flatten() {
            expected.extend(batch.unwrap().events);
        }
    }
    assert!(expected.iter().any(|event| event.kind == EventKind::Delete));
    let mut slow = store.watch("", Revision(0));
    let mut seen = Vec::new();
    while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(1), slow.next()).await {
        let batch = batch.unwrap();
        assert!(batch.events.iter().all(|event| event.kv.mod_revision == batch.revision));
        seen.extend(batch.events);
    }
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_the_log_sees_its_prefix_only_and_owes_progress() {
    let OnDisk { store, dir: _dir } = OnDisk::new(FROM_LOG);
    for n in 1..=60 {
        put(&store, if n % 20 == 0 { "rare" } else { "often" }, n.to_string()).await;
    }
    store.request_progress();
    let mut watch = store.watch("rare", Revision(0));
    assert_eq!(caught_up(&mut watch).await, ["20 put rare=20", "40 put rare=40", "60 put rare=60", "60 progress"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_the_log_goes_on_after_a_restart() {
    let OnDisk { store, dir } = OnDisk::new(FROM_LOG);
    for n in 1..=50 {
        put(&store, "a", n.to_string()).await;
    }
    store.close().await;
    let store = EmbeddedStore::open(dir.path(), FROM_LOG).unwrap();
    put(&store, "a", "51").await;
    assert_eq!(caught_up(&mut store.watch("a", Revision(0))).await, puts(1..=51, "a"));
}

#[tokio::test(start_paused = true)]
async fn what_checkpoints_have_made_superfluous_in_the_log_is_compacted() {
    let OnDisk { store, dir: _dir } = OnDisk::new(Options { segment_bytes: 2 << 10, ..FROM_LOG });
    let mut asleep = store.watch("a", Revision(0));
    assert_eq!(caught_up(&mut asleep).await, [""; 0]);
    for _ in 0..3 {
        for _ in 0..10 {
            put(&store, "a", vec![0; 500]).await;
        }
        store.checkpoint().await.unwrap();
    }
    let compacted = next_compacted(&mut asleep).await;
    assert_eq!(compacted.asked, Revision(0));
    assert!(compacted.oldest > Revision(0) && compacted.oldest <= Revision(20), "the older checkpoint is of 20");
    let rest = caught_up(&mut store.watch("a", compacted.oldest)).await;
    assert_eq!(rest.len() as u64, 30 - compacted.oldest.0);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_a_history_with_the_same_bounds() {
    let retention = Retention { age: Duration::from_secs(300), events: 10, bytes: 64 << 10 };
    let OnDisk { store, dir: _dir } = OnDisk::new(Options { retention, ..FROM_LOG });
    for _ in 0..20 {
        put(&store, "a", "").await;
    }
    assert_eq!(caught_up(&mut store.watch("a", Revision(0))).await.len(), 20, "more than 10, but young");
    tokio::time::advance(retention.age + Duration::from_secs(1)).await;
    put(&store, "a", "").await;
    let compacted = next_compacted(&mut store.watch("a", Revision(0))).await;
    assert!((Revision(9)..=Revision(11)).contains(&compacted.oldest), "{compacted}");
    for _ in 0..20 {
        put(&store, "b", vec![0; 10 << 10]).await;
    }
    let compacted = next_compacted(&mut store.watch("b", Revision(0))).await;
    assert!(compacted.oldest >= Revision(34), "200 KiB are more than 64: {compacted}");
}

#[tokio::test]
async fn a_watcher_that_stands_still_through_a_great_backlog_then_sees_all_of_it() {
    const EVENTS: u64 = 20_000;
    let retention = Retention { bytes: 64 << 20, ..Retention::default() };
    let options = Options { retention, ring_bytes: 64 << 10, segment_bytes: 1 << 20, checkpoint_bytes: 1 << 30 };
    let OnDisk { store, dir: _dir } = OnDisk::new(options);
    let mut slow = store.watch("", Revision(0));
    for first in (0..EVENTS).step_by(500) {
        let puts = (first..first + 500).map(|n| {
            let store = store.clone();
            async move { put(&store, &format!("key {}", n % 300), n.to_string()).await }
        });
        futures::future::join_all(puts).await;
    }
    for revision in 1..=EVENTS {
        let batch = slow.next().await.unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (Revision(revision), 1));
        let Some(previous) = &batch.events[0].previous else { continue };
        assert_eq!(previous.version + 1, batch.events[0].kv.version);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_ends_the_watch_of_who_needs_it_and_nobody_elses() {
    let OnDisk { store, dir } = OnDisk::new(FROM_LOG);
    for n in 1..=20 {
        put(&store, "a", n.to_string()).await;
    }
    for segment in std::fs::read_dir(dir.path().join("log")).unwrap() {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(segment.unwrap().path()).unwrap();
        file.write_all_at(&[0xff; 64], 64).unwrap();
    }
    let mut current = store.watch("a", Revision(20));
    next_compacted(&mut store.watch("a", Revision(0))).await;
    put(&store, "a", "21").await;
    assert_eq!(next(&mut current).await, "21 put a=21");
}
