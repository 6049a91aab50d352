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

/// `iss` of tokens in Secrets.
pub const SECRET_ISSUER: &str = "kubernetes/serviceaccount";

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
    /// Tells this token from all others.
    #[serde(default)]
    pub jti: String,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
    /// What it is for.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
}

/// The claims of a token that stands in a Secret of type `kubernetes.io/service-account-token`. It has no audience and does not expire.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SecretClaims {
    /// [`SECRET_ISSUER`].
    pub iss: String,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
    /// Namespace of both.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// Its uid.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
}

/// What a token that this cluster has signed says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Asked for by a TokenRequest.
    Bound(Box<Claims>),
    /// Kept in a Secret.
    Secret(SecretClaims),
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
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Status> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(Status::internal)
    }

    /// The token of a Secret of type `kubernetes.io/service-account-token`.
    pub fn sign_for_secret(&self, namespace: &str, account: &BoundObject, secret: &str) -> Result<String, Status> {
        self.sign(&SecretClaims {
            iss: SECRET_ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
        })
    }

    /// The claims of a token that this key has signed and that is valid at `now`.
    ///
    /// # Errors
    /// What is wrong with it, for people; nothing more than that for one that is no token of this cluster.
    pub fn verify(&self, token: &str, now: jiff::Timestamp) -> Result<Verified, String> {
        // Only ES256: a token that names another algorithm, or none, is refused by its header.
        let mut validation = Validation::new(Algorithm::ES256);
        // Time is the cluster's, not the operating system's; checked below, as are issuer and audience.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let invalid = || "invalid bearer token".to_owned();
        let because = |why: &str| format!("[invalid bearer token, {why}]");
        let decoded = jsonwebtoken::decode::<Value>(token, &self.decoding, &validation);
        let claims = decoded.map_err(|_| invalid())?.claims;
        match claims["iss"].as_str() {
            Some(ISSUER) => {}
            Some(SECRET_ISSUER) => {
                return serde_json::from_value(claims).map(Verified::Secret).map_err(|_| invalid());
            }
            _ => return Err(invalid()),
        }
        let claims: Claims = serde_json::from_value(claims).map_err(|_| invalid())?;
        let now = now.as_second();
        if now >= claims.exp {
            return Err(because("service account token has expired"));
        }
        // Clocks of whoever issued and whoever checks are the same one; a second of rounding is allowed.
        if now + 1 < claims.nbf {
            return Err(because("service account token is not valid yet"));
        }
        let subject =
            format!("system:serviceaccount:{}:{}", claims.kubernetes.namespace, claims.kubernetes.serviceaccount.name);
        if claims.sub != subject {
            return Err(because("sub claim is invalid"));
        }
        Ok(Verified::Bound(Box::new(claims)))
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

/// The user that a service account is.
fn service_account(namespace: &str, sub: &str, uid: &str) -> UserInfo {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    let mut user = UserInfo::new(sub, &groups);
    uid.clone_into(&mut user.uid);
    user
}

impl SecretClaims {
    /// The user these claims stand for.
    pub fn user(&self) -> UserInfo {
        service_account(&self.namespace, &self.sub, &self.uid)
    }
}

impl Claims {
    /// The user these claims stand for.
    pub fn user(&self) -> UserInfo {
        let KubernetesClaims { namespace, serviceaccount, pod, node, .. } = &self.kubernetes;
        let mut user = service_account(namespace, &self.sub, &serviceaccount.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", self.jti));
        }
        for (what, object) in [("pod", pod), ("node", node)] {
            if let Some(BoundObject { name, uid }) = object {
                extra(&format!("{what}-name"), name);
                extra(&format!("{what}-uid"), uid);
            }
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
        let (aud, jti) = (vec![ISSUER.into()], "j1".into());
        Claims { aud, exp, iat: 1000, nbf: 1000, iss: ISSUER.into(), jti, sub, kubernetes }
    }

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_is_valid_until_it_expires_and_under_its_own_key() {
        let signer = TokenSigner::generate().expect("a key");
        let again = TokenSigner::from_pem(&signer.to_pem()).expect("read back");
        let token = signer.sign(&claims(2000)).expect("signed");
        assert_eq!(again.verify(&token, at(1500)), Ok(Verified::Bound(Box::new(claims(2000)))));
        let wrong = |signer: &TokenSigner, token: &str, time| signer.verify(token, at(time)).expect_err("refused");
        assert_eq!(wrong(&again, &token, 2000), "[invalid bearer token, service account token has expired]");
        assert_eq!(wrong(&again, &token, 900), "[invalid bearer token, service account token is not valid yet]");
        assert_eq!(wrong(&TokenSigner::generate().expect("a key"), &token, 1500), "invalid bearer token");
        assert_eq!(wrong(&again, "a.b.c", 1500), "invalid bearer token");
    }

    #[test]
    fn a_token_must_be_signed_as_its_key_signs() {
        let signer = TokenSigner::generate().expect("a key");
        let token = signer.sign(&claims(2000)).expect("signed");
        let mut parts = token.split('.');
        let (_, payload, signature) = (parts.next(), parts.next().expect("claims"), parts.next().expect("a signature"));
        let header = |alg: &str| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
        let forged = URL_SAFE_NO_PAD.encode(json!(Claims { sub: "system:admin".into(), ..claims(2000) }).to_string());
        for token in [
            format!("{}.{payload}.", header("none")),
            format!("{}.{payload}.{signature}", header("none")),
            format!("{}.{payload}.{signature}", header("HS256")),
            format!("{}.{forged}.{signature}", header("ES256")),
            format!("{}.{payload}", header("ES256")),
        ] {
            assert_eq!(signer.verify(&token, at(1500)).expect_err(&token), "invalid bearer token");
        }
    }

    #[test]
    fn who_a_token_stands_for_is_told_with_what_it_is_bound_to() {
        let mut bound = claims(2000);
        bound.kubernetes.pod = Some(BoundObject { name: "web".into(), uid: "u2".into() });
        bound.kubernetes.node = Some(BoundObject { name: "node-1".into(), uid: "u3".into() });
        let user = bound.user();
        let extra: Vec<String> = user.extra.iter().map(|(key, value)| format!("{key}={}", value.join(","))).collect();
        assert_eq!(
            extra,
            ["credential-id=JTI=j1", "node-name=node-1", "node-uid=u3", "pod-name=web", "pod-uid=u2"]
                .map(|extra| format!("authentication.kubernetes.io/{extra}"))
        );
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"]);
    }
}
