//! Secrets of type `kubernetes.io/service-account-token`: the token that whoever makes such a Secret finds in it.
//!
//! Tokens that expire come from TokenRequests and are not here. A Secret whose service account is gone is deleted. Follows
//! Kubernetes' "Token controller".

use crate::queue::{Next, Queue};
use crate::session::{Error, Key, Result, Session};
use crate::{Config, Controller, Shared, follow, run};
use informer::Informer;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use std::sync::Arc;
use tokio::task::JoinSet;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Whose token is to stand where.
#[derive(Clone, Copy, Debug)]
pub struct SecretAccount<'a> {
    /// Of both.
    pub namespace: &'a str,
    /// The service account.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The Secret.
    pub secret: &'a str,
}

type Sign = dyn Fn(&SecretAccount<'_>) -> std::result::Result<String, String> + Send + Sync;

/// Signs the tokens of Secrets; the key is its own.
#[derive(Clone)]
pub struct SecretTokens(pub Arc<Sign>);

impl std::fmt::Debug for SecretTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretTokens(..)")
    }
}

pub(crate) fn start(shared: &Shared, config: &Config, tasks: &mut JoinSet<()>) {
    let Some(tokens) = config.secret_tokens.clone() else { return };
    let queue = Queue::new();
    let secrets = shared.informers.of::<Secret>();
    let accounts = shared.informers.of::<ServiceAccount>();
    tasks.spawn(follow(secrets.clone(), queue.clone(), |update| {
        let secret = update.object();
        account_of(secret).map(|_| Key::of(&secret.metadata)).into_iter().collect()
    }));
    tasks.spawn(follow(accounts.clone(), queue.clone(), {
        let secrets = secrets.clone();
        move |update| {
            let account = Key::of(&update.object().metadata);
            let all = secrets.list_in(&account.namespace).into_iter();
            all.filter(|secret| account_of(secret) == Some(&account.name))
                .map(|secret| Key::of(&secret.metadata))
                .collect()
        }
    }));
    let controller = TokenController { secrets, accounts, tokens, ca_pem: config.ca_pem.clone() };
    tasks.spawn(run(shared.clone(), queue, controller));
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a String> {
    secret.metadata.annotations.as_ref()?.get(key)
}

/// The service account whose token a Secret is to hold.
fn account_of(secret: &Secret) -> Option<&String> {
    if secret.type_.as_deref() == Some(TYPE) { annotation(secret, ACCOUNT) } else { None }
}

struct TokenController {
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    tokens: SecretTokens,
    ca_pem: String,
}

impl Controller for TokenController {
    const NAME: &'static str = "tokens-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let Some(name) = account_of(&secret) else { return Ok(Next::OnChange) };
        let account = match self.accounts.get(&key.namespace, name) {
            Some(account) => Some((*account).clone()),
            // The informer may not have heard of it yet.
            None => {
                Api::<ServiceAccount>::namespaced(session.shared.client.clone(), &key.namespace).get_opt(name).await?
            }
        };
        let uid = account.and_then(|account| account.metadata.uid).unwrap_or_default();
        let other = annotation(&secret, UID).is_some_and(|known| !known.is_empty() && *known != uid);
        if uid.is_empty() || other {
            session.delete(&*secret).await?;
            return Ok(Next::OnChange);
        }
        let mut wanted = (*secret).clone();
        wanted.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), uid.clone());
        let data = wanted.data.get_or_insert_default();
        let mut fill = |field: &str, value: String| data.insert(field.to_owned(), ByteString(value.into_bytes()));
        fill("ca.crt", self.ca_pem.clone());
        fill("namespace", key.namespace.clone());
        let there = secret.data.as_ref().and_then(|data| data.get("token")).is_some_and(|token| !token.0.is_empty());
        if !there {
            let account = SecretAccount { namespace: &key.namespace, name, uid: &uid, secret: &key.name };
            fill("token", (self.tokens.0)(&account).map_err(Error::Invalid)?);
        }
        if wanted != *secret {
            match session.replace(&wanted).await {
                Err(error) if error.is_not_found() => {}
                written => drop(written?),
            }
        }
        Ok(Next::OnChange)
    }
}
