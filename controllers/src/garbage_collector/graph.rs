//! Who owns whom, and what follows from it. Pure: fed with metadata, asked for decisions.

use crate::discovery::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Dependents must go before the object does.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Dependents are to be let go of before the object goes.
pub(super) const ORPHAN: &str = "orphan";

/// An object, as far as garbage collection is concerned.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: Option<String>,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) is_deleted: bool,
}

impl Entry {
    pub(super) fn new(kind: Arc<Kind>, metadata: &ObjectMeta) -> Option<Self> {
        Some(Entry {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            resource_version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            is_deleted: metadata.deletion_timestamp.is_some(),
        })
    }

    fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Being deleted, and waiting for its dependents to go first.
    fn waits_for_dependents(&self) -> bool {
        self.is_deleted && self.has_finalizer(FOREGROUND)
    }
}

/// What to do about one object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Nothing,
    /// Take the owner reference to this object out of these dependents, then the `orphan` finalizer out of it.
    Orphan(Vec<String>),
    /// No dependent stands in the way any more: take the foreground finalizer out.
    Finish,
    /// These dependents stand in the way: look at them.
    Wait(Vec<String>),
    /// Some owners remain: take the references to these others out.
    Disown(HashSet<String>),
    /// Nobody owns it any more.
    Delete {
        propagation: Propagation,
        unblock: bool,
    },
}

/// What becomes of the dependents of an object that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// All objects and the edges between them.
#[derive(Default)]
pub(super) struct Graph {
    objects: HashMap<String, Entry>,
    /// Uids of dependents by uid of their owner, whether the owner is known or not.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Entry> {
        self.objects.get(uid)
    }

    /// Takes in an object's state; returns the uids to look at.
    pub(super) fn observe(&mut self, entry: Entry) -> Vec<String> {
        let uid = entry.uid.clone();
        let before = self.objects.insert(uid.clone(), entry.clone());
        let mut look = vec![];
        let owners_before = before.as_ref().map(|before| before.owners.clone()).unwrap_or_default();
        if owners_before != entry.owners || before.is_none() {
            for owner in &owners_before {
                if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                    dependents.remove(&uid);
                    if dependents.is_empty() {
                        self.dependents.remove(&owner.uid);
                    }
                }
                look.extend(self.waiting(&owner.uid)); // it may no longer stand in the way
            }
            for owner in &entry.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
                look.extend(self.waiting(&owner.uid));
            }
            let is_solid =
                |owner: &OwnerReference| self.owner(&entry, owner).is_some_and(|owner| !owner.waits_for_dependents());
            if !entry.owners.is_empty() && !entry.owners.iter().all(is_solid) {
                look.push(uid.clone());
            }
        }
        if entry.is_deleted && (entry.has_finalizer(FOREGROUND) || entry.has_finalizer(ORPHAN)) {
            look.push(uid);
        }
        look
    }

    /// Takes in that an object is gone; returns the uids to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(entry) = self.objects.remove(uid) else { return vec![] };
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in &entry.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            look.extend(self.waiting(&owner.uid));
        }
        look
    }

    /// Forgets every object of a kind that is no longer served, without consequences for others.
    pub(super) fn forget_kind(&mut self, kind: &Kind) {
        let gone: Vec<String> =
            self.objects.values().filter(|entry| *entry.kind == *kind).map(|entry| entry.uid.clone()).collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    /// The uids of a kind's objects, to find out which of them a fresh list lacks.
    pub(super) fn uids_of(&self, kind: &Kind) -> Vec<String> {
        self.objects.values().filter(|entry| *entry.kind == *kind).map(|entry| entry.uid.clone()).collect()
    }

    /// Everything that has an owner: to be looked at once after the start.
    pub(super) fn owned(&self) -> Vec<String> {
        let needs = |entry: &&Entry| !entry.owners.is_empty() || entry.is_deleted;
        self.objects.values().filter(needs).map(|entry| entry.uid.clone()).collect()
    }

    /// The owners of `uid` that the graph does not know; whether they exist only the API can say.
    pub(super) fn unknown_owners(&self, uid: &str) -> Vec<OwnerReference> {
        let Some(entry) = self.objects.get(uid).filter(|entry| !entry.is_deleted) else { return vec![] };
        entry.owners.iter().filter(|owner| self.owner(entry, owner).is_none()).cloned().collect()
    }

    /// What to do about `uid`, when the owners in `missing` do not exist.
    pub(super) fn decide(&self, uid: &str, missing: &HashSet<String>) -> Decision {
        let Some(entry) = self.objects.get(uid) else { return Decision::Nothing };
        let dependents = || self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.objects.get(uid));
        if entry.is_deleted {
            if entry.has_finalizer(ORPHAN) {
                return Decision::Orphan(dependents().map(|dependent| dependent.uid.clone()).collect());
            }
            if !entry.has_finalizer(FOREGROUND) {
                return Decision::Nothing;
            }
            let blocks = |dependent: &&Entry| {
                dependent.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            };
            let look: Vec<String> =
                dependents().filter(|dependent| !dependent.is_deleted).map(|dependent| dependent.uid.clone()).collect();
            return match dependents().any(|dependent| blocks(&dependent)) {
                true => Decision::Wait(look),
                false => Decision::Finish,
            };
        }
        if entry.owners.is_empty() {
            return Decision::Nothing;
        }
        let is_gone = |owner: &&OwnerReference| missing.contains(&owner.uid);
        let is_waiting =
            |owner: &&OwnerReference| self.owner(entry, owner).is_some_and(|owner| owner.waits_for_dependents());
        let leaving: HashSet<String> = entry
            .owners
            .iter()
            .filter(|owner| is_gone(owner) || is_waiting(owner))
            .map(|owner| owner.uid.clone())
            .collect();
        if leaving.is_empty() {
            return Decision::Nothing;
        }
        if entry.owners.iter().any(|owner| !leaving.contains(&owner.uid)) {
            return Decision::Disown(leaving);
        }
        let has_dependents = dependents().next().is_some();
        if entry.owners.iter().any(|owner| is_waiting(&owner)) && has_dependents {
            // In a circle of owners each would wait for the other: this one stops blocking.
            let unblock = dependents().any(|dependent| dependent.waits_for_dependents());
            return Decision::Delete { propagation: Propagation::Foreground, unblock };
        }
        let propagation = match (entry.has_finalizer(ORPHAN), entry.has_finalizer(FOREGROUND)) {
            (true, _) => Propagation::Orphan,
            (_, true) => Propagation::Foreground,
            _ => Propagation::Background,
        };
        Decision::Delete { propagation, unblock: false }
    }

    /// The owner that a reference names, if it is there. One in another namespace is nobody.
    fn owner(&self, dependent: &Entry, reference: &OwnerReference) -> Option<&Entry> {
        let owner = self.objects.get(&reference.uid)?;
        (!owner.kind.is_namespaced || owner.namespace == dependent.namespace).then_some(owner)
    }

    fn waiting(&self, uid: &str) -> Option<String> {
        self.objects.get(uid).filter(|entry| entry.waits_for_dependents()).map(|entry| entry.uid.clone())
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
