//! Claims and volumes that are deleted stay until nobody uses them: then their finalizer is taken away.
//!
//! Admission gives the finalizers. A claim is used by every pod on a node that mounts it, a volume by the claim that is bound to it.
//! Follows kube-controller-manager's pvc-protection and pv-protection controllers.

use crate::meta::controller_of;
use crate::pods::node_name;
use crate::queue::{Next, Queue};
use crate::session::{Key, Object, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::json;
use tokio::task::JoinSet;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let claims = shared.informers.of::<PersistentVolumeClaim>();
    let (volumes, pods) = (shared.informers.of::<PersistentVolume>(), shared.informers.of::<Pod>());

    let queue = Queue::new();
    tasks.spawn(follow_own(claims.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), |update| claims_of(update.object())));
    tasks.spawn(run(shared.clone(), queue, ClaimProtection { claims: claims.clone(), pods }));

    let queue = Queue::new();
    tasks.spawn(follow_own(volumes.clone(), queue.clone()));
    tasks.spawn(follow(claims.clone(), queue.clone(), |update| {
        let volume = update.object().spec.as_ref().and_then(|spec| spec.volume_name.clone());
        volume.into_iter().filter(|name| !name.is_empty()).map(|name| Key::new("", name)).collect()
    }));
    tasks.spawn(run(shared.clone(), queue, VolumeProtection { claims, volumes }));
}

/// The claims a pod mounts; a generic ephemeral volume has one of its own.
fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{own}-{}", volume.name)),
    });
    names.map(|name| Key::new(namespace, name)).collect()
}

/// Whether the object is deleted, and held by the finalizer.
fn is_waiting<K: Object>(object: &K, finalizer: &str) -> bool {
    let metadata = object.metadata();
    metadata.deletion_timestamp.is_some() && metadata.finalizers.iter().flatten().any(|name| name == finalizer)
}

async fn let_go<K: Object>(session: &Session, object: &K, finalizer: &str) -> Result<Next> {
    let metadata = object.metadata();
    let kept: Vec<&String> = metadata.finalizers.iter().flatten().filter(|name| *name != finalizer).collect();
    let patch = json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": kept,
    }});
    match session.merge::<K>(metadata, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Next::OnChange),
    }
}

struct ClaimProtection {
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

impl Controller for ClaimProtection {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if !is_waiting(&*claim, CLAIM_FINALIZER)
            || self.pods.list_in(&key.namespace).iter().any(|pod| uses(pod, &claim))
        {
            return Ok(Next::OnChange);
        }
        let_go(session, &*claim, CLAIM_FINALIZER).await
    }
}

/// Whether a pod on a node mounts the claim. One that has no node yet will not start with a claim that is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let key = Key::of(&claim.metadata);
    let owner = controller_of(&claim.metadata).map(|owner| owner.uid.as_str());
    // An ephemeral volume's claim is its pod's, not that of a later pod by the same name.
    let is_its_own =
        owner.is_none_or(|owner| pod.metadata.uid.as_deref() == Some(owner))
            || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
                volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == key.name)
            });
    node_name(pod).is_some() && claims_of(pod).contains(&key) && is_its_own
}

struct VolumeProtection {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl Controller for VolumeProtection {
    const NAME: &'static str = "persistentvolume-protection-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(Next::OnChange) };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = reference.and_then(|reference| {
            self.claims
                .get(reference.namespace.as_deref()?, reference.name.as_deref()?)
                .filter(|claim| reference.uid.is_none() || reference.uid == claim.metadata.uid)
        });
        let in_use = claim.is_some_and(|claim| {
            claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == Some(key.name.as_str())
        });
        if !is_waiting(&*volume, VOLUME_FINALIZER) || in_use {
            return Ok(Next::OnChange);
        }
        let_go(session, &*volume, VOLUME_FINALIZER).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(uid: &str, node: &str, volumes: Value) -> Pod {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": uid},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes}});
        serde_json::from_value(pod).expect("a pod")
    }

    fn claim(name: &str, owner: Option<&str>) -> PersistentVolumeClaim {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]));
        let claim = json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owners}});
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn a_claim_is_used_by_pods_on_a_node_that_mount_it() {
        let mounts = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        assert!(uses(&pod("1", "node", mounts.clone()), &claim("c", None)));
        assert!(uses(&pod("1", "node", mounts.clone()), &claim("c", Some("other"))));
        assert!(!uses(&pod("1", "", mounts.clone()), &claim("c", None)), "it has no node");
        assert!(!uses(&pod("1", "node", mounts), &claim("d", None)));
        let ephemeral = json!([{"name": "v", "ephemeral": {}}]);
        assert!(uses(&pod("1", "node", ephemeral.clone()), &claim("p-v", Some("1"))));
        assert!(!uses(&pod("2", "node", ephemeral), &claim("p-v", Some("1"))), "another pod by that name");
    }
}
