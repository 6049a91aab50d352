//! kill -9: this test binary starts itself as a writer, kills it in the middle, and looks at what is left.
//!
//! It proves that an acknowledged write does not live in the process alone. Whether it survives a loss of power is a
//! matter of syncs, which a kill cannot show: the kernel keeps its page cache.

use crate::support::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{EmbeddedStore, Options, Revision, Store};

const DIRECTORY: &str = "STORE_TEST_WRITER_DIRECTORY";
/// Small, so that a round changes segments and makes checkpoints.
const CRASHING: Options = Options { segment_bytes: 256 << 10, checkpoint_bytes: 1 << 20, ..OPTIONS };
const WRITERS: u64 = 4;
const KEYS: u64 = 10;

/// The value of write `number`: it begins with the number, and every byte and the length follow from it.
fn value(number: u64) -> Vec<u8> {
    let length = match number % 50 {
        0 => 1 << 18,
        1..=5 => 20_000,
        _ => (number * 131) % 4000,
    };
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..length).map(|byte| (byte * 31 + number) as u8));
    value
}

/// Not a test: what the child does. It writes until it is killed, and says what has been acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let store = Arc::new(EmbeddedStore::open(dir, CRASHING).unwrap());
    let next = Arc::new(AtomicU64::new(store.revision().0 * 1000));
    let writers = (0..WRITERS).map(|writer| {
        let (store, next) = (store.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let key = format!("{writer}/{}", number % KEYS);
                let revision = put(&*store, &key, value(number)).await;
                let acknowledged = format!("acknowledged {key} {number} {revision}\n");
                std::io::stdout().lock().write_all(acknowledged.as_bytes()).unwrap();
            }
        })
    });
    // They end with the process.
    futures::future::join_all(writers).await;
}

/// Key → (number, revision) of the last write that was acknowledged.
type Acknowledged = HashMap<String, (u64, u64)>;

/// Runs a writer, kills it after so many acknowledgements, and adds all it has said.
fn write_and_kill(dir: &Path, after: usize, acknowledged: &mut Acknowledged) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut count = 0;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    // After the kill, what is left in the pipe has been acknowledged too; its last line may be cut short.
    while let Some(Ok(line)) = lines.next() {
        let fields: Vec<_> = line.split(' ').collect();
        let ["acknowledged", key, number, revision] = fields[..] else { continue };
        let (Ok(number), Ok(revision)) = (number.parse(), revision.parse::<u64>()) else { continue };
        let newest = acknowledged.entry(key.to_owned()).or_default();
        *newest = (*newest).max((number, revision));
        last = last.max(revision);
        count += 1;
        if count == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= after, "the writer has failed after {count}");
    count
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds: usize = std::env::var("STORE_TEST_KILLS").map_or(5, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut newest = 0;
    for round in 0..rounds {
        write_and_kill(dir.path(), 1 + (round * 379) % 1000, &mut acknowledged);
        let store = EmbeddedStore::open(dir.path(), CRASHING).unwrap();
        let highest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
        assert!(store.revision().0 >= highest && highest > newest, "round {round}: revisions go on");
        newest = store.revision().0;
        for (key, (number, revision)) in &acknowledged {
            let kv = store.get(key).await.unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            let found = u64::from_le_bytes(kv.value[..8].try_into().unwrap());
            // A later write may have become durable without having been acknowledged.
            assert!(found >= *number && kv.mod_revision.0 >= *revision, "round {round}: {key} is old");
            assert!(kv.value == value(found), "round {round}: {key} is damaged");
        }
        let mut watch = store.watch("", Revision(newest - 1));
        assert_eq!(put(&store, "after", round.to_string()).await, newest + 1);
        assert_eq!(ready(&mut watch).len(), 2, "round {round}: the history goes on");
        newest += 1;
        store.close().await;
    }
}
