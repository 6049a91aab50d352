//! Good and bad credentials over real TLS, on a stream in memory.

use crate::access::House;
use apiserver::certs::{CertificateAuthority, Identity, ServingCertificate};
use apiserver::server::{Endpoint, Server};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::sync::Arc;

struct Wire {
    house: House,
    authority: CertificateAuthority,
    endpoint: Endpoint,
}

impl Wire {
    async fn new() -> Wire {
        let house = House::new().await;
        let authority = CertificateAuthority::generate().expect("an authority");
        let serving = ServingCertificate::new(&authority, vec!["localhost".to_owned()], vec![]).expect("a certificate");
        let tls = authority.tls(Arc::new(serving)).expect("TLS");
        let endpoint = Server::new(house.admin.api.router(), tls).endpoint();
        Wire { house, authority, endpoint }
    }

    /// Asks who it is, with these credentials: code, message or user, and the headers.
    async fn whoami(&self, certificate: Option<&Identity>, authorization: Option<&str>) -> (u16, String) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.certificate().as_bytes()).expect("PEM"))
            .expect("a root");
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = builder.with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a client")
            }
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(self.endpoint.clone().serve_tls(far));
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, near).await.expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("host", "localhost")
            .header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = sender
            .send_request(request.body(Full::new(Bytes::from_static(b"{}"))).expect("a request"))
            .await
            .expect("an answer");
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        connection.abort();
        server.abort();
        match code {
            201 => (code, body["status"]["userInfo"]["username"].as_str().expect("a user").to_owned()),
            _ => {
                assert_eq!(body["kind"], "Status", "{body}");
                (code, body["message"].as_str().expect("a message").to_owned())
            }
        }
    }

    async fn refused(&self, certificate: Option<&Identity>, authorization: Option<&str>) {
        let answer = self.whoami(certificate, authorization).await;
        assert_eq!(answer, (401, "Unauthorized".to_owned()), "{authorization:?}");
    }

    async fn token(&self, spec: Value) -> String {
        let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
        let answer = self.house.admin.post(path, json!({"spec": spec})).await.created();
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_answered_401_and_nothing_else() {
    let wire = Wire::new().await;
    let robot = json!({"metadata": {"name": "robot"}});
    wire.house.admin.post("/api/v1/namespaces/default/serviceaccounts", robot).await.created();
    let good = wire.token(json!({"expirationSeconds": 600})).await;
    let bearer = format!("Bearer {good}");
    assert_eq!(wire.whoami(None, Some(&bearer)).await, (201, "system:serviceaccount:default:robot".to_owned()));
    assert_eq!(wire.whoami(None, Some("Bearer owner")).await, (201, "system:admin".to_owned()));

    let parts: Vec<&str> = good.split('.').collect();
    let (payload, signature) = (parts[1], parts[2]);
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("claims");
    let header = |alg: &str| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
    claims["sub"] = "system:serviceaccount:kube-system:root".into();
    let forged = URL_SAFE_NO_PAD.encode(claims.to_string());
    for bad in [
        format!("{}.{payload}.", header("none")),
        format!("{}.{forged}.", header("none")),
        format!("{}.{forged}.", header("None")),
        format!("{}.{forged}.{signature}", parts[0]),
        format!("{}.{payload}.{signature}", header("HS256")),
        format!("{}.{payload}.{signature}x", parts[0]),
        format!("{}.{payload}", parts[0]),
        "nonsense".to_owned(),
        "..".to_owned(),
        "a".repeat(5000),
        wire.token(json!({"audiences": ["vault"]})).await,
    ] {
        wire.refused(None, Some(&format!("Bearer {bad}"))).await;
    }
    wire.refused(None, Some("Basic YWRtaW46YWRtaW4=")).await;
    wire.refused(None, Some("Bearer")).await;
    tokio::time::advance(std::time::Duration::from_secs(601)).await;
    wire.refused(None, Some(&bearer)).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_authority_is_answered_401_and_nothing_else() {
    let wire = Wire::new().await;
    let jane = wire.authority.client("jane", &["dev"]).expect("a certificate");
    assert_eq!(wire.whoami(Some(&jane), None).await, (201, "jane".to_owned()));
    let other = CertificateAuthority::generate().expect("another authority");
    let foreign = other.client("jane", &["system:masters"]).expect("a certificate");
    wire.refused(Some(&foreign), None).await;
    let serving = wire.authority.serving(&["jane"], &[]).expect("a certificate");
    wire.refused(Some(&serving), None).await;
    // A good token is good all the same, as with any server that asks one authenticator after the other.
    assert_eq!(wire.whoami(Some(&foreign), Some("Bearer owner")).await, (201, "system:admin".to_owned()));
    let (code, message) = wire.whoami(None, None).await;
    assert_eq!(code, 403, "{message}");
}
