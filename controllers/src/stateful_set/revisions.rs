//! ControllerRevisions: the templates a StatefulSet or DaemonSet has had, for updates and `kubectl rollout undo`.

use crate::meta::{controller_reference, is_controlled_by};
use crate::random::content_hash;
use crate::session::{Object, Result, Session};
use informer::Informer;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The revision a pod was made from: its name for a StatefulSet, its hash for a DaemonSet.
pub(crate) const LABEL_REVISION: &str = "controller-revision-hash";
const LABEL_HASH: &str = "controller.kubernetes.io/hash";

/// What a revision remembers, in the form of the patch that brings it back.
pub(crate) struct Template {
    data: Value,
    labels: BTreeMap<String, String>,
    hash_label: &'static str,
}

impl Template {
    pub(crate) fn of_stateful_set(set: &StatefulSet) -> Self {
        let spec = set.spec.as_ref();
        Template::new(
            spec.map(|spec| &spec.template),
            spec.and_then(|spec| spec.selector.match_labels.clone()),
            LABEL_HASH,
        )
    }

    pub(crate) fn of_daemon_set(set: &DaemonSet) -> Self {
        let spec = set.spec.as_ref();
        let labels = spec.and_then(|spec| spec.selector.match_labels.clone());
        Template::new(spec.map(|spec| &spec.template), labels, LABEL_REVISION)
    }

    fn new(
        template: Option<&PodTemplateSpec>,
        labels: Option<BTreeMap<String, String>>,
        hash_label: &'static str,
    ) -> Self {
        let mut template = template.and_then(|template| serde_json::to_value(template).ok()).unwrap_or_default();
        template["$patch"] = json!("replace");
        Template { data: json!({"spec": {"template": template}}), labels: labels.unwrap_or_default(), hash_label }
    }
}

/// The template that a revision holds.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions of `owner`, the oldest first.
pub(crate) fn owned(revisions: &Informer<ControllerRevision>, owner: &ObjectMeta) -> Vec<Arc<ControllerRevision>> {
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    let mut owned = revisions.list_in(namespace);
    owned.retain(|revision| is_controlled_by(&revision.metadata, owner));
    owned.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    owned
}

/// The revision for the present template: found, renumbered as the newest, or made.
pub(crate) async fn ensure<K: Object>(
    session: &Session,
    owner: &K,
    template: &Template,
    history: &[Arc<ControllerRevision>],
    collisions: Option<i32>,
) -> Result<Arc<ControllerRevision>> {
    let newest = history.last().map_or(0, |revision| revision.revision);
    let same = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|data| data.0 == template.data);
    if let Some(found) = history.iter().rev().find(same) {
        if found.revision == newest {
            return Ok(found.clone());
        }
        // An old template is wanted again: it becomes the newest.
        let patch = json!({"revision": newest + 1});
        return Ok(Arc::new(session.merge(&found.metadata, patch).await?));
    }
    let hash = content_hash(&template.data, collisions.unwrap_or(0));
    let mut labels = template.labels.clone();
    labels.insert(template.hash_label.to_owned(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.metadata().name.as_deref().unwrap_or_default())),
            namespace: owner.metadata().namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(template.data.clone())),
        revision: newest + 1,
    };
    Ok(Arc::new(session.create(&revision).await?))
}

/// Deletes the oldest revisions beyond `limit` that no pod was made from.
pub(crate) async fn truncate(
    session: &Session,
    history: &[Arc<ControllerRevision>],
    live: &[String],
    limit: i32,
) -> Result<()> {
    let is_live =
        |revision: &Arc<ControllerRevision>| revision.metadata.name.as_ref().is_some_and(|name| live.contains(name));
    let idle: Vec<_> = history.iter().filter(|revision| !is_live(revision)).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in &idle[..surplus] {
        session.delete(&***revision).await?;
    }
    Ok(())
}
