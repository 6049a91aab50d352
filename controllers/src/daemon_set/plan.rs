//! Which nodes get a pod of a DaemonSet and which pods go, and what the set says about itself.

use super::placement::{fit, node_of};
use crate::clock::seconds;
use crate::meta::{amount, labels, some_count};
use crate::pods::{Availability, availability, is_ready, is_terminal, is_terminating};
use crate::stateful_set::revisions::LABEL_REVISION;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = node_of(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        // The oldest is the one that stays.
        pods.sort_by_key(|pod| {
            (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name.clone())
        });
    }
    by_node
}

fn is_updated(pod: &Pod, hash: &str) -> bool {
    labels(&pod.metadata).get(LABEL_REVISION).is_some_and(|own| own == hash)
}

fn rolling(set: &DaemonSet) -> Option<(i32, i32)> {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.clone()).unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let desired = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = amount(rolling.max_surge.as_ref(), desired, true);
    let unavailable = match (&rolling.max_unavailable, surge) {
        (None, 0) => 1,
        (value, _) => amount(value.as_ref().or(Some(&IntOrString::Int(0))), desired, true),
    };
    Some((surge, if surge == 0 { unavailable.max(1) } else { unavailable }))
}

/// The next step.
pub(super) fn plan(set: &DaemonSet, pods: &[Arc<Pod>], nodes: &[Arc<Node>], hash: &str, now: Timestamp) -> Plan {
    let min_ready = seconds(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0));
    let is_available = |pod: &Pod| !is_terminating(pod) && availability(pod, min_ready, now) == Availability::Available;
    let mut plan = Plan::default();
    for pod in pods {
        if let Availability::In(left) = availability(pod, min_ready, now) {
            plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
        }
    }
    let on_nodes = by_node(pods);
    let rolling = rolling(set);
    // Nodes whose only pod is of an old template, with that pod.
    let mut outdated: Vec<(&str, &Arc<Pod>)> = vec![];
    let mut unavailable = 0;
    let mut surging = 0;
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let fit = fit(set, node);
        let here = on_nodes.get(name).map(Vec::as_slice).unwrap_or_default();
        if !fit.may_stay {
            plan.delete.extend(here.iter().filter(|pod| !is_terminating(pod)).map(|pod| (*pod).clone()));
            continue;
        }
        let (failed, alive): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            here.iter().copied().filter(|pod| !is_terminating(pod)).partition(|pod| is_terminal(pod));
        plan.delete.extend(failed.into_iter().cloned());
        if !fit.should_run {
            continue; // what is there may stay
        }
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.into_iter().partition(|pod| is_updated(pod, hash));
        plan.delete.extend(new.iter().skip(1).map(|pod| (*pod).clone()));
        plan.delete.extend(old.iter().skip(1).map(|pod| (*pod).clone()));
        match (new.first(), old.first()) {
            (None, None) => {
                unavailable += 1;
                // A terminating pod holds the place (and maybe a host port) until it is gone.
                if here.iter().all(|pod| !is_terminating(pod)) {
                    plan.create.push(name.to_owned());
                }
            }
            (Some(new), Some(old)) => {
                surging += 1;
                if is_available(new) || !is_available(old) {
                    plan.delete.push((*old).clone());
                }
            }
            (Some(new), None) => unavailable += i32::from(!is_available(new)),
            (None, Some(old)) => {
                unavailable += i32::from(!is_available(old));
                outdated.push((name, old));
            }
        }
    }
    // Pods whose node is gone.
    let nowhere = pods.iter().filter(|pod| {
        let node = node_of(pod);
        !is_terminating(pod) && !nodes.iter().any(|known| known.metadata.name.as_deref() == node)
    });
    plan.delete.extend(nowhere.cloned());

    let Some((max_surge, max_unavailable)) = rolling else { return plan };
    // First what does not serve anyway, then as many others as may be missing, or as surge pods may be added.
    outdated.sort_by_key(|(_, pod)| is_available(pod));
    for (node, pod) in outdated {
        if !is_available(pod) {
            plan.delete.push(pod.clone());
        } else if max_surge > 0 {
            if surging < max_surge {
                surging += 1;
                plan.create.push(node.to_owned());
            }
        } else if unavailable < max_unavailable {
            unavailable += 1;
            plan.delete.push(pod.clone());
        }
    }
    plan
}

pub(super) fn status(
    set: &DaemonSet,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let min_ready = seconds(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0));
    let on_nodes = by_node(pods);
    let known = set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for node in nodes {
        let here =
            on_nodes.get(node.metadata.name.as_deref().unwrap_or_default()).map(Vec::as_slice).unwrap_or_default();
        if !fit(set, node).should_run {
            misplaced += usize::from(!here.is_empty());
            continue;
        }
        desired += 1;
        current += usize::from(!here.is_empty());
        // During a surge the ready one counts.
        let serving = here.iter().find(|pod| is_ready(pod) && !is_terminating(pod));
        ready += usize::from(serving.is_some());
        available +=
            usize::from(serving.is_some_and(|pod| availability(pod, min_ready, now) == Availability::Available));
        updated += usize::from(here.iter().any(|pod| is_updated(pod, hash)));
    }
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    DaemonSetStatus {
        desired_number_scheduled: number(desired),
        current_number_scheduled: number(current),
        number_misscheduled: number(misplaced),
        number_ready: number(ready),
        number_available: some_count(available),
        number_unavailable: some_count(desired - available),
        updated_number_scheduled: some_count(updated),
        observed_generation: set.metadata.generation,
        collision_count: known.collision_count,
        conditions: known.conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_000;

    fn set(change: Value) -> DaemonSet {
        let mut set = json!({"metadata": {"name": "agent"}, "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0, "numberReady": 3},
            "spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": {"os": "linux"}}}}});
        set["spec"]["updateStrategy"] = change;
        serde_json::from_value(set).expect("a DaemonSet")
    }

    fn nodes(list: &str) -> Vec<Arc<Node>> {
        let make = |text: &str| {
            let (name, taint) = text.split_once(':').unwrap_or((text, ""));
            let os = if taint == "windows" { "windows" } else { "linux" };
            let taints: Vec<Value> = ["NoSchedule", "NoExecute"]
                .iter()
                .filter(|effect| **effect == taint)
                .map(|effect| json!({"key": "x", "effect": effect}))
                .collect();
            let node = json!({"metadata": {"name": name, "labels": {"os": os}}, "spec": {"taints": taints, "unschedulable": taint == "cordoned"}});
            Arc::new(serde_json::from_value(node).expect("a Node"))
        };
        list.split_whitespace().map(make).collect()
    }

    /// `a`: a ready pod of the present template on node `a`; `a@old`: of an old one; `!` not ready, `~` terminating, `x` failed.
    fn pods(list: &str) -> Vec<Arc<Pod>> {
        let make = |(n, text): (usize, &str)| {
            let (text, hash) = text.split_once('@').unwrap_or((text, "new"));
            let node = text.trim_end_matches(['!', '~', 'x']);
            let ready = if text.ends_with(['!', 'x']) { "False" } else { "True" };
            let pod = json!({
                "metadata": {"name": format!("{node}.{hash}.{n}"), "labels": {LABEL_REVISION: hash}, "deletionTimestamp": text.ends_with('~').then_some("1970-01-01T00:00:00Z")},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": if text.ends_with('x') { "Failed" } else { "Running" }, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:10:00Z"}]},
            });
            Arc::new(serde_json::from_value(pod).expect("a Pod"))
        };
        list.split_whitespace().enumerate().map(make).collect()
    }

    fn steps(set: &DaemonSet, on: &str, list: &str) -> String {
        let plan = plan(set, &pods(list), &nodes(on), "new", Timestamp::from_second(NOW).expect("in range"));
        let made = plan.create.iter().map(|node| format!("+{node}"));
        let gone = plan.delete.iter().map(|pod| {
            format!("-{}", pod.metadata.name.clone().unwrap_or_default().rsplit_once('.').expect("a number").0)
        });
        let mut steps: Vec<String> = made.chain(gone).collect();
        steps.sort();
        steps.join(" ")
    }

    #[test]
    fn every_fitting_node_gets_one_pod() {
        let set = set(Value::Null);
        assert_eq!(steps(&set, "a b", ""), "+a +b");
        assert_eq!(steps(&set, "a b", "a"), "+b");
        assert_eq!(steps(&set, "a b c:windows d:NoSchedule e:NoExecute f:cordoned", ""), "+a +b +f");
        assert_eq!(steps(&set, "a", "a~"), "");
    }

    #[test]
    fn what_is_too_much_or_misplaced_goes() {
        let set = set(Value::Null);
        assert_eq!(steps(&set, "a", "a a"), "-a.new");
        assert_eq!(steps(&set, "a:windows", "a"), "-a.new");
        assert_eq!(steps(&set, "a:NoSchedule", "a"), "", "a taint against scheduling does not drive pods out");
        assert_eq!(steps(&set, "a:NoExecute", "a"), "-a.new");
        assert_eq!(steps(&set, "a", "a gone"), "-gone.new");
        assert_eq!(steps(&set, "a", "ax"), "+a -a.new");
    }

    #[test]
    fn an_update_takes_as_many_pods_at_a_time_as_may_be_unavailable() {
        let one = set(Value::Null);
        assert_eq!(steps(&one, "a b c", "a@old b@old c@old"), "-a.old");
        assert_eq!(steps(&one, "a b c", "a! b@old c@old"), "");
        assert_eq!(steps(&one, "a b c", "a b@old c!@old"), "-c.old");
        let two = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}));
        assert_eq!(steps(&two, "a b c", "a@old b@old c@old"), "-a.old -b.old");
    }

    #[test]
    fn a_surge_adds_the_new_pod_before_the_old_one_goes() {
        let set = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
        assert_eq!(steps(&set, "a b", "a@old b@old"), "+a");
        assert_eq!(steps(&set, "a b", "a@old a! b@old"), "");
        assert_eq!(steps(&set, "a b", "a@old a b@old"), "-a.old");
        assert_eq!(steps(&set, "a b", "a b@old"), "+b");
    }

    #[test]
    fn on_delete_waits_for_somebody_else() {
        assert_eq!(steps(&set(json!({"type": "OnDelete"})), "a b", "a@old"), "+b");
    }

    #[test]
    fn the_status_counts_nodes() {
        let status = status(
            &set(Value::Null),
            &pods("a b! d@old"),
            &nodes("a b c d:windows e"),
            "new",
            Timestamp::from_second(NOW).expect("in range"),
        );
        assert_eq!(
            (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
            (4, 2, 1)
        );
        assert_eq!((status.number_ready, status.number_available, status.number_unavailable), (1, Some(1), Some(3)));
        assert_eq!(status.updated_number_scheduled, Some(2));
    }
}
