//! The contract of [`Store`], a rule per test, for every implementation.

use crate::support::*;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use store::{MemoryStore, Range, RangeError, Revision, Store, TxnError};

macro_rules! contract {
    ($(async fn $rule:ident($store:ident) $body:block)*) => {
        $(async fn $rule($store: &dyn Store) $body)*

        mod memory {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $rule() {
                    super::$rule(&MemoryStore::with_retention(RETENTION)).await;
                }
            )*
        }

        mod embedded {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $rule() {
                    super::$rule(&OnDisk::new(OPTIONS).store).await;
                }
            )*
        }
    };
}

contract! {
    async fn every_committed_transaction_takes_the_next_revision(store) {
        assert_eq!(store.revision(), Revision(0));
        assert_eq!(put(store, "a", "1").await, 1);
        assert_eq!(put(store, "b", "1").await, 2);
        assert_eq!(delete(store, "a").await, 3);
        assert_eq!(store.revision(), Revision(3));
    }

    async fn a_transaction_which_writes_nothing_takes_no_revision_and_is_no_event(store) {
        put(store, "a", "1").await;
        let mut watch = store.watch("", Revision(1));
        assert_eq!(delete(store, "b").await, 1);
        assert_eq!(txn(store, [compare("a", 1)], []).await.unwrap(), 1);
        assert!(txn(store, [compare("a", 7)], [put_operation("a", "2")]).await.is_err());
        assert_eq!(put(store, "a", "2").await, 2);
        assert_eq!(ready(&mut watch), ["2 put a=2"]);
    }

    async fn a_key_keeps_its_create_revision_mod_revision_and_version(store) {
        put(store, "other", "").await;
        for (version, value) in (1..).zip(["x", "y", "z"]) {
            let revision = put(store, "a", value).await;
            let kv = store.get("a").await.unwrap().unwrap();
            assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (Revision(2), Revision(revision), version));
        }
        delete(store, "a").await;
        assert_eq!(store.get("a").await.unwrap(), None);
        put(store, "a", "again").await;
        let kv = store.get("a").await.unwrap().unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (Revision(6), Revision(6), 1));
    }

    async fn a_compare_is_on_the_mod_revision_and_zero_means_that_the_key_does_not_exist(store) {
        assert!(txn(store, [compare("a", 1)], [put_operation("a", "")]).await.is_err());
        assert_eq!(txn(store, [compare("a", 0)], [put_operation("a", "")]).await.unwrap(), 1);
        assert!(txn(store, [compare("a", 0)], [put_operation("a", "")]).await.is_err());
        assert_eq!(txn(store, [compare("a", 1)], [put_operation("a", "")]).await.unwrap(), 2);
        assert!(txn(store, [compare("a", 1)], [delete_operation("a")]).await.is_err());
        assert_eq!(txn(store, [compare("a", 2)], [delete_operation("a")]).await.unwrap(), 3);
    }

    async fn a_conflict_gives_the_key_and_its_present_state(store) {
        put(store, "a", "present").await;
        let conflict = txn(store, [compare("a", 0)], [put_operation("a", "mine")]).await;
        let Err(TxnError::Conflict { key, current }) = conflict else { panic!("{conflict:?}") };
        assert_eq!((&*key, current), ("a", store.get("a").await.unwrap()));
        let conflict = txn(store, [compare("a", 1), compare("b", 9)], []).await;
        let Err(TxnError::Conflict { key, current }) = conflict else { panic!("{conflict:?}") };
        assert_eq!((&*key, current), ("b", None));
    }

    async fn a_transaction_is_all_or_nothing(store) {
        put(store, "a", "1").await;
        let both = [put_operation("a", "2"), put_operation("b", "2")];
        assert!(txn(store, [compare("a", 1), compare("b", 1)], both.clone()).await.is_err());
        assert_eq!(shown(&range(store, "", None).await.unwrap()), ["a=1"]);
        let mut watch = store.watch("", Revision(1));
        assert_eq!(txn(store, [compare("a", 1), compare("b", 0)], both).await.unwrap(), 2);
        assert_eq!(shown(&range(store, "", None).await.unwrap()), ["a=2", "b=2"]);
        assert_eq!(ready(&mut watch), ["2 put a=2, put b=2"], "one revision, one batch");
    }

    async fn what_is_acknowledged_is_visible(store) {
        let mut watch = store.watch("a", Revision(0));
        for _ in 0..20 {
            let revision = put(store, "a", "x").await;
            assert_eq!(store.get("a").await.unwrap().unwrap().mod_revision, Revision(revision));
            assert_eq!(range(store, "a", None).await.unwrap().revision, Revision(revision));
            assert_eq!(ready(&mut watch).len(), 1);
        }
    }

    async fn values_from_nothing_to_a_mebibyte_are_kept_as_they_are(store) {
        for size in [0, 1, 4095, 4096, 65_536, 1 << 20] {
            let value: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
            put(store, "a", &value).await;
            assert!(store.get("a").await.unwrap().unwrap().value == value, "{size} bytes");
        }
    }

    async fn a_range_has_the_keys_with_the_prefix_in_order(store) {
        for key in ["/b/2", "/a", "/b/", "/b0", "/b/10", "/b/1", "/c", "/b/é", "/b"] {
            put(store, key, "").await;
        }
        assert_eq!(shown(&range(store, "/b/", None).await.unwrap()), ["/b/=", "/b/1=", "/b/10=", "/b/2=", "/b/é="]);
        assert_eq!(range(store, "", None).await.unwrap().items.len(), 9);
        assert_eq!(shown(&range(store, "/d", None).await.unwrap()), [""; 0]);
    }

    async fn a_limited_range_says_how_much_remains_and_goes_on_after_the_last_key(store) {
        for key in ["/a/1", "/a/2", "/a/3", "/a/4", "/a/5", "/b/1"] {
            put(store, key, "").await;
        }
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = store.range(Range { prefix: "/a/".into(), after, limit: 2, at: None }).await.unwrap();
            pages.push((shown(&page), page.remaining));
            after = page.items.last().map(|kv| kv.key.clone());
            if page.remaining == 0 {
                break;
            }
        }
        let page = |keys: &[&str], remaining| (keys.iter().map(|key| format!("{key}=")).collect::<Vec<_>>(), remaining);
        assert_eq!(pages, [page(&["/a/1", "/a/2"], 3), page(&["/a/3", "/a/4"], 1), page(&["/a/5"], 0)]);
        for (after, found) in [("", 5), ("/a", 5), ("/a/3x", 2), ("/a/5", 0), ("/a0", 0), ("/z", 0)] {
            let range = Range { prefix: "/a/".into(), after: Some(after.into()), ..Range::default() };
            assert_eq!(store.range(range).await.unwrap().items.len(), found, "after {after:?}");
        }
    }

    async fn a_range_at_a_revision_sees_that_snapshot_whatever_has_happened_since(store) {
        let states = [vec![], vec!["a=1"], vec!["a=1", "b=1"], vec!["a=2", "b=1"], vec!["b=1"], vec!["a=3", "b=1", "c=1"]];
        put(store, "a", "1").await;
        put(store, "b", "1").await;
        put(store, "a", "2").await;
        delete(store, "a").await;
        txn(store, [], [put_operation("c", "1"), put_operation("a", "3")]).await.unwrap();
        for (revision, state) in (0..).zip(states) {
            let page = range(store, "", Some(revision)).await.unwrap();
            assert_eq!((shown(&page), page.revision), (state.iter().map(ToString::to_string).collect(), Revision(revision)));
        }
        let past = range(store, "a", Some(3)).await.unwrap().items.remove(0);
        assert_eq!((past.create_revision, past.mod_revision, past.version), (Revision(1), Revision(3), 2));
    }

    async fn a_page_continues_on_its_own_snapshot(store) {
        for key in ["a", "c", "e"] {
            put(store, key, "old").await;
        }
        let first = store.range(Range { limit: 1, ..Range::default() }).await.unwrap();
        for key in ["b", "c", "d"] {
            put(store, key, "new").await;
        }
        delete(store, "e").await;
        let after = first.items.last().map(|kv| kv.key.clone());
        let second = store.range(Range { after, at: Some(first.revision), ..Range::default() }).await.unwrap();
        assert_eq!(shown(&second), ["c=old", "e=old"]);
    }

    async fn a_range_in_the_future_is_refused(store) {
        put(store, "a", "").await;
        let refused = range(store, "", Some(2)).await;
        assert!(matches!(refused, Err(RangeError::Future { asked: Revision(2), newest: Revision(1) })), "{refused:?}");
    }

    async fn a_watch_goes_from_the_past_into_the_future_without_a_gap(store) {
        for n in 1..=20 {
            put(store, "a", n.to_string()).await;
        }
        let mut watch = store.watch("a", Revision(10));
        for n in 21..=30 {
            put(store, "a", n.to_string()).await;
        }
        for n in 11..=30 {
            assert_eq!(next(&mut watch).await, format!("{n} put a={n}"));
        }
        assert_eq!(ready(&mut watch), [""; 0]);
        put(store, "a", "31").await;
        assert_eq!(next(&mut watch).await, "31 put a=31");
    }

    async fn a_watch_sees_its_prefix_only(store) {
        let mut watches = ["", "/a", "/a/", "/b", "/a/x/"].map(|prefix| store.watch(prefix, Revision(0)));
        put(store, "/a/x", "").await;
        txn(store, [], [put_operation("/b", ""), put_operation("/a/y", "")]).await.unwrap();
        put(store, "/aa", "").await;
        let seen = watches.each_mut().map(|watch| ready(watch).join("; "));
        assert_eq!(
            seen,
            [
                "1 put /a/x=; 2 put /b=, put /a/y=; 3 put /aa=",
                "1 put /a/x=; 2 put /a/y=; 3 put /aa=",
                "1 put /a/x=; 2 put /a/y=",
                "2 put /b=",
                "",
            ]
        );
    }

    async fn a_prefix_may_end_anywhere_in_a_key(store) {
        let mut watch = store.watch("/é", Revision(0));
        for key in ["/è", "/é", "/éa", "/", "/e"] {
            put(store, key, "").await;
        }
        assert_eq!(ready(&mut watch), ["2 put /é=", "3 put /éa="]);
    }

    async fn an_event_has_the_state_before_and_after(store) {
        let mut watch = store.watch("", Revision(0));
        put(store, "a", "1").await;
        put(store, "a", "2").await;
        let alive = store.get("a").await.unwrap().unwrap();
        delete(store, "a").await;
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(watch.next().await.unwrap().unwrap().events.remove(0));
        }
        assert_eq!(events[0].previous, None);
        assert_eq!(events[1].previous.as_ref(), Some(&events[0].kv));
        assert_eq!(events[1].kv, alive);
        assert_eq!(events[2].previous.as_ref(), Some(&alive));
        assert_eq!((&events[2].kv.value, events[2].kv.mod_revision), (&alive.value, Revision(3)));
    }

    async fn a_watch_from_the_future_begins_there(store) {
        let mut watch = store.watch("", Revision(2));
        for _ in 0..4 {
            put(store, "a", "").await;
        }
        assert_eq!(ready(&mut watch), ["3 put a=", "4 put a="]);
    }

    async fn a_slow_watcher_blocks_nobody_and_misses_nothing_inside_the_history(store) {
        let mut slow = store.watch("a", Revision(0));
        let mut quick = store.watch("a", Revision(0));
        for n in 1..=90 {
            put(store, "a", "").await;
            assert_eq!(next(&mut quick).await, format!("{n} put a="));
        }
        assert_eq!(ready(&mut slow).len(), 90);
    }

    async fn a_watcher_which_falls_out_of_the_history_is_told_and_ended(store) {
        let mut watch = store.watch("a", Revision(0));
        put(store, "a", "").await;
        assert_eq!(next(&mut watch).await, "1 put a=");
        tokio::time::advance(RETENTION.age).await;
        for _ in 0..101 {
            put(store, "a", "").await;
        }
        assert_eq!(ready(&mut store.watch("a", Revision(1))).len(), 101, "old, but among the last hundred or so");
        tokio::time::advance(RETENTION.age + Duration::from_secs(1)).await;
        put(store, "a", "").await;
        let compacted = next_compacted(&mut watch).await;
        assert_eq!((compacted.asked, compacted.oldest), (Revision(1), Revision(3)));
        assert!(watch.next().await.is_none());
        assert_eq!(next_compacted(&mut store.watch("a", Revision(2))).await.asked, Revision(2));
        assert_eq!(ready(&mut store.watch("a", compacted.oldest)).len(), 100);
    }

    async fn a_quiet_watcher_does_not_fall_out_of_the_history(store) {
        let mut watch = store.watch("quiet", Revision(0));
        assert_eq!(ready(&mut watch), [""; 0]);
        for _ in 0..3 {
            tokio::time::advance(RETENTION.age * 2).await;
            for _ in 0..150 {
                put(store, "loud", "").await;
            }
        }
        assert!(matches!(range(store, "", Some(100)).await, Err(RangeError::Compacted { .. })));
        put(store, "quiet", "").await;
        assert_eq!(next(&mut watch).await, "451 put quiet=");
    }

    async fn history_is_kept_for_the_longer_of_age_and_count(store) {
        for _ in 0..150 {
            put(store, "a", "").await;
        }
        tokio::time::advance(RETENTION.age - Duration::from_secs(1)).await;
        put(store, "a", "").await;
        assert!(range(store, "", Some(0)).await.is_ok(), "150 events, but young");
        tokio::time::advance(Duration::from_secs(2)).await;
        put(store, "a", "").await;
        assert!(range(store, "", Some(52)).await.is_ok(), "old, but among the last 100");
        let gone = range(store, "", Some(51)).await;
        assert!(matches!(gone, Err(RangeError::Compacted { asked: Revision(51), oldest: Revision(52) })), "{gone:?}");
    }

    async fn history_never_exceeds_its_bytes(store) {
        let value = vec![0; 10 << 10];
        for _ in 0..20 {
            put(store, "a", &value).await;
        }
        let gone = range(store, "", Some(0)).await;
        let Err(RangeError::Compacted { oldest, .. }) = gone else { panic!("200 KiB are more than 64: {gone:?}") };
        assert_eq!(ready(&mut store.watch("", oldest)).len(), 6);
        put(store, "a", vec![0; 1 << 20]).await;
        assert_eq!(ready(&mut store.watch("", Revision(20))).len(), 1, "the newest event is always there");
    }

    async fn compaction_forgets_the_history_before_a_revision_but_no_key(store) {
        for key in ["a", "b", "c", "d"] {
            put(store, key, "").await;
        }
        store.compact(Revision(2)).await.unwrap();
        let gone = range(store, "", Some(1)).await;
        assert!(matches!(gone, Err(RangeError::Compacted { asked: Revision(1), oldest: Revision(2) })), "{gone:?}");
        assert_eq!(range(store, "", Some(2)).await.unwrap().items.len(), 2);
        assert_eq!(next_compacted(&mut store.watch("", Revision(1))).await.oldest, Revision(2));
        assert_eq!(ready(&mut store.watch("", Revision(2))), ["3 put c=", "4 put d="]);
        store.compact(Revision(99)).await.unwrap();
        assert_eq!(range(store, "", None).await.unwrap().items.len(), 4);
        assert_eq!(put(store, "e", "").await, 5);
        assert_eq!(ready(&mut store.watch("", Revision(4))), ["5 put e="]);
    }

    async fn a_progress_notification_comes_once_a_watch_has_caught_up(store) {
        let (mut quiet, mut behind) = (store.watch("b", Revision(0)), store.watch("a", Revision(0)));
        for _ in 0..3 {
            put(store, "a", "").await;
        }
        assert_eq!(ready(&mut quiet), [""; 0]);
        store.request_progress();
        assert_eq!(next(&mut quiet).await, "3 progress", "also to a watch with nothing new");
        assert_eq!(ready(&mut behind), ["1 put a=", "2 put a=", "3 put a=", "3 progress"]);
        assert_eq!(ready(&mut quiet), [""; 0], "one request, one notification");
        put(store, "a", "").await;
        store.request_progress();
        assert_eq!(ready(&mut quiet), ["4 progress"]);
    }

    async fn a_request_for_progress_wakes_a_waiting_watch(store) {
        put(store, "a", "").await;
        let mut watch = store.watch("b", Revision(0));
        let (batch, ()) = tokio::join!(next(&mut watch), async {
            tokio::task::yield_now().await;
            store.request_progress();
        });
        assert_eq!(batch, "1 progress");
    }

    async fn a_watch_that_begins_before_an_earlier_request_for_progress_answers_it_too(store) {
        for _ in 0..2 {
            put(store, "a", "").await;
        }
        store.request_progress();
        assert_eq!(ready(&mut store.watch("b", Revision(1))), ["2 progress"]);
        assert_eq!(ready(&mut store.watch("b", Revision(2))), [""; 0], "it has nothing to catch up on");
        put(store, "a", "").await;
        assert_eq!(ready(&mut store.watch("b", Revision(2))), [""; 0], "nobody has asked since");
    }

    async fn a_watch_from_the_future_reports_progress_when_it_has_begun(store) {
        let mut watch = store.watch("b", Revision(2));
        store.request_progress();
        for _ in 0..2 {
            assert_eq!(ready(&mut watch), [""; 0]);
            put(store, "a", "").await;
        }
        assert_eq!(next(&mut watch).await, "2 progress");
    }

    async fn a_dropped_watch_is_forgotten(store) {
        for _ in 0..3 {
            drop(store.watch("a", Revision(0)));
            put(store, "a", "").await;
            store.request_progress();
        }
        assert_eq!(ready(&mut store.watch("a", Revision(0))), ["1 put a=", "2 put a=", "3 put a=", "3 progress"]);
    }
}

/// Counts with compare-and-swap from eight tasks; every increment counts once.
async fn concurrent_increments_are_never_lost(store: Arc<dyn Store>) {
    let increments = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                let mut current = store.get("counter").await.unwrap();
                loop {
                    let count: u64 =
                        current.as_ref().map_or(0, |kv| std::str::from_utf8(&kv.value).unwrap().parse().unwrap());
                    let expected = current.as_ref().map_or(0, |kv| kv.mod_revision.0);
                    let put = put_operation("counter", (count + 1).to_string());
                    match txn(&*store, [compare("counter", expected)], [put]).await {
                        Ok(_) => break,
                        Err(TxnError::Conflict { current: present, .. }) => current = present,
                        Err(stopped) => panic!("{stopped}"),
                    }
                }
            }
        })
    });
    let mut watch = store.watch("counter", Revision(0));
    for increment in increments.collect::<Vec<_>>() {
        increment.await.unwrap();
    }
    assert_eq!(shown(&range(&*store, "", None).await.unwrap()), ["counter=200"]);
    for n in 1..=200 {
        assert_eq!(next(&mut watch).await, format!("{n} put counter={n}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_increments_are_never_lost_in_memory() {
    concurrent_increments_are_never_lost(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_increments_are_never_lost_on_disk() {
    let on_disk = OnDisk::new(OPTIONS);
    concurrent_increments_are_never_lost(Arc::new(on_disk.store.clone())).await;
}

#[tokio::test]
async fn watches_of_a_dropped_memory_store_end_after_what_was_committed() {
    let store = MemoryStore::new();
    let mut watch = store.clone().watch("", Revision(0));
    put(&store, "a", "").await;
    drop(store);
    assert_eq!(next(&mut watch).await, "1 put a=");
    assert!(watch.next().await.is_none());
}
