//! TLS for curl and wget: rustls over a stream of the container's host. What is trusted is what `--cacert` names: there is no system
//! store in a built-in image.

use netstack::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Shakes hands. The error is curl's status and message.
pub(in crate::programs) async fn connect(
    stream: TcpStream,
    host: &str,
    authorities: Option<&str>,
    insecure: bool,
) -> Result<TlsStream<TcpStream>, (i32, String)> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| (35, format!("SSL connect error: {error}")))?;
    let config = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(provider))).with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        let pem = authorities.unwrap_or_default();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err((
                60,
                "SSL certificate problem: unable to get local issuer certificate\nMore details here: \
                 https://curl.se/docs/sslcerts.html\n\ncurl failed to verify the legitimacy of the server and therefore \
                 could not\nestablish a secure connection to it. To learn more about this situation and\nhow to fix it, \
                 please visit the webpage mentioned above."
                    .to_owned(),
            ));
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| (35, format!("SSL connect error: invalid server name {host}")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
        if certificate {
            (60, format!("SSL certificate problem: {error}"))
        } else {
            (35, format!("SSL connect error: {error}"))
        }
    })
}

/// `-k`: any certificate will do, but the handshake's signatures are checked.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
