//! Who a member of a StatefulSet is: its name, host name, labels and volume claims.

use super::revisions::{self, LABEL_REVISION};
use crate::meta::controller_reference;
use crate::pods::from_template;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const LABEL_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// `web-0` is number 0 of `web`.
pub(super) fn parent_and_ordinal(pod: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    Some((parent, ordinal.parse().ok().filter(|ordinal| *ordinal >= 0)?))
}

/// Member `ordinal` as `revision` describes it.
pub(super) fn pod(set: &StatefulSet, ordinal: i32, revision: &ControllerRevision) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let template = revisions::template(revision).unwrap_or(spec.template);
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = from_template(set, &template, name.clone());
    pod.metadata.generate_name = Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default()));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(LABEL_POD_NAME.to_owned(), name.clone());
    labels.insert(LABEL_POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(LABEL_REVISION.to_owned(), revision.metadata.name.clone().unwrap_or_default());
    let claims = claims(set, ordinal);
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain = spec.service_name;
    let templates = spec.volume_claim_templates.unwrap_or_default();
    let volumes = pod_spec.volumes.get_or_insert_default();
    // A claim template takes the place of a volume with its name.
    volumes.retain(|volume| !templates.iter().any(|template| template.metadata.name.as_ref() == Some(&volume.name)));
    for (template, claim) in templates.iter().zip(claims) {
        volumes.push(Volume {
            name: template.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name.unwrap_or_default(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        pod_spec.volumes = None;
    }
    pod
}

/// The volume claims of member `ordinal`. They outlive the pod, and the set unless its retention policy says otherwise.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return vec![] };
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let retention = spec.persistent_volume_claim_retention_policy.as_ref();
    let goes_with_set = retention.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete");
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut labels = template.metadata.labels.clone().unwrap_or_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(format!(
                        "{}-{set_name}-{ordinal}",
                        template.metadata.name.as_deref().unwrap_or_default()
                    )),
                    namespace: set.metadata.namespace.clone(),
                    labels: Some(labels),
                    annotations: template.metadata.annotations.clone(),
                    owner_references: goes_with_set.then(|| vec![controller_reference(set)]),
                    ..ObjectMeta::default()
                },
                spec: template.spec.clone(),
                status: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_has_a_name_a_host_and_its_own_volumes() {
        let set = json!({
            "metadata": {"name": "db", "namespace": "prod", "uid": "u"},
            "spec": {"serviceName": "db-headless", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [], "volumes": [{"name": "data"}, {"name": "tmp"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]},
        });
        let set: StatefulSet = serde_json::from_value(set).expect("a StatefulSet");
        let revision = ControllerRevision {
            metadata: ObjectMeta { name: Some("db-abc".into()), ..ObjectMeta::default() },
            ..ControllerRevision::default()
        };
        let pod = pod(&set, 2, &revision);
        assert_eq!(pod.metadata.name.as_deref(), Some("db-2"));
        let labels = pod.metadata.labels.expect("labels");
        assert_eq!((labels[LABEL_POD_NAME].as_str(), labels[LABEL_POD_INDEX].as_str()), ("db-2", "2"));
        assert_eq!((labels[LABEL_REVISION].as_str(), labels["app"].as_str()), ("db-abc", "db"));
        let spec = pod.spec.expect("a spec");
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db-headless")));
        let volumes = spec.volumes.expect("volumes");
        let claim = |name: &str| {
            volumes.iter().find(|volume| volume.name == name).and_then(|volume| volume.persistent_volume_claim.as_ref())
        };
        assert_eq!(claim("data").map(|source| source.claim_name.as_str()), Some("data-db-2"));
        assert!(claim("tmp").is_none());
        let claims = claims(&set, 2);
        assert_eq!(claims[0].metadata.labels.as_ref().expect("labels")["app"], "db");
        assert_eq!(claims[0].metadata.owner_references, None);
    }

    #[test]
    fn names_end_in_the_ordinal() {
        assert_eq!(parent_and_ordinal("my-db-12"), Some(("my-db", 12)));
        assert_eq!(parent_and_ordinal("db"), None);
        assert_eq!(parent_and_ordinal("db-x"), None);
    }
}
