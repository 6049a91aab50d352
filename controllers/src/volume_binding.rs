//! Volume claims get what they ask for at once: a PersistentVolume of their own, or the one they name.
//!
//! The place of a provisioner and of kube-controller-manager's binder, in a cluster whose nodes keep volumes in memory:
//! any storage class will do, and no claim waits. What a volume holds is the kubelet's.

use crate::meta::annotation;
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeSpec,
    PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "coracle.dev/memory";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let claims = shared.informers.of::<PersistentVolumeClaim>();
    let volumes = shared.informers.of::<PersistentVolume>();
    tasks.spawn(follow_own(claims.clone(), queue.clone()));
    tasks.spawn(follow(volumes.clone(), queue.clone(), {
        let claims = claims.clone();
        move |update| {
            let volume = update.object();
            let waiting =
                claims.list().into_iter().filter(|claim| named_volume(claim) == volume.metadata.name.as_deref());
            waiting.map(|claim| Key::of(&claim.metadata)).collect()
        }
    }));
    tasks.spawn(run(shared.clone(), queue, VolumeBinder { claims: claims.clone(), volumes: volumes.clone() }));

    let queue = Queue::new();
    tasks.spawn(follow_own(volumes.clone(), queue.clone()));
    tasks.spawn(follow(claims.clone(), queue.clone(), {
        let volumes = volumes.clone();
        move |update| {
            let claim = update.object();
            let own = volumes.list().into_iter().filter(|volume| claim_of(volume) == Some(Key::of(&claim.metadata)));
            own.map(|volume| Key::of(&volume.metadata)).collect()
        }
    }));
    tasks.spawn(run(shared.clone(), queue, VolumeKeeper { claims, volumes }));
}

fn named_volume(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The claim a volume is reserved for.
fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(reference.namespace.clone()?, reference.name.clone()?))
}

struct VolumeBinder {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl Controller for VolumeBinder {
    const NAME: &'static str = "persistentvolume-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if claim.metadata.deletion_timestamp.is_some() || phase(&claim) == Some("Bound") {
            return Ok(Next::OnChange);
        }
        let volume = match named_volume(&claim) {
            None => match self.matching(&claim) {
                Some(volume) => volume,
                None => {
                    let volume = provisioned(&claim);
                    match session.create(&volume).await {
                        Ok(created) => Arc::new(created),
                        Err(error) if error.is_already_exists() => Arc::new(volume),
                        Err(error) => return Err(error),
                    }
                }
            },
            // A volume that is not there yet, or is somebody else's, is waited for.
            Some(name) => match self.volumes.get("", name) {
                Some(volume) if claim_of(&volume).is_none_or(|owner| owner == *key) => volume,
                _ => return Ok(Next::OnChange),
            },
        };
        if claim_of(&volume).is_none() {
            let mut reserved = (*volume).clone();
            reserved.spec.get_or_insert_default().claim_ref = Some(crate::event::reference(&*claim));
            session.replace(&reserved).await?;
        }
        let mut bound = (*claim).clone();
        bound.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
        bound.metadata.annotations.get_or_insert_default().insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        let mut bound = session.replace(&bound).await?;
        let spec = volume.spec.clone().unwrap_or_default();
        bound.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes,
            capacity: spec.capacity,
            ..bound.status.unwrap_or_default()
        });
        session.replace_status(&bound).await?;
        Ok(Next::OnChange)
    }
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

impl VolumeBinder {
    /// A volume that somebody has made for this claim.
    fn matching(&self, claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
        let key = Key::of(&claim.metadata);
        self.volumes.list().into_iter().find(|volume| claim_of(volume).as_ref() == Some(&key))
    }
}

/// A volume for this claim alone, named after its uid so that it is made once.
fn provisioned(claim: &PersistentVolumeClaim) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let source =
        HostPathVolumeSource { path: format!("/var/lib/volumes/{name}"), type_: Some("DirectoryOrCreate".to_owned()) };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: spec.resources.and_then(|resources| resources.requests),
            access_modes: spec.access_modes,
            storage_class_name: spec.storage_class_name,
            volume_mode: spec.volume_mode,
            claim_ref: Some(crate::event::reference(claim)),
            persistent_volume_reclaim_policy: Some("Delete".to_owned()),
            host_path: Some(source),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// Keeps the phase of volumes, and deletes those provisioned here when their claim is gone.
struct VolumeKeeper {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl Controller for VolumeKeeper {
    const NAME: &'static str = "persistentvolume-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(Next::OnChange) };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
        let claim = claim_of(&volume).and_then(|key| self.claims.get(&key.namespace, &key.name));
        let is_claimed = claim.as_ref().is_some_and(|claim| {
            let uid = reference.as_ref().and_then(|reference| reference.uid.as_ref());
            uid.is_none() || uid == claim.metadata.uid.as_ref()
        });
        let wanted = match (&reference, is_claimed) {
            (None, _) => "Available",
            (Some(_), true) => "Bound",
            (Some(reference), false) if reference.uid.is_none() => "Available",
            (Some(_), false) => "Released",
        };
        let known = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_ours = annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER);
        let reclaim = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        // Its claim may be newer than what the informer shows; a volume is given up only after it has been bound.
        if wanted == "Released" && is_ours && reclaim == Some("Delete") {
            if known == Some("Bound") || known == Some("Released") {
                session.delete(&*volume).await?;
            }
            return Ok(Next::OnChange);
        }
        if known != Some(wanted) {
            let status =
                PersistentVolumeStatus { phase: Some(wanted.to_owned()), ..volume.status.clone().unwrap_or_default() };
            session.replace_status(&PersistentVolume { status: Some(status), ..(*volume).clone() }).await?;
        }
        Ok(Next::OnChange)
    }
}
