//! Lists read page by page: every page is of the first one's snapshot, which is kept for as long as is reasonable.

use crate::support::*;
use std::time::Duration;
use store::{Key, MemoryStore, Page, Range, RangeError, Revision, Store};

async fn page(store: &dyn Store, after: Option<&Key>, at: Option<Revision>) -> Result<Page, RangeError> {
    store.range(Range { prefix: "key".into(), after: after.cloned(), limit: 2, at }).await
}

async fn filled(store: &dyn Store, value: &str) {
    for n in 1..=5 {
        put(store, &format!("key {n}"), value).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_outlives_the_history() {
    let store = MemoryStore::with_retention(RETENTION);
    filled(&store, "old").await;
    let first = page(&store, None, None).await.unwrap();
    for _ in 0..20 {
        filled(&store, "new").await;
        put(&store, "large", vec![0; 10 << 10]).await;
        delete(&store, "key 4").await;
    }
    assert!(matches!(range(&store, "", Some(first.revision.0 + 1)).await, Err(RangeError::Compacted { .. })));
    let second = page(&store, first.items.last().map(|kv| &kv.key), Some(first.revision)).await.unwrap();
    let third = page(&store, second.items.last().map(|kv| &kv.key), Some(first.revision)).await.unwrap();
    let pages = [first, second, third];
    let pages = pages.map(|page| (shown(&page), page.remaining, page.revision.0));
    let expected = [
        (vec!["key 1=old".to_owned(), "key 2=old".to_owned()], 3, 5),
        (vec!["key 3=old".to_owned(), "key 4=old".to_owned()], 1, 5),
        (vec!["key 5=old".to_owned()], 0, 5),
    ];
    assert_eq!(pages, expected);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_let_go_when_it_is_old_or_compacted_or_keeps_too_much() {
    let store = MemoryStore::with_retention(RETENTION);
    for case in ["old", "compacted", "too much"] {
        filled(&store, case).await;
        let first = page(&store, None, None).await.unwrap();
        for _ in 0..RETENTION.events {
            put(&store, "other", vec![0; 1 << 10]).await;
        }
        let next = || page(&store, first.items.last().map(|kv| &kv.key), Some(first.revision));
        assert_eq!(next().await.unwrap().items.len(), 2, "{case}: it is kept at first");
        match case {
            "old" => tokio::time::advance(RETENTION.age + Duration::from_secs(1)).await,
            "compacted" => store.compact(store.revision()).await.unwrap(),
            _ => {
                for _ in 0..66 {
                    put(&store, "other", vec![0; 1 << 20]).await;
                }
            }
        }
        put(&store, "other", "").await;
        let gone = next().await.unwrap_err();
        assert!(matches!(gone, RangeError::Compacted { asked, .. } if asked == first.revision), "{case}: {gone}");
    }
}
