//! What only a store on disk promises: it comes back as it was, and says clearly why when it cannot.

use crate::support::*;
use futures::StreamExt;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use store::{EmbeddedStore, OpenError, Options, Revision, Store, TxnError};

fn open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir, OPTIONS)
}

fn entries(dir: PathBuf) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (dirs, mut files): (Vec<_>, Vec<_>) = entries(dir.to_owned()).into_iter().partition(|path| path.is_dir());
    files.extend(dirs.iter().flat_map(|dir| files_below(dir)));
    files
}

#[tokio::test]
async fn after_a_restart_keys_revisions_and_watches_go_on() {
    let OnDisk { store, dir } = OnDisk::new(OPTIONS);
    for n in 1..=20 {
        put(&store, "a", n.to_string()).await;
    }
    let before = store.get("a").await.unwrap();
    store.close().await;
    let store = open(dir.path()).unwrap();
    assert_eq!((store.get("a").await.unwrap(), store.revision()), (before, Revision(20)));
    assert_eq!(shown(&range(&store, "", Some(7)).await.unwrap()), ["a=7"]);
    let mut watch = store.watch("", Revision(18));
    assert_eq!(put(&store, "a", "21").await, 21);
    assert_eq!(ready(&mut watch), ["19 put a=19", "20 put a=20", "21 put a=21"]);
}

#[tokio::test]
async fn a_restart_keeps_the_bounds_of_the_history() {
    let OnDisk { store, dir } = OnDisk::new(OPTIONS);
    for _ in 0..20 {
        put(&store, "a", vec![0; 10 << 10]).await;
    }
    store.close().await;
    let store = open(dir.path()).unwrap();
    assert_eq!(next_compacted(&mut store.watch("", Revision(0))).await.oldest, Revision(14));
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_store() {
    let OnDisk { store, dir } = OnDisk::new(OPTIONS);
    let mut watch = store.watch("", Revision(0));
    put(&store, "a", "1").await;
    let clone = store.clone();
    drop(store);
    assert!(matches!(open(dir.path()), Err(OpenError::Locked { .. })));
    drop(clone);
    assert_eq!(next(&mut watch).await, "1 put a=1");
    assert!(watch.next().await.is_none());
    assert_eq!(open(dir.path()).unwrap().revision(), Revision(1));
}

#[tokio::test]
async fn a_closed_store_refuses_writes_and_still_reads() {
    let on_disk = OnDisk::new(OPTIONS);
    put(&on_disk.store, "a", "1").await;
    on_disk.store.close().await;
    on_disk.store.close().await;
    let refused = txn(&on_disk.store, [], [put_operation("a", "2")]).await.unwrap_err();
    assert!(matches!(refused, TxnError::Stopped(_)));
    assert_eq!(refused.to_string(), "store stopped: it has been closed");
    assert_eq!(shown(&range(&on_disk.store, "", None).await.unwrap()), ["a=1"]);
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused_with_the_holder() {
    let on_disk = OnDisk::new(OPTIONS);
    let refused = open(on_disk.dir.path()).unwrap_err();
    let expected = format!("{} is in use by process {}", on_disk.dir.path().display(), std::process::id());
    assert_eq!(refused.to_string(), expected);
    on_disk.store.close().await;
    assert!(open(on_disk.dir.path()).is_ok());
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("store");
    let error = open(&below).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot create {}", below.display()));
    assert!(error.source().unwrap().to_string().contains("Not a directory"), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("new/store");
    let store = open(&dir).unwrap();
    put(&store, "a", vec![1; 100 << 10]).await;
    store.checkpoint().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [dir.clone(), dir.join("log"), dir.join("checkpoints")] {
        assert_eq!(mode(&path), 0o700, "{}", path.display());
    }
    for file in files_below(&dir) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// Writes enough to change segments between the checkpoints, with a large value among them.
async fn with_checkpoints(count: usize) -> OnDisk {
    let on_disk = OnDisk::new(OPTIONS);
    for generation in 0..count {
        for n in 0..30 {
            put(&on_disk.store, &format!("key {n}"), vec![generation as u8; 3 << 10]).await;
        }
        put(&on_disk.store, "large", vec![generation as u8; 300 << 10]).await;
        on_disk.store.checkpoint().await.unwrap();
    }
    put(&on_disk.store, "last", "").await;
    on_disk
}

async fn state(store: &EmbeddedStore) -> (Revision, Vec<store::KeyValue>) {
    let page = range(store, "", None).await.unwrap();
    (page.revision, page.items)
}

#[tokio::test]
async fn two_checkpoints_are_kept_and_the_log_back_to_the_older() {
    let OnDisk { store, dir } = with_checkpoints(4).await;
    let before = state(&store).await;
    store.close().await;
    let names = |part: &str| {
        let paths = entries(dir.path().join(part)).into_iter();
        paths.map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(names("checkpoints"), [93, 124]);
    let segments = names("log");
    assert!(segments[0] <= 94 && segments[1] > 94, "{segments:?}");
    let store = open(dir.path()).unwrap();
    assert_eq!(state(&store).await, before);
    assert_eq!(put(&store, "more", "").await, before.0.0 + 1);
}

#[tokio::test]
async fn a_checkpoint_is_made_when_the_log_has_grown_enough() {
    let options = Options { checkpoint_bytes: 50 << 10, ..OPTIONS };
    let OnDisk { store, dir } = OnDisk::new(options);
    // They are made in the background, while it goes on: two of them, and the log is short of its beginning.
    let names =
        |part: &str| entries(dir.path().join(part)).into_iter().map(|path| path.file_stem().unwrap().to_owned());
    let trimmed = || names("log").all(|segment| segment != "00000000000000000001");
    let mut round = 0u64;
    while !trimmed() {
        for n in 0..4 {
            put(&store, &format!("key {n}"), vec![round as u8; 3 << 10]).await;
        }
        round += 1;
        assert!(round < 100_000, "no checkpoint is made");
    }
    let before = state(&store).await;
    store.close().await;
    assert!(names("checkpoints").count() >= 2);
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    assert_eq!(state(&store).await, before);
}

#[tokio::test]
async fn a_bad_checkpoint_costs_a_longer_replay_but_no_record() {
    for generation in 0..2 {
        for damage in ["removed", "emptied", "truncated", "flipped"] {
            let OnDisk { store, dir } = with_checkpoints(3).await;
            let before = state(&store).await;
            store.close().await;
            let checkpoint = &entries(dir.path().join("checkpoints"))[generation];
            for file in files_below(checkpoint) {
                let mut bytes = fs::read(&file).unwrap();
                match damage {
                    "removed" => fs::remove_file(&file).unwrap(),
                    "emptied" => fs::write(&file, "").unwrap(),
                    "truncated" => fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {
                        bytes.iter_mut().step_by(1009).for_each(|byte| *byte ^= 0x40);
                        fs::write(&file, bytes).unwrap();
                    }
                }
            }
            let store = open(dir.path()).unwrap_or_else(|error| panic!("generation {generation} {damage}: {error}"));
            assert!(state(&store).await == before, "generation {generation} {damage}");
            // And the next checkpoint puts it right.
            put(&store, "another", "").await;
            store.checkpoint().await.unwrap();
            let before = state(&store).await;
            store.close().await;
            assert!(state(&open(dir.path()).unwrap()).await == before, "generation {generation} {damage}");
        }
    }
}

#[tokio::test]
async fn a_store_without_any_good_checkpoint_does_not_pretend_to_be_empty() {
    let OnDisk { store, dir } = with_checkpoints(3).await;
    store.close().await;
    for checkpoint in entries(dir.path().join("checkpoints")) {
        fs::remove_dir_all(checkpoint).unwrap();
    }
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().ends_with("there is no checkpoint for the log to follow"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_unfinished_is_cleared_away() {
    let OnDisk { store, dir } = with_checkpoints(1).await;
    let before = state(&store).await;
    store.close().await;
    let unfinished = dir.path().join("checkpoints/00000000000000000099.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("db"), "half").unwrap();
    fs::write(dir.path().join("log/prepared"), "zeros").unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(state(&store).await, before);
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn many_restarts_leave_one_segment_each_of_no_more_than_its_records() {
    let dir = tempfile::tempdir().unwrap();
    for revision in 1..=10 {
        let store = open(dir.path()).unwrap();
        assert_eq!(put(&store, "a", "").await, revision);
        store.close().await;
    }
    open(dir.path()).unwrap().close().await;
    open(dir.path()).unwrap().close().await;
    let sizes: u64 = entries(dir.path().join("log")).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(sizes < 2 * OPTIONS.segment_bytes, "{sizes} bytes");
}
