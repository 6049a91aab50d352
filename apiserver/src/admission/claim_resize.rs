//! A claim may ask for more only once it is bound, and only where its storage class allows volumes to grow.
//!
//! Follows `plugin/pkg/admission/storage/persistentvolume/resize`.

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::schema::quantity::Quantity;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaimResize;

/// The storage class a claim names, in its spec or in the older annotation.
pub(super) fn storage_class(claim: &Value) -> &str {
    let annotated = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    annotated.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default()
}

fn size(claim: &Value) -> i128 {
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(Quantity::parse);
    size.map_or(0, |size| size.nanos())
}

#[async_trait]
impl Admission for ClaimResize {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation == AdmissionOperation::Update
            && request.subresource.is_empty()
            && request.is_about("", "persistentvolumeclaims")
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, claim: &Value) -> Result<(), Status> {
        let Some(old) = request.old.filter(|old| size(claim) > size(old)) else { return Ok(()) };
        if old["status"]["phase"] != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let name = storage_class(old);
        let class = if name.is_empty() || name != storage_class(claim) {
            None
        } else {
            request.object(&format!("/registry/storageclasses.storage.k8s.io/{name}")).await?
        };
        if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}
