//! `Status`: Kubernetes' own form of an error, and the field errors it is made of.
//!
//! Follows `metav1.Status` and `k8s.io/apimachinery/pkg/util/validation/field`.

use serde_json::{Value, json};

/// An answer that is not an object: a failure, or the success of a delete.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason such as `NotFound`; empty if there is none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details`: name, group, kind, uid, causes, retryAfterSeconds.
    pub details: Option<Value>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueDuplicate`, `FieldValueNotSupported`, `FieldValueForbidden`, …
    pub reason: &'static str,
    /// Path such as `spec.ports[0].port`.
    pub field: String,
    /// Whole text such as `Invalid value: 70000: must be between 1 and 65535, inclusive`.
    pub message: String,
}

impl FieldError {
    /// The value is not allowed there.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let (field, detail) = (field.into(), detail.as_ref());
        FieldError { reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {detail}"), field }
    }

    /// The field must be set.
    pub fn required(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        let detail = detail.as_ref();
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        FieldError { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// The value stands there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        FieldError { reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}"), field: field.into() }
    }

    /// The value is not one of an enumeration, whose values are said in the order given.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let names: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", names.join(", "));
        FieldError { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    /// The field must not be set here.
    pub fn forbidden(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        FieldError {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {}", detail.as_ref()),
            field: field.into(),
        }
    }
}

impl Status {
    /// A failure with this code, reason and text.
    pub fn failure(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::failure(400, "BadRequest", message)
    }

    /// 404 for a named object; `resource` is the plural, with its group if it has one (`deployments.apps`).
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Status::failure(404, "NotFound", message).with_details(group, resource, name)
    }

    /// 409: somebody has it already.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Status::failure(409, "AlreadyExists", message).with_details(group, resource, name)
    }

    /// 409: it has changed meanwhile, or a precondition does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Status::failure(409, "Conflict", message).with_details(group, resource, name)
    }

    /// 403.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(group, resource));
        Status::failure(403, "Forbidden", message).with_details(group, resource, name)
    }

    /// 422 with one cause per field error, all of them at once.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let lines: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let list = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.reason, "message": error.message, "field": error.field}))
            .collect();
        let mut status =
            Status::failure(422, "Invalid", format!("{} {name:?} is invalid: {list}", qualified(group, kind)))
                .with_details(group, kind, name);
        if let Some(Value::Object(details)) = &mut status.details {
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        status
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Status::failure(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// Says which object it is about.
    pub fn with_details(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = json!({"kind": kind});
        if !group.is_empty() {
            details["group"] = group.into();
        }
        if !name.is_empty() {
            details["name"] = name.into();
        }
        self.details = Some(details);
        self
    }

    /// As the wire has it.
    pub fn to_json(&self) -> Value {
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
        body["status"] = if self.code < 400 { "Success" } else { "Failure" }.into();
        if !self.message.is_empty() {
            body["message"] = self.message.as_str().into();
        }
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body["code"] = self.code.into();
        body
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
