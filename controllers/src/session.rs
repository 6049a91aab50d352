//! One reconcile's way to the API: writes go out through it, and it ends when the informers show them.
//!
//! Informers lag behind writes. A controller that reconciled against a cache without its own last writes would create
//! Pods twice. So every write notes what the cache must have caught up with, and [`Session::echoed`] waits for that
//! before the key may be reconciled again. (kube-controller-manager keeps "expectations" for the same reason.)

use crate::Shared;
use crate::event::EventType;
use futures::future::BoxFuture;
use informer::Informer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Request;
use parking_lot::Mutex;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use tracing::warn;

/// The field manager of everything the controllers write.
pub(crate) const FIELD_MANAGER: &str = "kube-controller-manager";

/// A kind the controllers can read and write.
pub(crate) trait Object: informer::Resource + Serialize {}
impl<K: informer::Resource + Serialize> Object for K {}

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API said no, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The request could not be formed.
    #[error("request: {0}")]
    Request(String),
    /// An object's own content makes the reconcile impossible for now.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Api(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    /// The object is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Somebody else was faster: a newer resourceVersion, or another uid.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409) && !self.is_already_exists()
    }

    /// The name is taken.
    pub(crate) fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// Nothing can be created in a namespace that is being deleted.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        let cause = |status: &kube::core::Status| {
            status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .any(|cause| cause.reason == "NamespaceTerminating")
        };
        self.status().is_some_and(|status| {
            status.code == 403 && (cause(status) || status.message.contains("because it is being terminated"))
        })
    }

    /// What the API said, for an Event or a condition.
    pub(crate) fn message(&self) -> String {
        match self.status() {
            Some(status) => status.message.clone(),
            None => self.to_string(),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Namespace and name of an object; the namespace of a cluster-scoped one is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        Key::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// How long a reconcile waits at most for the informers to show its writes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writes of one reconcile.
pub(crate) struct Session {
    pub(crate) shared: Shared,
    echoes: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Session {
    /// A session of the component with that name.
    pub(crate) fn new(shared: &Shared, component: &'static str) -> Self {
        let events = shared.events.named(component);
        Session { shared: Shared { events, ..shared.clone() }, echoes: Mutex::default() }
    }

    /// Creates an object.
    pub(crate) async fn create<K: Object>(&self, object: &K) -> Result<K> {
        let request = collection::<K>(object.metadata()).create(&post(), encode(object)?).map_err(request_error)?;
        self.write(request).await
    }

    /// Replaces an object; fails with a conflict if it has changed since it was read.
    pub(crate) async fn replace<K: Object>(&self, object: &K) -> Result<K> {
        let metadata = object.metadata();
        let request =
            collection::<K>(metadata).replace(name(metadata), &post(), encode(object)?).map_err(request_error)?;
        self.write(request).await
    }

    /// Replaces an object's status; fails with a conflict if it has changed since it was read.
    pub(crate) async fn replace_status<K: Object>(&self, object: &K) -> Result<K> {
        self.replace_part("status", object).await
    }

    /// The same through another subresource.
    pub(crate) async fn replace_part<K: Object>(&self, subresource: &str, object: &K) -> Result<K> {
        let metadata = object.metadata();
        let request = collection::<K>(metadata)
            .replace_subresource(subresource, name(metadata), &post(), encode(object)?)
            .map_err(request_error)?;
        self.write(request).await
    }

    /// Applies a JSON merge patch (RFC 7386) to the object that `metadata` names.
    pub(crate) async fn merge<K: Object>(&self, metadata: &ObjectMeta, patch: serde_json::Value) -> Result<K> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request =
            collection::<K>(metadata).patch(name(metadata), &params, &Patch::Merge(patch)).map_err(request_error)?;
        self.write(request).await
    }

    /// Applies a JSON merge patch to the status of the object that `metadata` names.
    pub(crate) async fn merge_status<K: Object>(&self, metadata: &ObjectMeta, patch: serde_json::Value) -> Result<K> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = collection::<K>(metadata)
            .patch_subresource("status", name(metadata), &params, &Patch::Merge(patch))
            .map_err(request_error)?;
        self.write(request).await
    }

    /// Deletes an object, its dependents in the background. That it is gone already, or that another has taken its name, is as good.
    pub(crate) async fn delete<K: Object>(&self, object: &K) -> Result<()> {
        self.delete_with(object, DeleteParams::background()).await
    }

    /// Deletes an object without grace.
    pub(crate) async fn delete_now<K: Object>(&self, object: &K) -> Result<()> {
        self.delete_with(object, DeleteParams::background().grace_period(0)).await
    }

    async fn delete_with<K: Object>(&self, object: &K, params: DeleteParams) -> Result<()> {
        let metadata = object.metadata();
        let params = DeleteParams {
            preconditions: Some(Preconditions { resource_version: None, uid: metadata.uid.clone() }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..params
        };
        let request = collection::<K>(metadata).delete(name(metadata), &params).map_err(request_error)?;
        match self.shared.client.request_text(request).await.map_err(Error::from) {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        let (informer, key, uid) = (self.shared.informers.of::<K>(), Key::of(metadata), metadata.uid.clone());
        self.echoes.lock().push(Box::pin(async move { deleted(&informer, &key, uid.as_deref()).await }));
        Ok(())
    }

    async fn write<K: Object>(&self, request: http::Request<Vec<u8>>) -> Result<K> {
        let written: K = self.shared.client.request(request).await?;
        if let Some(version) = written.metadata().resource_version.as_deref().and_then(|version| version.parse().ok()) {
            let informer = self.shared.informers.of::<K>();
            if informer.applied() < version {
                self.echoes.lock().push(Box::pin(async move { informer.applied_at_least(version).await }));
            }
        }
        Ok(written)
    }

    /// Waits until the informers show everything written here.
    pub(crate) async fn echoed(&self) {
        let echoes = std::mem::take(&mut *self.echoes.lock());
        if echoes.is_empty() {
            return;
        }
        if tokio::time::timeout(PATIENCE, futures::future::join_all(echoes)).await.is_err() {
            warn!(patience = ?PATIENCE, "an informer does not show our writes; going on without");
        }
    }

    /// Tells an Event about `object`.
    pub(crate) fn event<K: Object>(&self, object: &K, kind: EventType, reason: &'static str, message: String) {
        self.shared.events.record(crate::event::reference(object), kind, reason, message);
    }
}

/// Waits until the cache shows the object as deleted, or on its way.
async fn deleted<K: Object>(informer: &Informer<K>, key: &Key, uid: Option<&str>) {
    loop {
        // Read before looking: what comes after the look makes `applied` grow beyond it.
        let applied = informer.applied();
        let present = informer.get(&key.namespace, &key.name).is_some_and(|object| {
            object.metadata().uid.as_deref() == uid && object.metadata().deletion_timestamp.is_none()
        });
        if !present {
            return;
        }
        informer.applied_at_least(applied + 1).await;
    }
}

fn collection<K: Object>(metadata: &ObjectMeta) -> Request {
    Request::new(K::url_path(&(), metadata.namespace.as_deref()))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

fn encode(object: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(object).map_err(request_error)
}

fn request_error(error: impl fmt::Display) -> Error {
    Error::Request(error.to_string())
}
