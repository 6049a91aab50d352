//! From stored bytes to answers, without serialising again.
//!
//! A stored object is its JSON, beginning `{"kind":…,"apiVersion":…,"metadata":{`, without `metadata.resourceVersion`, since that is
//! the revision which the write will get. An answer is the stored bytes with the resourceVersion spliced in. In encoded JSON the
//! text `"metadata":{` cannot occur inside the two strings before it, so its first occurrence is the place.

use crate::negotiate::{Format, Media};
use crate::status::Status;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use store::{KeyValue, Revision};

const METADATA: &[u8] = b"\"metadata\":{";

/// The stored form of an object.
pub(crate) fn stored(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(b"{\"kind\":");
    push_json(&mut out, object.get("kind").unwrap_or(&Value::String(String::new())));
    out.extend_from_slice(b",\"apiVersion\":");
    push_json(&mut out, object.get("apiVersion").unwrap_or(&Value::String(String::new())));
    out.extend_from_slice(b",\"metadata\":{");
    let metadata = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
    for (index, (name, value)) in metadata.filter(|(name, _)| *name != "resourceVersion").enumerate() {
        push_field(&mut out, index > 0, name, value);
    }
    out.push(b'}');
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            push_field(&mut out, true, name, value);
        }
    }
    out.push(b'}');
    // It is kept for long: no more memory than it needs.
    out.into_boxed_slice().into()
}

fn push_field(out: &mut Vec<u8>, follows: bool, name: &str, value: &Value) {
    if follows {
        out.push(b',');
    }
    push_json(out, name);
    out.push(b':');
    push_json(out, value);
}

pub(crate) fn push_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("JSON values can be written to memory");
}

/// Begins a line of a watch, up to its object.
pub(crate) fn begin_line(out: &mut Vec<u8>, what: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(what.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

/// Ends a line of a watch.
pub(crate) fn end_line(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}

/// Appends a stored object with its resourceVersion. Revision 0 stands for an object that was not stored (dry run).
pub(crate) fn splice(out: &mut Vec<u8>, stored: &[u8], revision: Revision) {
    let place = stored.windows(METADATA.len()).position(|window| window == METADATA);
    let Some(at) = place.map(|at| at + METADATA.len()).filter(|_| revision.0 > 0) else {
        out.extend_from_slice(stored);
        return;
    };
    let (head, tail) = stored.split_at(at);
    out.extend_from_slice(head);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    push_json(out, &revision.0);
    out.push(b'"');
    if !tail.starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(tail);
}

/// The object with its resourceVersion, to be looked into.
///
/// # Errors
/// 500 if what is stored is no object.
pub(crate) fn parse(kv: &KeyValue) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(&kv.value)
        .map_err(|why| Status::internal(format!("the stored value of {} cannot be read: {why}", kv.key)))?;
    match object.get_mut("metadata").and_then(Value::as_object_mut) {
        Some(metadata) => metadata.insert("resourceVersion".to_owned(), kv.mod_revision.0.to_string().into()),
        None => return Err(Status::internal(format!("the stored value of {} is no object", kv.key))),
    };
    Ok(object)
}

/// An answer with this body.
pub(crate) fn json_bytes(code: StatusCode, body: impl Into<Body>) -> Response {
    respond(code, "application/json", body)
}

/// An answer in the form the client wants.
pub(crate) fn value(code: StatusCode, value: &Value, media: Media) -> Response {
    let mut out = Vec::new();
    match media.format {
        Format::Json => push_json(&mut out, value),
        Format::Pretty => {
            serde_json::to_writer_pretty(&mut out, value).expect("JSON values can be written to memory");
            out.push(b'\n');
        }
        Format::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => out = text.into_bytes(),
            Err(why) => return failure(&Status::internal(why)),
        },
    }
    respond(code, media.content_type(), out)
}

fn respond(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The answer that says what went wrong.
pub(crate) fn failure(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, &status.to_json(), Media::default());
    if code == StatusCode::UNAUTHORIZED {
        // RFC 9110 (11.6.1): an answer 401 says which credentials are taken.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let seconds = status.details.as_ref().and_then(|details| details.get("retryAfterSeconds")).and_then(Value::as_u64);
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn spliced(object: &Value, revision: u64) -> Value {
        let mut out = Vec::new();
        splice(&mut out, &stored(object), Revision(revision));
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn the_resource_version_is_that_of_the_write() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "3"},
                            "data": {"a": "\"metadata\":{"}});
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = "17".into();
        assert_eq!(spliced(&object, 17), expected);

        let kv = KeyValue {
            key: Arc::from("/a"),
            value: stored(&object),
            create_revision: Revision(1),
            mod_revision: Revision(17),
            version: 1,
        };
        assert_eq!(parse(&kv).expect("an object"), expected);
    }

    #[test]
    fn an_object_with_odd_metadata_stays_json() {
        let odd = json!({"kind": "\"metadata\":{", "apiVersion": "v1", "metadata": null});
        assert_eq!(spliced(&odd, 4)["metadata"], json!({"resourceVersion": "4"}));
        assert_eq!(spliced(&odd, 0)["metadata"], json!({}));
    }
}
