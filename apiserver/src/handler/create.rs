//! POST: a new object.

use super::Call;
use super::options::WriteOptions;
use super::write::{Tracking, Written};
use crate::admission::AdmissionOperation;
use crate::clock::rfc3339;
use crate::status::Status;
use crate::storage::{self, WriteError};
use crate::strategy;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Compare, KeyValue, Operation, Revision};

/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;
/// How often a write that lost a race is tried again.
pub(super) const RACE_ATTEMPTS: usize = 256;
/// `generateName` is cut so that the suffix still fits.
const LONGEST_BASE: usize = 58;

impl Call {
    pub(super) async fn create(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("CreateOptions")?;
        let object = self.object_body(body, options.field_validation).await?;
        let written = self.create_object(object, &options, Tracking::Update).await?;
        self.object(StatusCode::CREATED, &written.kv)
    }

    /// Creates `object` in the request's namespace.
    pub(super) async fn create_object(
        &self,
        mut object: Value,
        options: &WriteOptions,
        tracking: Tracking,
    ) -> Result<Written, Status> {
        let generated = self.name_object(&mut object, false)?;
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = self.server.inner.identifiers.uid().into();
        metadata["creationTimestamp"] = rfc3339(self.server.now()).into();
        for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            metadata.as_object_mut().expect("checked to be an object").remove(field);
        }
        (self.kind.prepare)(&self.kind, &mut object, None, "");
        if strategy::is_namespace(&self.kind) {
            begin_namespace(&mut object);
        }
        self.fill_in(&mut object);
        if self.kind.generation {
            object["metadata"]["generation"] = 1.into();
        }
        // Without a namespace nothing else matters, such as a service account that is not there either.
        self.open_namespace(object["metadata"]["name"].as_str().unwrap_or_default()).await?;
        // As upstream, who admits does not know the name that is made up.
        let known = if generated { &object["metadata"]["generateName"] } else { &object["metadata"]["name"] };
        let known = known.as_str().unwrap_or_default().to_owned();
        let admission = self.admission(AdmissionOperation::Create, &known, "", None, options.dry_run);
        admission.mutate(&mut object).await?;
        if tracking == Tracking::Update {
            self.track_update(None, &mut object, options, "");
        }
        for attempt in 1.. {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            self.valid(&object, None, "", &name)?;
            self.warn_about(&object, None);
            let admission = self.admission(AdmissionOperation::Create, &name, "", None, options.dry_run);
            admission.validate(&object).await?;
            match self.store_new(&object, &name, options.dry_run).await {
                Err(status) if status.reason == "AlreadyExists" && generated => {
                    if attempt == NAME_ATTEMPTS {
                        return Err(no_free_name(status));
                    }
                    self.name_object(&mut object, true)?;
                }
                result => return result,
            }
        }
        unreachable!("the loop only ends by returning")
    }

    /// Sees to `metadata.name` and `metadata.namespace`; whether the name was made up here. `again`: the one made up before was taken.
    fn name_object(&self, object: &mut Value, again: bool) -> Result<bool, Status> {
        let metadata = &mut object["metadata"];
        if self.kind.namespaced {
            let given = metadata["namespace"].as_str().unwrap_or_default();
            if !given.is_empty() && given != self.info.namespace {
                let why = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Status::bad_request(why));
            }
            metadata["namespace"] = self.info.namespace.as_str().into();
        } else if metadata["namespace"].as_str().is_some_and(str::is_empty) {
            metadata.as_object_mut().expect("checked to be an object").remove("namespace");
        }
        let base = metadata["generateName"].as_str().unwrap_or_default();
        // A name that was given counts, whatever it looks like: a StatefulSet gives its pods both.
        let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        let generated = !base.is_empty() && (again || !named);
        if generated {
            let base: String = base.chars().take(LONGEST_BASE).collect();
            metadata["name"] = format!("{base}{}", self.server.inner.identifiers.suffix()).into();
        }
        Ok(generated)
    }

    async fn store_new(&self, object: &Value, name: &str, dry_run: bool) -> Result<Written, Status> {
        let key: store::Key = Arc::from(self.kind.key(self.namespace(), name));
        let exists = || Status::already_exists(&self.kind.group, &self.kind.plural, name);
        let store = self.server.inner.store.as_ref();
        for _ in 0..RACE_ATTEMPTS {
            let mut compares = vec![Compare { key: key.clone(), mod_revision: Revision(0) }];
            compares.extend(self.open_namespace(name).await?);
            if store.get(&key).await.map_err(Status::internal)?.is_some() {
                return Err(exists());
            }
            let mut object = object.clone();
            let mut operations = Vec::new();
            if let Some(companion) = &self.kind.companion {
                let (more_compares, more_operations) =
                    companion.writes(store, None, Some(&mut object), dry_run).await?;
                compares.extend(more_compares);
                operations.extend(more_operations);
            }
            let admission = self.admission(AdmissionOperation::Create, name, "", None, dry_run);
            let settled = admission.settle(Some(&mut object)).await?;
            compares.extend(settled.compares);
            operations.extend(settled.operations);
            let value = storage::encode(&self.kind, &object)?;
            let mut revision = Revision(0);
            if !dry_run {
                operations.push(Operation::Put { key: key.clone(), value: value.clone() });
                revision = match self.server.commit(compares, operations).await {
                    Ok(revision) => revision,
                    Err(WriteError::Raced(raced)) if raced == key => return Err(exists()),
                    Err(WriteError::Raced(_)) => continue,
                    Err(WriteError::Status(status)) => return Err(status),
                };
            }
            let kv = KeyValue { key, value, create_revision: revision, mod_revision: revision, version: 1 };
            return Ok(Written { kv });
        }
        Err(self.conflict(name, "other writes kept coming first"))
    }

    /// The condition that the namespace is there and stays open for new objects.
    async fn open_namespace(&self, name: &str) -> Result<Option<Compare>, Status> {
        if !self.kind.namespaced {
            return Ok(None);
        }
        let namespace = self.namespace();
        let key = format!("/registry/namespaces/{namespace}");
        let Some(kv) = self.server.inner.store.get(&key).await.map_err(Status::internal)? else {
            return Err(Status::not_found("", "namespaces", namespace));
        };
        if is_terminating(&kv.value) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = Status::forbidden(&self.kind.group, &self.kind.plural, name, &why);
            let message = format!("namespace {namespace} is being terminated");
            if let Some(details) = &mut status.details {
                details["causes"] =
                    json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
            }
            return Err(status);
        }
        Ok(Some(Compare { key: kv.key, mod_revision: kv.mod_revision }))
    }
}

/// What is said when every name made up was taken.
fn no_free_name(mut exists: Status) -> Status {
    exists.message.push_str(", the server was not able to generate a unique name for the object");
    exists.details.get_or_insert_default()["retryAfterSeconds"] = 1.into();
    exists
}

/// Whether a stored object has a deletionTimestamp; reads no more of it than that.
fn is_terminating(stored: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<serde::de::IgnoredAny>,
    }
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    serde_json::from_slice::<Object>(stored).is_ok_and(|object| object.metadata.deletion_timestamp.is_some())
}

/// A new namespace is active, and its contents will be removed before it is; its name is a label too.
fn begin_namespace(object: &mut Value) {
    object["status"] = json!({"phase": "Active"});
    let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.contains(&"kubernetes".into()) {
        object["spec"]["finalizers"] = finalizers.into_iter().chain(["kubernetes".into()]).collect();
    }
    if let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
}
