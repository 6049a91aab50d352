//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply; of an object or of a part of it.

use super::Call;
use super::subresource::Part;
use super::write::{Tracking, Written};
use crate::schema::decode::{decode_json, decode_yaml};
use crate::schema::{Decoded, patch, strategic};
use crate::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

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
        let decoded = if patch_type == PatchType::Apply { decode_yaml(&bytes)? } else { decode_json(&bytes)? };
        let written: Written = self
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
                let ty = self.server.inner.schemas.lookup(group, version, kind);
                strategic::strategic_merge(&ty.ok_or_else(|| unknown_format(false))?, old, sent)
            }
        }
    }
}
