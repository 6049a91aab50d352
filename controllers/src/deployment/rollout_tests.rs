//! Rules of a rollout: sizes step by step, for both strategies.

use super::*;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use serde_json::{Value, json};

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1, "annotations": {"team": "a"}},
        "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}}},
    });
    serde_json::from_value(deployment).expect("a Deployment")
}

fn rolling(surge: i32, unavailable: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// ReplicaSets as the API server and the ReplicaSet controller would keep them.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        World { deployment, sets: vec![], clock: 0 }
    }

    fn update(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().expect("a spec");
        spec.template.spec.as_mut().expect("a pod spec").containers[0].image = Some(image.to_owned());
    }

    fn shared(&self) -> Vec<Arc<ReplicaSet>> {
        self.sets.iter().cloned().map(Arc::new).collect()
    }

    fn step(&mut self) -> Plan {
        let running: i32 = self.shared().iter().map(|set| available(set)).sum();
        let plan = plan(&self.deployment, &self.shared(), running == 0);
        self.clock += 1;
        if let Some(mut set) = plan.create.clone() {
            let created = k8s_openapi::jiff::Timestamp::from_second(self.clock).expect("in range");
            set.metadata.creation_timestamp = Some(crate::clock::whole_seconds(created));
            set.metadata.uid = set.metadata.name.clone();
            self.sets.push(set);
        }
        for scale in &plan.scale {
            let set = self.sets.iter_mut().find(|set| set.metadata.name == scale.set.metadata.name).expect("it exists");
            set.spec.as_mut().expect("a spec").replicas = Some(scale.replicas);
            set.metadata.annotations.get_or_insert_default().extend(scale.annotations.clone());
        }
        self.sets.retain(|set| !plan.delete.iter().any(|gone| gone.metadata.name == set.metadata.name));
        if let Some(revision) = &plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.to_owned(), revision.clone());
        }
        plan
    }

    /// The ReplicaSet controller and the kubelet catch up.
    fn all_ready(&mut self) {
        for set in &mut self.sets {
            let count = replicas(set);
            let status = ReplicaSetStatus {
                replicas: count,
                ready_replicas: Some(count),
                available_replicas: Some(count),
                ..ReplicaSetStatus::default()
            };
            set.status = Some(status);
        }
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(replicas).collect()
    }

    fn settle(&mut self) -> Vec<Vec<i32>> {
        let mut seen = vec![];
        for _ in 0..100 {
            let plan = self.step();
            let idle = plan.create.is_none() && plan.scale.is_empty() && plan.delete.is_empty();
            if !idle {
                seen.push(self.sizes());
            } else if plan.revision.is_none() {
                return seen;
            }
            self.all_ready();
        }
        panic!("does not settle: {seen:?}");
    }
}

#[test]
fn the_first_replica_set_is_created_at_full_size() {
    let mut world = World::new(deployment(100, "v1", json!({"type": "RollingUpdate"})));
    let plan = world.step();
    let set = plan.create.expect("a ReplicaSet");
    assert_eq!(set.spec.as_ref().expect("a spec").replicas, Some(100));
    let hash = set.metadata.labels.as_ref().expect("labels")[TEMPLATE_HASH].clone();
    assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    assert_eq!(set.spec.as_ref().expect("a spec").selector.match_labels.as_ref().expect("labels")[TEMPLATE_HASH], hash);
    let annotations = set.metadata.annotations.expect("annotations");
    assert_eq!(annotations[REVISION], "1");
    assert_eq!((annotations[DESIRED_REPLICAS].as_str(), annotations[MAX_REPLICAS].as_str()), ("100", "125"));
    assert_eq!(annotations["team"], "a");
    assert_eq!(plan.revision.as_deref(), Some("1"));
}

#[test]
fn a_settled_deployment_needs_nothing() {
    let mut world = World::new(deployment(3, "v1", rolling(1, 0)));
    world.settle();
    let plan = world.step();
    assert!(plan.create.is_none() && plan.scale.is_empty() && plan.delete.is_empty() && plan.revision.is_none());
}

#[test]
fn a_rolling_update_keeps_to_surge_and_availability_at_every_step() {
    for (replicas_wanted, surge, unavailable) in [(3, 1, 0), (3, 0, 1), (10, 3, 2), (1, 1, 0), (4, 4, 4)] {
        let mut world = World::new(deployment(replicas_wanted, "v1", rolling(surge, unavailable)));
        world.settle();
        world.update("v2");
        for sizes in world.settle() {
            let total: i32 = sizes.iter().sum();
            assert!(total <= replicas_wanted + surge, "{sizes:?} with surge {surge}");
            assert!(total >= replicas_wanted - unavailable, "{sizes:?} with unavailable {unavailable}");
        }
        assert_eq!(world.sizes(), [0, replicas_wanted]);
    }
}

#[test]
fn one_surge_pod_at_a_time_replaces_one_old_pod_at_a_time() {
    let mut world = World::new(deployment(2, "v1", rolling(1, 0)));
    world.settle();
    world.update("v2");
    assert_eq!(world.settle(), [vec![2, 1], vec![1, 1], vec![1, 2], vec![0, 2]]);
}

#[test]
fn a_rollout_that_never_becomes_ready_stops_with_enough_old_pods() {
    let mut world = World::new(deployment(4, "v1", rolling(1, 1)));
    world.settle();
    world.update("broken");
    for _ in 0..20 {
        world.step();
        // Only the old set reports available pods.
        for set in &mut world.sets[..1] {
            let count = replicas(set);
            set.status = Some(ReplicaSetStatus {
                replicas: count,
                available_replicas: Some(count),
                ..ReplicaSetStatus::default()
            });
        }
    }
    assert_eq!(world.sizes(), [3, 2]);
}

#[test]
fn unhealthy_old_pods_go_first_and_free_of_charge() {
    let mut world = World::new(deployment(4, "v1", rolling(1, 0)));
    world.settle();
    // Two old pods have broken meanwhile.
    world.sets[0].status.as_mut().expect("a status").available_replicas = Some(2);
    world.update("v2");
    world.step();
    assert_eq!(world.sizes(), [4, 1]);
    world.step();
    assert_eq!(world.sizes(), [4, 1], "below the minimum, so nothing may go before the new pod is available");
    world.sets[1].status =
        Some(ReplicaSetStatus { replicas: 1, available_replicas: Some(1), ..ReplicaSetStatus::default() });
    world.step();
    assert_eq!(world.sizes(), [3, 1]);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut world = World::new(deployment(3, "v1", json!({"type": "Recreate"})));
    world.settle();
    world.update("v2");
    world.step();
    assert_eq!(world.sizes(), [0]);
    let plan = plan(&world.deployment, &world.shared(), false);
    assert!(plan.create.is_none(), "old pods are still terminating");
    world.all_ready();
    world.step();
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn rolling_back_reuses_the_old_replica_set_and_numbers_it_anew() {
    let mut world = World::new(deployment(2, "v1", rolling(1, 0)));
    world.settle();
    world.update("v2");
    world.settle();
    world.update("v1");
    world.settle();
    assert_eq!(world.sizes(), [2, 0]);
    let first = world.sets[0].metadata.annotations.clone().expect("annotations");
    assert_eq!((first[REVISION].as_str(), first[REVISION_HISTORY].as_str()), ("3", "1"));
    assert_eq!(world.deployment.metadata.annotations.expect("annotations")[REVISION], "3");
}

#[test]
fn only_so_many_old_replica_sets_are_kept_as_the_history_limit_says() {
    let mut world = World::new(deployment(1, "v0", rolling(1, 0)));
    world.deployment.spec.as_mut().expect("a spec").revision_history_limit = Some(2);
    for version in 1..6 {
        world.settle();
        world.update(&format!("v{version}"));
    }
    world.settle();
    let revisions: Vec<i64> = world.sets.iter().map(revision).collect();
    assert_eq!(revisions, [4, 5, 6]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(2, "v1", rolling(1, 0)));
    world.settle();
    world.deployment.spec.as_mut().expect("a spec").paused = Some(true);
    world.update("v2");
    world.deployment.spec.as_mut().expect("a spec").replicas = Some(5);
    world.settle();
    assert_eq!(world.sizes(), [5]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::new(deployment(10, "v1", rolling(0, 5)));
    world.settle();
    world.update("v2");
    world.step();
    world.step();
    world.step();
    let before = world.sizes();
    assert!(before.iter().all(|size| *size > 0), "{before:?}");
    world.deployment.spec.as_mut().expect("a spec").replicas = Some(20);
    world.step();
    assert_eq!(world.sizes().iter().sum::<i32>(), 20);
    assert!(world.sizes().iter().zip(&before).all(|(after, before)| after > before), "{:?}", world.sizes());
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailability() {
    let percent = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    assert_eq!(tolerance(&deployment(10, "v1", percent.clone())), (3, 2));
    assert_eq!(tolerance(&deployment(1, "v1", percent)), (1, 0));
    assert_eq!(tolerance(&deployment(3, "v1", rolling(0, 0))), (0, 1));
}
