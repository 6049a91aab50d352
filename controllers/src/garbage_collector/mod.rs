//! The garbage collector: what is owned by nobody any more goes.
//!
//! [`sources`] follow the metadata of every kind that discovery lists, [`graph`] decides, and the loop here writes.
//! Background, foreground and orphaning deletion as the API server asks for them by finalizers.

mod graph;
mod sources;

use crate::Shared;
use crate::discovery::Kind;
use crate::queue::{Next, Queue};
use crate::session::{Error, Result};
use graph::{Decision, Entry, FOREGROUND, Graph, ORPHAN, Propagation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const WORKERS: usize = 20;

const NAME: &str = "garbage-collector";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let shared = &shared.as_component(NAME);
    let collector = Arc::new(Collector {
        client: shared.client.clone(),
        graph: Mutex::default(),
        kinds: RwLock::default(),
        queue: Queue::new(),
        listed: Notify::new(),
    });
    tasks.spawn(sources::run(shared.clone(), collector.clone()));
    tasks.spawn(async move {
        // Before everything has been listed once, most owners would have to be asked for one by one.
        collector.listed.notified().await;
        let queue = collector.queue.clone();
        let look = |uid: String| {
            let collector = collector.clone();
            async move { collector.look(&uid).await }
        };
        queue.work(NAME, WORKERS, look).await;
    });
}

struct Collector {
    client: kube::Client,
    graph: Mutex<Graph>,
    /// Kinds by group and kind, as owner references name them.
    kinds: RwLock<HashMap<(String, String), Arc<Kind>>>,
    /// Uids to look at.
    queue: Queue<String>,
    /// Told once, when every kind has been listed.
    listed: Notify,
}

impl Collector {
    /// Decides about one object and does it.
    async fn look(&self, uid: &str) -> Result<Next> {
        let unknown = self.graph.lock().unknown_owners(uid);
        let mut missing = HashSet::new();
        for owner in unknown {
            if !self.exists(uid, &owner).await? {
                missing.insert(owner.uid);
            }
        }
        let (entry, decision) = {
            let graph = self.graph.lock();
            let Some(entry) = graph.get(uid).cloned() else { return Ok(Next::OnChange) };
            (entry, graph.decide(uid, &missing))
        };
        let done = match decision {
            Decision::Nothing => Ok(()),
            Decision::Wait(dependents) => {
                for dependent in dependents {
                    self.queue.add(dependent, None);
                }
                Ok(())
            }
            Decision::Orphan(dependents) => self.orphan(&entry, &dependents).await,
            Decision::Finish => self.remove_finalizer(&entry, FOREGROUND).await,
            Decision::Disown(owners) => self.disown(&entry, &owners).await,
            Decision::Delete { propagation, unblock } => {
                if unblock {
                    self.unblock(&entry).await?;
                }
                self.delete(&entry, propagation).await
            }
        };
        match done {
            // Gone or changed meanwhile: the change brings it back here.
            Err(error) if error.is_not_found() => Ok(Next::OnChange),
            done => done.map(|()| Next::OnChange),
        }
    }

    /// Asks the API whether an owner exists, with that uid.
    async fn exists(&self, dependent: &str, owner: &OwnerReference) -> Result<bool> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = self.kinds.read().get(&(group.to_owned(), owner.kind.clone())).cloned();
        // Of a kind that nobody serves nothing can be said; it may be a CRD yet to come.
        let Some(kind) = kind else { return Ok(true) };
        let Some(namespace) = self.graph.lock().get(dependent).map(|entry| entry.namespace.clone()) else {
            return Ok(true);
        };
        if kind.is_namespaced && namespace.is_empty() {
            return Ok(false);
        }
        let found = self.api(&kind, &namespace).get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
    }

    fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        match kind.is_namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            false => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    async fn merge(&self, entry: &Entry, mut metadata: Value) -> Result<()> {
        metadata["uid"] = json!(entry.uid);
        metadata["resourceVersion"] = json!(entry.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        self.api(&entry.kind, &entry.namespace).patch_metadata(&entry.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn orphan(&self, owner: &Entry, dependents: &[String]) -> Result<()> {
        for uid in dependents {
            let dependent = self.graph.lock().get(uid).cloned();
            let Some(dependent) = dependent else { continue };
            match self.disown(&dependent, &HashSet::from([owner.uid.clone()])).await {
                Err(error) if error.is_not_found() => {}
                done => done?,
            }
        }
        self.remove_finalizer(owner, ORPHAN).await
    }

    async fn disown(&self, entry: &Entry, owners: &HashSet<String>) -> Result<()> {
        let rest: Vec<&OwnerReference> = entry.owners.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        self.merge(entry, json!({"ownerReferences": rest})).await
    }

    async fn unblock(&self, entry: &Entry) -> Result<()> {
        let unblocked =
            entry.owners.iter().cloned().map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner });
        self.merge(entry, json!({"ownerReferences": unblocked.collect::<Vec<_>>()})).await
    }

    async fn remove_finalizer(&self, entry: &Entry, finalizer: &str) -> Result<()> {
        let rest: Vec<&String> = entry.finalizers.iter().filter(|name| *name != finalizer).collect();
        self.merge(entry, json!({"finalizers": rest})).await
    }

    async fn delete(&self, entry: &Entry, propagation: Propagation) -> Result<()> {
        let propagation_policy = Some(match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        });
        let preconditions = Some(Preconditions { uid: Some(entry.uid.clone()), resource_version: None });
        let params = DeleteParams { propagation_policy, preconditions, ..DeleteParams::default() };
        match self.api(&entry.kind, &entry.namespace).delete(&entry.name, &params).await.map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Ok(()), // another object has taken the name
            Err(error) => Err(error),
        }
    }
}
