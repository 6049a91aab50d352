//! The decisions of a Deployment: which ReplicaSet is new, and how many replicas each gets now.
//!
//! A pure function of the Deployment and its ReplicaSets. One call takes one step; the change that the step makes is
//! the occasion for the next. Upstream's rules for surge and unavailability hold after every step.

use super::revision;
use crate::meta::{amount, annotation, controller_reference};
use crate::random::content_hash;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 5] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];

/// One step of a Deployment.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The new ReplicaSet, if there is none yet.
    pub(super) create: Option<ReplicaSet>,
    /// ReplicaSets to scale or to annotate.
    pub(super) scale: Vec<Scale>,
    /// ReplicaSets beyond the history limit.
    pub(super) delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment's own revision annotation, if it is to change.
    pub(super) revision: Option<String>,
}

/// A ReplicaSet as it is to be.
#[derive(Debug)]
pub(super) struct Scale {
    pub(super) set: Arc<ReplicaSet>,
    pub(super) replicas: i32,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) min_ready_seconds: Option<i32>,
}

/// The ReplicaSets of a Deployment by age.
pub(super) struct Revisions {
    /// The one with the Deployment's present template.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// All others, the oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl Revisions {
    pub(super) fn of(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Self {
        let mut sets = sets.to_vec();
        sets.sort_by_cached_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), revision(set), set.metadata.name.clone())
        });
        // Two with the same template can only come from a hash collision long ago; as upstream, the older one counts.
        let new = sets.iter().position(|set| has_template_of(set, deployment)).map(|at| sets.remove(at));
        Revisions { new, old: sets }
    }
}

/// Whether old pods must be gone before new ones come.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a ReplicaSet.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// `spec.replicas` of a Deployment.
pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether the ReplicaSet makes the pods that the Deployment describes now.
pub(super) fn has_template_of(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.remove(TEMPLATE_HASH);
        }
        if let Some(metadata) = &mut template.metadata {
            metadata.creation_timestamp = None;
            metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        }
        template.metadata = template.metadata.filter(|metadata| *metadata != ObjectMeta::default());
        template
    };
    let (Some(set), Some(deployment)) = (&set.spec, &deployment.spec) else { return false };
    set.template.as_ref().is_some_and(|template| without_hash(template) == without_hash(&deployment.template))
}

/// How many pods a rolling update may have too many, and too few.
pub(super) fn tolerance(deployment: &Deployment) -> (i32, i32) {
    if recreates(deployment) {
        return (0, desired(deployment));
    }
    let quarter = IntOrString::String("25%".to_owned());
    let rolling = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = amount(Some(surge), desired(deployment), true);
    let unavailable = amount(Some(unavailable), desired(deployment), false);
    // Nothing would ever move if both were nothing.
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(desired(deployment)) })
}

/// The next step. `old_pods_are_gone` matters to Recreate only.
pub(super) fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], old_pods_are_gone: bool) -> Plan {
    let Revisions { new, old } = Revisions::of(deployment, sets);
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    let newest = old.iter().map(|set| revision(set)).max().unwrap_or(0);
    let mut plan = Plan::default();

    let all: Vec<&Arc<ReplicaSet>> = old.iter().chain(&new).collect();
    let scaled_by_user = all.iter().any(|set| {
        let noted = annotation(&set.metadata, DESIRED_REPLICAS).and_then(|desired| desired.parse::<i32>().ok());
        replicas(set) > 0 && noted.is_some_and(|noted| noted != desired(deployment))
    });

    let targets: Vec<(Arc<ReplicaSet>, i32)> = if paused || scaled_by_user {
        scale(deployment, new.as_ref(), &old)
    } else if recreates(deployment) {
        recreate(deployment, new.as_ref(), &old, old_pods_are_gone)
    } else {
        roll(deployment, new.as_ref(), &old)
    };

    // Revision: of the new set if it has a higher one than all others already, else one more than all others.
    let number = new.as_ref().map(|set| revision(set)).filter(|own| *own > newest).unwrap_or(newest + 1);
    match &new {
        Some(set) => {
            let annotations = annotations_of_new(deployment, set, number);
            let to = targets.iter().find(|(target, _)| Arc::ptr_eq(target, set)).map_or(replicas(set), |(_, to)| *to);
            let min_ready_seconds = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).filter(|s| *s > 0);
            let same_min_ready =
                set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).filter(|s| *s > 0) == min_ready_seconds;
            if to != replicas(set) || !has_annotations(set, &annotations) || !same_min_ready {
                plan.scale.push(Scale { set: set.clone(), replicas: to, annotations, min_ready_seconds });
            }
        }
        None if !paused
            && (!recreates(deployment) || old_pods_are_gone && old.iter().all(|set| replicas(set) == 0)) =>
        {
            plan.create = Some(new_set(deployment, &old, number));
        }
        None => {}
    }
    for (set, to) in targets {
        if new.as_ref().is_some_and(|new| Arc::ptr_eq(new, &set)) {
            continue;
        }
        let annotations = size_annotations(deployment);
        if to != replicas(&set) || (to > 0 && !has_annotations(&set, &annotations)) {
            let min_ready_seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
            plan.scale.push(Scale { set, replicas: to, annotations, min_ready_seconds });
        }
    }
    if new.is_some() || plan.create.is_some() {
        let number = number.to_string();
        if annotation(&deployment.metadata, REVISION) != Some(&number) {
            plan.revision = Some(number);
        }
    }
    if plan.create.is_none()
        && plan.scale.is_empty()
        && new.as_ref().is_some_and(|new| is_complete(deployment, new, &old))
    {
        plan.delete = beyond_history(deployment, &old);
    }
    plan
}

/// Whether the new ReplicaSet has taken over wholly.
fn is_complete(deployment: &Deployment, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> bool {
    let status = new.status.clone().unwrap_or_default();
    let total: i32 = old.iter().map(|set| set.status.as_ref().map_or(0, |status| status.replicas)).sum();
    status.replicas == desired(deployment) && available(new) == desired(deployment) && total == 0
}

/// Old ReplicaSets more than `revisionHistoryLimit`, the oldest revisions.
fn beyond_history(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut idle: Vec<Arc<ReplicaSet>> = old
        .iter()
        .filter(|set| {
            let status = set.status.clone().unwrap_or_default();
            replicas(set) == 0
                && status.replicas == 0
                && status.observed_generation >= set.metadata.generation
                && set.metadata.deletion_timestamp.is_none()
        })
        .cloned()
        .collect();
    idle.sort_by_key(|set| revision(set));
    let kept = usize::try_from(limit).unwrap_or(0);
    idle.truncate(idle.len().saturating_sub(kept));
    idle
}

/// Brings all sets to the Deployment's size without progress of the rollout: paused, or `kubectl scale` in the middle.
fn scale(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let desired = desired(deployment);
    let active: Vec<&Arc<ReplicaSet>> = old.iter().chain(new).filter(|set| replicas(set) > 0).collect();
    if active.len() <= 1 {
        let latest = active.first().copied().or(new).or_else(|| old.iter().max_by_key(|set| revision(set)));
        return latest.map(|set| (set.clone(), desired)).into_iter().collect();
    }
    if let Some(new) = new.filter(|new| {
        let noted = annotation(&new.metadata, DESIRED_REPLICAS).and_then(|noted| noted.parse::<i32>().ok());
        replicas(new) == desired && noted == Some(desired) && available(new) == desired
    }) {
        let rest = old.iter().filter(|set| replicas(set) > 0).map(|set| (set.clone(), 0));
        return rest.chain([(new.clone(), desired)]).collect();
    }
    if recreates(deployment) {
        return vec![];
    }
    // In the middle of a rolling update every set takes its share of the change.
    let (surge, _) = tolerance(deployment);
    let allowed = if desired > 0 { desired + surge } else { 0 };
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let difference = allowed - total;
    let mut by_size: Vec<&Arc<ReplicaSet>> = active;
    by_size.sort_by_key(|set| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let created = created.map(|time| if difference > 0 { -time.as_second() } else { time.as_second() });
        (Reverse(replicas(set)), created)
    });
    let mut left = difference;
    let mut targets: Vec<(Arc<ReplicaSet>, i32)> = by_size
        .into_iter()
        .map(|set| {
            let share = share(set, total, difference, allowed, left);
            left -= share;
            (set.clone(), replicas(set) + share)
        })
        .collect();
    if let Some((_, largest)) = targets.first_mut() {
        *largest = (*largest + left).max(0);
    }
    targets
}

/// The part of `difference` that a set takes, in proportion to its size when the Deployment last had a settled size.
fn share(set: &ReplicaSet, total: i32, difference: i32, allowed: i32, left: i32) -> i32 {
    if difference == 0 || left == 0 {
        return 0;
    }
    let size = f64::from(replicas(set));
    let before = annotation(&set.metadata, MAX_REPLICAS).and_then(|max| max.parse::<i32>().ok()).filter(|max| *max > 0);
    let ratio = f64::from(allowed) / f64::from(before.unwrap_or(total));
    #[expect(clippy::cast_possible_truncation, reason = "sizes are far below i32::MAX")]
    let fraction = (size * ratio).round() as i32 - replicas(set);
    if difference > 0 { fraction.clamp(0, left) } else { fraction.clamp(left, 0).max(-replicas(set)) }
}

fn recreate(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    old_pods_are_gone: bool,
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut targets: Vec<_> = old.iter().filter(|set| replicas(set) > 0).map(|set| (set.clone(), 0)).collect();
    if targets.is_empty() && old_pods_are_gone {
        targets.extend(new.map(|set| (set.clone(), desired(deployment))));
    }
    targets
}

fn roll(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    // The new set is created at its first size; then one step up or one step down at a time.
    let Some(new) = new else { return vec![] };
    let to = new_replicas(deployment, Some(new), old);
    if to != replicas(new) {
        return vec![(new.clone(), to)];
    }
    shrink_old(deployment, new, old)
}

/// The size of the new set: what the surge leaves room for.
fn new_replicas(deployment: &Deployment, new: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> i32 {
    let desired = desired(deployment);
    let now = new.map_or(0, |set| replicas(set));
    if recreates(deployment) || now > desired {
        return desired;
    }
    let total: i32 = now + old.iter().map(|set| replicas(set)).sum::<i32>();
    let room = desired + tolerance(deployment).0 - total;
    now + room.clamp(0, desired - now)
}

/// Old sets give up their unhealthy pods first, then as many as availability allows.
fn shrink_old(deployment: &Deployment, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        old.iter().filter(|set| replicas(set) > 0).map(|set| (set.clone(), replicas(set))).collect();
    let minimum = desired(deployment) - tolerance(deployment).1;
    let total: i32 = replicas(new) + sizes.iter().map(|(_, size)| size).sum::<i32>();
    let new_unavailable = replicas(new) - available(new);
    let mut unhealthy_budget = total - minimum - new_unavailable;
    if unhealthy_budget <= 0 {
        return vec![];
    }
    for (set, size) in &mut sizes {
        let unhealthy = (*size - available(set)).clamp(0, unhealthy_budget);
        *size -= unhealthy;
        unhealthy_budget -= unhealthy;
    }
    let serving: i32 = available(new) + old.iter().map(|set| available(set)).sum::<i32>();
    let mut budget = (serving - minimum).max(0);
    for (_, size) in &mut sizes {
        let gone = (*size).min(budget);
        *size -= gone;
        budget -= gone;
    }
    sizes.retain(|(set, size)| *size != replicas(set));
    sizes
}

fn new_set(deployment: &Deployment, old: &[Arc<ReplicaSet>], number: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = content_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut annotations = inherited(deployment);
    annotations.extend(size_annotations(deployment));
    annotations.insert(REVISION.to_owned(), number.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(new_replicas(deployment, None, old)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_INHERITED.contains(&name.as_str()));
    annotations
}

fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let desired = desired(deployment);
    let most = desired + tolerance(deployment).0;
    BTreeMap::from([(DESIRED_REPLICAS.to_owned(), desired.to_string()), (MAX_REPLICAS.to_owned(), most.to_string())])
}

/// The annotations of the new set, with the revisions it had before if it has been rolled back to.
fn annotations_of_new(deployment: &Deployment, set: &ReplicaSet, number: i64) -> BTreeMap<String, String> {
    let mut annotations = inherited(deployment);
    annotations.extend(size_annotations(deployment));
    let before = revision(set);
    if before < number {
        if before > 0 {
            let history = match annotation(&set.metadata, REVISION_HISTORY) {
                Some(history) if !history.is_empty() => format!("{history},{before}"),
                _ => before.to_string(),
            };
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
        annotations.insert(REVISION.to_owned(), number.to_string());
    }
    annotations
}

fn has_annotations(set: &ReplicaSet, annotations: &BTreeMap<String, String>) -> bool {
    annotations.iter().all(|(name, value)| annotation(&set.metadata, name) == Some(value))
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
