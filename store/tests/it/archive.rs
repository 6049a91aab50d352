//! Saving a whole state into a file, and making a store of it.

use crate::support::*;
use std::fs;
use std::path::{Path, PathBuf};
use store::{
    Archive, ArchiveError, EmbeddedStore, Existing, KeyValue, MemoryStore, OpenError, Restored, Revision, Store,
    restore, verify_archive,
};
use tempfile::TempDir;

/// How far above everything that was before revisions go on.
const JUMP: u64 = 1_000_000_000;

fn save(archive: Archive, dir: &Path) -> PathBuf {
    let contents = archive.contents();
    let bytes: Vec<u8> = archive.flat_map(Vec::from).collect();
    assert_eq!(bytes.len() as u64, contents.length, "the length is known beforehand");
    let path = dir.join("saved");
    fs::write(&path, bytes).unwrap();
    assert_eq!(verify_archive(&path, |_, _| {}).unwrap(), contents);
    path
}

async fn keys(store: &dyn Store) -> Vec<KeyValue> {
    range(store, "", None).await.unwrap().items
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, OPTIONS).unwrap_or_else(|error| panic!("{error}"))
}

/// Keys of all sizes, some written twice, and a file of them.
async fn saved() -> (OnDisk, PathBuf) {
    let on_disk = OnDisk::new(OPTIONS);
    for size in [0, 1, 100, 65_000, 65_536, 200_000, 1 << 20] {
        put(&on_disk.store, &format!("key of {size}"), vec![size as u8; size]).await;
        put(&on_disk.store, "often", size.to_string()).await;
    }
    let file = save(on_disk.store.archive(), on_disk.dir.path());
    (on_disk, file)
}

#[tokio::test]
async fn a_saved_state_makes_the_same_store_elsewhere_and_revisions_go_on_far_above() {
    let (OnDisk { store, dir }, file) = saved().await;
    let elsewhere = dir.path().join("elsewhere");
    let restored = restore(&file, &elsewhere, Existing::Keep, |_, _| {}).unwrap();
    assert_eq!(restored, Restored { saved: Revision(14), revision: Revision(14 + JUMP), keys: 8 });
    let again = open(&elsewhere);
    assert_eq!(keys(&again).await, keys(&store).await, "revisions of keys included");
    assert_eq!(again.revision(), restored.revision);
    assert_eq!(put(&again, "a", "").await, 15 + JUMP);
    again.close().await;
    assert_eq!(open(&elsewhere).revision(), Revision(15 + JUMP));
}

#[tokio::test]
async fn whoever_saw_revisions_that_are_not_in_the_file_is_told_to_list_anew() {
    let (OnDisk { store, dir }, file) = saved().await;
    for _ in 0..100 {
        put(&store, "later", "").await;
    }
    let seen = store.revision();
    store.close().await;
    let restored = restore(&file, dir.path(), Existing::Replace, |_, _| {}).unwrap();
    assert_eq!(restored.revision, Revision(seen.0 + JUMP), "above what the replaced store had reached");
    let store = open(dir.path());
    assert_eq!(store.get("later").await.unwrap(), None);
    let compacted = next_compacted(&mut store.watch("", seen)).await;
    assert_eq!((compacted.asked, compacted.oldest), (seen, restored.revision));
    assert!(range(&store, "", Some(seen.0)).await.is_err());
}

#[tokio::test]
async fn a_state_in_memory_can_be_saved_too() {
    let (store, dir) = (MemoryStore::new(), TempDir::new().unwrap());
    put(&store, "a", "1").await;
    let file = save(store.archive(), dir.path());
    restore(&file, &dir.path().join("elsewhere"), Existing::Keep, |_, _| {}).unwrap();
    assert_eq!(keys(&open(&dir.path().join("elsewhere"))).await, keys(&store).await);
    let empty = save(MemoryStore::new().archive(), dir.path());
    restore(&empty, &dir.path().join("nothing"), Existing::Keep, |_, _| {}).unwrap();
    assert_eq!(keys(&open(&dir.path().join("nothing"))).await, []);
}

#[tokio::test]
async fn what_is_written_while_a_state_is_saved_is_not_in_it() {
    let on_disk = OnDisk::new(OPTIONS);
    for n in 0..50 {
        put(&on_disk.store, &format!("key {n:02}"), vec![0; 10 << 10]).await;
    }
    let mut archive = on_disk.store.archive();
    let first = archive.next().unwrap();
    put(&on_disk.store, "key 49", "new").await;
    delete(&on_disk.store, "key 48").await;
    let bytes: Vec<u8> = std::iter::once(first).chain(archive).flat_map(Vec::from).collect();
    let file = on_disk.dir.path().join("saved");
    fs::write(&file, bytes).unwrap();
    assert_eq!(verify_archive(&file, |_, _| {}).unwrap().revision, Revision(50));
    restore(&file, &on_disk.dir.path().join("elsewhere"), Existing::Keep, |_, _| {}).unwrap();
    let restored = open(&on_disk.dir.path().join("elsewhere"));
    assert_eq!(restored.get("key 49").await.unwrap().unwrap().value.len(), 10 << 10);
    assert!(restored.get("key 48").await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_is_there_is_not_replaced_unless_that_is_wanted_nor_while_it_is_in_use() {
    let (OnDisk { store, dir }, file) = saved().await;
    for existing in [Existing::Keep, Existing::Replace] {
        let in_use = restore(&file, dir.path(), existing, |_, _| {}).unwrap_err();
        assert!(matches!(in_use, ArchiveError::Directory(OpenError::Locked { .. })), "{in_use}");
    }
    put(&store, "later", "").await;
    let before = keys(&store).await;
    store.close().await;
    let occupied = restore(&file, dir.path(), Existing::Keep, |_, _| {}).unwrap_err();
    assert_eq!(occupied.to_string(), format!("{} already holds a store", dir.path().display()));
    assert_eq!(keys(&open(dir.path())).await, before);
    restore(&file, dir.path(), Existing::Replace, |_, _| {}).unwrap();
    assert_eq!(keys(&open(dir.path())).await.len(), before.len() - 1);
    let beside = dir.path().with_extension("restoring");
    assert!(!beside.exists(), "nothing is left beside it");
}

#[tokio::test]
async fn a_store_that_no_longer_opens_can_be_replaced() {
    let (OnDisk { store, dir }, file) = saved().await;
    let before = keys(&store).await;
    store.close().await;
    for segment in fs::read_dir(dir.path().join("log")).unwrap() {
        fs::write(segment.unwrap().path(), "garbage").unwrap();
    }
    assert!(EmbeddedStore::open(dir.path(), OPTIONS).is_err());
    restore(&file, dir.path(), Existing::Replace, |_, _| {}).unwrap();
    assert_eq!(keys(&open(dir.path())).await, before);
}

#[tokio::test]
async fn every_damage_is_refused_and_named_before_anything_is_written() {
    let on_disk = OnDisk::new(OPTIONS);
    put(&on_disk.store, "a", "value").await;
    let file = save(on_disk.store.archive(), on_disk.dir.path());
    let good = fs::read(&file).unwrap();
    let elsewhere = on_disk.dir.path().join("elsewhere");
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = restore(&file, &elsewhere, Existing::Replace, |_, _| {}).unwrap_err();
        assert!(!elsewhere.exists());
        error
    };
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let error = refused(&flipped);
        let expected = match at {
            0..8 => matches!(error, ArchiveError::Foreign { .. }),
            8..12 => matches!(error, ArchiveError::Version { .. }),
            // The length: too long or too short.
            28..36 => matches!(error, ArchiveError::Corrupt { .. } | ArchiveError::CutShort { .. }),
            _ => matches!(error, ArchiveError::Corrupt { .. }),
        };
        assert!(expected, "byte {at}: {error}");
        let error = refused(&good[..at]);
        let expected = if at < 8 {
            matches!(error, ArchiveError::Foreign { .. })
        } else {
            matches!(error, ArchiveError::CutShort { .. })
        };
        assert!(expected, "cut at {at}: {error}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(refused(&longer), ArchiveError::Corrupt { .. }));
    let name = file.display();
    assert_eq!(refused(b"{\"kind\": \"List\"}").to_string(), format!("{name} is not a snapshot of a store"));
    let length = good.len();
    let cut = format!("{name} is cut short: it has {} bytes of {length}", length - 1);
    assert_eq!(refused(&good[..length - 1]).to_string(), cut);
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    assert_eq!(refused(&flipped).to_string(), format!("{name} is damaged: its checksum does not match"));
    let missing = restore(Path::new("/nonexistent"), &elsewhere, Existing::Keep, |_, _| {}).unwrap_err();
    assert_eq!(missing.to_string(), "cannot open /nonexistent");
}
