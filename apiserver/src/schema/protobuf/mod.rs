//! Kubernetes' protobuf: `k8s\0`, then a `runtime.Unknown` whose raw bytes are a message of the kind it names.
//!
//! One decoder and one encoder for all kinds, driven by the field numbers of the table. client-go's typed clients send their
//! bodies this way and have no fall-back; answers may stay JSON. Kubernetes' messages hold scalars of their own
//! (Quantity, Time, IntOrString, …), which JSON writes as text.
//!
//! Go writes every field that is not a pointer, so that zero on the wire may mean absent: what `omitempty` would have left out
//! of JSON is left out here.
//!
//! Follows the protobuf encoding guide and k8s.io/apimachinery's `generated.proto` files.

mod encode;
pub(super) mod wire;

pub use self::encode::encode;
use self::wire::{Item, Reader, WireError};
use super::check::JSON_SCHEMA;
use super::decode::MAX_DEPTH;
use super::table::builtin;
use super::time;
use super::types::{Field, List, Object, ObjectRef, SchemaOr, Schemas, Type, nested};
use crate::status::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

const MAGIC: &[u8] = b"k8s\0";

/// Decodes an envelope into the JSON form of its object.
///
/// # Errors
/// 400 if the bytes are malformed, or no such kind is known.
pub fn decode(schemas: &Schemas, body: &[u8]) -> Result<Value, Status> {
    let bad = |error: WireError| Status::bad_request(format!("error decoding protobuf: {error}"));
    let Some(envelope) = body.strip_prefix(MAGIC) else {
        return Err(Status::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    };
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader(envelope);
    while let Some((tag, item)) = reader.next().map_err(bad)? {
        match (tag, item) {
            (1, Item::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((tag, item)) = meta.next().map_err(bad)? {
                    match (tag, item) {
                        (1, Item::Bytes(bytes)) => api_version = text(bytes).map_err(bad)?,
                        (2, Item::Bytes(bytes)) => kind = text(bytes).map_err(bad)?,
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    // Custom resources have no field numbers.
    let Some(object @ ObjectRef::Builtin(_)) = schemas.lookup(group, version, &kind) else {
        return Err(Status::bad_request(format!(
            "no kind {kind:?} is registered for version {api_version:?} in the protobuf scheme"
        )));
    };
    let mut map = Map::new();
    message(&object, raw, &mut map, 0).map_err(bad)?;
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(map))
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Utf8)
}

fn message(object: &Object, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<(), WireError> {
    fields(object, 0, bytes, map, depth)
}

/// Reads the fields of a message, or (`outer` ≠ 0) of the message inside it that JSON does not show.
fn fields(
    object: &Object,
    outer: u16,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let mut reader = Reader(bytes);
    while let Some((tag, item)) = reader.next()? {
        let Ok(tag) = u16::try_from(tag) else { continue };
        if let Some(found) = object.tagged(outer, tag) {
            field(found, item, map, depth)?;
        } else if let Some(way) = nested(outer, tag).filter(|way| object.has_outer(*way)) {
            let Item::Bytes(inner) = item else { return Err(WireError::Mismatch) };
            fields(object, way, inner, map, depth + 1)?;
        }
    }
    Ok(())
}

fn field(field: &Field, item: Item<'_>, map: &mut Map<String, Value>, depth: usize) -> Result<(), WireError> {
    let name = field.name.as_ref();
    match &field.ty {
        Type::List(list) if list.wrapped => {
            let value = wrapped(list, item, depth)?;
            map.insert(name.to_owned(), value);
        }
        Type::List(list) => {
            let slot = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(elements) = slot else { return Ok(()) };
            match (item, &list.element) {
                // Repeated numbers may be packed.
                (Item::Bytes(bytes), Type::Int32 | Type::Int64 | Type::Bool) => {
                    let mut reader = Reader(bytes);
                    while !reader.0.is_empty() {
                        let number = Item::Varint(reader.varint()?);
                        elements.push(value(&list.element, number, depth + 1)?.unwrap_or(Value::Null));
                    }
                }
                _ => elements.push(value(&list.element, item, depth + 1)?.unwrap_or(Value::Null)),
            }
        }
        Type::Map(entries) => {
            let Item::Bytes(bytes) = item else { return Err(WireError::Mismatch) };
            let (mut key, mut entry) = (String::new(), None);
            let mut reader = Reader(bytes);
            while let Some((tag, item)) = reader.next()? {
                match (tag, item) {
                    (1, Item::Bytes(bytes)) => key = text(bytes)?,
                    (2, Item::Bytes(_)) if matches!(&entries.element, Type::List(list) if list.wrapped) => {
                        let Type::List(list) = &entries.element else { continue };
                        entry = Some(wrapped(list, item, depth + 1)?);
                    }
                    (2, item) => entry = value(&entries.element, item, depth + 1)?,
                    _ => {}
                }
            }
            // Of an entry without a value the value is zero.
            let entry = match entry {
                Some(entry) => entry,
                None => zero(&entries.element, depth + 1)?,
            };
            let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(slot) = slot {
                slot.insert(key, entry);
            }
        }
        // A message may come in pieces, which are merged.
        Type::Object { schema, .. } => {
            let Item::Bytes(bytes) = item else { return Err(WireError::Mismatch) };
            let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(slot) = slot {
                message(schema, bytes, slot, depth + 1)?;
            }
        }
        ty => {
            if let Some(value) = value(ty, item, depth + 1)?
                && (field.pointer || field.always || !is_zero(&value))
            {
                map.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(_) => false,
    }
}

/// What Go has where nothing was sent.
fn zero(ty: &Type, depth: usize) -> Result<Value, WireError> {
    let item = match ty {
        Type::Int32 | Type::Int64 | Type::Bool => Item::Varint(0),
        Type::Double => Item::Fixed64(0),
        Type::List(_) | Type::Map(_) => return Ok(Value::Null),
        _ => Item::Bytes(b""),
    };
    Ok(value(ty, item, depth)?.unwrap_or_default())
}

/// A list that is a message of its own.
fn wrapped(list: &List, item: Item<'_>, depth: usize) -> Result<Value, WireError> {
    let Item::Bytes(bytes) = item else { return Err(WireError::Mismatch) };
    let mut elements = Vec::new();
    let mut reader = Reader(bytes);
    while let Some((tag, item)) = reader.next()? {
        if tag == 1 {
            elements.extend(value(&list.element, item, depth + 1)?);
        }
    }
    Ok(Value::Array(elements))
}

/// A value that is not repeated; `None` for a message that means null.
fn value(ty: &Type, item: Item<'_>, depth: usize) -> Result<Option<Value>, WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    Ok(Some(match (ty, item) {
        // Negative numbers are written with ten bytes; the cast takes them back.
        (Type::Int32, Item::Varint(number)) => Value::from(number as i32),
        (Type::Int64, Item::Varint(number)) => Value::from(number as i64),
        (Type::Bool, Item::Varint(number)) => Value::Bool(number != 0),
        (Type::Double, Item::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
        (Type::String, Item::Bytes(bytes)) => Value::String(text(bytes)?),
        (Type::Bytes, Item::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Type::Object { schema, .. }, Item::Bytes(bytes)) => {
            let mut map = Map::new();
            message(schema, bytes, &mut map, depth + 1)?;
            Value::Object(map)
        }
        (Type::Quantity, Item::Bytes(bytes)) => {
            let mut amount = "0".to_owned();
            each(bytes, |tag, item| {
                if let (1, Item::Bytes(bytes)) = (tag, item) {
                    amount = text(bytes)?;
                }
                Ok(())
            })?;
            Value::String(amount)
        }
        (Type::IntOrString, Item::Bytes(bytes)) => {
            let (mut kind, mut number, mut string) = (0, 0, String::new());
            each(bytes, |tag, item| {
                match (tag, item) {
                    (1, Item::Varint(value)) => kind = value,
                    (2, Item::Varint(value)) => number = value as i32,
                    (3, Item::Bytes(bytes)) => string = text(bytes)?,
                    _ => {}
                }
                Ok(())
            })?;
            if kind == 1 { Value::String(string) } else { Value::from(number) }
        }
        (Type::Time | Type::MicroTime, Item::Bytes(bytes)) => {
            let (mut seconds, mut nanos, mut any) = (0i64, 0i32, false);
            each(bytes, |tag, item| {
                match (tag, item) {
                    (1, Item::Varint(value)) => (seconds, any) = (value as i64, true),
                    (2, Item::Varint(value)) => (nanos, any) = (value as i32, true),
                    _ => {}
                }
                Ok(())
            })?;
            // Nothing inside is the zero time, which JSON writes as null.
            if !any {
                return Ok(None);
            }
            let at = Timestamp::new(seconds, nanos).map_err(|_| WireError::Time)?;
            Value::String(if matches!(ty, Type::Time) { time::seconds(at) } else { time::micros(at) })
        }
        (Type::Duration, Item::Bytes(bytes)) => {
            let mut nanos = 0;
            each(bytes, |tag, item| {
                if let (1, Item::Varint(value)) = (tag, item) {
                    nanos = value as i64;
                }
                Ok(())
            })?;
            Value::String(time::duration(nanos))
        }
        (Type::Raw | Type::FieldsV1 | Type::Any, Item::Bytes(bytes)) => {
            let mut value = None;
            each(bytes, |tag, item| {
                if let (1, Item::Bytes(bytes)) = (tag, item)
                    && !bytes.is_empty()
                {
                    value = Some(serde_json::from_slice(bytes).map_err(|_| WireError::Json)?);
                }
                Ok(())
            })?;
            return Ok(value);
        }
        (Type::SchemaOr(or), Item::Bytes(bytes)) => return schema_or(*or, bytes, depth),
        _ => return Err(WireError::Mismatch),
    }))
}

fn schema_or(or: SchemaOr, bytes: &[u8], depth: usize) -> Result<Option<Value>, WireError> {
    let Some(schema) = builtin().named(JSON_SCHEMA) else { return Ok(None) };
    let one = |bytes: &[u8]| {
        let mut map = Map::new();
        message(&schema, bytes, &mut map, depth + 1).map(|()| Value::Object(map))
    };
    let mut single = None;
    let mut several = Vec::new();
    each(bytes, |tag, item| {
        match (or, tag, item) {
            (SchemaOr::Bool, 1, Item::Varint(allows)) => {
                single.get_or_insert(Value::Bool(allows != 0));
            }
            (SchemaOr::Bool, 2, Item::Bytes(bytes))
            | (SchemaOr::Array | SchemaOr::StringArray, 1, Item::Bytes(bytes)) => {
                single = Some(one(bytes)?);
            }
            (SchemaOr::Array, 2, Item::Bytes(bytes)) => several.push(one(bytes)?),
            (SchemaOr::StringArray, 2, Item::Bytes(bytes)) => several.push(Value::String(text(bytes)?)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(if several.is_empty() { single } else { Some(Value::Array(several)) })
}

fn each<'a>(bytes: &'a [u8], mut see: impl FnMut(u32, Item<'a>) -> Result<(), WireError>) -> Result<(), WireError> {
    let mut reader = Reader(bytes);
    while let Some((tag, item)) = reader.next()? {
        see(tag, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::wire::put_bytes;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn round_trip(value: &Value) -> Value {
        let schemas = Schemas::new();
        let bytes = encode(&schemas, value).expect("a built-in kind");
        decode(&schemas, &bytes).expect("what was encoded")
    }

    #[test]
    fn an_object_survives_the_way_through_protobuf() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "1", "b": ""}, "creationTimestamp": "2026-11-23T05:04:02Z",
                         "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]},
            "spec": {
                "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}],
                "containers": [{
                    "name": "c", "args": ["", "x"], "resources": {"limits": {"cpu": "500m"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": "http"}, "initialDelaySeconds": 3},
                    "livenessProbe": {"tcpSocket": {"port": 80}},
                    "securityContext": {"runAsUser": 0, "privileged": false}
                }],
                "activeDeadlineSeconds": -1
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        });
        assert_eq!(round_trip(&pod), pod);
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AAEC/w=="}});
        assert_eq!(round_trip(&secret), secret);
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
                            "spec": {"extra": {"scopes": ["a", "b"]}, "uid": "u"}, "status": {"allowed": false}});
        assert_eq!(round_trip(&review), review);
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
                           "spec": {"renewTime": "2026-11-23T05:04:02.123456Z", "leaseDurationSeconds": 40}});
        assert_eq!(round_trip(&lease), lease);
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "d"}, "spec": {"group": "g", "names": {"plural": "ds", "kind": "D"}, "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {
                "type": "object", "additionalProperties": {"type": "string"}, "maximum": 1.5, "default": {"a": [1]},
                "properties": {"x": {"items": {"type": "integer"}, "additionalProperties": false}}}}}]},
            "status": {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []}});
        let mut expected = definition.clone();
        for gone in ["conditions", "storedVersions"] {
            expected["status"].as_object_mut().expect("an object").remove(gone);
        }
        assert_eq!(round_trip(&definition), expected);
    }

    #[test]
    fn zero_means_absent_unless_the_field_is_a_pointer_or_always_written() {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generateName": "", "generation": 0},
            "spec": {"replicas": 0, "minReadySeconds": 0, "paused": false, "template":
                {"spec": {"containers": [{"name": "", "ports": [{"containerPort": 0, "hostPort": 0}]}]}}}});
        let expected = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {},
            "spec": {"replicas": 0, "template":
                {"spec": {"containers": [{"name": "", "ports": [{"containerPort": 0}]}]}}}});
        assert_eq!(round_trip(&value), expected);
    }

    #[test]
    fn the_envelope_of_client_go_is_understood() {
        // metadata{name "n"} and an empty creationTimestamp, as Go writes a Namespace.
        let raw = b"\x0a\x11\x0a\x01n\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x00\x1a\x02\x0a\x00";
        let mut meta = Vec::new();
        put_bytes(&mut meta, 1, b"v1");
        put_bytes(&mut meta, 2, b"Namespace");
        let mut body = MAGIC.to_vec();
        put_bytes(&mut body, 1, &meta);
        put_bytes(&mut body, 2, raw);
        let value = decode(&Schemas::new(), &body).expect("a Namespace");
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {}, "status": {}})
        );
    }

    #[test]
    fn what_is_no_envelope_or_names_no_kind_is_refused() {
        let schemas = Schemas::new();
        for body in [&b""[..], b"{}", b"k8s", b"k8s\0", b"k8s\0\x0a\x7f", b"k8s\0\x0a\x06\x0a\x02v9\x12\x00"] {
            assert_eq!(decode(&schemas, body).expect_err("garbage").code, 400);
        }
    }

    proptest! {
        #[test]
        fn garbage_inside_an_envelope_never_panics(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (api_version, kind) in [("v1", "Pod"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("v1", "Status")] {
                let mut meta = Vec::new();
                put_bytes(&mut meta, 1, api_version.as_bytes());
                put_bytes(&mut meta, 2, kind.as_bytes());
                let mut body = MAGIC.to_vec();
                put_bytes(&mut body, 1, &meta);
                put_bytes(&mut body, 2, &raw);
                let _ = decode(&Schemas::new(), &body);
            }
        }
    }
}
