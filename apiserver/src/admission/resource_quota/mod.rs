//! ResourceQuota: what a namespace may hold in all, counted in the same transaction that writes what is counted.
//!
//! Every write that changes what a quota counts brings along the quota's new `status.used`, under the condition that the quota is
//! still as it was read. So no race can exceed a quota, what is deleted is free at once, and `status.used` is right at every revision.
//! (kube-apiserver charges before it writes, and leaves what is freed to a controller.)
//!
//! A namespace with quotas has a mark in the store, rewritten when one comes, goes or gets another spec. A write that saw no quota says
//! "the mark is as I saw it", so it cannot slip past a new one. What a new quota finds is counted when it is written, and once more by
//! [`ApiServer::keep_quotas`](crate::ApiServer::keep_quotas) when every other write sees it.
//!
//! Follows `k8s.io/apiserver/pkg/admission/plugin/resourcequota`. Unlike there, a pod that outlives its grace period counts until it is gone.

mod recount;
mod scopes;
#[cfg(test)]
mod tests;
mod usage;

use super::pod_amounts::{Resources, quantities};
use super::{Admission, AdmissionOperation, AdmissionRequest, Settlement};
use crate::encode;
use crate::registry::ResourceKind;
use crate::schema::quantity::Quantity;
use crate::status::Status;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Compare, KeyValue, Operation, Range, Revision, Store};
use tokio::sync::Mutex;
use usage::{PODS, Resource};

const QUOTAS: Resource<'static> = Resource { group: "", plural: "resourcequotas" };
/// Namespaces that have quotas.
const MARKS: &str = "/quota-marks/";
/// So many namespaces can be charged at the same time.
const SHARDS: usize = 64;

/// The plug-in.
#[derive(Debug)]
pub struct ResourceQuotas {
    /// Writers of one namespace take turns, since all but one would lose the race for the quota anyway.
    turns: Vec<Arc<Mutex<()>>>,
}

impl Default for ResourceQuotas {
    fn default() -> Self {
        ResourceQuotas { turns: (0..SHARDS).map(|_| Arc::default()).collect() }
    }
}

/// The kind as quotas know it: a view is the kind it shows.
fn resource_of(kind: &ResourceKind) -> Resource<'_> {
    match &kind.view_of {
        Some(view) => Resource { group: &view.group, plural: &view.plural },
        None => Resource { group: &kind.group, plural: &kind.plural },
    }
}

#[async_trait]
impl Admission for ResourceQuotas {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        let resource = resource_of(request.kind);
        // Events are nobody's to count.
        !(request.namespace.is_empty() || (resource.group.is_empty() && resource.plural == "events"))
    }

    async fn settle(&self, request: &AdmissionRequest<'_>, mut new: Option<&mut Value>) -> Result<Settlement, Status> {
        let resource = resource_of(request.kind);
        let is_quota = resource == QUOTAS;
        if let (Some(old), Some(new)) = (request.old, new.as_deref())
            && !is_quota
            && weighs_the_same(resource, old, new)
        {
            return Ok(Settlement::default());
        }
        let mark = mark_of(request.namespace);
        let mut settlement = Settlement::default();
        if request.store.get(&mark).await.map_err(Status::internal)?.is_some() && !request.dry_run {
            let turns = &self.turns[shard(request.namespace)];
            settlement.turns.push(turns.clone().lock_owned().await);
        }
        let marked = request.store.get(&mark).await.map_err(Status::internal)?;
        let mod_revision = marked.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
        settlement.compares.push(Compare { key: mark.as_str().into(), mod_revision });
        let quotas = match marked {
            Some(_) => quotas(request.store, request.namespace).await?,
            None => Vec::new(),
        };
        let own = is_quota.then(|| request.kind.key(request.namespace, request.name));
        let is_own = |kv: &KeyValue| own.as_deref() == Some(&*kv.key);
        for (kv, quota) in &quotas {
            if !is_own(kv)
                && let Some(charged) = charge(request, resource, quota, new.as_deref())?
            {
                settlement.compares.push(Compare { key: kv.key.clone(), mod_revision: kv.mod_revision });
                settlement.operations.push(Operation::Put { key: kv.key.clone(), value: encode::stored(&charged) });
            }
        }
        if is_quota {
            let before = request.old.map(|old| &old["spec"]);
            let others = quotas.iter().any(|(kv, _)| !is_own(kv));
            if let Some(new) = &mut new {
                recount::fill_in(request.store, request.namespace, request.name, new).await?;
            }
            let key = mark.as_str().into();
            match new.as_deref().map(|new| &new["spec"]) {
                None if !others => settlement.operations.push(Operation::Delete { key }),
                after if after == before => {}
                _ => settlement.operations.push(Operation::Put { key, value: Bytes::new() }),
            }
        }
        Ok(settlement)
    }
}

fn mark_of(namespace: &str) -> String {
    format!("{MARKS}{namespace}")
}

fn shard(namespace: &str) -> usize {
    namespace.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % SHARDS
}

/// The quotas of a namespace.
async fn quotas(store: &dyn Store, namespace: &str) -> Result<Vec<(KeyValue, Value)>, Status> {
    let range = Range { prefix: QUOTAS.prefix(namespace), ..Range::default() };
    let page = store.range(range).await.map_err(Status::internal)?;
    page.items.into_iter().map(|kv| Ok((kv.clone(), encode::parse(&kv)?))).collect()
}

/// Whether an update certainly changes nothing that a quota counts.
fn weighs_the_same(resource: Resource<'_>, old: &Value, new: &Value) -> bool {
    let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !resource.varies()
        || (old["spec"] == new["spec"]
            && ended(old) == ended(new)
            && old["status"]["allocatedResources"] == new["status"]["allocatedResources"])
}

/// Whether upstream would ask whether there is room: for what is new, and for updates that can ask for more.
fn is_checked(request: &AdmissionRequest<'_>, resource: Resource<'_>) -> bool {
    match request.operation {
        AdmissionOperation::Create => request.subresource.is_empty(),
        AdmissionOperation::Update if resource == PODS => request.subresource == "resize",
        AdmissionOperation::Update => request.subresource.is_empty(),
        AdmissionOperation::Delete => false,
    }
}

/// The quota as it is after the write, if that changes what it counts.
fn charge(
    request: &AdmissionRequest<'_>,
    resource: Resource<'_>,
    quota: &Value,
    new: Option<&Value>,
) -> Result<Option<Value>, Status> {
    let (hard, used) = (quantities(&quota["status"]["hard"]), quantities(&quota["status"]["used"]));
    let limited: Vec<&str> = hard.keys().map(String::as_str).filter(|name| resource.is_limited_by(name)).collect();
    if limited.is_empty() {
        return Ok(None);
    }
    let counts = |object: &&Value| scopes::matches(&quota["spec"], resource, object);
    let weight =
        |object: Option<&Value>| object.filter(counts).map(|object| usage::of(resource, object)).unwrap_or_default();
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    let checked = is_checked(request, resource);
    if let Some(new) = new.filter(|new| checked && resource == PODS && counts(new)) {
        let unsaid = usage::unsaid(new, &limited);
        if !unsaid.is_empty() {
            return Err(request.forbidden(&format!("failed quota: {name}: must specify {unsaid}")));
        }
    }
    let (before, after) = (weight(request.old), weight(new));
    let mut changed = BTreeMap::new();
    let mut exceeded: [Vec<String>; 3] = Default::default();
    for limited in limited {
        let nanos = |amounts: &Resources| amounts.get(limited).map_or(0, |amount| amount.nanos());
        if nanos(&after) == nanos(&before) {
            continue;
        }
        let zero = Quantity::parse("0").expect("zero is a quantity");
        let of = |amounts: &Resources| amounts.get(limited).copied().unwrap_or(zero);
        let (requested, so_far, most) = (of(&after).minus(of(&before)), of(&used), of(&hard));
        let mut sum = if so_far.nanos() == 0 { requested } else { so_far.plus(requested) };
        if checked && requested.nanos() > 0 && sum.nanos() > most.nanos() {
            for (texts, amount) in exceeded.iter_mut().zip([requested, so_far, most]) {
                texts.push(format!("{limited}={}", amount.canonical()));
            }
        }
        if sum.nanos() < 0 {
            sum = zero;
        }
        changed.insert(limited, sum);
    }
    let [requested, so_far, most] = exceeded.map(|texts| texts.join(","));
    if !requested.is_empty() {
        return Err(request
            .forbidden(&format!("exceeded quota: {name}, requested: {requested}, used: {so_far}, limited: {most}")));
    }
    if changed.is_empty() {
        return Ok(None);
    }
    let mut charged = quota.clone();
    for (limited, sum) in changed {
        charged["status"]["used"][limited] = sum.canonical().into();
    }
    Ok(Some(charged))
}
