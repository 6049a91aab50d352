//! Who sent a request over the wire: bearer tokens, and anonymous when there are none.
//!
//! Client certificates and the unix socket are dealt with in [`crate::server`], before the request. A service-account token is valid
//! while its account (and the pod it is bound to) exist with the uid it was issued for. Follows KEP-1205.

pub(crate) mod websocket;

use crate::authn::{Authenticator, UserInfo};
use crate::status::Status;
use crate::tokens::{BoundObject, Claims, ISSUER, KubernetesClaims, SecretClaims, TokenSigner, Verified};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

    /// The user of a token, and for which of `audiences` it is meant; the API server itself is meant without any.
    ///
    /// # Errors
    /// Why the token is not accepted, for people.
    pub async fn user(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        if !self.admin_token.is_empty() && equal_in_constant_time(token.as_bytes(), self.admin_token.as_bytes()) {
            return if wanted.contains(&own[0]) {
                Ok((UserInfo::admin(), own.into()))
            } else {
                Err(wrong_audience(&own, wanted))
            };
        }
        match self.signer.verify(token, (self.now)())? {
            Verified::Bound(claims) => {
                let meant: Vec<String> =
                    wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
                if meant.is_empty() {
                    return Err(wrong_audience(&claims.aud, wanted));
                }
                self.check_bound(&claims).await.map_err(|why| format!("[invalid bearer token, {why}]"))?;
                Ok((claims.user(), meant))
            }
            // A token without audience is meant for the API server only.
            Verified::Secret(_) if !wanted.contains(&own[0]) => Err(wrong_audience(&own, wanted)),
            Verified::Secret(claims) => {
                let checked = self.check_secret(&claims, token).await;
                checked.map_err(|why| format!("[invalid bearer token, {why}]"))?;
                Ok((claims.user(), own.into()))
            }
        }
    }

    /// Whether everything the token is bound to is still there, and still the same.
    async fn check_bound(&self, claims: &Claims) -> Result<(), String> {
        let KubernetesClaims { namespace, serviceaccount, pod, node, secret } = &claims.kubernetes;
        self.check_account(namespace, &serviceaccount.name, &serviceaccount.uid).await?;
        // The node of a pod is only told: the token ends with the pod.
        let node = node.as_ref().filter(|_| pod.is_none());
        let bound = [("pod", "pods", pod.as_ref()), ("secret", "secrets", secret.as_ref()), ("node", "nodes", node)];
        for (what, plural, object) in bound {
            let Some(BoundObject { name, uid }) = object else { continue };
            let key = if what == "node" {
                format!("/registry/{plural}/{name}")
            } else {
                format!("/registry/{plural}/{namespace}/{name}")
            };
            let found = self.read(&key).await.filter(|object| !self.long_deleted(object));
            let found = found.ok_or("service account token has been invalidated")?;
            let is = found["metadata"]["uid"].as_str().unwrap_or_default();
            if is != uid {
                return Err(format!("{what} UID ({is}) does not match service account {what} ref claim ({uid})"));
            }
        }
        Ok(())
    }

    /// A token in a Secret is valid as long as it stands there.
    async fn check_secret(&self, claims: &SecretClaims, token: &str) -> Result<(), String> {
        let SecretClaims { namespace, secret, account, uid, .. } = claims;
        let kept = self.read(&format!("/registry/secrets/{namespace}/{secret}")).await;
        let kept = kept.filter(|secret| !secret["metadata"]["deletionTimestamp"].is_string());
        let kept = kept.ok_or("service account token has been invalidated")?;
        let data = kept["data"]["token"].as_str().and_then(|data| STANDARD.decode(data).ok()).unwrap_or_default();
        if !equal_in_constant_time(&data, token.as_bytes()) {
            return Err("service account token does not match server's copy".to_owned());
        }
        self.check_account(namespace, account, uid).await
    }

    async fn check_account(&self, namespace: &str, name: &str, uid: &str) -> Result<(), String> {
        let account = self.read(&format!("/registry/serviceaccounts/{namespace}/{name}")).await;
        let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
        if self.long_deleted(&account) {
            return Err(format!("service account {namespace}/{name} has been deleted"));
        }
        let is = account["metadata"]["uid"].as_str().unwrap_or_default();
        if is != uid {
            return Err(format!("service account UID ({is}) does not match claim ({uid})"));
        }
        Ok(())
    }

    async fn read(&self, key: &str) -> Option<Value> {
        self.store.get(key).await.ok()?.and_then(|kv| serde_json::from_slice(&kv.value).ok())
    }

    /// Whether an object has been on its way out for more than a minute: whatever is still using a token has had time to end.
    fn long_deleted(&self, object: &Value) -> bool {
        let deleted =
            object["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        deleted.is_some_and(|time| (self.now)().as_second() - time.as_second() > DELETED_FOR)
    }
}

/// Seconds for which the tokens of an object that is being deleted are still good.
const DELETED_FOR: i64 = 60;

fn wrong_audience(is: &[String], wanted: &[String]) -> String {
    let list =
        |audiences: &[String]| audiences.iter().map(|audience| format!("{audience:?}")).collect::<Vec<_>>().join(" ");
    format!(
        "[invalid bearer token, token audiences [{}] is invalid for the target audiences [{}]]",
        list(is),
        list(wanted)
    )
}

/// Marks requests on a connection whose client certificate is not accepted, with the reason.
#[derive(Clone, Debug)]
pub(crate) struct RefusedCertificate(pub(crate) String);

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, request: &http::request::Parts) -> Result<Option<UserInfo>, Status> {
        let unauthorized = || Status::failure(401, "Unauthorized", "Unauthorized");
        let bearer = request.headers.get(AUTHORIZATION).and_then(|header| {
            let (scheme, token) = header.to_str().ok()?.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        let bearer = match bearer.filter(|token| !token.is_empty()) {
            Some(token) => Some(token),
            None => websocket::token(&request.headers).map_err(|why| {
                tracing::debug!(why, "bearer token refused");
                unauthorized()
            })?,
        };
        if let Some(token) = bearer {
            return match self.user(&token, &[]).await {
                Ok((user, _)) => Ok(Some(user)),
                Err(why) => {
                    tracing::debug!(why, "bearer token refused");
                    Err(unauthorized())
                }
            };
        }
        if let Some(RefusedCertificate(why)) = request.extensions.get() {
            tracing::debug!(why, "client certificate refused");
            return Err(unauthorized());
        }
        // Credentials of another kind, such as a password, are nobody's.
        if request.headers.contains_key(AUTHORIZATION) {
            return Err(unauthorized());
        }
        let (name, groups) = ("system:anonymous".to_owned(), vec!["system:unauthenticated".to_owned()]);
        Ok(Some(UserInfo { name, groups, ..UserInfo::default() }))
    }
}

/// Says nothing by its timing about where two secrets differ.
fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
