//! PodDisruptionBudgets: how many pods may be evicted now.
//!
//! Only the status is kept here; the API server's eviction subresource spends it.

use crate::meta::{amount, controller_of, labels, selects};
use crate::pods::{is_active, is_ready};
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// How long an eviction that the API server has allowed counts, if the pod does not go.
const EVICTION_COUNTS: std::time::Duration = std::time::Duration::from_secs(120);

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let budgets = shared.informers.of::<PodDisruptionBudget>();
    let pods = shared.informers.of::<Pod>();
    tasks.spawn(follow_own(budgets.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let budgets = budgets.clone();
        move |update| budgets_over(update.object(), &budgets)
    }));
    let controller = DisruptionBudgetController {
        budgets,
        pods,
        sets: shared.informers.of::<ReplicaSet>(),
        deployments: shared.informers.of::<Deployment>(),
        stateful_sets: shared.informers.of::<StatefulSet>(),
    };
    tasks.spawn(run(shared.clone(), queue, controller));
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, labels(&pod.metadata)))
}

fn budgets_over(pod: &Pod, budgets: &Informer<PodDisruptionBudget>) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let covering = budgets.list_in(namespace).into_iter().filter(|budget| covers(budget, pod));
    covering.map(|budget| Key::of(&budget.metadata)).collect()
}

struct DisruptionBudgetController {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
}

impl Controller for DisruptionBudgetController {
    const NAME: &'static str = "disruption-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let pods: Vec<Arc<Pod>> =
            self.pods.list_in(&key.namespace).into_iter().filter(|pod| covers(&budget, pod)).collect();
        let scale = self.expected(&pods);
        let status = status(&budget, &pods, scale, session.shared.clock.time());
        if budget.status.as_ref() != Some(&status) {
            let wanted = PodDisruptionBudget { status: Some(status), ..(*budget).clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_not_found() => {}
                written => drop(written?),
            }
        }
        Ok(Next::OnChange)
    }
}

impl DisruptionBudgetController {
    /// How many pods their controllers want in sum; nothing if a pod has none whose scale is known.
    fn expected(&self, pods: &[Arc<Pod>]) -> Option<i32> {
        let mut by_owner: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let owner = controller_of(&pod.metadata)?;
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let (uid, scale) = match owner.kind.as_str() {
                "ReplicaSet" => {
                    let set = self.sets.get(namespace, &owner.name)?;
                    let deployment = controller_of(&set.metadata)
                        .filter(|owner| owner.kind == "Deployment")
                        .and_then(|owner| self.deployments.get(namespace, &owner.name));
                    match deployment {
                        Some(deployment) => {
                            (deployment.metadata.uid.clone()?, deployment.spec.as_ref()?.replicas.unwrap_or(1))
                        }
                        None => (owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)),
                    }
                }
                "StatefulSet" => {
                    let set = self.stateful_sets.get(namespace, &owner.name)?;
                    (owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))
                }
                _ => return None,
            };
            by_owner.insert(uid, scale);
        }
        Some(by_owner.values().sum())
    }
}

/// The budget's state. `scale` is what the pods' controllers want; percentages and `maxUnavailable` need it.
fn status(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: Option<i32>, now: Time) -> PodDisruptionBudgetStatus {
    let spec = budget.spec.clone().unwrap_or_default();
    let known = budget.status.clone().unwrap_or_default();
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (expected, desired, problem) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => match scale {
            Some(scale) => (scale, (scale - amount(Some(unavailable), scale, true)).max(0), false),
            None => (count, count, true),
        },
        (None, Some(available @ IntOrString::Int(_))) => (count, amount(Some(available), count, true), false),
        (None, Some(available)) => match scale {
            Some(scale) => (scale, amount(Some(available), scale, true), false),
            None => (count, count, true),
        },
        (None, None) => (count, amount(Some(&IntOrString::Int(1)), count, true), false),
    };
    // An eviction that has been allowed counts until its pod is on its way.
    let disrupted: BTreeMap<String, Time> = known
        .disrupted_pods
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, since)| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
            pod.is_some_and(|pod| is_active(pod)) && crate::clock::until(now.0, since.0, EVICTION_COUNTS).is_some()
        })
        .collect();
    let is_disrupted = |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
    let healthy = pods.iter().filter(|pod| is_active(pod) && is_ready(pod) && !is_disrupted(pod)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let allowed = if expected == 0 || problem { 0 } else { (healthy - desired).max(0) };
    let (state, reason) = match (problem, allowed) {
        (true, _) => ("False", "SyncFailed"),
        (false, 0) => ("False", "InsufficientPods"),
        (false, _) => ("True", "SufficientPods"),
    };
    let mut conditions = known.conditions.unwrap_or_default();
    let previous =
        conditions.iter().position(|condition| condition.type_ == "DisruptionAllowed").map(|at| conditions.remove(at));
    let since =
        previous.filter(|previous| previous.status == state).map_or(now, |previous| previous.last_transition_time);
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
    PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    fn allowed(spec: Value, ready: usize, unready: usize, scale: Option<i32>) -> (i32, i32, i32) {
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": spec})).expect("a budget");
        let pods: Vec<Arc<Pod>> = (0..ready + unready)
            .map(|n| {
                let state = if n < ready { "True" } else { "False" };
                let pod = json!({"metadata": {"name": format!("p{n}")}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}});
                Arc::new(serde_json::from_value(pod).expect("a Pod"))
            })
            .collect();
        let status = status(&budget, &pods, scale, Time(Timestamp::UNIX_EPOCH));
        let number = |field: Option<i32>| field.expect("is set");
        (number(status.current_healthy), number(status.desired_healthy), number(status.disruptions_allowed))
    }

    #[test]
    fn so_many_pods_may_go_that_enough_remain() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 0, Some(3)), (3, 2, 1));
        assert_eq!(allowed(json!({"minAvailable": 2}), 2, 1, Some(3)), (2, 2, 0));
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 5, 0, Some(5)), (5, 3, 2));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 3, 0, Some(3)), (3, 2, 1));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 2, 1, Some(3)), (2, 2, 0));
        assert_eq!(allowed(json!({"maxUnavailable": "34%"}), 3, 0, Some(3)), (3, 1, 2));
    }

    #[test]
    fn without_a_known_scale_relative_budgets_allow_nothing() {
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 3, 0, None).2, 0);
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, 0, None).2, 0);
        assert_eq!(allowed(json!({"minAvailable": 1}), 3, 0, None).2, 2);
    }
}
