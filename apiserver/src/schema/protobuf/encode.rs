//! From JSON to protobuf, by the field numbers of the table.

use super::super::check::JSON_SCHEMA;
use super::super::table::builtin;
use super::super::time;
use super::super::types::{Object, SchemaOr, Schemas, Type};
use super::MAGIC;
use super::wire::{put_bytes, put_number, put_varint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Encodes the JSON form of an object as an envelope; its `apiVersion` and `kind` choose the type.
/// `None` if no such built-in kind is known. Fields the type does not have, and values of wrong types, are left out.
pub fn encode(schemas: &Schemas, value: &Value) -> Option<Vec<u8>> {
    let map = value.as_object()?;
    let (api_version, kind) = (map.get("apiVersion")?.as_str()?, map.get("kind")?.as_str()?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let object = schemas.lookup(group, version, kind)?;
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut raw = Vec::new();
    put_message(&object, map, &mut raw);
    let mut out = MAGIC.to_vec();
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, &raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Some(out)
}

fn put_message(object: &Object, map: &Map<String, Value>, out: &mut Vec<u8>) {
    // The messages that JSON does not show, by the way to them; the inner of two has a larger number than the outer one.
    let mut hidden: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for (outer, tag, index) in &object.tags {
        let field = &object.fields[usize::from(*index)];
        let Some(value) = map.get(field.name.as_ref()) else { continue };
        let place = if *outer == 0 { &mut *out } else { hidden.entry(*outer).or_default() };
        put_field(&field.ty, *tag, value, place);
    }
    while let Some((way, bytes)) = hidden.pop_last() {
        if way < 256 {
            put_bytes(out, way, &bytes);
        } else {
            put_bytes(hidden.entry(way & 255).or_default(), way >> 8, &bytes);
        }
    }
}

fn put_field(ty: &Type, tag: u16, value: &Value, out: &mut Vec<u8>) {
    match (ty, value) {
        (Type::List(list), Value::Array(elements)) => {
            let mut own = Vec::new();
            for element in elements {
                if list.wrapped {
                    put_field(&list.element, 1, element, &mut own)
                } else {
                    put_field(&list.element, tag, element, out)
                }
            }
            if list.wrapped {
                put_bytes(out, tag, &own);
            }
        }
        (Type::Map(map), Value::Object(entries)) => {
            for (key, entry) in entries {
                let mut bytes = Vec::new();
                put_bytes(&mut bytes, 1, key.as_bytes());
                put_field(&map.element, 2, entry, &mut bytes);
                put_bytes(out, tag, &bytes);
            }
        }
        (Type::Int32 | Type::Int64, Value::Number(number)) => {
            if let Some(number) = number.as_i64() {
                put_number(out, tag, number as u64);
            }
        }
        (Type::Bool, Value::Bool(value)) => put_number(out, tag, u64::from(*value)),
        (Type::Double, Value::Number(number)) => {
            if let Some(number) = number.as_f64() {
                put_varint(out, u64::from(tag) << 3 | 1);
                out.extend_from_slice(&number.to_bits().to_le_bytes());
            }
        }
        (Type::String, Value::String(text)) => put_bytes(out, tag, text.as_bytes()),
        (Type::Bytes, Value::String(text)) => put_bytes(out, tag, &STANDARD.decode(text).unwrap_or_default()),
        (Type::Object { schema, .. }, Value::Object(map)) => {
            let mut bytes = Vec::new();
            put_message(schema, map, &mut bytes);
            put_bytes(out, tag, &bytes);
        }
        (ty, value) => {
            if let Some(bytes) = special(ty, value) {
                put_bytes(out, tag, &bytes);
            }
        }
    }
}

/// The messages of Kubernetes' own scalars.
fn special(ty: &Type, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match (ty, value) {
        (Type::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
        (Type::IntOrString, Value::Number(number)) => {
            put_number(&mut out, 1, 0);
            put_number(&mut out, 2, number.as_i64()? as u64);
        }
        (Type::IntOrString, Value::String(text)) => {
            put_number(&mut out, 1, 1);
            put_number(&mut out, 2, 0);
            put_bytes(&mut out, 3, text.as_bytes());
        }
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let at = time::parse(text).ok()?;
            let nanos = at.subsec_nanosecond();
            // protobuf counts nanoseconds forward, jiff away from the epoch.
            let (seconds, nanos) =
                if nanos < 0 { (at.as_second() - 1, nanos + 1_000_000_000) } else { (at.as_second(), nanos) };
            put_number(&mut out, 1, seconds as u64);
            put_number(&mut out, 2, nanos as u64);
        }
        (Type::Duration, Value::String(text)) => put_number(&mut out, 1, time::nanos(text)? as u64),
        (Type::Raw | Type::FieldsV1 | Type::Any, value) => put_bytes(&mut out, 1, value.to_string().as_bytes()),
        (Type::SchemaOr(SchemaOr::Bool), Value::Bool(allows)) => put_number(&mut out, 1, u64::from(*allows)),
        (Type::SchemaOr(or), Value::Object(map)) => {
            let mut bytes = Vec::new();
            put_message(&*builtin().named(JSON_SCHEMA)?, map, &mut bytes);
            if *or == SchemaOr::Bool {
                put_number(&mut out, 1, 1);
            }
            put_bytes(&mut out, if *or == SchemaOr::Bool { 2 } else { 1 }, &bytes);
        }
        (Type::SchemaOr(_), Value::Array(elements)) => {
            for element in elements {
                match element {
                    Value::Object(map) => {
                        let mut bytes = Vec::new();
                        put_message(&*builtin().named(JSON_SCHEMA)?, map, &mut bytes);
                        put_bytes(&mut out, 2, &bytes);
                    }
                    Value::String(text) => put_bytes(&mut out, 2, text.as_bytes()),
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    Some(out)
}
