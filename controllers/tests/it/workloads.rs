//! From workloads to pods on nodes and addresses behind Services.

use crate::cluster::{Cluster, deployment, service, template};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn endpoints(slices: &[Value]) -> usize {
    slices.iter().filter_map(|slice| slice["endpoints"].as_array()).map(Vec::len).sum()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_born_with_its_service_account_and_the_ca() {
    let cluster = Cluster::start().await;
    let namespaces = cluster.names("v1", "Namespace").await;
    assert_eq!(namespaces, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    cluster.create("v1", "Namespace", json!({"metadata": {"name": "team"}})).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "ServiceAccount").await, ["default"; 5]);
    let config_maps = cluster.list("v1", "ConfigMap").await;
    assert_eq!(config_maps.len(), 5);
    assert!(config_maps.iter().all(|map| map["data"]["ca.crt"] == "CA"));
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_pods_on_all_nodes_and_endpoints_of_its_service() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", service("web")).await;
    cluster.create("apps/v1", "Deployment", deployment("web", 100, "v1")).await;
    cluster.settled().await;

    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for pod in cluster.list("v1", "Pod").await {
        *nodes.entry(pod["spec"]["nodeName"].as_str().unwrap_or("none").to_owned()).or_insert(0) += 1;
    }
    assert_eq!(nodes, BTreeMap::from([("node-1".to_owned(), 50), ("node-2".to_owned(), 50)]));
    assert_eq!(cluster.api.writes("POST api/v1/namespaces/default/pods"), 200, "created and bound once each");

    let slices = cluster.list("discovery.k8s.io/v1", "EndpointSlice").await;
    assert_eq!((slices.len(), endpoints(&slices)), (1, 100));
    let legacy = cluster.get("v1", "Endpoints", "web").await.expect("Endpoints");
    assert_eq!(legacy["subsets"][0]["addresses"].as_array().map(Vec::len), Some(100));

    let status = cluster.get("apps/v1", "Deployment", "web").await.expect("it exists")["status"].clone();
    for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status[count], 100, "{count}");
    }
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["conditions"][1]["reason"], "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_replaces_every_pod_and_scaling_down_keeps_the_rest() {
    let cluster = Cluster::start().await;
    cluster.create("v1", "Service", service("web")).await;
    cluster.create("apps/v1", "Deployment", deployment("web", 3, "v1")).await;
    cluster.settled().await;
    cluster
        .merge(
            "apps/v1",
            "Deployment",
            "web",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
        )
        .await;
    cluster.settled().await;
    let images =
        |pods: Vec<Value>| pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].clone()).collect::<Vec<_>>();
    assert_eq!(images(cluster.list("v1", "Pod").await), ["v2", "v2", "v2"]);
    assert_eq!(cluster.names("apps/v1", "ReplicaSet").await.len(), 2);

    cluster.merge("apps/v1", "Deployment", "web", json!({"spec": {"replicas": 1}})).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Pod").await.len(), 1);
    let slices = cluster.list("discovery.k8s.io/v1", "EndpointSlice").await;
    assert_eq!((slices.len(), endpoints(&slices)), (1, 1));
    let status = cluster.get("apps/v1", "Deployment", "web").await.expect("it exists")["status"].clone();
    assert_eq!((&status["replicas"], &status["observedGeneration"]), (&json!(1), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_pod_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.create("apps/v1", "Deployment", deployment("web", 2, "v1")).await;
    cluster.settled().await;
    let lost = cluster.names("v1", "Pod").await.remove(0);
    cluster.delete("v1", "Pod", &lost, kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    let names = cluster.names("v1", "Pod").await;
    assert_eq!(names.len(), 2);
    assert!(!names.contains(&lost));
}

#[tokio::test(start_paused = true)]
async fn events_tell_what_the_controllers_did() {
    let cluster = Cluster::start().await;
    cluster.create("apps/v1", "Deployment", deployment("web", 1, "v1")).await;
    cluster.settled().await;
    let set = cluster.names("apps/v1", "ReplicaSet").await.remove(0);
    let pod = cluster.list("v1", "Pod").await.remove(0);
    let (name, node) =
        (pod["metadata"]["name"].as_str().unwrap_or_default(), pod["spec"]["nodeName"].as_str().unwrap_or_default());
    assert_eq!(cluster.events("ScalingReplicaSet").await, [format!("Scaled up replica set {set} from 0 to 1")]);
    assert_eq!(cluster.events("SuccessfulCreate").await, [format!("Created pod: {name}")]);
    assert_eq!(cluster.events("Scheduled").await, [format!("Successfully assigned default/{name} to {node}")]);
    assert!(name.starts_with(&format!("{set}-")) && name.len() == set.len() + 6);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "v1",
            "Pod",
            json!({"metadata": {"name": "picky"}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": []}}),
        )
        .await;
    cluster.settled().await;
    let pod = cluster.get("v1", "Pod", "picky").await.expect("it exists");
    let condition = &pod["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("PodScheduled"), &json!("Unschedulable")));
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        "{message}"
    );
    assert_eq!(cluster.events("FailedScheduling").await.len(), 1);

    cluster.create("v1", "Node", json!({"metadata": {"name": "node-3", "labels": {"disk": "ssd"}}})).await;
    cluster.settled().await;
    assert_eq!(cluster.get("v1", "Pod", "picky").await.expect("it exists")["spec"]["nodeName"], "node-3");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_cluster() {
    let mut runs = vec![];
    for _ in 0..2 {
        let cluster = Cluster::start().await;
        cluster.create("apps/v1", "Deployment", deployment("web", 5, "v1")).await;
        cluster.settled().await;
        let pods = cluster.list("v1", "Pod").await;
        runs.push(
            pods.iter()
                .map(|pod| (pod["metadata"]["name"].clone(), pod["spec"]["nodeName"].clone()))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_has_stable_names_and_claims_and_updates_from_the_top() {
    let cluster = Cluster::start().await;
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": template("db", "v1"), "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}});
    cluster.create("apps/v1", "StatefulSet", set).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Pod").await, ["db-0", "db-1", "db-2"]);
    assert_eq!(cluster.names("v1", "PersistentVolumeClaim").await, ["data-db-0", "data-db-1", "data-db-2"]);
    let status = |set: Option<Value>| set.map(|set| set["status"].clone()).unwrap_or_default();
    let before = status(cluster.get("apps/v1", "StatefulSet", "db").await);
    assert_eq!((&before["readyReplicas"], &before["currentReplicas"]), (&json!(3), &json!(3)));

    cluster.merge("apps/v1", "StatefulSet", "db", json!({"spec": {"template": template("db", "v2")}})).await;
    cluster.settled().await;
    let pods = cluster.list("v1", "Pod").await;
    assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "v2"));
    let after = status(cluster.get("apps/v1", "StatefulSet", "db").await);
    assert_ne!(after["currentRevision"], before["currentRevision"]);
    assert_eq!((&after["currentRevision"], &after["updatedReplicas"]), (&after["updateRevision"], &json!(3)));
    let deleted = cluster.events("SuccessfulDelete").await;
    assert_eq!(deleted, ["2", "1", "0"].map(|n| format!("delete Pod db-{n} in StatefulSet db successful")));
    assert_eq!(cluster.names("apps/v1", "ControllerRevision").await.len(), 2);

    cluster.merge("apps/v1", "StatefulSet", "db", json!({"spec": {"replicas": 1}})).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Pod").await, ["db-0"]);
    assert_eq!(cluster.names("v1", "PersistentVolumeClaim").await.len(), 3, "claims outlive their pods");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_runs_on_every_node_and_follows_new_ones() {
    let cluster = Cluster::start().await;
    let set = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "v1")}});
    cluster.create("apps/v1", "DaemonSet", set).await;
    cluster.settled().await;
    cluster.create("v1", "Node", json!({"metadata": {"name": "node-3"}})).await;
    cluster.settled().await;
    let nodes = |pods: Vec<Value>| {
        let mut nodes: Vec<Value> = pods.iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
        nodes.sort_by_key(ToString::to_string);
        nodes
    };
    assert_eq!(nodes(cluster.list("v1", "Pod").await), ["node-1", "node-2", "node-3"]);
    cluster.merge("apps/v1", "DaemonSet", "agent", json!({"spec": {"template": template("agent", "v2")}})).await;
    cluster.settled().await;
    let pods = cluster.list("v1", "Pod").await;
    assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "v2"));
    assert_eq!(nodes(pods), ["node-1", "node-2", "node-3"]);
    let status = cluster.get("apps/v1", "DaemonSet", "agent").await.expect("it exists")["status"].clone();
    for count in
        ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
    {
        assert_eq!(status[count], 3, "{count}");
    }
}

/// Lets every pod that runs succeed.
async fn succeed(cluster: &Cluster) {
    for pod in cluster.list("v1", "Pod").await {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let ended = json!({"status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}});
        cluster.merge("v1", "Pod", name, ended).await;
    }
    cluster.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_completion_and_goes_after_its_time() {
    let cluster = Cluster::start().await;
    let job = json!({"metadata": {"name": "work"}, "spec": {"completions": 3, "parallelism": 2, "ttlSecondsAfterFinished": 5, "template": template("work", "v1")}});
    cluster.create("batch/v1", "Job", job).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Pod").await.len(), 2);
    succeed(&cluster).await;
    assert_eq!(cluster.names("v1", "Pod").await.len(), 3);
    succeed(&cluster).await;
    let status = cluster.get("batch/v1", "Job", "work").await.expect("it exists")["status"].clone();
    assert_eq!((&status["succeeded"], &status["conditions"][1]["type"]), (&json!(3), &json!("Complete")));
    cluster.gone("batch/v1", "Job", "work").await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "Pod").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_a_job_at_every_full_minute_and_keeps_a_short_history() {
    let cluster = Cluster::start().await;
    let cron_job = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 2, "startingDeadlineSeconds": 30,
        "jobTemplate": {"spec": {"completions": 1, "template": template("tick", "v1")}}}});
    cluster.create("batch/v1", "CronJob", cron_job).await;
    cluster.settled().await;
    let before = cluster.names("batch/v1", "Job").await;
    // Away from the full minute: a timer and a test that wake at the same instant have no order.
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        cluster.settled().await;
        succeed(&cluster).await;
    }
    let jobs = cluster.names("batch/v1", "Job").await;
    assert_eq!(jobs.len(), 2);
    let minute = |name: &String| name.rsplit('-').next().and_then(|minute| minute.parse::<i64>().ok()).unwrap_or(0);
    assert_eq!(minute(&jobs[1]), minute(&jobs[0]) + 1);
    assert!(!before.contains(&jobs[0]));
    let status = cluster.get("batch/v1", "CronJob", "tick").await.expect("it exists")["status"].clone();
    assert_eq!(status["active"], Value::Null);
    assert!(status["lastScheduleTime"].is_string() && status["lastSuccessfulTime"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_tainted_and_its_pods_are_replaced_elsewhere() {
    let cluster = Cluster::start().await;
    let lease = json!({"metadata": {"name": "node-1", "namespace": "kube-node-lease"}, "spec": {"renewTime": "2027-01-15T08:00:00.000000Z"}});
    cluster.create("coordination.k8s.io/v1", "Lease", lease).await;
    cluster.create("apps/v1", "Deployment", deployment("web", 4, "v1")).await;
    cluster.settled().await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    cluster.settled().await;
    let node = cluster.get("v1", "Node", "node-1").await.expect("it exists");
    assert_eq!(node["status"]["conditions"][0]["status"], "Unknown");
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/unreachable");
    let pods = cluster.list("v1", "Pod").await;
    assert!(
        pods.len() == 4 && pods.iter().all(|pod| pod["spec"]["nodeName"] == "node-2"),
        "nothing tolerates the taint here"
    );

    let renewed =
        json!({"metadata": {"namespace": "kube-node-lease"}, "spec": {"renewTime": "2027-01-15T08:01:00.000000Z"}});
    cluster.merge("coordination.k8s.io/v1", "Lease", "node-1", renewed).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.merge("v1", "Node", "node-1", ready).await;
    cluster.settled().await;
    assert_eq!(cluster.get("v1", "Node", "node-1").await.expect("it exists")["spec"]["taints"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_disruption_budget_says_how_many_pods_may_go() {
    let cluster = Cluster::start().await;
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create("policy/v1", "PodDisruptionBudget", budget).await;
    cluster.create("apps/v1", "Deployment", deployment("web", 3, "v1")).await;
    cluster.settled().await;
    let status = cluster.get("policy/v1", "PodDisruptionBudget", "web").await.expect("it exists")["status"].clone();
    assert_eq!(
        (&status["currentHealthy"], &status["desiredHealthy"], &status["disruptionsAllowed"]),
        (&json!(3), &json!(2), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn endpoints_a_user_writes_are_mirrored_and_follow() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "v1",
            "Service",
            json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "10.96.0.60", "ports": [{"port": 5432}]}}),
        )
        .await;
    let subsets = json!([{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}]);
    cluster.create("v1", "Endpoints", json!({"metadata": {"name": "db"}, "subsets": subsets})).await;
    cluster.settled().await;
    let slices = cluster.list("discovery.k8s.io/v1", "EndpointSlice").await;
    assert_eq!((slices.len(), &slices[0]["endpoints"][0]["addresses"][0]), (1, &json!("192.0.2.7")));
    cluster.delete("v1", "Endpoints", "db", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert_eq!(cluster.names("discovery.k8s.io/v1", "EndpointSlice").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_vanished_node_are_collected() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "v1",
            "Pod",
            json!({"metadata": {"name": "lonely"}, "spec": {"nodeSelector": {"x": "y"}, "containers": []}}),
        )
        .await;
    cluster.create("v1", "Node", json!({"metadata": {"name": "node-3", "labels": {"x": "y"}}})).await;
    cluster.settled().await;
    cluster.delete("v1", "Node", "node-3", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert!(cluster.get("v1", "Pod", "lonely").await.is_some(), "the node may come back");
    cluster.gone("v1", "Pod", "lonely").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_claim_is_bound_at_once_and_its_volume_goes_with_it() {
    let cluster = Cluster::start().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create("v1", "PersistentVolumeClaim", json!({"metadata": {"name": "data"}, "spec": spec})).await;
    cluster.settled().await;
    let claim = cluster.get("v1", "PersistentVolumeClaim", "data").await.expect("it exists");
    assert_eq!((&claim["status"]["phase"], &claim["status"]["capacity"]["storage"]), (&json!("Bound"), &json!("1Gi")));
    let volumes = cluster.list("v1", "PersistentVolume").await;
    assert_eq!((volumes.len(), &volumes[0]["status"]["phase"]), (1, &json!("Bound")));
    assert_eq!(claim["spec"]["volumeName"], volumes[0]["metadata"]["name"]);
    cluster.delete("v1", "PersistentVolumeClaim", "data", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "PersistentVolume").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_in_use_outlives_its_deletion_and_its_volume_outlives_it() {
    let cluster = Cluster::start().await;
    let claim = json!({"metadata": {"name": "data", "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create("v1", "PersistentVolumeClaim", claim).await;
    cluster.settled().await;
    let volume = cluster.names("v1", "PersistentVolume").await.remove(0);
    let protected = json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}});
    cluster.merge("v1", "PersistentVolume", &volume, protected).await;
    let pod = json!({"metadata": {"name": "user"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.create("v1", "Pod", pod).await;
    cluster.settled().await;
    cluster.delete("v1", "PersistentVolume", &volume, kube::api::DeleteParams::default()).await;
    cluster.delete("v1", "PersistentVolumeClaim", "data", kube::api::DeleteParams::default()).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "PersistentVolumeClaim").await, ["data"], "the pod uses it");
    assert_eq!(cluster.names("v1", "PersistentVolume").await, [volume], "the claim uses it");
    cluster.delete("v1", "Pod", "user", kube::api::DeleteParams::default().grace_period(0)).await;
    cluster.settled().await;
    assert_eq!(cluster.names("v1", "PersistentVolumeClaim").await, [""; 0]);
    assert_eq!(cluster.names("v1", "PersistentVolume").await, [""; 0]);
}
