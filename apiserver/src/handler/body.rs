//! The body of a request: read within the limit, decoded, and checked to be of the kind the path names.

use super::Call;
use super::options::FieldValidation;
use crate::registry::ResourceKind;
use crate::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

impl Call {
    /// The whole body.
    ///
    /// # Errors
    /// 413 beyond the limit; 400 if the client breaks off.
    pub(crate) async fn read_body(&self, body: Body) -> Result<Bytes, Status> {
        let limit = self.server.inner.config.body_limit;
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(why) if why.is::<LengthLimitError>() => Err(Status::failure(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: limit is {limit}"),
            )),
            Err(why) => Err(Status::bad_request(format!("the body of the request could not be read: {why}"))),
        }
    }

    pub(crate) fn content_type(&self) -> &str {
        let header = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        header.split(';').next().unwrap_or_default().trim()
    }

    /// The body as a value, whatever it is of.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Value, Status> {
        serde_json::from_slice(bytes)
            .map_err(|why| Status::bad_request(format!("the body of the request cannot be read: {why}")))
    }

    /// An object of the path's kind.
    pub(crate) async fn object_body(&self, body: Body, validation: FieldValidation) -> Result<Value, Status> {
        let bytes = self.read_body(body).await?;
        let mut object = self.decode(&bytes)?;
        self.check_type(&mut object, &self.kind.api_version(), &self.kind.kind)?;
        self.check_schema(&mut object, validation)?;
        Ok(object)
    }

    /// The body of a subresource of another kind.
    pub(crate) async fn typed_body(&self, body: Body, api_version: &str, kind: &str) -> Result<Value, Status> {
        let bytes = self.read_body(body).await?;
        let mut object = self.decode(&bytes)?;
        self.check_type(&mut object, api_version, kind)?;
        Ok(object)
    }

    /// Fills in `apiVersion` and `kind` where they are left out, and refuses others.
    pub(crate) fn check_type(&self, object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
        let Value::Object(fields) = object else {
            return Err(Status::bad_request(format!("the body of the request is not a {kind}: it is no JSON object")));
        };
        for (field, what, expected) in [("apiVersion", "API version", api_version), ("kind", "kind", kind)] {
            match fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                None => {
                    fields.insert(field.to_owned(), expected.into());
                }
                Some(given) if given == expected => {}
                Some(given) => {
                    return Err(Status::bad_request(format!(
                        "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                    )));
                }
            }
        }
        match fields.get("metadata") {
            Some(Value::Object(_)) => {}
            None | Some(Value::Null) => {
                fields.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
            }
            Some(_) => {
                return Err(Status::bad_request(format!(
                    "the body of the request is not a {kind}: metadata is no JSON object"
                )));
            }
        }
        Ok(())
    }

    /// Types, unknown fields, and fields that stand twice.
    pub(crate) fn check_schema(&self, object: &mut Value, validation: FieldValidation) -> Result<(), Status> {
        let _: (&ResourceKind, &mut Value) = (&self.kind, object);
        match validation {
            FieldValidation::Ignore | FieldValidation::Warn | FieldValidation::Strict => Ok(()),
        }
    }
}
