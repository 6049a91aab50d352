//! The body of a request: read within the limit, decoded, and checked to be of the kind the path names.

use super::Call;
use crate::schema::{self, Decoded, FieldValidation};
use crate::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

/// Group, version and kind of a body.
pub(super) type BodyKind<'a> = (&'a str, &'a str, &'a str);

impl Call {
    /// The whole body.
    ///
    /// # Errors
    /// 413 beyond the limit; 400 if the client breaks off.
    pub(super) async fn read_body(&self, body: Body) -> Result<Bytes, Status> {
        let limit = self.server.inner.config.body_limit;
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(why) if why.is::<LengthLimitError>() => {
                let message = format!("Request entity too large: limit is {limit}");
                Err(Status::failure(413, "RequestEntityTooLarge", message))
            }
            Err(why) => Err(Status::bad_request(format!("the body of the request could not be read: {why}"))),
        }
    }

    /// The media type of the body.
    pub(super) fn content_type(&self) -> &str {
        let header = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        header.split(';').next().unwrap_or_default().trim()
    }

    /// What a computed resource is asked: an object of its kind, or of its subresource's; `Null` if there is no body.
    pub(super) async fn question(&self, body: Body) -> Result<Value, Status> {
        let bytes = self.read_body(body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let row = &self.kind;
        let mut kind: BodyKind<'_> = (&row.group, &row.version, &row.kind);
        if let Some(part) = row.subresources.iter().find(|part| part.name == self.info.subresource) {
            kind.2 = &part.kind;
            if let Some((group, version)) = &part.group_version {
                (kind.0, kind.1) = (group, version);
            }
        }
        let validation = self.write_options("CreateOptions")?.field_validation;
        let decoded = schema::decode(&self.server.inner.schemas, self.content_type(), &bytes)?;
        self.checked(decoded, kind, validation)
    }

    /// The options in the body of a delete; `Null` if there are none.
    ///
    /// # Errors
    /// 400 if they are something else, or one has a wrong type: an option that is passed over deletes what should have stayed.
    pub(super) async fn options_body(&self, body: Body) -> Result<Value, Status> {
        const KIND: &str = "DeleteOptions";
        let bytes = self.read_body(body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let Decoded { mut value, duplicates } =
            schema::decode(&self.server.inner.schemas, self.content_type(), &bytes)?;
        let wrong = match value["kind"].as_str() {
            _ if value.is_null() => return Ok(value),
            _ if !value.is_object() => "no JSON object",
            Some("" | KIND) | None => {
                let ty = self.server.inner.schemas.lookup("", "v1", KIND).expect("a builtin type");
                schema::check(&ty, &mut value).verdict(&duplicates, FieldValidation::Ignore, "v1", KIND)?;
                return Ok(value);
            }
            Some(other) => other,
        };
        Err(Status::bad_request(format!("the body of the request is not {KIND}: it is {wrong}")))
    }

    /// An object of this kind.
    pub(super) async fn body_of(
        &self,
        body: Body,
        kind: BodyKind<'_>,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        let bytes = self.read_body(body).await?;
        let decoded = schema::decode(&self.server.inner.schemas, self.content_type(), &bytes)?;
        self.checked(decoded, kind, validation)
    }

    /// An object of the path's kind.
    pub(super) async fn object_body(&self, body: Body, validation: FieldValidation) -> Result<Value, Status> {
        let kind = &self.kind;
        self.body_of(body, (&kind.group, &kind.version, &kind.kind), validation).await
    }

    /// Sees to `apiVersion`, `kind` and `metadata`, and checks the rest against the schema.
    pub(super) fn checked(
        &self,
        decoded: Decoded,
        (group, version, kind): BodyKind<'_>,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        let Decoded { value: mut object, duplicates } = decoded;
        let not_one = |why: &str| Status::bad_request(format!("the body of the request is not a {kind}: {why}"));
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let fields = object.as_object_mut().ok_or_else(|| not_one("it is no JSON object"))?;
        for (field, what, expected) in [("apiVersion", "API version", api_version.as_str()), ("kind", "kind", kind)] {
            match fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                None => drop(fields.insert(field.to_owned(), expected.into())),
                Some(given) if given == expected => {}
                Some(given) => {
                    return Err(Status::bad_request(format!(
                        "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                    )));
                }
            }
        }
        if let Some(ty) = self.server.inner.schemas.lookup(group, version, kind) {
            let found = schema::check(&ty, &mut object);
            for warning in found.verdict(&duplicates, validation, version, kind)? {
                self.warn(warning);
            }
        }
        let metadata = object.as_object_mut().map(|fields| fields.entry("metadata").or_insert(Value::Null));
        match metadata {
            Some(Value::Object(_)) => Ok(object),
            Some(metadata @ Value::Null) => {
                *metadata = Value::Object(Map::new());
                Ok(object)
            }
            _ => Err(not_one("metadata is no JSON object")),
        }
    }
}
