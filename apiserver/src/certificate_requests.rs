//! Who may ask for certificates, approve and sign: admission of CertificateSigningRequests.
//!
//! A new request says who asks (the server fills that in), and nobody asks for `system:masters`; a node asks for itself only. A
//! verdict takes the right to `approve` for the signer, a certificate the right to `sign`. Follows Kubernetes' admission plug-ins
//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use crate::admission::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision};
use crate::kinds::signing_request::request as request_der;
use crate::node_authorizer::node_name;
use crate::request::RequestInfo;
use crate::reviews::user_info;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// The plug-in.
pub struct CertificateRequests {
    /// Who may `approve` and `sign`.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for CertificateRequests {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.is_about(GROUP, "certificatesigningrequests")
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<Mutation, Status> {
        if request.operation != AdmissionOperation::Create {
            return Ok(Mutation::Unchanged);
        }
        sign_for(object, request.user);
        Ok(Mutation::Changed)
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        let refuse = |why: &str| request.forbidden(why);
        match (request.operation, request.subresource) {
            (AdmissionOperation::Create, _) => restricted(object, request.user).map_or(Ok(()), |why| Err(refuse(&why))),
            (AdmissionOperation::Update, "approval") => {
                let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
                if self.may(request.user, "approve", signer).await {
                    return Ok(());
                }
                Err(refuse(&format!("user not permitted to approve requests with signerName {signer:?}")))
            }
            (AdmissionOperation::Update, "status") => {
                let signs = |object: &Value| {
                    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                    let failed = conditions.filter(|condition| condition["type"] == "Failed").count();
                    (object["status"]["certificate"].clone(), failed)
                };
                let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
                if request.old.map(signs) == Some(signs(object)) || self.may(request.user, "sign", signer).await {
                    return Ok(());
                }
                Err(refuse(&format!("user not permitted to sign requests with signerName {signer:?}")))
            }
            _ => Ok(()),
        }
    }
}

impl CertificateRequests {
    /// For the signer itself, or for all signers of its domain.
    async fn may(&self, user: &UserInfo, verb: &str, signer: &str) -> bool {
        let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
        for name in [signer, &domain] {
            let asked = RequestInfo {
                is_resource: true,
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name: name.to_owned(),
                ..RequestInfo::default()
            };
            if matches!(self.authorizer.authorize(user, &asked).await, Decision::Allow(_)) {
                return true;
            }
        }
        false
    }
}

/// Writes down who asks.
fn sign_for(object: &mut Value, user: &UserInfo) {
    let info = user_info(user);
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["username", "uid", "groups", "extra"] {
        match info.get(field) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
}

/// Why nobody, or not this user, may ask for such a certificate.
fn restricted(object: &Value, user: &UserInfo) -> Option<String> {
    let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
    let der = request_der(object)?;
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    let subject = &request.certification_request_info.subject;
    if signer == CLIENT && subject.iter_organization().any(|group| group.as_str() == Ok("system:masters")) {
        return Some(format!("use of {CLIENT} signer with system:masters group is not allowed"));
    }
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let node = node_name(user).filter(|_| signer == NODE_CLIENT)?;
    (name != user.name)
        .then(|| format!("node {node:?} can only request certificates for itself: CN {name:?} is not {:?}", user.name))
}
