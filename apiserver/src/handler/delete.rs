//! DELETE of one object or a collection: at once, or marked until its finalizers are gone or its kubelet is done.
//!
//! Follows `BeforeDelete` and `Store.Delete` in `k8s.io/apiserver/pkg/registry`.

use super::Call;
use super::create::RACE_ATTEMPTS;
use super::options::dry_run;
use super::write::{finalizers, is_held};
use crate::admission::AdmissionOperation;
use crate::clock::rfc3339;
use crate::list_options::{ListOptions, whole_number};
use crate::status::{FieldError, Status};
use crate::storage::{self, Stored, WriteError};
use crate::strategy;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::KeyValue;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// A pod's grace period where its spec says nothing.
const DEFAULT_GRACE: i64 = 30;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What a delete has done.
pub(super) enum Deletion {
    /// The object is gone; this was its last state.
    Removed(KeyValue),
    /// It is marked, and its finalizers or its kubelet have to act.
    Marked(KeyValue),
}

impl DeleteOptions {
    /// From the body, or from the query if there is no body.
    pub(crate) fn new(body: &Value, call: &Call) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let text = |field: &str| body[field].as_str().or_else(|| call.query.text(field));
        let grace = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => call.query.text("gracePeriodSeconds").map(whole_number).transpose()?,
        };
        let orphan = body["orphanDependents"].as_bool().or_else(|| call.query.optional_flag("orphanDependents"));
        let propagation = match text("propagationPolicy") {
            None | Some("") => match orphan {
                None => None,
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
            },
            Some(policy) if orphan.is_some() => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid("propagationPolicy", &policy.into(), why));
                None
            }
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", &other.into(), &supported));
                None
            }
        };
        let in_body = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let dry_run = dry_run(in_body.chain(call.query.values("dryRun")), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        // Upstream reads what is negative as "now, but in good order".
        let grace = grace.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        let (uid, resource_version) = (precondition("uid"), precondition("resourceVersion"));
        Ok(DeleteOptions { grace, propagation, uid, resource_version, dry_run })
    }
}

impl Call {
    pub(super) async fn delete_options(&self, body: Body) -> Result<DeleteOptions, Status> {
        DeleteOptions::new(&self.options_body(body).await?, self)
    }

    pub(super) async fn delete(&self, body: Body) -> Result<Response, Status> {
        let options = self.delete_options(body).await?;
        if let Some(why) = strategy::immortal(&self.kind, &self.info.name) {
            return Err(Status::forbidden(&self.kind.group, &self.kind.plural, &self.info.name, why));
        }
        if options.propagation.is_none() {
            strategy::deletion_warning(&self.kind).into_iter().for_each(|warning| self.warn(warning));
        }
        match self.delete_object(&self.info.name, &options).await? {
            Deletion::Marked(kv) => self.object(StatusCode::OK, &kv),
            Deletion::Removed(kv) if strategy::returns_deleted(&self.kind) => self.object(StatusCode::OK, &kv),
            Deletion::Removed(kv) => {
                let object = storage::decode(&self.kind, &kv)?;
                let mut details =
                    json!({"name": self.info.name, "kind": self.kind.plural, "uid": object["metadata"]["uid"]});
                if !self.kind.group.is_empty() {
                    details["group"] = self.kind.group.as_ref().into();
                }
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                Ok(self.plain(StatusCode::OK, &status))
            }
        }
    }

    /// Deletes `name` in the request's namespace.
    pub(super) async fn delete_object(&self, name: &str, options: &DeleteOptions) -> Result<Deletion, Status> {
        for _ in 0..RACE_ATTEMPTS {
            let current = self.server.read(&self.kind, self.namespace(), name).await?;
            let current = current.ok_or_else(|| Status::not_found(&self.kind.group, &self.kind.plural, name))?;
            self.preconditions(name, &current.object, options)?;
            let admission =
                self.admission(AdmissionOperation::Delete, name, "", Some(&current.object), options.dry_run);
            admission.validate(&Value::Null).await?;
            let done = match self.mark(&current, options) {
                Mark::Remove => {
                    let removed = self.remove(&current, options.dry_run).await;
                    removed.map(|_| Deletion::Removed(current.kv.clone()))
                }
                Mark::Unchanged => Ok(Deletion::Marked(current.kv.clone())),
                Mark::Replace(marked) => {
                    let written = self.replace(&current, &marked, options.dry_run).await;
                    written.map(|written| Deletion::Marked(written.kv))
                }
            };
            match done {
                Ok(done) => return Ok(done),
                Err(WriteError::Raced(_)) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(self.conflict(name, "other writes kept coming first"))
    }

    fn preconditions(&self, name: &str, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
        let checks = [
            ("UID", "uid", &options.uid, "deleted and then recreated"),
            ("ResourceVersion", "resourceVersion", &options.resource_version, "modified"),
        ];
        for (what, field, wanted, fate) in checks {
            let real = object["metadata"][field].as_str().unwrap_or_default();
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != real) {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({real}). \
                     The object might have been {fate}"
                );
                // Unlike elsewhere it is the kind that upstream names here.
                return Err(Status::conflict(&self.kind.group, &self.kind.kind, name, &why));
            }
        }
        Ok(())
    }

    /// What a delete makes of an object.
    fn mark(&self, current: &Stored, options: &DeleteOptions) -> Mark {
        let old = &current.object;
        let had = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
        let deleted_at = old["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let grace = match (self.kind.graceful_deletion, deleted_at, had) {
            (false, ..) => 0,
            // A second delete of a pod can make its grace period shorter, and nothing else.
            (true, Some(_), Some(had)) => match options.grace.filter(|grace| *grace < had) {
                Some(shorter) => shorter,
                None => return Mark::Unchanged,
            },
            (true, ..) => grace_period(old, options.grace),
        };
        let mut new = old.clone();
        self.set_propagation(&mut new, options.propagation);
        if grace == 0 && !is_held(&self.kind, &new) {
            return Mark::Remove;
        }
        if deleted_at.is_none() || had.is_some_and(|had| grace < had) {
            let seconds = jiff::SignedDuration::from_secs;
            let begun = match (deleted_at, had) {
                (Some(at), Some(had)) => at.checked_sub(seconds(had)).unwrap_or(at),
                _ => self.server.now(),
            };
            let metadata = &mut new["metadata"];
            metadata["deletionTimestamp"] = rfc3339(begun.checked_add(seconds(grace)).unwrap_or(Timestamp::MAX)).into();
            if strategy::is_namespace(&self.kind) {
                new["status"]["phase"] = "Terminating".into();
            } else {
                metadata["deletionGracePeriodSeconds"] = grace.into();
            }
            let generation = new["metadata"]["generation"].as_i64().filter(|generation| *generation > 0);
            if let (None, Some(generation)) = (deleted_at, generation) {
                new["metadata"]["generation"] = (generation + 1).into();
            }
        }
        if new == *old { Mark::Unchanged } else { Mark::Replace(new) }
    }

    /// The garbage collector is told through finalizers what to do with the dependents.
    fn set_propagation(&self, object: &mut Value, asked: Option<Propagation>) {
        let of_collector = |name: &Value| *name == FOREGROUND || *name == ORPHAN;
        let decided = finalizers(object).iter().any(of_collector);
        let wanted = match asked {
            Some(Propagation::Orphan) => Some(ORPHAN),
            Some(Propagation::Foreground) => Some(FOREGROUND),
            Some(Propagation::Background) => None,
            None if !decided && strategy::orphans_by_default(&self.kind) => Some(ORPHAN),
            None => return,
        };
        let mut kept: Vec<Value> = finalizers(object).iter().filter(|name| !of_collector(name)).cloned().collect();
        kept.extend(wanted.map(Value::from));
        let metadata = object["metadata"].as_object_mut().expect("stored objects have metadata");
        if kept.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), kept.into());
        }
    }

    pub(super) async fn delete_collection(&self, body: Body) -> Result<Response, Status> {
        let options = self.delete_options(body).await?;
        let list_options = ListOptions::new(&self.kind, &self.query, false)?;
        let found = self.select(&list_options).await?;
        let mut items = Vec::new();
        for kv in &found.items {
            let name = kv.key.rsplit('/').next().unwrap_or_default();
            let uid = storage::decode(&self.kind, kv)?["metadata"]["uid"].as_str().map(str::to_owned);
            let options = DeleteOptions { uid, ..options.clone() };
            match self.delete_object(name, &options).await {
                Ok(Deletion::Removed(kv) | Deletion::Marked(kv)) => items.push(kv),
                // Somebody else deleted it first, or there is another by this name now.
                Err(status) if matches!(status.code, 404 | 409) => {}
                Err(status) => return Err(status),
            }
        }
        self.list_of(items, json!({"resourceVersion": self.server.revision().0.to_string()}))
    }
}

enum Mark {
    Remove,
    Unchanged,
    Replace(Value),
}

/// How long a pod that is to be deleted is given. Only where a kubelet runs it does it need time.
fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || over {
        return 0;
    }
    let period = asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(DEFAULT_GRACE);
    if period < 0 { 1 } else { period }
}
