//! CertificateSigningRequests: a node's own are approved, what is approved is signed, what is old is deleted.
//!
//! The key of the authority is not here: a [`CertificateSigner`] is handed in by whoever starts the controllers. Follows
//! Kubernetes' "Certificates and Certificate Signing Requests".

use crate::clock::until;
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Config, Controller, Shared, follow_own, run};
use informer::Informer;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::PostParams;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// How long a request is kept after its verdict, or without one.
const DECIDED_FOR: Duration = Duration::from_secs(3600);
const PENDING_FOR: Duration = Duration::from_secs(24 * 3600);

/// What a signer is asked for.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    /// `spec.signerName`.
    pub signer: String,
    /// PKCS #10 in PEM.
    pub pem: String,
    /// `spec.usages`.
    pub usages: Vec<String>,
    /// Who asks.
    pub username: String,
    /// For how long; the signer's choice without.
    pub duration: Option<Duration>,
}

/// Whoever holds the key of a certificate authority.
pub trait CertificateSigner: Send + Sync {
    /// Whether it signs in this name.
    fn serves(&self, signer: &str) -> bool;

    /// The common name of a request that it would sign.
    ///
    /// # Errors
    /// Why it would not.
    fn common_name(&self, request: &SigningRequest) -> std::result::Result<String, String>;

    /// The certificate, as PEM.
    ///
    /// # Errors
    /// Why it does not sign this.
    fn sign(&self, request: &SigningRequest) -> std::result::Result<String, String>;
}

pub(crate) fn start(shared: &Shared, config: &Config, tasks: &mut JoinSet<()>) {
    let requests = shared.informers.of::<CertificateSigningRequest>();
    let queue = Queue::new();
    tasks.spawn(follow_own(requests.clone(), queue.clone()));
    tasks.spawn(run(shared.clone(), queue, Cleaner { requests: requests.clone() }));
    let Some(signer) = config.certificates.clone() else { return };
    let queue = Queue::new();
    tasks.spawn(follow_own(requests.clone(), queue.clone()));
    tasks.spawn(run(shared.clone(), queue, Approver { requests: requests.clone(), signer: signer.clone() }));
    let queue = Queue::new();
    tasks.spawn(follow_own(requests.clone(), queue.clone()));
    tasks.spawn(run(shared.clone(), queue, Signer { requests, signer }));
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|pem| !pem.0.is_empty())
}

fn asked(spec: &CertificateSigningRequestSpec) -> SigningRequest {
    let seconds = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    SigningRequest {
        signer: spec.signer_name.clone(),
        pem: String::from_utf8_lossy(&spec.request.0).into_owned(),
        usages: spec.usages.clone().unwrap_or_default(),
        username: spec.username.clone().unwrap_or_default(),
        duration: seconds.map(Duration::from_secs),
    }
}

fn condition(kind: &str, reason: &str, message: String, now: Time) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

/// The request with one more condition.
fn with(
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> CertificateSigningRequest {
    let mut new = request.clone();
    new.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    new
}

/// Signs what has been approved.
struct Signer {
    requests: Informer<CertificateSigningRequest>,
    signer: Arc<dyn CertificateSigner>,
}

impl Controller for Signer {
    const NAME: &'static str = "certificatesigningrequest-signing-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(Next::OnChange) };
        let due = has(&request, "Approved") && !has(&request, "Denied") && !has(&request, "Failed");
        if !due || is_issued(&request) || !self.signer.serves(&request.spec.signer_name) {
            return Ok(Next::OnChange);
        }
        let new = match self.signer.sign(&asked(&request.spec)) {
            Ok(pem) => {
                let status = request.status.clone().unwrap_or_default();
                let certificate = Some(ByteString(pem.into_bytes()));
                let status = Some(CertificateSigningRequestStatus { certificate, ..status });
                CertificateSigningRequest { status, ..(*request).clone() }
            }
            Err(why) => {
                with(&request, condition("Failed", "SignerValidationFailure", why, session.shared.clock.time()))
            }
        };
        match session.replace_status(&new).await {
            Err(error) if error.is_not_found() => {}
            written => drop(written?),
        }
        Ok(Next::OnChange)
    }
}

/// Approves what a node may ask for itself, if RBAC says so.
struct Approver {
    requests: Informer<CertificateSigningRequest>,
    signer: Arc<dyn CertificateSigner>,
}

impl Controller for Approver {
    const NAME: &'static str = "certificatesigningrequest-approving-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(Next::OnChange) };
        let decided = ["Approved", "Denied"].iter().any(|kind| has(&request, kind));
        if decided || request.spec.signer_name != NODE_CLIENT {
            return Ok(Next::OnChange);
        }
        let Ok(name) = self.signer.common_name(&asked(&request.spec)) else { return Ok(Next::OnChange) };
        let own = request.spec.username.as_ref() == Some(&name);
        let (subresource, what) =
            if own { ("selfnodeclient", "self kubelet client") } else { ("nodeclient", "kubelet client") };
        if !self.may(session, &request.spec, subresource).await? {
            return Ok(Next::OnChange);
        }
        let message = format!("Auto approving {what} certificate after SubjectAccessReview.");
        let approved = with(&request, condition("Approved", "AutoApproved", message, session.shared.clock.time()));
        session.replace_part("approval", &approved).await?;
        Ok(Next::OnChange)
    }
}

impl Approver {
    async fn may(&self, session: &Session, spec: &CertificateSigningRequestSpec, subresource: &str) -> Result<bool> {
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".to_owned()),
            resource: Some("certificatesigningrequests".to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some("create".to_owned()),
            version: Some("*".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        let api: Api<SubjectAccessReview> = Api::all(session.shared.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|SubjectAccessReviewStatus { allowed, .. }| allowed))
    }
}

/// Deletes what nobody waits for any more.
struct Cleaner {
    requests: Informer<CertificateSigningRequest>,
}

impl Controller for Cleaner {
    const NAME: &'static str = "certificatesigningrequest-cleaner-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(Next::OnChange) };
        let decided = conditions(&request).iter().filter_map(|condition| condition.last_update_time.as_ref()).max();
        let (since, kept) = match (decided, request.metadata.creation_timestamp.as_ref()) {
            // Approved by hand, it may still wait for a signer of its own.
            (Some(at), _) if is_issued(&request) || has(&request, "Denied") || has(&request, "Failed") => {
                (at, DECIDED_FOR)
            }
            (_, Some(at)) => (at, PENDING_FOR),
            _ => return Ok(Next::OnChange),
        };
        match until(session.shared.clock.now(), since.0, kept) {
            Some(left) => Ok(Next::After(left)),
            None => {
                session.delete(&*request).await?;
                Ok(Next::OnChange)
            }
        }
    }
}
