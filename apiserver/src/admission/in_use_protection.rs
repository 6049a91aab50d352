//! Claims and volumes get a finalizer, so that none goes while a pod or a claim uses it.
//!
//! The protection controllers take it away when the object is deleted and nobody uses it any more. Follows
//! `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use super::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct InUseProtection;

fn finalizer(request: &AdmissionRequest<'_>) -> Option<&'static str> {
    match (&*request.kind.group, &*request.kind.plural) {
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        _ => None,
    }
}

#[async_trait]
impl Admission for InUseProtection {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation == AdmissionOperation::Create
            && request.subresource.is_empty()
            && finalizer(request).is_some()
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<Mutation, Status> {
        let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        match finalizer(request).map(Value::from) {
            Some(ours) if !finalizers.contains(&ours) => {
                finalizers.push(ours);
                object["metadata"]["finalizers"] = finalizers.into();
                Ok(Mutation::Changed)
            }
            _ => Ok(Mutation::Unchanged),
        }
    }
}
