//! A pod runs as a service account, which must exist, and finds its token mounted.
//!
//! Follows `plugin/pkg/admission/serviceaccount`.

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::status::Status;
use crate::{encode, kinds, strategy};
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

#[async_trait]
impl Admission for ServiceAccounts {
    async fn admit(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), Status> {
        let concerns = strategy::is_pod(request.kind)
            && request.operation == AdmissionOperation::Create
            && request.subresource.is_empty()
            && pod["spec"].is_object();
        if !concerns {
            return Ok(());
        }
        let (namespace, given) = (request.namespace, pod["spec"]["serviceAccountName"].as_str().unwrap_or_default());
        let name = if given.is_empty() { "default".to_owned() } else { given.to_owned() };
        let key = format!("/registry/serviceaccounts/{namespace}/{name}");
        let Some(found) = patiently(request.store, &key).await else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(Status::forbidden("", "pods", request.name, &why));
        };
        let account = encode::parse(&found)?;
        pod["spec"]["serviceAccountName"] = name.as_str().into();
        let said = |of: &Value| of["automountServiceAccountToken"].as_bool();
        if said(&pod["spec"]).or_else(|| said(&account)).unwrap_or(true) {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            kinds::pod::mount_service_account_token(pod, &suffix(uid));
        }
        let secrets = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty());
        if let (Some(secrets), None) = (secrets, pod["spec"]["imagePullSecrets"].as_array()) {
            pod["spec"]["imagePullSecrets"] = secrets.clone().into();
        }
        Ok(())
    }
}

/// What stands under `key`, now or in a moment.
async fn patiently(store: &dyn Store, key: &str) -> Option<KeyValue> {
    let until = Instant::now() + PATIENCE;
    let mut changes = store.watch(key, store.revision());
    loop {
        if let Some(found) = store.get(key).await {
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
