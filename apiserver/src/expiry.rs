//! Events are forgotten an hour after their last write, as kube-apiserver's `--event-ttl` does.

use crate::ApiServer;
use futures::StreamExt;
use std::collections::VecDeque;
use std::time::Duration;
use store::{Compare, EventKind, Key, Operation, Range, Revision, Txn};
use tokio::time::{Instant, sleep_until};

const EVENTS: &str = "/registry/events/";

/// A written event and when it is to be forgotten.
struct Expiry {
    at: Instant,
    key: Key,
    /// A later write of the event has an entry of its own.
    revision: Revision,
}

impl ApiServer {
    /// Removes events whose last write is older than `ttl` (an hour is usual). Runs until it is dropped; the wiring spawns it.
    ///
    /// Events from before the start are given the whole time again.
    pub async fn expire_events(&self, ttl: Duration) {
        let store = self.store().clone();
        let mut queue: VecDeque<Expiry> = VecDeque::new();
        loop {
            // The state, then its changes; anew when the watch has fallen behind.
            let range = Range { prefix: EVENTS.to_owned(), ..Range::default() };
            let Ok(page) = store.range(range).await else { return };
            let at = Instant::now() + ttl;
            queue.clear();
            queue.extend(page.items.into_iter().map(|kv| Expiry { at, key: kv.key, revision: kv.mod_revision }));
            let mut changes = store.watch(EVENTS, page.revision);
            loop {
                let next = queue.front().map_or_else(|| Instant::now() + ttl, |expiry| expiry.at);
                tokio::select! {
                    batch = changes.next() => match batch {
                        None => return,
                        Some(Err(_)) => break,
                        Some(Ok(batch)) => {
                            let at = Instant::now() + ttl;
                            let written = batch.events.iter().filter(|event| event.kind == EventKind::Put);
                            queue.extend(written.map(|event| {
                                Expiry { at, key: event.kv.key.clone(), revision: event.kv.mod_revision }
                            }));
                        }
                    },
                    () = sleep_until(next) => {
                        while queue.front().is_some_and(|expiry| expiry.at <= Instant::now()) {
                            let Some(Expiry { key, revision, .. }) = queue.pop_front() else { break };
                            let compares = vec![Compare { key: key.clone(), mod_revision: revision }];
                            // If the compare fails, the event has been written again or is gone.
                            let _ = store.txn(Txn { compares, operations: vec![Operation::Delete { key }] }).await;
                        }
                    }
                }
            }
        }
    }
}
