//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply; of an object or of a part of it.

use super::Call;
use super::create::RACE_ATTEMPTS;
use super::options::WriteOptions;
use super::subresource::Part;
use super::write::Tracking;
use crate::schema::decode::{decode_json, decode_yaml};
use crate::schema::managed_fields::Manager;
use crate::schema::{Checked, Decoded, ObjectRef, apply, patch, strategic};
use crate::status::{FieldError, Status};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// The four languages of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Merge by the schema's keys and strategies.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    fn new(content_type: &str) -> Result<Self, Status> {
        Ok(match content_type {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => PatchType::Apply,
            _ => return Err(unknown_format(true)),
        })
    }
}

fn unknown_format(strategic: bool) -> Status {
    let strategic = if strategic { ", application/strategic-merge-patch+json" } else { "" };
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json{strategic}, application/apply-patch+yaml"
    );
    Status::failure(415, "UnsupportedMediaType", message)
}

impl Call {
    pub(super) async fn patch(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("PatchOptions")?;
        let part = self.part()?;
        let patch_type = PatchType::new(self.content_type())?;
        let bytes = self.read_body(body).await?;
        if patch_type == PatchType::Apply {
            return self.apply(&part, &decode_yaml(&bytes)?, &options).await;
        }
        if options.force.is_some() {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let decoded = decode_json(&bytes)?;
        let written = self
            .change(&part, &options, &|old| {
                let value = self.patched(patch_type, &part, &self.shown(&part, old), &decoded.value)?;
                let patched = Decoded { value, duplicates: decoded.duplicates.clone() };
                let sent = self.checked(patched, self.part_kind(&part), options.field_validation)?;
                Ok((self.merged(&part, old, sent)?, Tracking::Update))
            })
            .await?;
        self.part_answer(StatusCode::OK, &part, &written.kv)
    }

    fn patched(&self, patch_type: PatchType, part: &Part, old: &Value, sent: &Value) -> Result<Value, Status> {
        match patch_type {
            PatchType::Json => patch::json_patch(old, sent),
            PatchType::Merge | PatchType::Apply => patch::merge_patch(old, sent),
            PatchType::Strategic => {
                let (group, version, kind) = self.part_kind(part);
                match self.server.inner.schemas.lookup(group, version, kind) {
                    Some(ty @ ObjectRef::Builtin(_)) => strategic::strategic_merge(&ty, old, sent),
                    // As in Kubernetes, custom resources have no strategic merge.
                    _ => Err(unknown_format(false)),
                }
            }
        }
    }

    /// Server-side apply (KEP-555): the object comes into being if it is not there.
    async fn apply(&self, part: &Part, decoded: &Decoded, options: &WriteOptions) -> Result<Response, Status> {
        let kind = &self.kind;
        let ty = self.server.inner.schemas.lookup(&kind.group, &kind.version, &kind.kind);
        let ty = ty.ok_or_else(|| unknown_format(false))?;
        for warning in
            Checked::default().verdict(&decoded.duplicates, options.field_validation, &kind.version, &kind.kind)?
        {
            self.warn(warning);
        }
        let config = self.configuration(part, &decoded.value)?;
        let api_version = kind.api_version();
        let manager = Manager { name: &options.field_manager, api_version: &api_version, subresource: part.name() };
        let applied = |live: Option<&Value>| {
            let force = options.force.unwrap_or_default();
            apply(&ty, live, &config, &manager, force, self.server.now()).map_err(Status::from)
        };
        for _ in 0..RACE_ATTEMPTS {
            match self.change(part, options, &|old| Ok((applied(Some(old))?, Tracking::Applied))).await {
                Err(missing) if missing.code == 404 && *part == Part::Object => {}
                result => return self.part_answer(StatusCode::OK, part, &result?.kv),
            }
            let object = self.named(applied(None)?)?;
            match self.create_object(object, options, Tracking::Applied).await {
                Err(taken) if taken.reason == "AlreadyExists" => {}
                result => return self.object(StatusCode::CREATED, &result?.kv),
            }
        }
        Err(self.conflict(&self.info.name, "other writes kept coming first"))
    }

    /// What of the configuration the path lets through, as a configuration of the whole object.
    fn configuration(&self, part: &Part, sent: &Value) -> Result<Value, Status> {
        let mut config = sent.clone();
        let has_status = self.kind.has_subresource("status");
        let Some(fields) = config.as_object_mut() else { return Ok(config) };
        let (_, _, kind) = self.part_kind(part);
        let given = fields.entry("kind").or_insert_with(|| kind.into());
        if given != kind {
            let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            let message = format!("the kind in the data ({given}) does not match the expected kind ({kind})");
            return Err(Status::bad_request(message));
        }
        match part {
            Part::Object if has_status => drop(fields.remove("status")),
            Part::Status => {
                fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
            }
            Part::Scale(paths) => {
                let given = fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
                if given != "autoscaling/v1" {
                    return Err(Status::bad_request(format!(
                        "Incorrect version specified in apply patch. Specified patch version: {given}, expected: autoscaling/v1"
                    )));
                }
                let replicas = sent.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
                let mut whole = json!({
                    "apiVersion": self.kind.api_version(), "kind": self.kind.kind, "metadata": sent["metadata"],
                });
                let mut place = &mut whole;
                for step in paths.spec_replicas.split('/').skip(1) {
                    place = &mut place[step];
                }
                *place = replicas;
                config = whole;
            }
            _ => {}
        }
        Ok(config)
    }
}
