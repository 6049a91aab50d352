//! PUT: the whole object anew, or a part of it.

use super::Call;
use super::subresource::Part;
use super::write::Tracking;
use crate::status::Status;
use crate::strategy;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

impl Call {
    pub(super) async fn update(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("UpdateOptions")?;
        let part = self.part()?;
        let sent = self.named(self.body_of(body, self.part_kind(&part), options.field_validation).await?)?;
        let result =
            self.change(&part, &options, &|old| Ok((self.merged(&part, old, sent.clone())?, Tracking::Update))).await;
        match result {
            Err(missing) if missing.code == 404 && part == Part::Object && strategy::creates_on_update(&self.kind) => {
                let versioned = sent["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
                if versioned {
                    return Err(missing);
                }
                let written = self.create_object(sent, &options, Tracking::Update).await?;
                self.object(StatusCode::CREATED, &written.kv)
            }
            result => self.part_answer(StatusCode::OK, &part, &result?.kv),
        }
    }

    /// The object with the name the path gives it.
    pub(super) fn named(&self, mut object: Value) -> Result<Value, Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if !name.is_empty() && name != self.info.name {
            let url = &self.info.name;
            let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
            return Err(Status::bad_request(why));
        }
        object["metadata"]["name"] = self.info.name.as_str().into();
        Ok(object)
    }
}
