//! PUT and PATCH, of an object or of a part of it: a [`Part`] is what the client sees and sends of the stored object.
//!
//! `status` and `ephemeralcontainers` show the whole object and take a part of it; `scale` shows three numbers of it.

use super::body::BodyKind;
use super::{Call, no_such_resource};
use crate::kinds::table::age;
use crate::negotiate::Form;
use crate::registry::{Column, ResourceKind, ScalePaths};
use crate::selector::label_selector_text;
use crate::status::{FieldError, Status};
use crate::{storage, strategy, table};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use store::KeyValue;

/// What of an object a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status.
    Object,
    Status,
    Scale(ScalePaths),
    /// `spec.finalizers` of a Namespace.
    Finalize,
    EphemeralContainers,
    /// Resources of a pod's containers.
    Resize,
    /// Verdict on a CertificateSigningRequest.
    Approval,
}

impl Part {
    /// Name of the subresource.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Part::Object => "",
            Part::Status => "status",
            Part::Scale(_) => "scale",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Approval => "approval",
        }
    }
}

impl Call {
    /// The part the path names.
    pub(super) fn part(&self) -> Result<Part, Status> {
        Ok(match (self.info.subresource.as_str(), &self.kind.scale) {
            ("", _) => Part::Object,
            ("status", _) => Part::Status,
            ("scale", Some(paths)) => Part::Scale(paths.clone()),
            ("finalize", _) if strategy::is_namespace(&self.kind) => Part::Finalize,
            ("ephemeralcontainers", _) if strategy::is_pod(&self.kind) => Part::EphemeralContainers,
            ("resize", _) if strategy::is_pod(&self.kind) => Part::Resize,
            ("approval", _) => Part::Approval,
            _ => return Err(no_such_resource()),
        })
    }

    /// Requests for a subresource that has no handler of its own.
    pub(super) async fn subresource(&self, body: Body) -> Result<Response, Status> {
        match (self.info.verb.as_str(), self.info.subresource.as_str()) {
            ("create", "binding") => self.bind(body).await,
            ("create", "eviction") => self.evict(body).await,
            ("get", _) => {
                let part = self.part()?;
                self.part_answer(StatusCode::OK, &part, &self.existing().await?.kv)
            }
            _ => Err(no_such_resource()),
        }
    }

    /// Kind of what the client sends.
    pub(super) fn part_kind(&self, part: &Part) -> BodyKind<'_> {
        match part {
            Part::Scale(_) => ("autoscaling", "v1", "Scale"),
            _ => (&self.kind.group, &self.kind.version, &self.kind.kind),
        }
    }

    /// What the client sees of the object.
    pub(super) fn shown(&self, part: &Part, object: &Value) -> Value {
        let Part::Scale(paths) = part else { return object.clone() };
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        let metadata = &object["metadata"];
        let mut scale = json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {},
            "spec": {},
            "status": {"replicas": number(&paths.status_replicas)},
        });
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = metadata.get(field) {
                scale["metadata"][field] = value.clone();
            }
        }
        let replicas = number(&paths.spec_replicas);
        if replicas != 0 {
            scale["spec"]["replicas"] = replicas.into();
        }
        if let Some(selector) = object.pointer(&paths.selector).filter(|_| !paths.selector.is_empty()) {
            scale["status"]["selector"] = label_selector_text(selector).into();
        }
        scale
    }

    /// The object with what the client has sent of it. The resourceVersion is the client's, for the check to come.
    pub(super) fn merged(&self, part: &Part, object: &Value, sent: Value) -> Result<Value, Status> {
        if matches!(part, Part::Object | Part::Status) {
            return Ok(sent);
        }
        let mut new = object.clone();
        for field in ["resourceVersion", "name", "namespace", "uid"] {
            new["metadata"][field] = sent["metadata"][field].clone();
        }
        let mut take = |pointer: &str, parent: &str, field: &str| {
            let value = sent.pointer(pointer).cloned();
            if let Some(fields) = new.pointer_mut(parent).and_then(Value::as_object_mut) {
                match value {
                    Some(value) => fields.insert(field.to_owned(), value),
                    None => fields.remove(field),
                };
            }
        };
        match part {
            Part::Object | Part::Status => {}
            Part::Finalize => take("/spec/finalizers", "/spec", "finalizers"),
            Part::EphemeralContainers => take("/spec/ephemeralContainers", "/spec", "ephemeralContainers"),
            Part::Approval => take("/status/conditions", "/status", "conditions"),
            Part::Resize => {
                let containers = sent["spec"]["containers"].as_array().into_iter().flatten();
                for (index, container) in containers.enumerate() {
                    let known = new.pointer_mut(&format!("/spec/containers/{index}"));
                    if let Some(known) = known.filter(|known| known["name"] == container["name"]) {
                        known["resources"] = container["resources"].clone();
                    }
                }
            }
            Part::Scale(paths) => {
                let replicas = sent["spec"]["replicas"].as_i64().unwrap_or_default();
                if replicas < 0 {
                    let detail = "must be greater than or equal to 0";
                    let error = FieldError::invalid("spec.replicas", &replicas.into(), detail);
                    return Err(Status::invalid("autoscaling", "Scale", &self.info.name, &[error]));
                }
                if let Some((parent, field)) = paths.spec_replicas.rsplit_once('/')
                    && let Some(fields) = new.pointer_mut(parent).and_then(Value::as_object_mut)
                {
                    fields.insert(field.to_owned(), replicas.into());
                }
            }
        }
        Ok(new)
    }

    /// The answer to a request for a part.
    pub(super) fn part_answer(&self, code: StatusCode, part: &Part, kv: &KeyValue) -> Result<Response, Status> {
        match part {
            Part::Scale(_) => {
                let scale = self.shown(part, &storage::decode(&self.kind, kv)?);
                let Form::Table { version, include } = self.media.form else { return Ok(self.plain(code, &scale)) };
                let metadata = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
                let now = self.server.now();
                let table = table::table(&scale_kind(), [&scale], (version, include), metadata, true, now);
                Ok(self.plain(code, &table))
            }
            _ => self.object(code, kv),
        }
    }
}

/// The columns of a Scale: it is nobody's row, since it is a part of other kinds' objects only.
fn scale_kind() -> ResourceKind {
    let columns = ["Desired", "Available"].map(|name| Column::new(name, "integer"));
    ResourceKind::new("autoscaling", "v1", "Scale", "scales").with_table(
        columns.into_iter().chain([Column::new("Age", "string")]),
        |_, scale, now| {
            let number = |path: &str| scale.pointer(path).and_then(Value::as_i64).unwrap_or_default().into();
            let name = scale["metadata"]["name"].clone();
            vec![name, number("/spec/replicas"), number("/status/replicas"), age(scale, now)]
        },
    )
}
