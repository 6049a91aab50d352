//! Certificates: the cluster's own authority, the serving certificate, and client certificates.
//!
//! P-256 keys, so that a cluster starts in milliseconds. A client certificate's CN is the user and its O are the groups, as in
//! Kubernetes' "X509 client certificates". What is secret is handed out as PEM text; who stores it sees to its permissions.

mod requests;
mod tls;

pub use requests::{Purpose, requested_name};
pub use tls::{ServingCertificate, Tls};

use crate::authn::UserInfo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// Days for which a serving certificate is valid.
const SERVING_DAYS: i64 = 365;

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Key or certificate could not be made, or the authority's PEM is not one.
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// PEM text that is none.
    #[error("PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The TLS library refuses them.
    #[error("TLS configuration")]
    Tls(#[from] rustls::Error),
    /// The client verifier cannot be built.
    #[error("client certificate verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The cluster's certificate authority.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// A new authority, valid for ten years.
    pub fn generate() -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("coracle-ca", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, 3650);
        let certificate = params.self_signed(&key)?.pem();
        Ok(CertificateAuthority { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority of an earlier run.
    pub fn from_pem(identity: &Identity) -> Result<Self, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate, KeyPair::from_pem(&identity.key)?)?;
        Ok(CertificateAuthority { certificate: identity.certificate.clone(), issuer })
    }

    /// For keeping it.
    pub fn identity(&self) -> Identity {
        Identity { certificate: self.certificate.clone(), key: self.issuer.key().serialize_pem() }
    }

    /// The certificate that clients trust, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A serving certificate for these names and addresses, valid for a year.
    pub fn serving(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Identity, CertificateError> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        params.distinguished_name = name("kube-apiserver", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, SERVING_DAYS)
    }

    /// A client certificate for a user in groups, valid for a year.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, 365)
    }

    fn sign(&self, mut params: CertificateParams, days: i64) -> Result<Identity, CertificateError> {
        valid_for(&mut params, days);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// The DER form of a certificate in PEM; `None` if it is none.
pub fn der_of(pem: &str) -> Option<Vec<u8>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// The user a verified client certificate stands for; none if it names nobody.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?.to_owned();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = UserInfo::new(user, &groups);
    let fingerprint: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = vec![format!("X509SHA256={fingerprint}")];
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), credential);
    Some(user)
}

fn name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from a day ago, since clocks differ. Certificates follow the operating system's clock: others check them by theirs.
fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = jiff::Timestamp::now();
    let day = |days: i64| {
        let date = now.checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap_or(now);
        let date = date.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_says_who_its_user_is() {
        let authority = CertificateAuthority::generate().expect("an authority");
        let again = CertificateAuthority::from_pem(&authority.identity()).expect("read back");
        let client = again.client("alice", &["system:masters"]).expect("a certificate");
        let der = CertificateDer::from_pem_slice(client.certificate.as_bytes()).expect("PEM");
        let user = user_of(&der).expect("a user");
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }
}
