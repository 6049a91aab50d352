//! A pod runs as a service account, which must exist, and finds its token mounted.
//!
//! Follows `plugin/pkg/admission/serviceaccount`.

use super::{Admission, AdmissionRequest, Mutation};
use crate::status::Status;
use crate::{encode, kinds};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;
use store::{KeyValue, Store};
use tokio::time::{Instant, timeout_at};

/// How long a pod waits for its service account: in a new namespace the controller is about to make it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceAccounts;

const MIRROR: &str = "kubernetes.io/config.mirror";

#[async_trait]
impl Admission for ServiceAccounts {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates("", "pods")
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<Mutation, Status> {
        // A mirror pod shows what a kubelet has been told by a file: nothing may be added to it.
        if !pod["spec"].is_object() || pod["metadata"]["annotations"][MIRROR].is_string() {
            return Ok(Mutation::Unchanged);
        }
        let (namespace, given) = (request.namespace, pod["spec"]["serviceAccountName"].as_str().unwrap_or_default());
        let name = if given.is_empty() { "default".to_owned() } else { given.to_owned() };
        let key = format!("/registry/serviceaccounts/{namespace}/{name}");
        let Some(found) = patiently(request.store, &key).await else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(request.forbidden(&why));
        };
        let account = encode::parse(&found)?;
        pod["spec"]["serviceAccountName"] = name.as_str().into();
        let said = |of: &Value| of["automountServiceAccountToken"].as_bool();
        if said(&pod["spec"]).or_else(|| said(&account)).unwrap_or(true) {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            kinds::pod::mount_service_account_token(pod, &suffix(uid));
        }
        let secrets = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty());
        if let (Some(secrets), true) = (secrets, pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)) {
            pod["spec"]["imagePullSecrets"] = secrets.clone().into();
        }
        Ok(Mutation::Changed)
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, pod: &Value) -> Result<(), Status> {
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if pod["metadata"]["annotations"][MIRROR].is_string() && !account.is_empty() {
            return Err(request.forbidden("a mirror pod may not reference service accounts"));
        }
        Ok(())
    }
}

/// What stands under `key`, now or in a moment.
async fn patiently(store: &dyn Store, key: &str) -> Option<KeyValue> {
    let until = Instant::now() + PATIENCE;
    let mut changes = store.watch(key, store.revision());
    loop {
        if let Some(found) = store.get(key).await.ok()? {
            return Some(found);
        }
        timeout_at(until, changes.next()).await.ok()??.ok()?;
    }
}

/// Five letters that the pod's uid gives, so that the same run gives the same ones.
fn suffix(uid: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    });
    (0..5).map(|place| char::from(LETTERS[(hash >> (place * 12)) as usize % LETTERS.len()])).collect()
}
