//! ConfigMap and Secret.

use super::field::{complaints, immutable, invalid, too_long};
use super::json::{child, fill, flag, is_unset, object, put, same, text};
use super::table::{age, name};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

/// All values of one object together.
const MOST: usize = 1024 * 1024;

/// A Secret without type is `Opaque`; texts of `stringData` become `data`.
pub(super) fn default_secret(_: &ResourceKind, secret: &mut Value) {
    fill(secret, "type", "Opaque");
    if let Some(texts) = secret.as_object_mut().and_then(|fields| fields.remove("stringData"))
        && let Some(texts) = texts.as_object()
        && !texts.is_empty()
        && let Some(data) = child(secret, "data")
    {
        for (key, value) in texts {
            put(data, key, Some(STANDARD.encode(value.as_str().unwrap_or_default()).into()));
        }
    }
}

fn keys(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for key in object(value, &format!("/{field}")).into_iter().flatten().map(|(key, _)| key) {
        errors.extend(complaints(&format!("{field}[{key}]"), key, names::config_key(key)));
    }
}

// Base64 is a third longer than what it stands for.
fn decoded_size(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count().min(text.len() / 4 * 3)
}

fn frozen(new: &Value, old: Option<&Value>, fields: &[&str], errors: &mut Vec<FieldError>) {
    let Some(old) = old.filter(|old| flag(old, "/immutable")) else { return };
    let detail = "field is immutable when `immutable` is set";
    if !flag(new, "/immutable") {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for field in fields {
        if !same(new, old, &format!("/{field}")) {
            errors.push(FieldError::forbidden(*field, detail));
        }
    }
}

/// Everything wrong with a ConfigMap.
pub(super) fn config_map(kind: &ResourceKind, map: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, map, old);
    let mut size = 0;
    keys(map, "data", &mut errors);
    for (key, value) in object(map, "/data").into_iter().flatten() {
        if object(map, "/binaryData").is_some_and(|binary| binary.contains_key(key)) {
            errors.push(invalid(format!("data[{key}]"), key, "duplicate of key present in binaryData"));
        }
        size += value.as_str().map_or(0, str::len);
    }
    keys(map, "binaryData", &mut errors);
    for (_, value) in object(map, "/binaryData").into_iter().flatten() {
        size += value.as_str().map_or(0, decoded_size);
    }
    if size > MOST {
        errors.push(too_long("", MOST));
    }
    frozen(map, old, &["data", "binaryData"], &mut errors);
    errors
}

/// Everything wrong with a Secret.
pub(super) fn secret(kind: &ResourceKind, secret: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, secret, old);
    keys(secret, "data", &mut errors);
    let mut size = 0;
    for (key, value) in object(secret, "/data").into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if STANDARD.decode(value).is_err() {
            errors.push(invalid(format!("data[{key}]"), value, "must be base64"));
        }
        size += decoded_size(value);
    }
    if size > MOST {
        errors.push(too_long("data", MOST));
    }
    by_type(secret, &mut errors);
    if let Some(old) = old {
        immutable(&mut errors, secret, old, "/type");
    }
    frozen(secret, old, &["data"], &mut errors);
    errors
}

fn by_type(secret: &Value, errors: &mut Vec<FieldError>) {
    let data = |key: &str| secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str);
    let mut json_at = |key: &str| {
        let field = format!("data[{key}]");
        match data(key).map(|encoded| STANDARD.decode(encoded).unwrap_or_default()) {
            None => errors.push(FieldError::required(field, "")),
            Some(bytes) => {
                if let Err(why) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
                    errors.push(FieldError::invalid(field, &json!("<secret contents redacted>"), why.to_string()));
                }
            }
        }
    };
    match text(secret, "/type") {
        "kubernetes.io/dockerconfigjson" => json_at(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => json_at(".dockercfg"),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if data(key).is_none() {
                    errors.push(FieldError::required(format!("data[{key}]"), ""));
                }
            }
        }
        "kubernetes.io/ssh-auth" if data("ssh-privatekey").is_none_or(str::is_empty) => {
            errors.push(FieldError::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/basic-auth" if data("username").is_none() && data("password").is_none() => {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
        "kubernetes.io/service-account-token" => {
            let annotation = "/metadata/annotations/kubernetes.io~1service-account.name";
            if is_unset(secret, annotation) {
                let field = "metadata.annotations[kubernetes.io/service-account.name]";
                errors.push(FieldError::required(field, ""));
            }
        }
        _ => {}
    }
}

fn count(value: &Value, pointer: &str) -> usize {
    object(value, pointer).map_or(0, serde_json::Map::len)
}

/// NAME DATA AGE.
pub(super) fn config_map_row(_: &ResourceKind, map: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(map), (count(map, "/data") + count(map, "/binaryData")).into(), age(map, now)]
}

/// NAME TYPE DATA AGE.
pub(super) fn secret_row(_: &ResourceKind, secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(secret), text(secret, "/type").into(), count(secret, "/data").into(), age(secret, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn object_with(fields: Value) -> Value {
        let mut object =
            json!({"metadata": {"name": "c", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        for (key, value) in fields.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = object_with(json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "hello"}}));
        default_secret(&ResourceKind::new("", "v1", "Secret", "secrets"), &mut secret);
        assert_eq!(secret["data"], json!({"a": "eA==", "b": "aGVsbG8="}));
        assert_eq!((&secret["type"], secret.get("stringData")), (&json!("Opaque"), None));
    }

    #[test]
    fn keys_are_file_names_and_stand_once() {
        assert_eq!(
            said(
                "",
                "ConfigMap",
                object_with(json!({"data": {"a": "x", "..": "x"}, "binaryData": {"a": "eA=="}})),
                None
            ),
            [
                "data[..]: Invalid value: \"..\": must not be '..'",
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"
            ]
        );
    }

    #[test]
    fn what_is_immutable_stays_so() {
        let frozen = object_with(json!({"data": {"a": "eA=="}, "immutable": true}));
        for kind in ["ConfigMap", "Secret"] {
            let changed = object_with(json!({"data": {"a": "eQ=="}, "immutable": false}));
            assert_eq!(
                said("", kind, changed, Some(frozen.clone())),
                [
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                    "data: Forbidden: field is immutable when `immutable` is set"
                ]
            );
        }
    }

    #[test]
    fn a_typed_secret_has_the_keys_of_its_type() {
        let refused = |kind: &str, data: Value, expected: &[&str]| {
            assert_eq!(said("", "Secret", object_with(json!({"type": kind, "data": data})), None), expected);
        };
        refused("kubernetes.io/tls", json!({"tls.crt": "eA=="}), &["data[tls.key]: Required value"]);
        refused("kubernetes.io/dockerconfigjson", json!({}), &["data[.dockerconfigjson]: Required value"]);
        refused(
            "kubernetes.io/basic-auth",
            json!({}),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        refused("Opaque", json!({"a": "no base64"}), &["data[a]: Invalid value: \"no base64\": must be base64"]);
        let (one, other) = (object_with(json!({})), object_with(json!({"type": "example.com/x"})));
        assert_eq!(
            said("", "Secret", other, Some(one)),
            ["type: Invalid value: \"example.com/x\": field is immutable"]
        );
    }

    #[test]
    fn a_mebibyte_is_the_most() {
        let big = object_with(json!({"data": {"a": "x".repeat(MOST), "b": "x"}}));
        assert_eq!(said("", "ConfigMap", big, None), [": Too long: may not be more than 1048576 bytes"]);
        assert_eq!(decoded_size("aGVsbG8="), 5);
        assert_eq!(decoded_size("="), 0);
    }

    #[test]
    fn configuration_is_shown_by_the_number_of_its_keys() {
        let object =
            object_with(json!({"type": "Opaque", "data": {"a": "eA==", "b": "eA=="}, "binaryData": {"c": "eA=="}}));
        assert_eq!(row_of("", "ConfigMap", &object), "c | 3 | 3h5m");
        assert_eq!(row_of("", "Secret", &object), "c | Opaque | 2 | 3h5m");
    }
}
