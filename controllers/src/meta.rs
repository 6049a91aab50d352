//! Owner references, selectors and conditions: what every workload controller needs to know of metadata.

use crate::session::{Error, Key, Object, Result, Session};
use informer::Informer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;
use std::sync::Arc;

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// The labels, or none.
pub(crate) fn labels(metadata: &ObjectMeta) -> &BTreeMap<String, String> {
    metadata.labels.as_ref().unwrap_or(&NO_LABELS)
}

/// The annotation of that name.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The owner which controls the object.
pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The name of the controller, if it is a `K`.
pub(crate) fn controller_named<K: Object>(metadata: &ObjectMeta) -> Option<&str> {
    let owner = controller_of(metadata)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::kind(&()) && group == K::group(&())).then_some(owner.name.as_str())
}

/// Whether `owner` controls the object.
pub(crate) fn is_controlled_by(metadata: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(metadata).is_some_and(|controller| Some(&controller.uid) == owner.uid.as_ref())
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A compiled label selector; one without requirements selects nothing, because no workload may own everything.
#[derive(Debug)]
pub(crate) struct PodSelector(Selector);

impl PodSelector {
    /// # Errors
    /// [`Error::Invalid`] when an operator does not exist or lacks its values.
    pub(crate) fn new(selector: &LabelSelector) -> Result<Self> {
        Selector::try_from(selector.clone()).map(PodSelector).map_err(|error| Error::Invalid(error.to_string()))
    }

    pub(crate) fn matches(&self, metadata: &ObjectMeta) -> bool {
        !self.0.selects_all() && self.0.matches(labels(metadata))
    }
}

/// The owners of kind `K` whom a change of an object concerns: its controller or, if it has none, whoever might adopt it.
pub(crate) fn owners_of<K: Object>(
    metadata: &ObjectMeta,
    owners: &Informer<K>,
    selector: impl Fn(&K) -> Option<&LabelSelector>,
) -> Vec<Key> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    if controller_of(metadata).is_some() {
        return controller_named::<K>(metadata).map(|name| Key::new(namespace, name)).into_iter().collect();
    }
    if labels(metadata).is_empty() {
        return vec![];
    }
    let may_adopt = |owner: &K| {
        let selector = selector(owner).map(PodSelector::new);
        selector.is_some_and(|selector| selector.is_ok_and(|selector| selector.matches(metadata)))
    };
    let adopters = owners.list_in(&namespace).into_iter().filter(|owner| may_adopt(owner));
    adopters.map(|owner| Key::of(owner.metadata())).collect()
}

/// Whether a `LabelSelector` of the API (where an empty one selects everything) matches.
pub(crate) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// Which of the candidates an owner has, wants, and must let go.
pub(crate) struct Claim<K> {
    /// Controlled by the owner and selected by it.
    pub(crate) owned: Vec<Arc<K>>,
    /// Selected, without a controller.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled by the owner, but no longer selected.
    pub(crate) release: Vec<Arc<K>>,
}

/// Divides `candidates` by ownership and selection. An owner in deletion neither adopts nor releases.
pub(crate) fn claim<K: Object>(owner: &ObjectMeta, selector: &PodSelector, candidates: Vec<Arc<K>>) -> Claim<K> {
    let mut claim = Claim { owned: vec![], adopt: vec![], release: vec![] };
    for candidate in candidates {
        let metadata = candidate.metadata();
        let selected = selector.matches(metadata);
        if is_controlled_by(metadata, owner) {
            match selected || owner.deletion_timestamp.is_some() {
                true => claim.owned.push(candidate),
                false => claim.release.push(candidate),
            }
        } else if selected
            && controller_of(metadata).is_none()
            && owner.deletion_timestamp.is_none()
            && metadata.deletion_timestamp.is_none()
        {
            claim.adopt.push(candidate);
        }
    }
    claim
}

impl<K: Object> Claim<K> {
    /// Writes adoptions and releases, and returns what is owned afterwards.
    pub(crate) async fn settle<O: Object>(mut self, session: &Session, owner: &O) -> Result<Vec<Arc<K>>> {
        for orphan in self.adopt {
            let mut owners = orphan.metadata().owner_references.clone().unwrap_or_default();
            owners.push(controller_reference(owner));
            match write_owners::<K>(session, orphan.metadata(), &owners).await {
                Ok(adopted) => self.owned.push(Arc::new(adopted)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        for lost in self.release {
            let mut owners = lost.metadata().owner_references.clone().unwrap_or_default();
            owners.retain(|reference| Some(&reference.uid) != owner.metadata().uid.as_ref());
            match write_owners::<K>(session, lost.metadata(), &owners).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.owned)
    }
}

async fn write_owners<K: Object>(session: &Session, metadata: &ObjectMeta, owners: &[OwnerReference]) -> Result<K> {
    // With uid and resourceVersion: whoever has taken the name or the object meanwhile keeps it.
    let patch = serde_json::json!({ "metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "ownerReferences": owners,
    }});
    session.merge(metadata, patch).await
}

/// `count`, as statuses write it: nothing for zero.
pub(crate) fn some_count(count: usize) -> Option<i32> {
    (count > 0).then_some(i32::try_from(count).unwrap_or(i32::MAX))
}

/// An absolute or relative amount of `of`; a percentage rounds up or down.
pub(crate) fn amount(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(absolute)) => (*absolute).max(0),
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let scaled = percent.saturating_mul(i64::from(of));
            let amount = if round_up { scaled.saturating_add(99) / 100 } else { scaled / 100 };
            i32::try_from(amount.max(0)).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(name: &str, label: &str, owner: Option<&str>) -> Arc<Pod> {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid, "controller": true}]));
        let pod = json!({"metadata": {"name": name, "labels": {"app": label}, "ownerReferences": owners}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn an_owner_keeps_its_own_adopts_orphans_and_lets_the_unselected_go() {
        let selector = PodSelector::new(&LabelSelector {
            match_labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
            ..LabelSelector::default()
        })
        .expect("a selector");
        let pods = || {
            vec![
                pod("mine", "web", Some("me")),
                pod("orphan", "web", None),
                pod("others", "web", Some("them")),
                pod("strayed", "db", Some("me")),
                pod("unrelated", "db", None),
            ]
        };
        let me = ObjectMeta { uid: Some("me".to_owned()), ..ObjectMeta::default() };
        let claimed = claim(&me, &selector, pods());
        assert_eq!(names(&claimed.owned), ["mine"]);
        assert_eq!(names(&claimed.adopt), ["orphan"]);
        assert_eq!(names(&claimed.release), ["strayed"]);

        let dying = ObjectMeta { deletion_timestamp: Some(crate::clock::whole_seconds(Default::default())), ..me };
        let claimed = claim(&dying, &selector, pods());
        assert!(claimed.adopt.is_empty() && claimed.release.is_empty());
    }

    #[test]
    fn a_selector_without_requirements_owns_nothing() {
        let selector = PodSelector::new(&LabelSelector::default()).expect("a selector");
        assert!(!selector.matches(&pod("any", "web", None).metadata));
    }

    #[test]
    fn amounts_are_absolute_or_rounded_percentages() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(amount(Some(&IntOrString::Int(3)), 10, true), 3);
        assert_eq!(amount(Some(&percent("25%")), 10, true), 3);
        assert_eq!(amount(Some(&percent("25%")), 10, false), 2);
        assert_eq!(amount(None, 10, true), 0);
    }
}
