//! PUT: the whole object anew.

use super::Call;
use super::write::Tracking;
use crate::status::Status;
use crate::strategy;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;

impl Call {
    pub(super) async fn update(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("UpdateOptions")?;
        let object = self.object_body(body, options.field_validation).await?;
        let result = self.change("", &options, &|_| Ok((object.clone(), Tracking::Update))).await;
        match result {
            Err(status) if status.code == 404 && strategy::creates_on_update(&self.kind) => {
                let mut object = object;
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                if !name.is_empty() && name != self.info.name {
                    let url = &self.info.name;
                    let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
                    return Err(Status::bad_request(why));
                }
                object["metadata"]["name"] = self.info.name.as_str().into();
                if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
                    return Err(status);
                }
                let written = self.create_object(object, &options, Tracking::Update).await?;
                self.object(StatusCode::CREATED, &written.kv)
            }
            result => self.object(StatusCode::OK, &result?.kv),
        }
    }
}
