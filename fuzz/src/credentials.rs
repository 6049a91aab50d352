//! Credentials: bearer tokens and certificates.

use crate::house::with;
use apiserver::certs::CertificateAuthority;
use axum::body::Body;
use http::{HeaderValue, Request};
use rustls::pki_types::CertificateDer;
use std::sync::LazyLock;

/// A token. `{header}`, `{payload}` and `{signature}` stand for the parts of one which the server has signed; nothing but that one
/// opens the door.
pub(crate) fn jwt(data: &[u8]) {
    with(|house| {
        let text = String::from_utf8_lossy(data).into_owned();
        let token = house.token.clone();
        let mut given = text;
        for (name, part) in ["{header}", "{payload}", "{signature}"].iter().zip(token.split('.')) {
            given = given.replace(name, part);
        }
        let Ok(value) = HeaderValue::from_str(&format!("Bearer {given}")) else { return };
        let request = Request::builder().uri("/api/v1/namespaces").header("authorization", value);
        let answer = house.ask_as_stranger(request.body(Body::empty()).expect("a request"));
        // The house's authorizer lets everybody do everything; only who it is has to be known.
        let expected = if given.trim() == token { 200 } else { 401 };
        assert_eq!(answer.code, expected, "{given}: {}", String::from_utf8_lossy(&answer.body));
        answer.is_sound(&[]);
    });
}

static AUTHORITY: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::generate().expect("an authority"));

/// A client's certificate, as DER or PEM; `{certificate}` at the start stands for one of ours, followed by the bytes to change:
/// pairs of a position and a value.
pub(crate) fn certificate(data: &[u8]) {
    let changed = data.strip_prefix(b"{certificate}").map(|changes| {
        let client = AUTHORITY.client("alice", &["staff"]).expect("a certificate");
        let mut der = apiserver::certs::der_of(&client.certificate).expect("PEM");
        for change in changes.chunks_exact(3) {
            let position = usize::from(change[0]) << 8 | usize::from(change[1]);
            let length = der.len();
            der[position % length] = change[2];
        }
        der
    });
    let der = changed.unwrap_or_else(|| data.to_vec());
    if let Some(user) = apiserver::certs::user_of(&CertificateDer::from(der)) {
        assert!(!user.name.is_empty(), "a user has a name");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = apiserver::certs::der_of(text);
    }
}
