//! Which members of a StatefulSet to make and which to delete now.
//!
//! Ordered sets take one step and wait until that pod is ready; `Parallel` ones take all steps at once. Updates go from the
//! highest ordinal down to the partition, one pod at a time, in both.

use super::identity::parent_and_ordinal;
use super::revisions::LABEL_REVISION;
use crate::clock::seconds;
use crate::meta::labels;
use crate::pods::{Availability, availability, is_terminal, is_terminating};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The revisions that matter now, by name.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) current: String,
    pub(super) update: String,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Member>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

/// A pod to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) ordinal: i32,
    pub(super) is_updated: bool,
}

/// The revision a pod was made from.
pub(super) fn revision(pod: &Pod) -> Option<&str> {
    labels(&pod.metadata).get(LABEL_REVISION).map(String::as_str)
}

/// The next steps.
pub(super) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], versions: &Versions, now: Timestamp) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let is_ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let end = start.saturating_add(spec.replicas.unwrap_or(1).max(0));
    let min_ready = seconds(spec.min_ready_seconds.unwrap_or(0));
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        pods.iter().filter_map(|pod| Some((parent_and_ordinal(pod.metadata.name.as_deref()?)?.1, pod))).collect();
    let mut plan = Plan::default();
    let health = |pod: &Pod| match is_terminating(pod) {
        true => Availability::NotReady,
        false => availability(pod, min_ready, now),
    };
    for pod in pods {
        if let Availability::In(left) = health(pod) {
            plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
        }
    }

    for ordinal in start..end {
        match by_ordinal.get(&ordinal) {
            None => {
                plan.create
                    .push(Member { ordinal, is_updated: comes_updated(set, ordinal, start, &by_ordinal, versions) });
            }
            // A failed member is made anew under the same name.
            Some(pod) if is_terminal(pod) && !is_terminating(pod) => plan.delete.push((*pod).clone()),
            Some(pod) if health(pod) == Availability::Available => continue,
            Some(_) if is_ordered => return plan,
            Some(_) => continue,
        }
        if is_ordered {
            return plan;
        }
    }

    // Beyond the wanted number: from the top, and only as long as all others are well.
    let condemned: Vec<&Arc<Pod>> =
        by_ordinal.iter().rev().filter(|(ordinal, _)| !(start..end).contains(ordinal)).map(|(_, pod)| *pod).collect();
    let first_unhealthy = by_ordinal.values().find(|pod| health(pod) != Availability::Available).copied();
    for pod in condemned {
        if is_terminating(pod) {
            if is_ordered {
                return plan;
            }
            continue;
        }
        let is_first_unhealthy = first_unhealthy.is_some_and(|first| Arc::ptr_eq(first, pod));
        if is_ordered && health(pod) != Availability::Available && !is_first_unhealthy {
            return plan;
        }
        plan.delete.push(pod.clone());
        if is_ordered {
            return plan;
        }
    }

    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") || !plan.delete.is_empty() {
        return plan;
    }
    for ordinal in (start.saturating_add(partition(set)).min(end)..end).rev() {
        let Some(pod) = by_ordinal.get(&ordinal) else { continue };
        if revision(pod) != Some(&versions.update) && !is_terminating(pod) {
            plan.delete.push((*pod).clone());
            return plan;
        }
        if health(pod) != Availability::Available {
            return plan;
        }
    }
    plan
}

fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0)
}

/// Whether a missing member is made from the update: not if the update has not come down to it yet.
fn comes_updated(
    set: &StatefulSet,
    ordinal: i32,
    start: i32,
    members: &BTreeMap<i32, &Arc<Pod>>,
    versions: &Versions,
) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if versions.current == versions.update
        || strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    {
        return true;
    }
    match partition(set) {
        0 => members.range(ordinal..).all(|(_, higher)| revision(higher) == Some(&versions.update)),
        partition => ordinal - start >= partition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_000;

    fn set(replicas: i32, change: &[(&str, Value)]) -> StatefulSet {
        let mut set =
            json!({"metadata": {"name": "db"}, "spec": {"replicas": replicas, "selector": {}, "template": {}}});
        for (field, value) in change {
            set["spec"][field] = value.clone();
        }
        serde_json::from_value(set).expect("a StatefulSet")
    }

    /// `db-0` is ready; `db-0!` is not; `db-0~` is terminating; `db-0x` has failed; `db-0@old` was made from `old`.
    fn pods(list: &str) -> Vec<Arc<Pod>> {
        let make = |text: &str| {
            let (text, revision) = text.split_once('@').unwrap_or((text, "new"));
            let name = text.trim_end_matches(['!', '~', 'x']);
            let at = |second: i64| Timestamp::from_second(second).expect("in range").to_string();
            let pod = json!({
                "metadata": {"name": name, "uid": name, "labels": {LABEL_REVISION: revision}, "deletionTimestamp": text.ends_with('~').then(|| at(1))},
                "status": {"phase": if text.ends_with('x') { "Failed" } else { "Running" },
                    "conditions": [{"type": "Ready", "status": if text == name { "True" } else { "False" }, "lastTransitionTime": at(NOW - 5)}]},
            });
            Arc::new(serde_json::from_value(pod).expect("a Pod"))
        };
        list.split_whitespace().map(make).collect()
    }

    /// The steps as "+0 +1 -2"; `+0*` is made from the update.
    fn steps(set: &StatefulSet, list: &str, current: &str) -> String {
        let versions = Versions { current: current.to_owned(), update: "new".to_owned() };
        let plan = plan(set, &pods(list), &versions, Timestamp::from_second(NOW).expect("in range"));
        let star = |member: &Member| if member.is_updated && current != "new" { "*" } else { "" };
        let made = plan.create.iter().map(|member| format!("+{}{}", member.ordinal, star(member)));
        let gone = plan
            .delete
            .iter()
            .map(|pod| format!("-{}", &pod.metadata.name.as_deref().unwrap_or_default()["db-".len()..]));
        made.chain(gone).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_ordered_set_makes_one_pod_after_the_other() {
        let set = set(3, &[]);
        assert_eq!(steps(&set, "", "new"), "+0");
        assert_eq!(steps(&set, "db-0!", "new"), "");
        assert_eq!(steps(&set, "db-0", "new"), "+1");
        assert_eq!(steps(&set, "db-0 db-1", "new"), "+2");
        assert_eq!(steps(&set, "db-0 db-1 db-2", "new"), "");
        assert_eq!(steps(&set, "db-0~ db-1", "new"), "");
        assert_eq!(steps(&set, "db-1 db-2", "new"), "+0");
    }

    #[test]
    fn an_ordered_set_shrinks_from_the_top_and_waits_for_the_rest_to_be_well() {
        let set = set(1, &[]);
        assert_eq!(steps(&set, "db-0 db-1 db-2", "new"), "-2");
        assert_eq!(steps(&set, "db-0 db-1 db-2~", "new"), "");
        assert_eq!(steps(&set, "db-0 db-1", "new"), "-1");
        assert_eq!(steps(&set, "db-0! db-1", "new"), "");
        assert_eq!(steps(&set, "db-0 db-1! db-2!", "new"), "");
        assert_eq!(steps(&set, "db-0 db-1!", "new"), "-1");
    }

    #[test]
    fn a_parallel_set_does_not_wait() {
        let set = |replicas| set(replicas, &[("podManagementPolicy", json!("Parallel"))]);
        assert_eq!(steps(&set(3), "", "new"), "+0 +1 +2");
        assert_eq!(steps(&set(3), "db-1!", "new"), "+0 +2");
        assert_eq!(steps(&set(1), "db-0! db-1 db-2!", "new"), "-2 -1");
    }

    #[test]
    fn ordinals_may_start_elsewhere() {
        let set = set(2, &[("ordinals", json!({"start": 5}))]);
        assert_eq!(steps(&set, "", "new"), "+5");
        assert_eq!(steps(&set, "db-0 db-5", "new"), "+6");
        assert_eq!(steps(&set, "db-0 db-5 db-6", "new"), "-0");
    }

    #[test]
    fn a_failed_pod_is_made_anew() {
        assert_eq!(steps(&set(2, &[]), "db-0x db-1", "new"), "-0");
    }

    #[test]
    fn an_update_goes_from_the_top_down_one_at_a_time() {
        let set = set(3, &[]);
        assert_eq!(steps(&set, "db-0@old db-1@old db-2@old", "old"), "-2");
        assert_eq!(steps(&set, "db-0@old db-1@old db-2~@old", "old"), "");
        assert_eq!(steps(&set, "db-0@old db-1@old db-2!", "old"), "");
        assert_eq!(steps(&set, "db-0@old db-1@old db-2", "old"), "-1");
        assert_eq!(steps(&set, "db-0@old db-1 db-2", "old"), "-0");
    }

    #[test]
    fn a_pod_lost_during_an_update_comes_back_as_the_update_has_come() {
        let set = set(3, &[]);
        assert_eq!(steps(&set, "db-0@old db-1@old", "old"), "+2*");
        assert_eq!(steps(&set, "db-0@old db-2@old", "old"), "+1");
        assert_eq!(steps(&set, "db-0@old db-2", "old"), "+1*");
        assert_eq!(steps(&set, "db-1 db-2", "old"), "+0*");
    }

    #[test]
    fn a_partition_keeps_the_lower_ordinals_at_the_old_revision() {
        let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
        let set = set(3, &[("updateStrategy", partition)]);
        assert_eq!(steps(&set, "db-0@old db-1@old db-2@old", "old"), "-2");
        assert_eq!(steps(&set, "db-0@old db-1@old db-2", "old"), "");
        assert_eq!(steps(&set, "db-0@old db-2", "old"), "+1");
        assert_eq!(steps(&set, "db-0@old db-1@old", "old"), "+2*");
    }

    #[test]
    fn on_delete_updates_only_what_somebody_else_deletes() {
        let set = set(2, &[("updateStrategy", json!({"type": "OnDelete"}))]);
        assert_eq!(steps(&set, "db-0@old db-1@old", "old"), "");
        assert_eq!(steps(&set, "db-1@old", "old"), "+0*");
    }

    #[test]
    fn a_pod_has_to_be_ready_for_min_ready_seconds() {
        let set = set(2, &[("minReadySeconds", json!(8))]);
        let versions = Versions { current: "new".to_owned(), update: "new".to_owned() };
        let plan = plan(&set, &pods("db-0"), &versions, Timestamp::from_second(NOW).expect("in range"));
        assert_eq!((plan.create.len(), plan.again), (0, Some(Duration::from_secs(3))));
    }
}
