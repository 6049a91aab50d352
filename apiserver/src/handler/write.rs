//! What all writes share: admission, validation, generation, managed fields, and the loop around the store's transaction.

use super::Call;
use super::create::RACE_ATTEMPTS;
use super::options::WriteOptions;
use super::subresource::Part;
use crate::admission::AdmissionOperation;
use crate::kinds::json::{equal, same};
use crate::schema::managed_fields::{Manager, track_update};
use crate::schema::{self, ObjectRef, structural};
use crate::status::{FieldError, Status};
use crate::storage::{self, Stored, WriteError};
use crate::strategy;
use serde_json::Value;
use store::{Compare, KeyValue, Operation, Revision};

/// What a write left behind.
pub(crate) struct Written {
    /// The object as stored, or as it would have been (dry run).
    pub(crate) kv: KeyValue,
}

/// Whether managed fields are still to be worked out, or server-side apply has done it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    Update,
    Applied,
}

/// What an update makes of an object.
pub(crate) type Change<'a> = &'a (dyn Fn(&Value) -> Result<(Value, Tracking), Status> + Send + Sync);

impl Call {
    /// Defaults, and the empty objects that are always there.
    pub(super) fn fill_in(&self, object: &mut Value) {
        let kind = &self.kind;
        (kind.default)(kind, object);
        if let Some(ty) = self.server.inner.schemas.lookup(&kind.group, &kind.version, &kind.kind) {
            if let ObjectRef::Own(ty) = &ty {
                structural::apply_defaults(ty, object);
            }
            schema::complete(&ty, object);
        }
    }

    /// 422 with everything that is wrong.
    pub(super) fn valid(&self, new: &Value, old: Option<&Value>, subresource: &str, name: &str) -> Result<(), Status> {
        let mut errors = self.kind.errors(new, old, subresource);
        errors.extend(old.and_then(|old| late_finalizers(new, old)));
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&self.kind.group, &self.kind.kind, name, &errors)) }
    }

    /// Writes down who changed which fields.
    pub(super) fn track_update(&self, old: Option<&Value>, new: &mut Value, options: &WriteOptions, subresource: &str) {
        let kind = &self.kind;
        let Some(ty) = self.server.inner.schemas.lookup(&kind.group, &kind.version, &kind.kind) else { return };
        let (name, api_version) = (self.manager(options), kind.api_version());
        let manager = Manager { name: &name, api_version: &api_version, subresource };
        track_update(&ty, old, new, &manager, self.server.now());
    }

    /// Changes the object that the path names, again and again until no other write comes between.
    ///
    /// A change that leaves a resourceVersion other than the object's is a conflict.
    pub(super) async fn change(
        &self,
        part: &Part,
        options: &WriteOptions,
        change: Change<'_>,
    ) -> Result<Written, Status> {
        let name = self.info.name.as_str();
        for _ in 0..RACE_ATTEMPTS {
            let current = self.existing().await?;
            let (mut new, tracking) = change(&current.object)?;
            self.prepare_update(&current, &mut new, part, options, tracking).await?;
            match self.store_change(&current, &new, part, options.dry_run).await {
                Ok(written) => return Ok(written),
                Err(WriteError::Raced(_)) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(self.conflict(name, "other writes kept coming first"))
    }

    async fn prepare_update(
        &self,
        current: &Stored,
        new: &mut Value,
        part: &Part,
        options: &WriteOptions,
        tracking: Tracking,
    ) -> Result<(), Status> {
        let subresource = part.name();
        let (name, old) = (self.info.name.as_str(), &current.object);
        self.same_object(old, new)?;
        match new["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
            "" | "0" if strategy::updates_unconditionally(&self.kind) => {}
            "" | "0" => {
                // In the words, and with the plural for the kind, that users of client-go search for.
                let message = "Invalid value: 0x0: must be specified for an update".to_owned();
                let field = "metadata.resourceVersion".to_owned();
                let error = FieldError { reason: "FieldValueInvalid", field, message };
                return Err(Status::invalid(&self.kind.group, &self.kind.plural, name, &[error]));
            }
            version if version.parse() == Ok(current.kv.mod_revision.0) => {}
            version if version.parse::<u64>().is_err() => {
                let error = FieldError::invalid(
                    "metadata.resourceVersion",
                    &version.into(),
                    "must be a number that the server has given",
                );
                return Err(Status::invalid(&self.kind.group, &self.kind.kind, name, &[error]));
            }
            _ => {
                let why = "the object has been modified; please apply your changes to the latest version and try again";
                return Err(self.conflict(name, why));
            }
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        (self.kind.prepare)(&self.kind, new, Some(old), subresource);
        self.fill_in(new);
        let admission = self.admission(AdmissionOperation::Update, name, subresource, Some(old), options.dry_run);
        admission.mutate(new).await?;
        if self.kind.generation {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            // Who writes the status may annotate without having wished for anything new.
            let metadata = if subresource.is_empty() { strategy::metadata_counts(&self.kind) } else { &[] };
            let counts = spec_differs(old, new) || metadata.iter().any(|pointer| !same(new, old, pointer));
            new["metadata"]["generation"] = (generation + i64::from(counts)).into();
        }
        if tracking == Tracking::Update {
            self.track_update(Some(old), new, options, subresource);
        }
        self.valid(new, Some(old), subresource, name)?;
        if subresource.is_empty() {
            self.warn_about(new, Some(old));
        }
        admission.validate(new).await
    }

    /// Says what the kind has to say about a valid object.
    pub(super) fn warn_about(&self, new: &Value, old: Option<&Value>) {
        (self.kind.warnings)(&self.kind, new, old).into_iter().for_each(|warning| self.warn(warning));
    }

    /// Name, namespace and uid are those of the object the path names, or left out.
    fn same_object(&self, old: &Value, new: &mut Value) -> Result<(), Status> {
        let (was, is) = (&old["metadata"], &mut new["metadata"]);
        let given = |is: &Value, field: &str| is[field].as_str().unwrap_or_default().to_owned();
        let name = given(is, "name");
        if !name.is_empty() && name != self.info.name {
            let url = &self.info.name;
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({url})"
            )));
        }
        let namespace = given(is, "namespace");
        if self.kind.namespaced && !namespace.is_empty() && namespace != self.info.namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(why));
        }
        let (uid, real) = (given(is, "uid"), given(was, "uid"));
        if !uid.is_empty() && uid != real {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {real}");
            return Err(self.conflict(&self.info.name, &why));
        }
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            let unset = is[field].as_str().is_none_or(str::is_empty);
            match was.get(field) {
                Some(value) if unset => is[field] = value.clone(),
                None if unset => drop(is.as_object_mut().expect("checked to be an object").remove(field)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn store_change(
        &self,
        current: &Stored,
        new: &Value,
        part: &Part,
        dry_run: bool,
    ) -> Result<Written, WriteError> {
        let (store, key) = (self.server.inner.store.as_ref(), &current.kv.key);
        let mut compares = vec![Compare { key: key.clone(), mod_revision: current.kv.mod_revision }];
        let deleted = is_finished(&self.kind, &current.object, new);
        let mut operations = Vec::new();
        let mut new = new.clone();
        if let Some(companion) = &self.kind.companion {
            let after = if deleted { None } else { Some(&mut new) };
            let more =
                companion.writes(store, Some(&current.object), after, dry_run).await.map_err(WriteError::Status)?;
            compares.extend(more.0);
            operations.extend(more.1);
        }
        let (name, old) = (self.info.name.as_str(), Some(&current.object));
        let admission = self.admission(AdmissionOperation::Update, name, part.name(), old, dry_run);
        let after = if deleted { None } else { Some(&mut new) };
        let settled = admission.settle(after).await.map_err(WriteError::Status)?;
        compares.extend(settled.compares);
        operations.extend(settled.operations);
        let value = storage::encode(&self.kind, &new)?;
        // A write that changes nothing takes no revision, so that nobody is woken.
        let unchanged = !deleted && value == current.kv.value && operations.is_empty();
        let mut revision = current.kv.mod_revision;
        if !dry_run && !unchanged {
            operations.push(if deleted {
                Operation::Delete { key: key.clone() }
            } else {
                Operation::Put { key: key.clone(), value: value.clone() }
            });
            revision = self.server.commit(compares, operations).await?;
        }
        let kv = KeyValue { value, mod_revision: revision, version: current.kv.version + 1, ..current.kv.clone() };
        Ok(Written { kv })
    }

    /// Removes an object together with what its companion keeps for it.
    pub(super) async fn remove(&self, current: &Stored, dry_run: bool) -> Result<Revision, WriteError> {
        let (store, key) = (self.server.inner.store.as_ref(), &current.kv.key);
        let mut compares = vec![Compare { key: key.clone(), mod_revision: current.kv.mod_revision }];
        let mut operations = vec![Operation::Delete { key: key.clone() }];
        if let Some(companion) = &self.kind.companion {
            let more =
                companion.writes(store, Some(&current.object), None, dry_run).await.map_err(WriteError::Status)?;
            compares.extend(more.0);
            operations.extend(more.1);
        }
        let name = key.rsplit('/').next().unwrap_or_default();
        let admission = self.admission(AdmissionOperation::Delete, name, "", Some(&current.object), dry_run);
        let settled = admission.settle(None).await.map_err(WriteError::Status)?;
        compares.extend(settled.compares);
        operations.extend(settled.operations);
        if dry_run { Ok(current.kv.mod_revision) } else { self.server.commit(compares, operations).await }
    }

    /// Stores an object as it is: the delete handler marks objects so.
    pub(super) async fn replace(&self, current: &Stored, new: &Value, dry_run: bool) -> Result<Written, WriteError> {
        let (key, value) = (&current.kv.key, storage::encode(&self.kind, new)?);
        let compares = vec![Compare { key: key.clone(), mod_revision: current.kv.mod_revision }];
        let operations = vec![Operation::Put { key: key.clone(), value: value.clone() }];
        let revision = if dry_run { current.kv.mod_revision } else { self.server.commit(compares, operations).await? };
        Ok(Written { kv: KeyValue { value, mod_revision: revision, ..current.kv.clone() } })
    }
}

pub(super) fn finalizers(object: &Value) -> &[Value] {
    object["metadata"]["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What keeps a deleted object: its finalizers, and for a Namespace those of its spec.
pub(super) fn is_held(kind: &crate::registry::ResourceKind, object: &Value) -> bool {
    let in_spec = strategy::is_namespace(kind)
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    in_spec || !finalizers(object).is_empty()
}

/// Whether this write takes away the last thing that held a deleted object.
fn is_finished(kind: &crate::registry::ResourceKind, old: &Value, new: &Value) -> bool {
    let deleted = old["metadata"]["deletionTimestamp"].is_string();
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    deleted && grace == 0 && !is_held(kind, new)
}

/// Whether something beside metadata and status has changed.
fn spec_differs(old: &Value, new: &Value) -> bool {
    let relevant = |key: &str| !matches!(key, "metadata" | "status" | "apiVersion" | "kind");
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old != new };
    let covers = |one: &serde_json::Map<String, Value>, other: &serde_json::Map<String, Value>| {
        let relevant = one.iter().filter(|(key, _)| relevant(key));
        relevant.into_iter().all(|(key, value)| equal(value, other.get(key).unwrap_or(&Value::Null)))
    };
    !(covers(old, new) && covers(new, old))
}

/// An object that is being deleted takes no new finalizers.
fn late_finalizers(new: &Value, old: &Value) -> Option<FieldError> {
    if !old["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    let (was, is) = (finalizers(old), finalizers(new));
    let late: Vec<String> = is.iter().filter(|name| !was.contains(name)).map(Value::to_string).collect();
    if late.is_empty() {
        return None;
    }
    let list = late.join(", ");
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
    );
    Some(FieldError::forbidden("metadata.finalizers", detail))
}
