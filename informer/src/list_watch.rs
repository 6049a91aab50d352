//! The list-watch loop of one kind, its store, and its subscribers.

use crate::{Activity, Working};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use parking_lot::{Mutex, RwLock};
use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

/// How long to wait before a list-watch that failed begins anew.
const RESTART: Duration = Duration::from_millis(100);

/// What can be informed about: every k8s-openapi type with metadata.
pub trait Resource:
    kube::Resource<DynamicType = ()>
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + serde::de::DeserializeOwned
    + Clone
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Resource for K where
    K: kube::Resource<DynamicType = ()>
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// What happened to one object.
#[derive(Clone, Debug)]
pub enum Update<K> {
    /// It exists, in this state.
    Applied(Arc<K>),
    /// It is gone; this was its last state.
    Deleted(Arc<K>),
}

impl<K> Update<K> {
    /// The object, whatever happened to it.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Update::Applied(object) | Update::Deleted(object) => object,
        }
    }
}

/// One change told to one subscriber. Keep `working` until the change has been dealt with (put it into the queue with
/// the key): the cluster is not settled before it is dropped.
#[derive(Debug)]
pub struct Change<K> {
    /// What happened.
    pub update: Update<K>,
    /// Held while it is being dealt with.
    pub working: Working,
}

/// A subscription: first everything that exists, then every change, in order.
#[derive(Debug)]
pub struct Changes<K>(mpsc::UnboundedReceiver<Change<K>>);

impl<K> Changes<K> {
    /// The next change; `None` when the informer has stopped.
    pub async fn next(&mut self) -> Option<Change<K>> {
        self.0.recv().await
    }

    /// The next change if it is already there: to take a burst as one.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.0.try_recv().ok()
    }
}

type ObjectKey = (String, String);

struct Shared<K> {
    objects: RwLock<BTreeMap<ObjectKey, Arc<K>>>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Change<K>>>>,
    applied: watch::Sender<u64>,
    synced: watch::Sender<bool>,
    activity: Activity,
    trim: Trim<K>,
}

/// Takes out of an object what nobody reads, before it is kept.
type Trim<K> = fn(&mut K);

/// The newest known state of every object of one kind. Cheap to clone.
pub struct Informer<K>(Arc<Shared<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer(self.0.clone())
    }
}

impl<K> std::fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Informer<{}>", std::any::type_name::<K>())
    }
}

impl<K: Resource> Informer<K> {
    fn new(activity: Activity, trim: Trim<K>) -> Self {
        Informer(Arc::new(Shared {
            objects: RwLock::default(),
            subscribers: Mutex::default(),
            applied: watch::Sender::new(0),
            synced: watch::Sender::new(false),
            activity,
            trim,
        }))
    }

    /// An informer without a cluster behind it, for tests: feed it with [`Informer::apply`] and [`Informer::delete`].
    pub fn detached(activity: Activity) -> Self {
        let informer = Informer::new(activity, |_| {});
        informer.0.synced.send_replace(true);
        informer
    }

    /// The object of that name; the namespace of a cluster-scoped one is `""`.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.objects.read().get(&key).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.objects.read().values().cloned().collect()
    }

    /// Every object of one namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let objects = self.0.objects.read();
        objects.range(from..).take_while(|((ns, _), _)| ns == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Every object of one namespace whose name begins with `prefix`, ordered by name.
    pub fn list_named(&self, namespace: &str, prefix: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), prefix.to_owned());
        let objects = self.0.objects.read();
        let named = objects.range(from..).take_while(|((ns, name), _)| ns == namespace && name.starts_with(prefix));
        named.map(|(_, object)| object.clone()).collect()
    }

    /// Tells every change from now on, after everything that exists now.
    pub fn subscribe(&self) -> Changes<K> {
        let (sender, receiver) = mpsc::unbounded_channel();
        // Under the subscribers' lock, so that no change falls between the snapshot and the subscription.
        let mut subscribers = self.0.subscribers.lock();
        for object in self.list() {
            let _ = sender.send(Change { update: Update::Applied(object), working: self.0.activity.begin() });
        }
        subscribers.push(sender);
        Changes(receiver)
    }

    /// The newest resourceVersion up to which every change of this kind has been told; 0 before the first list.
    pub fn applied(&self) -> u64 {
        *self.0.applied.borrow()
    }

    /// Waits until every change up to and with this resourceVersion has been told.
    pub async fn applied_at_least(&self, resource_version: u64) {
        let _ = self.0.applied.subscribe().wait_for(|applied| *applied >= resource_version).await;
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first complete list has been taken in.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Takes in a state of an object and tells the subscribers.
    pub fn apply(&self, mut object: K) {
        // Who owns which field is as long as many an object, and only the API server reads it. A write without it keeps it.
        object.metadata_mut().managed_fields = None;
        (self.0.trim)(&mut object);
        let object = Arc::new(object);
        let mut subscribers = self.0.subscribers.lock();
        self.0.objects.write().insert(key_of(&*object), object.clone());
        self.tell(&mut subscribers, Update::Applied(object));
    }

    /// Takes in that an object is gone and tells the subscribers.
    pub fn delete(&self, object: K) {
        let mut subscribers = self.0.subscribers.lock();
        self.0.objects.write().remove(&key_of(&object));
        self.tell(&mut subscribers, Update::Deleted(Arc::new(object)));
    }

    fn tell(&self, subscribers: &mut Vec<mpsc::UnboundedSender<Change<K>>>, update: Update<K>) {
        subscribers.retain(|subscriber| {
            let change = Change { update: update.clone(), working: self.0.activity.begin() };
            subscriber.send(change).is_ok()
        });
    }

    /// Replaces everything by a fresh list: what is not in it has been deleted meanwhile.
    fn replace(&self, objects: Vec<K>, resource_version: u64) {
        let fresh: BTreeMap<ObjectKey, K> = objects.into_iter().map(|object| (key_of(&object), object)).collect();
        let gone: Vec<Arc<K>> = {
            let known = self.0.objects.read();
            known.iter().filter(|(key, _)| !fresh.contains_key(*key)).map(|(_, object)| object.clone()).collect()
        };
        for object in gone {
            self.delete((*object).clone());
        }
        for (key, object) in fresh {
            let known = self.0.objects.read().get(&key).and_then(|known| known.metadata().resource_version.clone());
            if known.is_none() || known != object.metadata().resource_version {
                self.apply(object);
            }
        }
        self.0.applied.send_replace(resource_version);
        self.0.synced.send_replace(true);
    }

    /// Lists, then watches, for ever; lists again when the watch's past is gone. Once an object could not be read, each is read on
    /// its own: a bad one must not hide all others of its kind.
    async fn run(self, client: kube::Client) {
        let api: Api<K> = Api::all(client.clone());
        let lenient: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<K>(&()));
        let mut strict = true;
        loop {
            let ended =
                if strict { self.follow(&api, Some).await } else { self.follow(&lenient, read_leniently::<K>).await };
            match ended {
                Ok(()) => {}
                Err(kube::Error::SerdeError(error)) if strict => {
                    warn!(kind = std::any::type_name::<K>(), %error, "an object cannot be read; the others are read one by one");
                    strict = false;
                }
                Err(error) => {
                    debug!(kind = std::any::type_name::<K>(), %error, "list-watch restarts");
                    tokio::time::sleep(RESTART).await;
                }
            }
        }
    }

    async fn follow<R>(&self, api: &Api<R>, read: fn(R) -> Option<K>) -> Result<(), kube::Error>
    where
        R: kube::Resource + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
    {
        let list = api.list(&ListParams::default()).await?;
        let mut version = list.metadata.resource_version.unwrap_or_default();
        self.replace(list.items.into_iter().filter_map(read).collect(), version.parse().unwrap_or(0));
        loop {
            let params = WatchParams::default().timeout(290);
            let mut events = api.watch(&params, &version).await?.boxed();
            while let Some(event) = events.try_next().await? {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        version = object.meta().resource_version.clone().unwrap_or(version);
                        if let Some(object) = read(object) {
                            self.apply(object);
                        }
                    }
                    WatchEvent::Deleted(object) => {
                        version = object.meta().resource_version.clone().unwrap_or(version);
                        if let Some(object) = read(object) {
                            self.delete(object);
                        }
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                    WatchEvent::Error(status) => {
                        warn!(kind = std::any::type_name::<K>(), %status, "watch failed");
                        return Ok(());
                    }
                }
                self.0.applied.send_replace(version.parse().unwrap_or(0));
            }
        }
    }
}

fn read_leniently<K: Resource>(object: DynamicObject) -> Option<K> {
    let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
    let read = serde_json::to_value(object).and_then(serde_json::from_value);
    let told = read.inspect_err(|error| {
        warn!(kind = std::any::type_name::<K>(), namespace, name, %error, "an object cannot be read and is passed over");
    });
    told.ok()
}

fn key_of<K: Resource>(object: &K) -> ObjectKey {
    let metadata = object.metadata();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// One informer per kind, started when first asked for. Cheap to clone; dropping the last handle ends the list-watches.
#[derive(Clone)]
pub struct Informers(Arc<All>);

struct All {
    client: kube::Client,
    activity: Activity,
    running: Mutex<HashMap<TypeId, Running>>,
    /// [`Trim`]s by the type of their objects.
    trims: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

struct Running {
    informer: Box<dyn Any + Send>,
    applied: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Informers({})", self.0.running.lock().len())
    }
}

impl Informers {
    /// Informers over `client`, whose changes are counted in `activity`.
    pub fn new(client: kube::Client, activity: Activity) -> Self {
        Informers(Arc::new(All { client, activity, running: Mutex::default(), trims: Mutex::default() }))
    }

    /// Has the informer of `K` keep its objects without what `trim` takes out of them: what no reader in this process looks at.
    /// To be said before the first [`Informers::of`] of that kind.
    pub fn trim<K: Resource>(&self, trim: fn(&mut K)) {
        self.0.trims.lock().insert(TypeId::of::<K>(), Box::new(trim as Trim<K>));
    }

    /// The informer of `K`, for all namespaces.
    pub fn of<K: Resource>(&self) -> Informer<K> {
        let mut running = self.0.running.lock();
        let entry = running.entry(TypeId::of::<K>()).or_insert_with(|| {
            let trims = self.0.trims.lock();
            let trim = trims.get(&TypeId::of::<K>()).and_then(|trim| trim.downcast_ref::<Trim<K>>());
            let informer = Informer::<K>::new(self.0.activity.clone(), trim.copied().unwrap_or(|_| {}));
            let applied = informer.0.applied.subscribe();
            let task = tokio::spawn(informer.clone().run(self.0.client.clone()));
            Running { informer: Box::new(informer), applied, task }
        });
        entry.informer.downcast_ref::<Informer<K>>().expect("entries are keyed by their type").clone()
    }

    /// The shared count of work in hand.
    pub fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Waits until every running informer has told all changes up to and with `resource_version`.
    pub async fn applied(&self, resource_version: u64) {
        let receivers: Vec<_> = self.0.running.lock().values().map(|running| running.applied.clone()).collect();
        for mut applied in receivers {
            let _ = applied.wait_for(|applied| *applied >= resource_version).await;
        }
    }

    /// Ends every list-watch.
    pub fn stop(&self) {
        self.0.running.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    type Response = http::Response<kube::client::Body>;

    /// A server with these objects, whose watches say nothing.
    fn serving(items: &'static str) -> kube::Client {
        let answer = move |request: http::Request<kube::client::Body>| async move {
            let watched = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let list = format!(
                r#"{{"kind":"ConfigMapList","apiVersion":"v1","metadata":{{"resourceVersion":"7"}},"items":[{items}]}}"#
            );
            if watched {
                return std::future::pending::<Result<Response, std::convert::Infallible>>().await;
            }
            Ok(Response::new(kube::client::Body::from(list.into_bytes())))
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_cannot_be_read_does_not_hide_the_others() {
        let client = serving(
            r#"{"metadata":{"name":"good","namespace":"a"},"data":{"k":"v"}},{"metadata":{"name":"bad","namespace":"a"},"data":{"k":7}}"#,
        );
        let informers = Informers::new(client, Activity::default());
        let maps = informers.of::<ConfigMap>();
        maps.synced().await;
        assert!(maps.get("a", "good").is_some());
        assert!(maps.get("a", "bad").is_none());
        assert_eq!(maps.applied(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_not_kept() {
        let client = serving(
            r#"{"metadata":{"name":"a","namespace":"a","managedFields":[{"manager":"m"}]},"data":{"k":"v"},"binaryData":{"b":"AA=="}}"#,
        );
        let informers = Informers::new(client, Activity::default());
        informers.trim::<ConfigMap>(|map| map.data = None);
        let maps = informers.of::<ConfigMap>();
        maps.synced().await;
        let kept = maps.get("a", "a").expect("it is kept");
        assert!(kept.data.is_none() && kept.metadata.managed_fields.is_none());
        assert!(kept.binary_data.is_some(), "only what is trimmed is missing");
    }

    #[tokio::test]
    async fn a_subscriber_is_told_what_exists_and_then_every_change() {
        let activity = Activity::default();
        let informer = Informer::<ConfigMap>::detached(activity.clone());
        let named = |name: &str| {
            let metadata = ObjectMeta { name: Some(name.into()), namespace: Some("a".into()), ..ObjectMeta::default() };
            ConfigMap { metadata, ..ConfigMap::default() }
        };
        informer.apply(named("one"));
        let mut changes = informer.subscribe();
        informer.apply(named("two"));
        informer.delete(named("one"));
        assert_eq!(activity.working(), 3, "each change is work in hand until it is dealt with");
        let mut told = Vec::new();
        while let Some(change) = changes.try_next() {
            told.push(format!(
                "{} {}",
                matches!(change.update, Update::Applied(_)),
                change.update.object().metadata.name.clone().unwrap_or_default()
            ));
        }
        assert_eq!(told, ["true one", "true two", "false one"]);
        assert_eq!(activity.working(), 0);
        assert_eq!(informer.list_in("a").len(), 1);
        assert_eq!((informer.list_named("a", "tw").len(), informer.list_named("a", "tx").len()), (1, 0));
    }
}
