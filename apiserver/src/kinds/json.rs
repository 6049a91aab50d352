//! Reading and filling JSON objects by pointer, with Go's idea of "unset": missing, null and the zero value are the same.

use serde_json::{Map, Value};

/// The text at `pointer`; `""` if there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `pointer`.
pub(crate) fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// Whether `true` stands at `pointer`.
pub(crate) fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at `pointer`; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The list at `pointer`, to change its items; empty if there is none.
pub(crate) fn list_mut<'a>(value: &'a mut Value, pointer: &str) -> &'a mut [Value] {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The object at `pointer`.
pub(crate) fn object<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// The texts of a list of texts.
pub(crate) fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

/// What stands at `pointer`, null counted as nothing.
pub(crate) fn present<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    value.pointer(pointer).filter(|found| !found.is_null())
}

/// Whether a value is Go's zero value of its type.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Whether nothing, or only a zero value, stands at `pointer`.
pub(crate) fn is_unset(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_none_or(is_zero)
}

/// Whether two fields hold the same, unset and zero being equal.
pub(crate) fn same(one: &Value, other: &Value, pointer: &str) -> bool {
    match (one.pointer(pointer), other.pointer(pointer)) {
        (Some(one), Some(other)) => equal(one, other),
        (Some(only), None) | (None, Some(only)) => is_empty(only),
        (None, None) => true,
    }
}

/// Deep equality in which missing and empty fields are equal.
pub(crate) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.iter().all(|(key, value)| other.get(key).map_or_else(|| is_empty(value), |found| equal(value, found)))
                && other.iter().all(|(key, value)| one.contains_key(key) || is_empty(value))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        _ => one == other || (is_empty(one) && is_empty(other)),
    }
}

// A zero number or `false` is a value of its own where a pointer stands in Go, so only containers, "" and null count here.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Sets `key` of the object `value` if it is missing, null or `""`.
pub(crate) fn fill(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Value::Object(fields) = value {
        let unset = match fields.get(key) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if unset {
            fields.insert(key.to_owned(), default.into());
        }
    }
}

/// Sets `key` of the object `value` if it is missing, null, `""` or 0.
pub(crate) fn fill_zero(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Value::Object(fields) = value
        && fields.get(key).is_none_or(is_zero)
    {
        fields.insert(key.to_owned(), default.into());
    }
}

/// The object under `key` of the object `value`, made if it is missing or null.
pub(crate) fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let fields = value.as_object_mut()?;
    let child = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child.is_object().then_some(child)
}

/// Sets or, with `None`, removes `key` of the object `value`.
pub(crate) fn put(value: &mut Value, key: &str, new: Option<Value>) {
    if let Value::Object(fields) = value {
        match new {
            Some(new) => {
                fields.insert(key.to_owned(), new);
            }
            None => {
                fields.remove(key);
            }
        }
    }
}

/// Removes the field at `pointer`.
pub(crate) fn remove(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, key) = pointer.rsplit_once('/')?;
    value.pointer_mut(parent)?.as_object_mut()?.remove(key)
}

/// Makes the field at `pointer` what it is in `old`, absent included.
pub(crate) fn carry_over(new: &mut Value, old: &Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    let kept = old.pointer(pointer).cloned();
    if let Some(parent) = new.pointer_mut(parent) {
        put(parent, key, kept);
    } else if let (Some(kept), Some((grandparent, name))) = (kept, parent.rsplit_once('/'))
        && let Some(made) = new.pointer_mut(grandparent).and_then(|grandparent| child(grandparent, name))
    {
        put(made, key, Some(kept));
    }
}
