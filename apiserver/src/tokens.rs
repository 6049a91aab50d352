//! Tokens: service-account JWTs (signed here, bound to objects, expiring) and the owner's bootstrap token.
//!
//! Follows KEP-1205 (bound service account tokens), RFC 7519, RFC 7517 for the key set.

use crate::authn::UserInfo;
use crate::status::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `iss` of every token.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and checks service-account tokens. P-256 (ES256).
pub struct TokenSigner {
    key: KeyPair,
    key_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenSigner({})", self.key_id)
    }
}

/// An object a token dies with.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BoundObject {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KubernetesClaims {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub serviceaccount: BoundObject,
    /// The pod it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The node of that pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The Secret it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
}

/// The claims of a service-account token. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// Expiry.
    pub exp: i64,
    /// Issued at.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Issuer.
    pub iss: String,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
    /// What it is for.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
}

/// Why a signing key is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a P-256 key in PKCS #8 PEM.
    #[error("service-account signing key: {0}")]
    Pem(#[from] rcgen::Error),
    /// Refused by the JWT library.
    #[error("service-account signing key: {0}")]
    Jwt(#[from] jsonwebtoken::errors::Error),
}

impl TokenSigner {
    /// With a new key.
    pub fn generate() -> Result<Self, KeyError> {
        TokenSigner::from_pem(&KeyPair::generate()?.serialize_pem())
    }

    /// With the key of an earlier run.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = KeyPair::from_pem(pem)?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key_raw()));
        let (x, y) = coordinates(&key);
        Ok(TokenSigner {
            key_id,
            encoding: EncodingKey::from_ec_pem(pem.as_bytes())?,
            decoding: DecodingKey::from_ec_components(&x, &y)?,
            key,
        })
    }

    /// For keeping it.
    pub fn to_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A signed token.
    pub fn sign(&self, claims: &Claims) -> Result<String, Status> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(Status::internal)
    }

    /// The claims of a token that this key has signed, that is valid at `now` and meant for one of `audiences`.
    pub fn verify(&self, token: &str, now: jiff::Timestamp, audiences: &[String]) -> Result<Claims, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        // Time is the cluster's, not the operating system's; checked below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(audiences);
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation);
        let claims = decoded.map_err(|error| format!("invalid bearer token: {error}"))?.claims;
        let now = now.as_second();
        if now >= claims.exp {
            return Err("invalid bearer token: service account token has expired".to_owned());
        }
        // Clocks of whoever issued and whoever checks are the same one; a second of rounding is allowed.
        if now + 1 < claims.nbf {
            return Err("invalid bearer token: service account token is not valid yet".to_owned());
        }
        Ok(claims)
    }

    /// The public key set (`/openid/v1/jwks`).
    pub fn key_set(&self) -> Value {
        let (x, y) = coordinates(&self.key);
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "alg": "ES256", "crv": "P-256", "x": x, "y": y}]})
    }
}

/// Affine coordinates of the public key, base64url (RFC 7518, 6.2.1).
fn coordinates(key: &KeyPair) -> (String, String) {
    // Uncompressed point: 4, x, y.
    let point = key.public_key_raw();
    (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]))
}

impl Claims {
    /// The user these claims stand for.
    pub fn user(&self) -> UserInfo {
        let namespace = &self.kubernetes.namespace;
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let mut user = UserInfo::new(&self.sub, &groups.each_ref().map(String::as_str));
        user.uid = self.kubernetes.serviceaccount.uid.clone();
        if let Some(pod) = &self.kubernetes.pod {
            user.extra.insert("authentication.kubernetes.io/pod-name".into(), vec![pod.name.clone()]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![pod.uid.clone()]);
        }
        if let Some(node) = &self.kubernetes.node {
            user.extra.insert("authentication.kubernetes.io/node-name".into(), vec![node.name.clone()]);
        }
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        let serviceaccount = BoundObject { name: "builder".into(), uid: "u1".into() };
        let kubernetes =
            KubernetesClaims { namespace: "ci".into(), serviceaccount, pod: None, node: None, secret: None };
        let sub = "system:serviceaccount:ci:builder".into();
        Claims { aud: vec![ISSUER.into()], exp, iat: 1000, nbf: 1000, iss: ISSUER.into(), sub, kubernetes }
    }

    #[test]
    fn a_token_is_valid_until_it_expires_for_its_audience_and_under_its_own_key() {
        let signer = TokenSigner::generate().expect("a key");
        let again = TokenSigner::from_pem(&signer.to_pem()).expect("read back");
        let at = |second| jiff::Timestamp::from_second(second).expect("a time");
        let token = signer.sign(&claims(2000)).expect("signed");
        let audience = [ISSUER.to_owned()];
        assert_eq!(
            again.verify(&token, at(1500), &audience).expect("valid").user().name,
            "system:serviceaccount:ci:builder"
        );
        assert!(again.verify(&token, at(2000), &audience).expect_err("expired").contains("expired"));
        assert!(again.verify(&token, at(900), &audience).expect_err("too early").contains("not valid yet"));
        assert!(again.verify(&token, at(1500), &["vault".to_owned()]).is_err());
        let other = TokenSigner::generate().expect("a key");
        assert!(other.verify(&token, at(1500), &audience).is_err());
        assert!(again.verify("a.b.c", at(1500), &audience).is_err());
    }
}
