//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.

use super::Call;
use super::write::{Tracking, Written};
use crate::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

/// The four languages of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
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
    pub(super) fn new(content_type: &str) -> Result<Self, Status> {
        Ok(match content_type {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => PatchType::Apply,
            _ => {
                let accepted = "application/json-patch+json, application/merge-patch+json, \
                                application/strategic-merge-patch+json, application/apply-patch+yaml";
                let message = format!(
                    "the body of the request was in an unknown format - accepted media types include: {accepted}"
                );
                return Err(Status::failure(415, "UnsupportedMediaType", message));
            }
        })
    }
}

impl Call {
    pub(super) async fn patch(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("PatchOptions")?;
        let patch_type = PatchType::new(self.content_type())?;
        let patch = self.decode(&self.read_body(body).await?)?;
        let written: Written = self
            .change("", &options, &|old| {
                let mut new = apply(patch_type, old, &patch)?;
                self.check_type(&mut new, &self.kind.api_version(), &self.kind.kind)?;
                self.check_schema(&mut new, options.field_validation)?;
                Ok((new, Tracking::Update))
            })
            .await?;
        self.object(StatusCode::OK, &written.kv)
    }
}

/// What a patch makes of an object.
pub(super) fn apply(patch_type: PatchType, old: &Value, patch: &Value) -> Result<Value, Status> {
    let mut new = old.clone();
    match patch_type {
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|why| Status::bad_request(format!("the JSON patch cannot be read: {why}")))?;
            json_patch::patch(&mut new, &operations).map_err(|why| {
                Status::failure(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {why}"),
                )
            })?;
        }
        PatchType::Merge | PatchType::Strategic | PatchType::Apply => json_patch::merge(&mut new, patch),
    }
    Ok(new)
}
