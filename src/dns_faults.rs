//! Admission of the annotation by which a pod's DNS queries meet faults (`net.coracle.dev/dns-faults`): what it says can be read, or
//! the write is refused. A template that would make pods which are refused is answered with a warning.

use apiserver::admission::{Admission, AdmissionOperation, AdmissionRequest};
use apiserver::status::{FieldError, Status};
use async_trait::async_trait;
use serde_json::Value;

/// Kinds with a template of pods at `spec.template`, by group and plural.
const WITH_TEMPLATES: [(&str, &str); 6] = [
    ("", "replicationcontrollers"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
];

pub(crate) struct DnsFaults;

#[async_trait]
impl Admission for DnsFaults {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        let is_about = |(group, plural): &(&str, &str)| request.is_about(group, plural);
        request.operation != AdmissionOperation::Delete
            && request.subresource.is_empty()
            && (request.is_about("", "pods") || WITH_TEMPLATES.iter().any(is_about))
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        if let Some((faults, why)) = unreadable(object)
            // What stands there already does not keep anybody from changing something else.
            && request.old.and_then(faults_of) != Some(faults)
        {
            let error = FieldError::invalid(format!("metadata.annotations[{}]", dns::FAULTS), &faults.into(), why);
            return Err(Status::invalid(&request.kind.group, &request.kind.kind, request.name, &[error]));
        }
        if let Some((faults, why)) = object.pointer("/spec/template").and_then(unreadable) {
            let field = format!("spec.template.metadata.annotations[{}]", dns::FAULTS);
            request.warn(format!("{field}: {faults:?}: {why}; its pods will be refused"));
        }
        Ok(())
    }
}

fn faults_of(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][dns::FAULTS].as_str()
}

/// The annotation, and why it cannot be read.
fn unreadable(object: &Value) -> Option<(&str, String)> {
    let faults = faults_of(object)?;
    Some((faults, dns::check_faults(faults).err()?.to_string()))
}
