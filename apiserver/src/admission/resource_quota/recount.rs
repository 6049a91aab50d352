//! Counting a quota from what is in the store: when it is written, and again by [`ApiServer::keep_quotas`].

use super::scopes;
use super::usage::{self, Resource};
use super::{MARKS, QUOTAS, mark_of};
use crate::admission::pod_amounts::{Resources, add};
use crate::schema::quantity::Quantity;
use crate::status::Status;
use crate::{ApiServer, encode};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use store::{Compare, Operation, Range, Revision, Store, Txn};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// Sets the status of the quota `name` to what it limits and what there is of that, itself counted.
pub(super) async fn fill_in(store: &dyn Store, namespace: &str, name: &str, quota: &mut Value) -> Result<(), Status> {
    let used = used(store, namespace, quota, store.revision(), Some(name)).await?;
    quota["status"] = status(quota, &used);
    Ok(())
}

fn status(quota: &Value, used: &Resources) -> Value {
    let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
    if hard.is_empty() {
        return json!({});
    }
    let used: serde_json::Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.canonical().into())).collect();
    json!({"hard": hard, "used": used})
}

/// What there is, at `revision`, of everything the quota limits. `own` names the quota while its write is not yet in the store.
async fn used(
    store: &dyn Store,
    namespace: &str,
    quota: &Value,
    revision: Revision,
    own: Option<&str>,
) -> Result<Resources, Status> {
    let spec = &quota["spec"];
    let zero = Quantity::parse("0").expect("zero is a quantity");
    let limited: Vec<&str> = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut all: Resources = limited.iter().map(|name| ((*name).to_owned(), zero)).collect();
    let mut count = |resource: Resource<'_>, object: &Value| {
        if scopes::matches(spec, resource, object) {
            for (name, amount) in usage::of(resource, object) {
                if all.contains_key(&name) {
                    add(&mut all, &name, amount);
                }
            }
        }
    };
    for resource in usage::counted(limited.iter().copied()) {
        let range = Range { prefix: resource.prefix(namespace), at: Some(revision), ..Range::default() };
        let page = store.range(range).await.map_err(Status::internal)?;
        for kv in &page.items {
            let is_own = resource == QUOTAS && own.is_some_and(|own| kv.key.rsplit('/').next() == Some(own));
            if is_own {
                continue;
            }
            // What only counts as one need not be read.
            if resource.varies() { count(resource, &encode::parse(kv)?) } else { count(resource, &Value::Null) }
        }
        if resource == QUOTAS && own.is_some() {
            count(resource, quota);
        }
    }
    Ok(all)
}

impl ApiServer {
    /// Counts quotas anew: all at the start and every `resync` (five minutes is usual), those of a namespace when one comes or
    /// changes. Runs until it is dropped; the wiring spawns it.
    ///
    /// Since every write keeps the quotas it concerns, this finds nothing but what was written while a quota came into being.
    pub async fn keep_quotas(&self, resync: Duration) {
        let store = self.store().clone();
        loop {
            let until = Instant::now() + resync;
            let mut changes = store.watch(MARKS, store.revision());
            let all = Range { prefix: format!("/registry/{}/", QUOTAS.plural), ..Range::default() };
            let Ok(page) = store.range(all).await else { return };
            let namespaces: BTreeSet<String> =
                page.items.iter().filter_map(|kv| Some(kv.key.rsplit('/').nth(1)?.to_owned())).collect();
            for namespace in namespaces {
                mark(&*store, &namespace).await;
                recount(&*store, &namespace).await;
            }
            loop {
                tokio::select! {
                    batch = changes.next() => match batch {
                        None => return,
                        Some(Err(_)) => break,
                        Some(Ok(batch)) => for event in batch.events {
                            if let Some(namespace) = event.kv.key.strip_prefix(MARKS) {
                                recount(&*store, namespace).await;
                            }
                        },
                    },
                    () = sleep_until(until) => break,
                }
            }
        }
    }
}

/// Marks a namespace whose quotas came from elsewhere, such as a snapshot of older data.
async fn mark(store: &dyn Store, namespace: &str) {
    let key: store::Key = mark_of(namespace).into();
    let compares = vec![Compare { key: key.clone(), mod_revision: Revision(0) }];
    // If it is there, it stays.
    let _ = store.txn(Txn { compares, operations: vec![Operation::Put { key, value: Bytes::new() }] }).await;
}

/// Counts the quotas of a namespace.
async fn recount(store: &dyn Store, namespace: &str) {
    let names = Range { prefix: QUOTAS.prefix(namespace), ..Range::default() };
    let Ok(page) = store.range(names).await else { return };
    for kv in page.items {
        if let Err(status) = recount_one(store, namespace, &kv.key).await {
            warn!(quota = %kv.key, error = status.message, "quota not counted");
        }
    }
}

/// Counts one quota on a snapshot that has it. What is written after that snapshot changes the quota too, and then the count begins anew.
async fn recount_one(store: &dyn Store, namespace: &str, key: &str) -> Result<(), Status> {
    loop {
        let revision = store.revision();
        let range = Range { prefix: key.to_owned(), at: Some(revision), ..Range::default() };
        let page = store.range(range).await.map_err(Status::internal)?;
        let Some(kv) = page.items.into_iter().find(|kv| *kv.key == *key) else { return Ok(()) };
        let mut quota = encode::parse(&kv)?;
        let used = used(store, namespace, &quota, revision, None).await?;
        let status = status(&quota, &used);
        if quota["status"] == status {
            return Ok(());
        }
        debug!(quota = key, "quota counted anew");
        quota["status"] = status;
        let compares = vec![Compare { key: kv.key.clone(), mod_revision: kv.mod_revision }];
        let operations = vec![Operation::Put { key: kv.key, value: encode::stored(&quota) }];
        match store.txn(Txn { compares, operations }).await {
            Ok(_) => return Ok(()),
            Err(store::TxnError::Conflict { .. }) => {}
            Err(stopped) => return Err(Status::internal(stopped)),
        }
    }
}
