//! Does a value have the shape its type asks for? Prunes what is unknown, and puts scalars into canonical form.
//!
//! [`check()`] is called on every decoded body before defaults and validation. It drops fields the type does not have (their
//! names are the material of `fieldValidation`), drops nulls, and reports the first value of a wrong type in the words
//! Kubernetes' decoder has for it. Whether values make sense is validation's business.

use super::decode::{Decoded, MAX_COMPLAINTS, MAX_DEPTH};
use super::quantity::{NOT_A_QUANTITY, Quantity};
use super::time;
use super::types::{Field, Object, ObjectRef, SchemaOr, Type};
use crate::status::{FieldError, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::fmt::Write;

/// What [`check()`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// `unknown field "spec.foo"`, once per pruned field.
    pub unknown: Vec<String>,
    /// The first value of a wrong type: `json: cannot unmarshal string into Go struct field …`.
    pub error: Option<String>,
}

/// What to do about unknown and duplicate fields (`fieldValidation`, KEP-2885).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Say it in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty means the default. `options_kind` is for the refusal.
    ///
    /// # Errors
    /// 422 if it is not one of the three.
    pub fn parse(text: &str, options_kind: &str) -> Result<Self, Status> {
        match text {
            "Ignore" => Ok(FieldValidation::Ignore),
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported("fieldValidation", &other.into(), &supported);
                Err(Status::invalid("meta.k8s.io", options_kind, "", &[error]))
            }
        }
    }
}

impl Checked {
    /// The verdict: the texts of the warnings to send, or the refusal.
    ///
    /// # Errors
    /// 400 if a value has a wrong type, or, if `validation` is strict, if a field is unknown or stands there twice.
    pub fn verdict(
        &self,
        duplicates: &[String],
        validation: FieldValidation,
        version: &str,
        kind: &str,
    ) -> Result<Vec<String>, Status> {
        let refuse = |why: &str| {
            Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
        };
        if let Some(error) = &self.error {
            return Err(refuse(error));
        }
        let complaints: Vec<String> = duplicates.iter().chain(&self.unknown).take(MAX_COMPLAINTS).cloned().collect();
        match validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(complaints),
            FieldValidation::Strict if complaints.is_empty() => Ok(complaints),
            FieldValidation::Strict => Err(refuse(&format!("strict decoding error: {}", complaints.join(", ")))),
        }
    }
}

impl Checked {
    /// The verdict on what a patch (other than apply) made of an object: as [`Checked::verdict`], but the patch is to blame.
    ///
    /// # Errors
    /// 422.
    pub fn patch_verdict(&self, patched: &Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
        let refuse = |why: &str| {
            let error = FieldError::invalid("patch", &Value::String(patched.to_string()), why);
            let mut status = Status::invalid("", "", "", &[error]);
            if let Some(Value::Object(details)) = &mut status.details {
                details.retain(|_, value| value.as_str() != Some(""));
            }
            status
        };
        match (&self.error, validation) {
            (Some(error), _) => Err(refuse(error)),
            (None, FieldValidation::Ignore) => Ok(Vec::new()),
            (None, FieldValidation::Strict) if !self.unknown.is_empty() => {
                Err(refuse(&format!("strict decoding error: {}", self.unknown.join(", "))))
            }
            (None, _) => Ok(self.unknown.clone()),
        }
    }
}

/// The value of a `Warning` header with this text (RFC 7234, section 5.5; code 299).
pub fn warning_header(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}

/// Checks a value against its type, prunes it, and makes its scalars canonical.
pub fn check(object: &ObjectRef, value: &mut Value) -> Checked {
    let mut walk = Walk { checked: Checked::default(), path: String::new(), depth: 0 };
    walk.object(object, value, None);
    walk.checked
}

/// [`check()`]s a decoded body and gives the verdict; `value` and the warnings to send.
///
/// # Errors
/// See [`Checked::verdict`].
pub fn check_decoded(
    object: &ObjectRef,
    mut decoded: Decoded,
    validation: FieldValidation,
    version: &str,
    kind: &str,
) -> Result<(Value, Vec<String>), Status> {
    let warnings = check(object, &mut decoded.value).verdict(&decoded.duplicates, validation, version, kind)?;
    Ok((decoded.value, warnings))
}

/// Gives an object the form in which Kubernetes writes it: with the empty objects it always writes, such as `status: {}` and
/// `resources: {}`, and without the zero values it never does, such as `annotations: {}` and `hostNetwork: false`.
///
/// To be called on what is going to be stored, after defaulting: clients and [`managed_fields`](super::managed_fields) expect
/// it so. Not to be called on the configuration of a server-side apply. Custom resources keep what they were given, but for their
/// metadata.
pub fn complete(object: &ObjectRef, value: &mut Value) {
    let Value::Object(map) = value else { return };
    let builtin = matches!(object, ObjectRef::Builtin(_));
    for field in &object.fields {
        match (map.get_mut(field.name.as_ref()), &field.ty) {
            (Some(child), ty) => {
                complete_type(ty, child);
                if builtin && field.leaves_out(child) {
                    map.remove(field.name.as_ref());
                }
            }
            (None, Type::Object { schema, .. }) if field.is_value_struct() => {
                let mut child = Value::Object(Map::new());
                complete(schema, &mut child);
                map.insert(field.name.to_string(), child);
            }
            (None, _) => {}
        }
    }
}

fn complete_type(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Object { schema, .. }, value) => complete(schema, value),
        (Type::List(list), Value::Array(elements)) if !is_scalar(&list.element) => {
            elements.iter_mut().for_each(|element| complete_type(&list.element, element));
        }
        (Type::Map(map), Value::Object(entries)) if !is_scalar(&map.element) => {
            entries.values_mut().for_each(|entry| complete_type(&map.element, entry));
        }
        _ => {}
    }
}

fn is_scalar(ty: &Type) -> bool {
    !matches!(ty, Type::Object { .. } | Type::List(_) | Type::Map(_))
}

struct Walk {
    checked: Checked,
    path: String,
    depth: usize,
}

/// The field a value stands in, for error texts.
type Place<'a> = Option<(&'a Object, &'a Field)>;

impl Walk {
    fn object(&mut self, object: &Object, value: &mut Value, place: Place<'_>) {
        let Value::Object(map) = value else {
            return self.mismatch(value, place, || go_object(object));
        };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.depth -= 1;
            self.fail("exceeded max depth".to_owned());
            return;
        }
        map.retain(|key, child| {
            let Some(field) = object.field(key) else {
                if !object.open && self.checked.unknown.len() < MAX_COMPLAINTS {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    self.checked.unknown.push(format!("unknown field \"{}{dot}{key}\"", self.path));
                }
                return object.open;
            };
            if child.is_null() {
                return field.nullable;
            }
            let length = self.enter(key);
            self.value(&field.ty, child, Some((object, field)));
            self.path.truncate(length);
            true
        });
        self.depth -= 1;
    }

    fn value(&mut self, ty: &Type, value: &mut Value, place: Place<'_>) {
        match ty {
            Type::Object { schema, .. } => self.object(schema, value, place),
            Type::List(list) => {
                let Value::Array(elements) = value else { return self.mismatch(value, place, || go_type(ty, place)) };
                for (index, element) in elements.iter_mut().enumerate() {
                    if element.is_null() {
                        *element = zero(&list.element);
                    }
                    let length = self.path.len();
                    let _ = write!(self.path, "[{index}]");
                    self.value(&list.element, element, place);
                    self.path.truncate(length);
                }
            }
            Type::Map(map) => {
                let Value::Object(entries) = value else { return self.mismatch(value, place, || go_type(ty, place)) };
                for (key, entry) in entries.iter_mut() {
                    if entry.is_null() {
                        *entry = zero(&map.element);
                    }
                    let length = self.enter(key);
                    self.value(&map.element, entry, place);
                    self.path.truncate(length);
                }
            }
            Type::String if value.is_string() => {}
            Type::Bool if value.is_boolean() => {}
            Type::Double if value.is_number() => {}
            Type::Any => {}
            Type::Raw | Type::FieldsV1 if value.is_object() => {}
            Type::Int32 if value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {}
            Type::Int64 if value.is_i64() => {}
            Type::String | Type::Bool | Type::Double | Type::Raw | Type::FieldsV1 | Type::Int32 | Type::Int64 => {
                self.mismatch(value, place, || go_type(ty, place));
            }
            Type::Bytes => {
                let Value::String(text) = value else { return self.mismatch(value, place, || "[]uint8".to_owned()) };
                if text.contains(['\n', '\r']) {
                    text.retain(|c| c != '\n' && c != '\r');
                }
                if let Err(error) = STANDARD.decode(text.as_bytes()) {
                    let at = match error {
                        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                        _ => text.len().saturating_sub(text.len() % 4),
                    };
                    self.fail(format!("illegal base64 data at input byte {at}"));
                }
            }
            Type::Quantity => {
                let parsed = match &*value {
                    Value::String(text) => Quantity::parse(text.trim()),
                    Value::Number(number) => Quantity::parse(&number.to_string()),
                    _ => return self.mismatch(value, place, || "resource.Quantity".to_owned()),
                };
                match parsed {
                    Some(quantity) => *value = Value::String(quantity.canonical()),
                    None => self.fail(NOT_A_QUANTITY.to_owned()),
                }
            }
            Type::IntOrString => match value {
                Value::String(_) => {}
                Value::Number(number) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {}
                other => {
                    let text = described(other);
                    self.fail(format!("json: cannot unmarshal {text} into Go value of type int32"));
                }
            },
            Type::Time | Type::MicroTime => {
                let Value::String(text) = &*value else {
                    let text = described(value);
                    return self.fail(format!("json: cannot unmarshal {text} into Go value of type string"));
                };
                match time::parse(text) {
                    Ok(at) if matches!(ty, Type::Time) => *value = Value::String(time::seconds(at)),
                    Ok(at) => *value = Value::String(time::micros(at)),
                    Err(error) => self.fail(error),
                }
            }
            Type::Duration => match value {
                Value::String(text) if time::is_duration(text) => {}
                Value::String(text) => {
                    let error = format!("time: invalid duration {text:?}");
                    self.fail(error);
                }
                other => self.mismatch(other, place, || "string".to_owned()),
            },
            Type::SchemaOr(or) => self.schema_or(*or, value, place),
        }
    }

    fn schema_or(&mut self, or: SchemaOr, value: &mut Value, place: Place<'_>) {
        let Some(schema) = super::table::builtin().named(JSON_SCHEMA) else { return };
        match (or, &mut *value) {
            (_, Value::Object(_)) => self.object(&schema, value, place),
            (SchemaOr::Bool, Value::Bool(_)) => {}
            (SchemaOr::Array, Value::Array(schemas)) => {
                schemas.iter_mut().for_each(|element| self.object(&schema, element, place));
            }
            (SchemaOr::StringArray, Value::Array(names)) if names.iter().all(Value::is_string) => {}
            _ => self.mismatch(value, place, || "v1.JSONSchemaProps".to_owned()),
        }
    }

    fn enter(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }

    fn mismatch(&mut self, value: &Value, place: Place<'_>, go_type: impl FnOnce() -> String) {
        if self.checked.error.is_some() {
            return;
        }
        let (what, go_type) = (described(value), go_type());
        self.fail(match place {
            Some((object, _)) => {
                let (object, path) = (object.short_name(), without_indices(&self.path));
                format!("json: cannot unmarshal {what} into Go struct field {object}.{path} of type {go_type}")
            }
            None => format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
        });
    }

    fn fail(&mut self, error: String) {
        self.checked.error.get_or_insert(error);
    }
}

pub(crate) const JSON_SCHEMA: &str = "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The value that null stands for inside a list or a map.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes | Type::Duration => Value::String(String::new()),
        Type::Int32 | Type::Int64 | Type::IntOrString | Type::Double => Value::from(0),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Bool => Value::Bool(false),
        Type::Object { .. } | Type::Map(_) | Type::Raw | Type::FieldsV1 => Value::Object(Map::new()),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Time | Type::MicroTime => Value::String("0001-01-01T00:00:00Z".to_owned()),
        Type::Any | Type::SchemaOr(_) => Value::Null,
    }
}

/// What a value is, in the words of Go's JSON decoder. Numbers of a wrong size or with a fraction are shown.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if number.as_i64().is_none_or(|number| i32::try_from(number).is_err()) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn without_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// `v1.Pod` for `api.core.v1.Pod`; what Go has for objects without a type for parts of custom resources.
fn go_object(object: &Object) -> String {
    if object.is_nameless() {
        return "map[string]interface {}".to_owned();
    }
    let mut words = object.name.rsplit('.');
    let (name, package) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") }
}

fn go_type(ty: &Type, place: Place<'_>) -> String {
    let named = place.map_or("", |(_, field)| field.go_type.as_ref());
    match ty {
        Type::Object { schema, .. } => go_object(schema),
        Type::List(list) => format!("[]{}", go_type(&list.element, place)),
        Type::Map(map) => format!("map[string]{}", go_type(&map.element, place)),
        Type::String | Type::Int32 | Type::Int64 if !named.is_empty() => named.to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::Raw => "runtime.RawExtension".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::String => "string".to_owned(),
        Type::Any | Type::SchemaOr(_) => "interface {}".to_owned(),
    }
}

#[cfg(test)]
mod tests;
