//! CertificateSigningRequest: what a write may not touch, and what is wrong.
//!
//! Who may ask, approve and sign is decided in [`crate::certificate_requests`]; the signing itself is a controller's.

use super::field::one_of;
use super::json::{carry_over, int, list, put, text, texts};
use super::{metadata, strategy};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Ten minutes.
const SHORTEST: i64 = 600;

/// The request is as it was made; `/approval` writes verdicts, `/status` all but those.
pub(super) fn prepare(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    strategy::prepare(kind, new, old, if subresource == "approval" { "status" } else { subresource });
    let Some(old) = old else { return };
    carry_over(new, old, "/spec");
    if subresource == "status" {
        // Verdicts stay as they are.
        let is_verdict = |condition: &&Value| matches!(text(condition, "/type"), "Approved" | "Denied");
        let verdicts = list(old, "/status/conditions").iter().filter(is_verdict);
        let others = list(new, "/status/conditions").iter().filter(|condition| !is_verdict(condition));
        let conditions: Vec<Value> = verdicts.chain(others).cloned().collect();
        if let Some(status) = new.get_mut("status").filter(|status| status.is_object()) {
            put(status, "conditions", (!conditions.is_empty()).then(|| conditions.into()));
        }
    }
}

/// The DER of the request in a CertificateSigningRequest.
pub(crate) fn request(object: &Value) -> Option<CertificateSigningRequestDer<'static>> {
    let pem = STANDARD.decode(text(object, "/spec/request")).ok()?;
    CertificateSigningRequestDer::from_pem_slice(&pem).ok()
}

/// Everything wrong with a request.
pub(super) fn errors(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let mut errors = metadata::errors(kind, object, old);
    let value = &object["spec"]["request"];
    match request(object) {
        None => {
            errors.push(FieldError::invalid("spec.request", value, "PEM block type must be CERTIFICATE REQUEST"));
        }
        Some(der) => {
            if let Err(why) = X509CertificationRequest::from_der(&der) {
                errors.push(FieldError::invalid("spec.request", value, format!("asn1: {why}")));
            }
        }
    }
    let usages = texts(object, "/spec/usages");
    if usages.is_empty() {
        errors.push(FieldError::required("spec.usages", ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        one_of(&mut errors, format!("spec.usages[{index}]"), usage, &USAGES);
        if usages[..index].contains(usage) {
            errors.push(FieldError::duplicate(format!("spec.usages[{index}]"), &(*usage).into()));
        }
    }
    errors.extend(signer_name(text(object, "/spec/signerName"), &object["spec"]["signerName"]));
    if let Some(seconds) = int(object, "/spec/expirationSeconds").filter(|seconds| *seconds < SHORTEST) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &seconds.into(), why));
    }
    conditions(&mut errors, object, old);
    if let Some(old) = old.filter(|old| !text(old, "/status/certificate").is_empty())
        && text(old, "/status/certificate") != text(object, "/status/certificate")
    {
        errors.push(FieldError::invalid("status.certificate", &object["status"]["certificate"], "field is immutable"));
    }
    errors
}

/// `<domain>/<path>`, such as `kubernetes.io/kubelet-serving`.
fn signer_name(name: &str, value: &Value) -> Option<FieldError> {
    let field = "spec.signerName";
    if name.is_empty() {
        return Some(FieldError::required(field, ""));
    }
    let well_formed = name.split_once('/').is_some_and(|(domain, path)| {
        let parts = path.split('.');
        domain.contains('.')
            && super::names::dns_subdomain(domain).is_empty()
            && parts.map(super::names::dns_subdomain).all(|wrong| wrong.is_empty())
    });
    (!well_formed).then(|| {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        FieldError::invalid(field, value, why)
    })
}

fn conditions(errors: &mut Vec<FieldError>, object: &Value, old: Option<&Value>) {
    let conditions = list(object, "/status/conditions");
    let has = |object: &Value, kind: &str| {
        list(object, "/status/conditions").iter().any(|condition| text(condition, "/type") == kind)
    };
    for (index, condition) in conditions.iter().enumerate() {
        let at = |part: &str| format!("status.conditions[{index}].{part}");
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        if kind.is_empty() {
            errors.push(FieldError::required(at("type"), ""));
        }
        if conditions[..index].iter().any(|other| text(other, "/type") == kind) {
            errors.push(FieldError::duplicate(format!("status.conditions[{index}]"), &condition["type"]));
        }
        match (kind, status) {
            (_, "") => errors.push(FieldError::required(at("status"), "")),
            ("Approved" | "Denied" | "Failed", status) => one_of(errors, at("status"), status, &["True"]),
            (_, status) => one_of(errors, at("status"), status, &["True", "False", "Unknown"]),
        }
    }
    if has(object, "Approved") && has(object, "Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid("status.conditions", &"Approved,Denied".into(), why));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if old.is_some_and(|old| has(old, kind)) && !has(object, kind) {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", why));
        }
    }
}
