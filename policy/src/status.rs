//! What the API is told of the administrator's policies: the condition `Accepted` in their status, and a Warning Event
//! about each two whose order the API leaves open.
//!
//! A task of its own writes, so that no packet waits for the API. It is told of every new table together with the work in
//! hand, so that a cluster that has settled shows all of it.

use crate::admin_network_policy::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::cluster_network_policy::{ClusterNetworkPolicy, ClusterNetworkPolicyStatus};
use crate::conflict::Conflict;
use crate::table::PolicyTable;
use informer::Working;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::debug;

/// Who says it.
const COMPONENT: &str = "network-policy-controller";

/// With what the API is told.
#[derive(Clone)]
pub struct Reports {
    /// May patch the status of the three kinds and create Events.
    pub client: kube::Client,
    /// The wall time.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// A policy of the whole cluster, of any kind.
#[derive(Clone, Debug)]
pub(crate) enum TierPolicy {
    Cluster(Arc<ClusterNetworkPolicy>),
    Admin(Arc<AdminNetworkPolicy>),
    Baseline(Arc<BaselineAdminNetworkPolicy>),
}

/// A table that has come into force.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) table: Arc<PolicyTable>,
    /// Policies that have changed, by the name they have in reports; `None`: deleted.
    pub(crate) changed: Vec<(String, Option<TierPolicy>)>,
    /// Done when the API has been told.
    pub(crate) working: Vec<Working>,
}

impl TierPolicy {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            TierPolicy::Cluster(policy) => &policy.metadata,
            TierPolicy::Admin(policy) => &policy.metadata,
            TierPolicy::Baseline(policy) => &policy.metadata,
        }
    }

    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            TierPolicy::Cluster(_) => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
            TierPolicy::Admin(_) => ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            TierPolicy::Baseline(_) => ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
        }
    }

    fn status(&self) -> Option<&ClusterNetworkPolicyStatus> {
        match self {
            TierPolicy::Cluster(policy) => policy.status.as_ref(),
            TierPolicy::Admin(policy) => policy.status.as_ref(),
            TierPolicy::Baseline(policy) => policy.status.as_ref(),
        }
    }

    /// The condition it is to have.
    fn accepted(&self, now: Timestamp) -> Condition {
        Condition {
            type_: "Accepted".to_owned(),
            status: "True".to_owned(),
            reason: "Accepted".to_owned(),
            message: "The policy is in force.".to_owned(),
            observed_generation: self.metadata().generation,
            last_transition_time: Time(now),
        }
    }

    /// What its status is to become; `None` if it says so already.
    fn next_status(&self, now: Timestamp) -> Option<ClusterNetworkPolicyStatus> {
        let mut wanted = self.accepted(now);
        let mut conditions = self.status().map(|status| status.conditions.clone()).unwrap_or_default();
        let known = conditions.iter().position(|condition| condition.type_ == wanted.type_);
        match known.map(|index| &mut conditions[index]) {
            Some(known) => {
                if known.status == wanted.status {
                    wanted.last_transition_time = known.last_transition_time.clone();
                }
                if *known == wanted {
                    return None;
                }
                *known = wanted;
            }
            None => conditions.push(wanted),
        }
        Some(ClusterNetworkPolicyStatus { conditions })
    }

    async fn write_status(&self, client: &kube::Client, status: &ClusterNetworkPolicyStatus) -> kube::Result<()> {
        let patch = Patch::Merge(serde_json::json!({
            "metadata": { "uid": self.metadata().uid, "resourceVersion": self.metadata().resource_version },
            "status": status,
        }));
        let (name, params) = (self.name(), PatchParams::default());
        match self {
            TierPolicy::Cluster(_) => {
                let api: Api<ClusterNetworkPolicy> = Api::all(client.clone());
                api.patch_status(name, &params, &patch).await.map(drop)
            }
            TierPolicy::Admin(_) => {
                let api: Api<AdminNetworkPolicy> = Api::all(client.clone());
                api.patch_status(name, &params, &patch).await.map(drop)
            }
            TierPolicy::Baseline(_) => {
                let api: Api<BaselineAdminNetworkPolicy> = Api::all(client.clone());
                api.patch_status(name, &params, &patch).await.map(drop)
            }
        }
    }
}

/// Tells the API of every table that comes into force.
pub(crate) async fn run(reports: Reports, mut tables: mpsc::UnboundedReceiver<Told>) {
    let mut policies: BTreeMap<String, TierPolicy> = BTreeMap::new();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    let mut events = 0u64;
    while let Some(mut told) = tables.recv().await {
        // Only the newest table counts; what has changed until then counts together.
        while let Ok(newer) = tables.try_recv() {
            told.table = newer.table;
            told.changed.extend(newer.changed);
            told.working.extend(newer.working);
        }
        let mut changed = BTreeSet::new();
        for (name, policy) in told.changed {
            match policy {
                Some(policy) => policies.insert(name.clone(), policy),
                None => policies.remove(&name),
            };
            changed.insert(name);
        }
        for policy in changed.iter().filter_map(|name| policies.get(name)) {
            let Some(status) = policy.next_status((reports.now)()) else { continue };
            // Whoever was faster is told of soon, and then it is tried again.
            if let Err(error) = policy.write_status(&reports.client, &status).await {
                debug!(policy = policy.name(), %error, "status not written");
            }
        }
        let conflicts = told.table.conflicts();
        let pair = |conflict: &Conflict| (conflict.first.clone(), conflict.second.clone());
        // Told once, as long as it lasts.
        for conflict in conflicts.iter().filter(|conflict| !known.contains(&pair(conflict))) {
            for (name, other) in [(&conflict.first, &conflict.second), (&conflict.second, &conflict.first)] {
                let Some(policy) = policies.get(name) else { continue };
                events += 1;
                tell(&reports, policy, conflict, other, events).await;
            }
        }
        known = conflicts.iter().map(pair).collect();
    }
}

async fn tell(reports: &Reports, policy: &TierPolicy, conflict: &Conflict, other: &str, serial: u64) {
    let Conflict { tier, priority, first, place, .. } = conflict;
    let message = format!(
        "priority {priority} of tier {tier} is that of {other} too, and both match the same connections ({place}): the \
         API leaves open which comes first; here it is {first}, by its name"
    );
    let now = (reports.now)();
    let (api_version, kind) = policy.kind();
    let metadata = policy.metadata();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", policy.name(), now.as_nanosecond() + i128::from(serial))),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("EqualPriority".to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        reporting_component: Some(COMPONENT.to_owned()),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(reports.client.clone(), "default");
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        debug!(policy = policy.name(), %error, "event not written");
    }
}
