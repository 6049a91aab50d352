//! The cluster's certificate authority as the signer of CertificateSigningRequests: the only way from there to its key.

use apiserver::certs::{CertificateAuthority, Purpose, requested_name};
use controllers::{CertificateSigner, SigningRequest};
use std::sync::Arc;
use std::time::Duration;

/// How long a certificate is valid that does not ask for less.
const USUAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs with the authority's key what the signers of `kubernetes.io` may sign.
pub(crate) struct ClusterSigner(pub(crate) Arc<CertificateAuthority>);

impl ClusterSigner {
    fn purpose(request: &SigningRequest) -> Result<Purpose, String> {
        let unknown = || format!("{} is no signer of this cluster", request.signer);
        Purpose::of_signer(&request.signer).ok_or_else(unknown)
    }
}

impl CertificateSigner for ClusterSigner {
    fn serves(&self, signer: &str) -> bool {
        Purpose::of_signer(signer).is_some()
    }

    fn common_name(&self, request: &SigningRequest) -> Result<String, String> {
        requested_name(&request.pem, ClusterSigner::purpose(request)?, &request.usages)
    }

    fn sign(&self, request: &SigningRequest) -> Result<String, String> {
        let purpose = ClusterSigner::purpose(request)?;
        if purpose == Purpose::NodeServing && self.common_name(request)? != request.username {
            return Err("subject common name must be the name of the user who asks".to_owned());
        }
        self.0.sign_request(&request.pem, purpose, &request.usages, request.duration.unwrap_or(USUAL))
    }
}
