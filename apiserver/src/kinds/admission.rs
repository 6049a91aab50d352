//! Admission of built-in kinds that has to look at other objects: a pod's service account and priority class, the default classes of
//! Ingresses and claims.
//!
//! Follows the plug-ins ServiceAccount, Priority, DefaultIngressClass and DefaultStorageClass. LimitRanger and ResourceQuota are not here.

use super::json::{flag, list, put, text};
use super::pod;
use crate::admission::{Admission, AdmissionOperation, AdmissionRequest};
use crate::status::Status;
use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::time::Duration;
use store::{Range, Store};

const PRIORITY_CLASSES: &str = "/registry/priorityclasses.scheduling.k8s.io/";
const INGRESS_CLASSES: &str = "/registry/ingressclasses.networking.k8s.io/";
const STORAGE_CLASSES: &str = "/registry/storageclasses.storage.k8s.io/";

/// How long a pod waits for its namespace's default service account.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// The plug-in.
pub struct BuiltInAdmission {
    random: Mutex<StdRng>,
}

impl BuiltInAdmission {
    /// One whose made-up names follow `seed`.
    pub fn new(seed: u64) -> Self {
        BuiltInAdmission { random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    fn suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = self.random.lock();
        (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
    }

    async fn service_account(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status> {
        let (namespace, account) = (request.namespace, text(object, "/spec/serviceAccountName").to_owned());
        let key = format!("/registry/serviceaccounts/{namespace}/{account}");
        let found = match read(request.store, &key).await {
            // A controller makes it moments after the namespace: who creates both at once is not to be refused.
            None if account == "default" => created_soon(request.store, &key).await,
            found => found,
        };
        let Some(found) = found else {
            let why =
                format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
            return Err(forbidden(request, &why));
        };
        let automount = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_bool);
        let wanted = automount(object, "/spec/automountServiceAccountToken")
            .or(automount(&found, "/automountServiceAccountToken"))
            .unwrap_or(true);
        if wanted {
            pod::mount_service_account_token(object, &self.suffix());
        }
        if list(object, "/spec/imagePullSecrets").is_empty() && !list(&found, "/imagePullSecrets").is_empty() {
            put(&mut object["spec"], "imagePullSecrets", found.get("imagePullSecrets").cloned());
        }
        Ok(())
    }

    async fn priority(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status> {
        let wanted = text(object, "/spec/priorityClassName");
        let class = if wanted.is_empty() {
            let classes = all(request.store, PRIORITY_CLASSES).await;
            let Some(default) = classes.into_iter().find(|class| flag(class, "/globalDefault")) else { return Ok(()) };
            default
        } else {
            match read(request.store, &format!("{PRIORITY_CLASSES}{wanted}")).await {
                Some(class) => class,
                // Their numbers are known without the object.
                None if matches!(wanted, "system-cluster-critical" | "system-node-critical") => return Ok(()),
                None => {
                    let why = format!("no PriorityClass with name {wanted} was found");
                    return Err(forbidden(request, &why));
                }
            }
        };
        let spec = &mut object["spec"];
        put(spec, "priorityClassName", Some(text(&class, "/metadata/name").into()));
        put(spec, "priority", Some(class.get("value").cloned().unwrap_or(Value::from(0))));
        if let Some(policy) = class.get("preemptionPolicy") {
            put(spec, "preemptionPolicy", Some(policy.clone()));
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for BuiltInAdmission {
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status> {
        if request.operation != AdmissionOperation::Create
            || !request.subresource.is_empty()
            || !object["spec"].is_object()
        {
            return Ok(());
        }
        match (&*request.kind.group, &*request.kind.plural) {
            ("", "pods") => {
                self.service_account(request, object).await?;
                self.priority(request, object).await
            }
            ("networking.k8s.io", "ingresses") => {
                let annotated = object.pointer("/metadata/annotations/kubernetes.io~1ingress.class").is_some();
                if !annotated && object.pointer("/spec/ingressClassName").is_none_or(Value::is_null) {
                    let defaults = defaults(request.store, INGRESS_CLASSES, "ingressclass").await;
                    if defaults.len() > 1 {
                        let why = format!("{} default IngressClasses were found, only 1 allowed", defaults.len());
                        return Err(forbidden(request, &why));
                    }
                    put_name(object, "ingressClassName", defaults.first());
                }
                Ok(())
            }
            ("", "persistentvolumeclaims") => {
                if object.pointer("/spec/storageClassName").is_none_or(Value::is_null) {
                    let mut defaults = defaults(request.store, STORAGE_CLASSES, "storageclass").await;
                    // The newest of several; of one age, the first by name.
                    defaults.sort_by(|one, other| {
                        let born = |class: &Value| text(class, "/metadata/creationTimestamp").to_owned();
                        born(other).cmp(&born(one))
                    });
                    put_name(object, "storageClassName", defaults.first());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn put_name(object: &mut Value, field: &str, class: Option<&Value>) {
    if let Some(class) = class {
        put(&mut object["spec"], field, Some(text(class, "/metadata/name").into()));
    }
}

fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> Status {
    Status::forbidden(&request.kind.group, &request.kind.plural, request.name, why)
}

/// Waits a moment for an object to be created, as upstream does for the default service account.
async fn created_soon(store: &dyn Store, key: &str) -> Option<Value> {
    let mut changes = store.watch(key, store.revision());
    let created = async {
        loop {
            if let Some(found) = read(store, key).await {
                return Some(found);
            }
            changes.next().await?.ok()?;
        }
    };
    tokio::time::timeout(ACCOUNT_WAIT, created).await.ok().flatten()
}

async fn read(store: &dyn Store, key: &str) -> Option<Value> {
    serde_json::from_slice(&store.get(key).await?.value).ok()
}

async fn all(store: &dyn Store, prefix: &str) -> Vec<Value> {
    let range = Range { prefix: prefix.to_owned(), ..Range::default() };
    match store.range(range).await {
        Ok(page) => page.items.iter().filter_map(|item| serde_json::from_slice(&item.value).ok()).collect(),
        Err(_) => Vec::new(),
    }
}

async fn defaults(store: &dyn Store, prefix: &str, group: &str) -> Vec<Value> {
    let annotation = format!("/metadata/annotations/{group}.kubernetes.io~1is-default-class");
    all(store, prefix).await.into_iter().filter(|class| text(class, &annotation) == "true").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::UserInfo;
    use crate::kinds::{Networking, registry};
    use bytes::Bytes;
    use serde_json::json;
    use store::{MemoryStore, Operation, Txn};

    async fn cluster(objects: &[(&str, Value)]) -> MemoryStore {
        let store = MemoryStore::new();
        let operations = objects
            .iter()
            .map(|(key, object)| Operation::Put {
                key: format!("/registry/{key}").into(),
                value: Bytes::from(object.to_string()),
            })
            .collect();
        store.txn(Txn { compares: Vec::new(), operations }).await.expect("a first write");
        store
    }

    async fn admitted(store: &MemoryStore, group: &str, kind: &str, mut object: Value) -> Result<Value, Status> {
        let (registry, user) = (registry(Networking::default()), UserInfo::default());
        let kind = registry.by_kind(group, "v1", kind).expect("a row");
        let request = AdmissionRequest {
            operation: AdmissionOperation::Create,
            kind,
            namespace: "shop",
            name: "web",
            subresource: "",
            user: &user,
            old: None,
            dry_run: false,
            store,
            registry: &registry,
        };
        BuiltInAdmission::new(7).admit(&request, &mut object).await?;
        Ok(object["spec"].take())
    }

    fn pod(fields: Value) -> Value {
        let mut spec = json!({"serviceAccountName": "default", "containers": [{"name": "a"}]});
        for (key, value) in fields.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        json!({"spec": spec})
    }

    #[tokio::test]
    async fn a_pod_runs_as_a_service_account_that_exists() {
        let store = cluster(&[
            ("serviceaccounts/shop/default", json!({"imagePullSecrets": [{"name": "s"}]})),
            ("serviceaccounts/shop/quiet", json!({"automountServiceAccountToken": false})),
        ])
        .await;
        let spec = admitted(&store, "", "Pod", pod(json!({}))).await.expect("admitted");
        assert!(text(&spec, "/volumes/0/name").starts_with("kube-api-access-"), "{spec}");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
        let spec = admitted(&store, "", "Pod", pod(json!({"serviceAccountName": "quiet"}))).await.expect("admitted");
        assert_eq!(spec.get("volumes"), None);
        let refused = admitted(&store, "", "Pod", pod(json!({"serviceAccountName": "bot"}))).await.unwrap_err();
        assert_eq!(
            refused.message,
            "pods \"web\" is forbidden: error looking up service account shop/bot: serviceaccount \"bot\" not found"
        );
    }

    #[tokio::test]
    async fn a_pods_priority_is_that_of_its_class() {
        let store = cluster(&[
            ("serviceaccounts/shop/default", json!({})),
            (
                "priorityclasses.scheduling.k8s.io/high",
                json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
            ),
            (
                "priorityclasses.scheduling.k8s.io/usual",
                json!({"metadata": {"name": "usual"}, "value": 10, "globalDefault": true}),
            ),
        ])
        .await;
        let spec = admitted(&store, "", "Pod", pod(json!({"priorityClassName": "high"}))).await.expect("admitted");
        assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
        let spec = admitted(&store, "", "Pod", pod(json!({}))).await.expect("admitted");
        assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(10), &json!("usual")));
        let refused = admitted(&store, "", "Pod", pod(json!({"priorityClassName": "none"}))).await.unwrap_err();
        assert_eq!(refused.message, "pods \"web\" is forbidden: no PriorityClass with name none was found");
    }

    #[tokio::test]
    async fn rule_14_1_an_ingress_gets_the_one_default_class() {
        let default = |name: &str| json!({"metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
        let class = |name: &str| (format!("ingressclasses.networking.k8s.io/{name}"), default(name));
        let (one, other) = (class("a"), class("b"));
        let store = cluster(&[(&one.0, one.1.clone())]).await;
        let spec = admitted(&store, "networking.k8s.io", "Ingress", json!({"spec": {}})).await.expect("admitted");
        assert_eq!(spec["ingressClassName"], "a");
        let store = cluster(&[(&one.0, one.1.clone()), (&other.0, other.1.clone())]).await;
        let refused = admitted(&store, "networking.k8s.io", "Ingress", json!({"spec": {}})).await.unwrap_err();
        assert_eq!(
            refused.message,
            "ingresses.networking.k8s.io \"web\" is forbidden: 2 default IngressClasses were found, only 1 allowed"
        );
    }

    #[tokio::test]
    async fn a_claim_gets_the_newest_default_class() {
        let class = |name: &str, born: &str| json!({"metadata": {"name": name, "creationTimestamp": born, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
        let store = cluster(&[
            ("storageclasses.storage.k8s.io/old", class("old", "2026-01-01T00:00:00Z")),
            ("storageclasses.storage.k8s.io/young", class("young", "2026-01-02T00:00:00Z")),
        ])
        .await;
        let spec = admitted(&store, "", "PersistentVolumeClaim", json!({"spec": {}})).await.expect("admitted");
        assert_eq!(spec["storageClassName"], "young");
        let asked = json!({"spec": {"storageClassName": ""}});
        let spec = admitted(&store, "", "PersistentVolumeClaim", asked).await.expect("admitted");
        assert_eq!(spec["storageClassName"], "", "the user wants none");
    }
}
