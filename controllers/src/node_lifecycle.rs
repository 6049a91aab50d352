//! Nodes that no longer answer: their Ready condition becomes Unknown, and taints keep pods away and drive them out.
//!
//! A kubelet answers by renewing its Lease in `kube-node-lease`. Taints follow the Ready condition (KEP-166, taint-based
//! eviction); pods go after the time their toleration gives.

use crate::clock::{seconds, until};
use crate::meta::labels;
use crate::pods::{is_terminating, node_name};
use crate::queue::{Next, Queue};
use crate::scheduler::filter::tolerates;
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info;

/// Without a renewed Lease for this long a node counts as gone silent.
const GRACE: Duration = Duration::from_secs(50);
const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (nodes, leases) = (shared.informers.of::<Node>(), shared.informers.of::<Lease>());
    tasks.spawn(follow_own(nodes.clone(), queue.clone()));
    tasks.spawn(follow(leases.clone(), queue.clone(), {
        let nodes = nodes.clone();
        // A renewal matters only to a node that has been given up; otherwise the timer reads the newest Lease.
        move |update| {
            let lease = update.object();
            let name = lease.metadata.name.clone().unwrap_or_default();
            let silent = lease.metadata.namespace.as_deref() == Some(LEASES)
                && nodes.get("", &name).is_some_and(|node| ready(&node).is_none_or(|ready| ready.status == "Unknown"));
            if silent { vec![Key::new("", name)] } else { vec![] }
        }
    }));
    tasks.spawn(run(shared.clone(), queue, NodeLifecycle { nodes: nodes.clone(), leases, renewals: Mutex::default() }));

    let queue = Queue::new();
    let pods = shared.informers.of::<Pod>();
    tasks.spawn(follow_own(pods.clone(), queue.clone()));
    tasks.spawn(follow(nodes.clone(), queue.clone(), {
        let pods = pods.clone();
        move |update| {
            let node = update.object();
            if no_execute(node).next().is_none() {
                return vec![];
            }
            let here = pods.list().into_iter().filter(|pod| node_name(pod) == node.metadata.name.as_deref());
            here.map(|pod| Key::of(&pod.metadata)).collect()
        }
    }));
    tasks.spawn(run(shared.clone(), queue, TaintEviction { nodes, pods }));
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter(|taint| taint.effect == "NoExecute")
}

struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    /// The newest renewal of each node, and when it was seen: kubelets' clocks need not agree with ours.
    renewals: Mutex<HashMap<String, (Timestamp, Instant)>>,
}

impl NodeLifecycle {
    fn patience_left(&self, node: &str, renewed: Timestamp) -> Duration {
        let mut renewals = self.renewals.lock();
        let seen = renewals.entry(node.to_owned()).or_insert_with(|| (renewed, Instant::now()));
        if seen.0 != renewed {
            *seen = (renewed, Instant::now());
        }
        GRACE.saturating_sub(seen.1.elapsed())
    }
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(node) = self.nodes.get("", &key.name) else {
            self.renewals.lock().remove(&key.name);
            return Ok(Next::OnChange);
        };
        let now = session.shared.clock.now();
        let mut latest = (*node).clone();
        let mut again = None;
        // A node without a Lease is no kubelet's: nobody will renew anything, so silence means nothing.
        let lease = self.leases.get(LEASES, &key.name);
        if let Some(renewed) = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)) {
            again = Some(self.patience_left(&key.name, renewed)).filter(|left| !left.is_zero());
            if again.is_none() && ready(&node).is_none_or(|ready| ready.status != "Unknown") {
                info!(node = key.name, "node has gone silent");
                give_up(&mut latest, now);
                latest = session.replace_status(&latest).await?;
            }
        }
        let taints = taints(&latest, now);
        let present = latest.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let same = |a: &[Taint], b: &[Taint]| {
            a.len() == b.len()
                && a.iter().all(|a| b.iter().any(|b| (&a.key, &a.effect, &a.value) == (&b.key, &b.effect, &b.value)))
        };
        if !same(&taints, &present) {
            latest.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
            session.replace(&latest).await?;
        }
        Ok(again.into())
    }
}

/// Marks every condition the kubelet reports as unknown.
fn give_up(node: &mut Node, now: Timestamp) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    if conditions.iter().all(|condition| condition.type_ != "Ready") {
        conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
    }
    for condition in conditions {
        if condition.status != "Unknown" {
            condition.status = "Unknown".to_owned();
            condition.reason = Some("NodeStatusUnknown".to_owned());
            condition.message = Some("Kubelet stopped posting node status.".to_owned());
            condition.last_transition_time = Some(crate::clock::whole_seconds(now));
        }
    }
}

/// Conditions that keep new pods away, with the taint each is told by.
const PRESSURE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The taints that the node's conditions and its cordon call for, beside those that others have set.
fn taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = vec![];
    match ready(node).map(|ready| ready.status.as_str()) {
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some(_) => {}
        // Before a kubelet has reported nothing is known; the taint a node is born with stays.
        None => {
            let born = |taint: &Taint| taint.key == NOT_READY && taint.effect == "NoSchedule";
            if node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(born) {
                wanted.push((NOT_READY, "NoSchedule"));
            }
        }
    }
    let conditions = || node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for (type_, key) in PRESSURE {
        if conditions().any(|condition| condition.type_ == type_ && condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_ours = |taint: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            || PRESSURE.iter().any(|(_, key)| *key == taint.key)
    };
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let (own, mut taints): (Vec<Taint>, Vec<Taint>) = present.into_iter().partition(is_ours);
    for (key, effect) in wanted {
        let known = own.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        taints.push(known.unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: None,
            time_added: Some(crate::clock::whole_seconds(now)),
        }));
    }
    taints
}

struct TaintEviction {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let node = node_name(&pod).and_then(|node| self.nodes.get("", node));
        let Some(node) = node.filter(|_| !is_terminating(&pod)) else { return Ok(Next::OnChange) };
        let taints: Vec<&Taint> = no_execute(&node).collect();
        match stay(&pod, &taints, session.shared.clock.now()) {
            Stay::Forever => Ok(Next::OnChange),
            Stay::For(left) => Ok(Next::After(left)),
            Stay::NoLonger => {
                let (namespace, name) = (&key.namespace, &key.name);
                let message = format!("Marking for deletion Pod {namespace}/{name}");
                session.event(&*pod, crate::event::EventType::Normal, "TaintManagerEviction", message);
                session.delete(&*pod).await?;
                info!(pod = %key, labels = ?labels(&pod.metadata), "pod driven out by a taint");
                Ok(Next::OnChange)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stay {
    Forever,
    For(Duration),
    NoLonger,
}

/// How long a pod may stay under these taints: as long as the shortest of the tolerations it needs.
fn stay(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Stay {
    let tolerations: Vec<_> = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let mut limits = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if limits.peek().is_none() {
            return Stay::NoLonger;
        }
        let Some(limit) = limits
            .map(|toleration| toleration.toleration_seconds)
            .min_by_key(|limit| limit.unwrap_or(i64::MAX))
            .flatten()
        else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        match until(now, since, seconds(limit)) {
            None => return Stay::NoLonger,
            Some(left) => shortest = Some(shortest.map_or(left, |shortest| shortest.min(left))),
        }
    }
    shortest.map_or(Stay::Forever, Stay::For)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: Option<&str>, taints: Value) -> Node {
        let conditions: Vec<Value> = ready.iter().map(|status| json!({"type": "Ready", "status": status})).collect();
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": conditions}});
        serde_json::from_value(node).expect("a Node")
    }

    fn shown(node: &Node) -> Vec<String> {
        taints(node, Timestamp::UNIX_EPOCH).iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_the_ready_condition_and_leave_others_alone() {
        let other = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        assert_eq!(shown(&node(Some("True"), other.clone())), ["gpu:NoSchedule"]);
        assert_eq!(shown(&node(None, other.clone())), ["gpu:NoSchedule"]);
        let born = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
        assert_eq!(shown(&node(None, born.clone())), ["node.kubernetes.io/not-ready:NoSchedule"]);
        assert!(shown(&node(Some("True"), born)).is_empty());
        let not_ready =
            ["gpu:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"];
        assert_eq!(shown(&node(Some("False"), other)), not_ready);
        let before = json!([{"key": NOT_READY, "effect": "NoExecute"}]);
        assert_eq!(
            shown(&node(Some("Unknown"), before.clone())),
            ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
        );
        assert_eq!(shown(&node(Some("True"), before)), [""; 0]);
    }

    #[test]
    fn a_cordoned_node_is_tainted_too() {
        let mut cordoned = node(Some("True"), json!([]));
        cordoned.spec.as_mut().expect("a spec").unschedulable = Some(true);
        assert_eq!(shown(&cordoned), ["node.kubernetes.io/unschedulable:NoSchedule"]);
        let open = node(Some("True"), json!([{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]));
        assert_eq!(shown(&open), [""; 0]);
    }

    #[test]
    fn a_pod_stays_as_long_as_its_tolerations_say() {
        let added = json!({"key": "x", "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:00Z"});
        let taint: Taint = serde_json::from_value(added).expect("a Taint");
        let stay = |tolerations: Value| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).expect("a Pod");
            stay(&pod, &[&taint], Timestamp::from_second(100).expect("in range"))
        };
        assert_eq!(stay(json!([])), Stay::NoLonger);
        assert_eq!(stay(json!([{"key": "x", "operator": "Exists"}])), Stay::Forever);
        assert_eq!(
            stay(json!([{"key": "x", "operator": "Exists", "tolerationSeconds": 300}])),
            Stay::For(Duration::from_secs(200))
        );
        assert_eq!(stay(json!([{"key": "x", "operator": "Exists", "tolerationSeconds": 60}])), Stay::NoLonger);
    }
}
