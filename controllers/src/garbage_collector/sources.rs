//! Where the graph comes from: the shared informers for kinds that have one anyway, metadata watches for all others.

use super::Collector;
use super::graph::Entry;
use crate::Shared;
use crate::discovery::{Kind, kinds};
use futures::TryStreamExt;
use informer::{Informers, Update, Working};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::debug;

const RETRY: Duration = Duration::from_millis(250);

/// Follows every kind there is, for ever; new kinds as CustomResourceDefinitions bring them.
pub(super) async fn run(shared: Shared, collector: Arc<Collector>) {
    let definitions_changed = Arc::new(Notify::new());
    let mut followers: HashMap<Arc<Kind>, Follower> = HashMap::new();
    loop {
        let found = match kinds(&shared.client).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "discovery failed; will try again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        // Events belong to nobody, and there are many.
        let found = found.into_iter().filter(|kind| kind.resource.kind != "Event");
        let found: Vec<Arc<Kind>> = found.map(Arc::new).collect();
        let by_name = |kind: &Arc<Kind>| ((kind.resource.group.clone(), kind.resource.kind.clone()), kind.clone());
        *collector.kinds.write() = found.iter().map(by_name).collect();
        followers.retain(|kind, _| {
            let is_served = found.contains(kind);
            if !is_served {
                collector.graph.lock().forget_kind(kind);
            }
            is_served
        });
        let is_first = followers.is_empty();
        for kind in found {
            followers.entry(kind).or_insert_with_key(|kind| {
                Follower::start(&shared.informers, &collector, kind.clone(), &definitions_changed)
            });
        }
        if is_first {
            // Whatever lost its owner while nobody was looking.
            for follower in followers.values() {
                follower.listed.notified().await;
            }
            for uid in collector.graph.lock().owned() {
                collector.queue.add(uid, None);
            }
            collector.listed.notify_one();
        }
        definitions_changed.notified().await;
    }
}

/// The task that follows one kind.
struct Follower {
    listed: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Follower {
    fn start(
        informers: &Informers,
        collector: &Arc<Collector>,
        kind: Arc<Kind>,
        definitions_changed: &Arc<Notify>,
    ) -> Self {
        let listed = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        let feed = Feed { collector: collector.clone(), kind: kind.clone(), listed: listed.clone() };
        macro_rules! informed {
            ($($type:ty),*) => {
                match (kind.resource.group.as_str(), kind.resource.kind.as_str()) {
                    $((group, name) if group == <$type as kube::Resource>::group(&()) && name == <$type as kube::Resource>::kind(&()) => {
                        task.spawn(feed.informed::<$type>(informers.clone()));
                    })*
                    (group, name) => {
                        let definitions = group == "apiextensions.k8s.io" && name == "CustomResourceDefinition";
                        task.spawn(feed.watch(informers.clone(), definitions.then(|| definitions_changed.clone())));
                    }
                }
            };
        }
        informed!(
            Pod,
            ReplicaSet,
            Deployment,
            StatefulSet,
            DaemonSet,
            ControllerRevision,
            Job,
            CronJob,
            Service,
            Endpoints,
            EndpointSlice,
            ConfigMap,
            ServiceAccount,
            PersistentVolumeClaim,
            Node,
            Namespace
        );
        Follower { listed, _task: task }
    }
}

/// From one kind into the graph, and from there into the queue.
struct Feed {
    collector: Arc<Collector>,
    kind: Arc<Kind>,
    listed: Arc<Notify>,
}

impl Feed {
    async fn informed<K: informer::Resource>(self, informers: Informers) {
        let informer = informers.of::<K>();
        informer.synced().await;
        let mut changes = informer.subscribe();
        while let Some(change) = changes.try_next() {
            self.take(&change.update, &change.working);
        }
        self.listed.notify_one();
        while let Some(change) = changes.next().await {
            self.take(&change.update, &change.working);
        }
    }

    fn take<K: informer::Resource>(&self, update: &Update<K>, working: &Working) {
        let metadata = update.object().metadata();
        match update {
            Update::Applied(_) => self.observe(metadata, working),
            Update::Deleted(_) => self.remove(metadata.uid.as_deref().unwrap_or_default(), working),
        }
    }

    fn observe(&self, metadata: &kube::core::ObjectMeta, working: &Working) {
        let Some(entry) = Entry::new(self.kind.clone(), metadata) else { return };
        let look = self.collector.graph.lock().observe(entry);
        self.queue(look, working);
    }

    fn remove(&self, uid: &str, working: &Working) {
        let look = self.collector.graph.lock().remove(uid);
        self.queue(look, working);
    }

    fn queue(&self, look: Vec<String>, working: &Working) {
        for uid in look {
            self.collector.queue.add(uid, Some(working.clone()));
        }
    }

    /// Lists and watches the metadata of a kind, for ever; tells of every change if asked to.
    async fn watch(self, informers: Informers, tell: Option<Arc<Notify>>) {
        let api: Api<DynamicObject> = Api::all_with(self.collector.client.clone(), &self.kind.resource);
        loop {
            if let Err(error) = self.follow(&api, &informers, tell.as_deref()).await {
                debug!(kind = self.kind.resource.kind, %error, "metadata watch restarts");
                // A kind that cannot be listed must not keep the collector from starting.
                self.listed.notify_one();
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(
        &self,
        api: &Api<DynamicObject>,
        informers: &Informers,
        tell: Option<&Notify>,
    ) -> Result<(), kube::Error> {
        let list = api.list_metadata(&ListParams::default()).await?;
        let working = informers.activity().begin();
        let mut gone = self.collector.graph.lock().uids_of(&self.kind);
        for object in &list.items {
            gone.retain(|uid| Some(uid) != object.metadata.uid.as_ref());
            self.observe(&object.metadata, &working);
        }
        for uid in gone {
            self.remove(&uid, &working);
        }
        drop(working);
        self.listed.notify_one();
        if let Some(tell) = tell {
            tell.notify_one();
        }
        let mut version = list.metadata.resource_version.unwrap_or_default();
        loop {
            let stream = api.watch_metadata(&WatchParams::default().timeout(290), &version).await?;
            futures::pin_mut!(stream);
            while let Some(event) = stream.try_next().await? {
                let working = informers.activity().begin();
                let metadata = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        self.observe(&object.metadata, &working);
                        object.metadata
                    }
                    WatchEvent::Deleted(object) => {
                        self.remove(object.metadata.uid.as_deref().unwrap_or_default(), &working);
                        object.metadata
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        version = bookmark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => {
                        debug!(kind = self.kind.resource.kind, %status, "metadata watch ends");
                        return Ok(());
                    }
                };
                version = metadata.resource_version.unwrap_or(version);
                if let Some(tell) = tell {
                    tell.notify_one();
                }
            }
        }
    }
}
