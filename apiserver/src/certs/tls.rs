//! TLS of the API: a serving certificate that is renewed while it serves, and clients that are asked for theirs.

use super::{CertificateAuthority, CertificateError, Identity, SERVING_DAYS, user_of};
use crate::authn::UserInfo;
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

impl CertificateAuthority {
    /// TLS with this serving certificate: HTTP/2 and HTTP/1.1. Client certificates are taken in any case; whether they are this
    /// authority's is found out by `Tls::peer`, so that the others are answered 401 instead of a broken connection.
    pub fn tls(&self, serving: Arc<ServingCertificate>) -> Result<Tls, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient(clients.clone())))
            .with_cert_resolver(serving);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), clients })
    }
}

/// The serving certificate in use; connections that begin after a renewal see the new one.
#[derive(Debug)]
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl ServingCertificate {
    /// A certificate of `authority` for these names and addresses.
    pub fn new(
        authority: &CertificateAuthority,
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, CertificateError> {
        let current = ArcSwap::new(certified(authority, &names, &addresses)?);
        Ok(ServingCertificate { current, names, addresses })
    }

    /// A certificate that was made elsewhere; it names what a renewal would not know.
    pub fn from_pem(identity: &Identity) -> Result<Self, CertificateError> {
        let current = ArcSwap::new(key_of(identity)?);
        Ok(ServingCertificate { current, names: Vec::new(), addresses: Vec::new() })
    }

    /// The one in use, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.current.load().cert.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// Puts a new one in its place.
    pub fn renew(&self, authority: &CertificateAuthority) -> Result<(), CertificateError> {
        self.current.store(certified(authority, &self.names, &self.addresses)?);
        Ok(())
    }

    /// How long after its making a certificate should be renewed: a month before it expires.
    pub const RENEW_AFTER: Duration = Duration::from_secs((SERVING_DAYS as u64 - 30) * 24 * 3600);
}

fn certified(
    authority: &CertificateAuthority,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    key_of(&authority.serving(&names, addresses)?)
}

fn key_of(identity: &Identity) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    Ok(Arc::new(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?)))
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// TLS of a server, and who its clients are.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<rustls::ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// For connections that are accepted elsewhere.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    /// The user whose certificate the client has shown; `None` without one.
    ///
    /// # Errors
    /// Why the certificate is not accepted.
    pub(crate) fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<Option<UserInfo>, String> {
        let Some((certificate, intermediates)) = chain.and_then(<[_]>::split_first) else { return Ok(None) };
        let verified = self.clients.verify_client_cert(certificate, intermediates, UnixTime::now());
        verified.map_err(|why| why.to_string())?;
        match user_of(certificate) {
            Some(user) => Ok(Some(user)),
            None => Err("the certificate has no common name".to_owned()),
        }
    }
}

/// Takes every certificate whose key the client has; who signed it is asked afterwards.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::name;
    use super::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};

    pub(in super::super) fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
    }

    pub(in super::super) fn tls(authority: &CertificateAuthority) -> (Tls, Arc<ServingCertificate>) {
        let addresses = vec!["127.0.0.1".parse().expect("an address")];
        let serving = ServingCertificate::new(authority, vec!["localhost".to_owned()], addresses).expect("serving");
        let serving = Arc::new(serving);
        (authority.tls(serving.clone()).expect("a configuration"), serving)
    }

    #[test]
    fn a_client_is_who_a_certificate_of_this_authority_says() {
        let (authority, other) =
            (CertificateAuthority::generate().expect("one"), CertificateAuthority::generate().expect("two"));
        let (tls, _) = tls(&authority);
        let client = der(&authority.client("alice", &["dev"]).expect("a certificate").certificate);
        let user = tls.peer(Some(&[client])).expect("accepted").expect("a user");
        assert_eq!(user.name, "alice");
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert_eq!(tls.peer(None), Ok(None));
        let foreign = der(&other.client("alice", &["system:masters"]).expect("a certificate").certificate);
        assert!(tls.peer(Some(&[foreign])).is_err(), "another authority's");
        let mut params = CertificateParams::default();
        params.distinguished_name = name("alice", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let expired = der(&authority.sign(params, 0).expect("a certificate").certificate);
        assert!(tls.peer(Some(&[expired])).expect_err("expired").contains("xpired"));
        let serving = der(&authority.serving(&["alice"], &[]).expect("a certificate").certificate);
        assert!(tls.peer(Some(&[serving])).is_err(), "a server's certificate makes no client");
    }

    #[test]
    fn a_renewed_serving_certificate_is_used_at_once() {
        let authority = CertificateAuthority::generate().expect("an authority");
        let (_, serving) = tls(&authority);
        let before = serving.current.load_full();
        serving.renew(&authority).expect("renewed");
        assert_ne!(before.cert, serving.current.load_full().cert);
        assert!(ServingCertificate::RENEW_AFTER < Duration::from_secs(365 * 24 * 3600));
    }
}
