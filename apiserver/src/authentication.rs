//! Who sent a request over the wire: bearer tokens, and anonymous when there are none.
//!
//! Client certificates and the unix socket are dealt with in [`crate::server`], before the request. A service-account token is valid
//! while its account (and the pod it is bound to) exist with the uid it was issued for. Follows KEP-1205.

use crate::authn::{Authenticator, UserInfo};
use crate::status::Status;
use crate::tokens::{BoundObject, Claims, ISSUER, TokenSigner};
use async_trait::async_trait;
use http::header::AUTHORIZATION;
use serde_json::Value;
use std::sync::Arc;
use store::Store;

/// Bearer tokens over a store and a signer.
pub struct TokenAuthenticator {
    store: Arc<dyn Store>,
    signer: Arc<TokenSigner>,
    admin_token: String,
    now: Box<dyn Fn() -> jiff::Timestamp + Send + Sync>,
}

impl std::fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenAuthenticator(..)")
    }
}

impl TokenAuthenticator {
    /// `admin_token` is the owner's (an empty one admits nobody); `now` tells the cluster's time.
    pub fn new(
        store: Arc<dyn Store>,
        signer: Arc<TokenSigner>,
        admin_token: String,
        now: impl Fn() -> jiff::Timestamp + Send + Sync + 'static,
    ) -> Self {
        TokenAuthenticator { store, signer, admin_token, now: Box::new(now) }
    }

    /// The user of a token for one of `audiences`.
    ///
    /// # Errors
    /// Why the token is not accepted, for people.
    pub async fn user(&self, token: &str, audiences: &[String]) -> Result<UserInfo, String> {
        if !self.admin_token.is_empty() && equal_in_constant_time(token.as_bytes(), self.admin_token.as_bytes()) {
            return Ok(UserInfo::admin());
        }
        let claims = self.signer.verify(token, (self.now)(), audiences)?;
        self.check_objects(&claims).await?;
        Ok(claims.user())
    }

    async fn check_objects(&self, claims: &Claims) -> Result<(), String> {
        let kubernetes = &claims.kubernetes;
        let bound = [
            ("serviceaccounts", Some(&kubernetes.serviceaccount)),
            ("pods", kubernetes.pod.as_ref()),
            ("secrets", kubernetes.secret.as_ref()),
        ];
        for (plural, object) in bound {
            let Some(BoundObject { name, uid }) = object else { continue };
            let key = format!("/registry/{plural}/{}/{name}", kubernetes.namespace);
            let stored = self.store.get(&key).await.and_then(|kv| serde_json::from_slice::<Value>(&kv.value).ok());
            if stored.as_ref().and_then(|object| object["metadata"]["uid"].as_str()) != Some(uid) {
                return Err(format!("invalid bearer token: {plural} {}/{name} has been deleted", kubernetes.namespace));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, request: &http::request::Parts) -> Result<Option<UserInfo>, Status> {
        let unauthorized = || Status::failure(401, "Unauthorized", "Unauthorized");
        let token = match request.headers.get(AUTHORIZATION) {
            Some(header) => {
                let header = header.to_str().map_err(|_| unauthorized())?;
                let (scheme, token) = header.split_once(' ').ok_or_else(unauthorized)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(unauthorized());
                }
                Some(token.trim())
            }
            None => None,
        };
        let Some(token) = token else {
            let name = "system:anonymous".to_owned();
            return Ok(Some(UserInfo {
                name,
                groups: vec!["system:unauthenticated".to_owned()],
                ..UserInfo::default()
            }));
        };
        match self.user(token, &[ISSUER.to_owned()]).await {
            Ok(user) => Ok(Some(user)),
            Err(why) => {
                tracing::debug!(why, "bearer token refused");
                Err(unauthorized())
            }
        }
    }
}

/// Says nothing by its timing about where two secrets differ.
fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
