//! Field errors beyond the constructors of [`FieldError`], and helpers for the checks that recur.

use crate::status::FieldError;
use serde_json::Value;

/// What an immutable field is answered with.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// More bytes than allowed.
pub(crate) fn too_long(field: impl Into<String>, most: usize) -> FieldError {
    let message = format!("Too long: may not be more than {most} bytes");
    FieldError { reason: "FieldValueTooLong", field: field.into(), message }
}

/// More items than allowed.
pub(crate) fn too_many(field: impl Into<String>, actual: usize, most: usize) -> FieldError {
    let items = if most == 1 { "item" } else { "items" };
    let message = format!("Too many: {actual}: must have at most {most} {items}");
    FieldError { reason: "FieldValueTooMany", field: field.into(), message }
}

/// The value names something that does not exist.
pub(crate) fn not_found(field: impl Into<String>, value: &str) -> FieldError {
    FieldError { reason: "FieldValueNotFound", field: field.into(), message: format!("Not found: {value:?}") }
}

/// An [`FieldError::invalid`] of a text.
pub(crate) fn invalid(field: impl Into<String>, value: &str, detail: impl AsRef<str>) -> FieldError {
    FieldError::invalid(field, &Value::from(value), detail)
}

/// One error per complaint about `value`.
pub(crate) fn complaints(field: &str, value: &str, complaints: Vec<String>) -> impl Iterator<Item = FieldError> {
    complaints.into_iter().map(move |complaint| invalid(field, value, complaint))
}

/// `value` must be one of `allowed`.
pub(crate) fn one_of(errors: &mut Vec<FieldError>, field: impl Into<String>, value: &str, allowed: &[&str]) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(field, &Value::from(value), allowed));
    }
}

/// A number must not be below zero.
pub(crate) fn not_negative(errors: &mut Vec<FieldError>, field: impl Into<String>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.push(FieldError::invalid(field, &Value::from(value), "must be greater than or equal to 0"));
    }
}

/// The field at `pointer` must not change on update.
pub(crate) fn immutable(errors: &mut Vec<FieldError>, new: &Value, old: &Value, pointer: &str) {
    if !super::json::same(new, old, pointer) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        errors.push(FieldError::invalid(field, new.pointer(pointer).unwrap_or(&Value::Null), IMMUTABLE));
    }
}
