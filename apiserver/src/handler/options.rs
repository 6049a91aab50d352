//! The query of a write: `metav1.{Create,Update,Patch}Options`.

use super::Call;
use crate::kinds::field::too_long;
use crate::schema::FieldValidation;
use crate::status::{FieldError, Status};
use http::header::USER_AGENT;
use serde_json::Value;

/// How to write.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// As given; empty if it was not.
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: Option<bool>,
}

impl Call {
    /// Reads and checks the query; `kind` is the options' kind for error texts.
    pub(crate) fn write_options(&self, kind: &str) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let dry_run = dry_run(self.query.values("dryRun"), &mut errors);
        let field_manager = self.query.text("fieldManager").unwrap_or_default().to_owned();
        if field_manager.len() > 128 {
            errors.push(too_long("fieldManager", 128));
        } else if field_manager.chars().any(char::is_control) {
            errors.push(FieldError::invalid(
                "fieldManager",
                &field_manager.as_str().into(),
                "should only contain printable characters",
            ));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        let field_validation = FieldValidation::parse(self.query.text("fieldValidation").unwrap_or_default(), kind)?;
        Ok(WriteOptions { dry_run, field_manager, field_validation, force: self.query.optional_flag("force") })
    }

    /// Who is written down in `managedFields`: the `fieldManager` asked for, or the first word of the user agent.
    pub(crate) fn manager(&self, options: &WriteOptions) -> String {
        if !options.field_manager.is_empty() {
            return options.field_manager.clone();
        }
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let name: String = agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    }
}

/// Whether nothing is to be stored.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut asked = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value == "All" {
            asked = true;
        } else {
            errors.push(FieldError::not_supported("dryRun", &Value::from(value), &["All"]));
        }
    }
    asked
}
