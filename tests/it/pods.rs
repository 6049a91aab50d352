//! What becomes of a Pod, seen through the API, under a paused clock where time matters.

use coracle::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

/// The condition's last transition, in seconds after the pod started, once it is true.
async fn became_true(cluster: &Cluster, pod: &str, condition: &str) -> i64 {
    let api: Api<Pod> = Api::default_namespaced(cluster.client());
    loop {
        let pod = api.get(pod).await.expect("the pod");
        let status = pod.status.expect("a status");
        let conditions = status.conditions.unwrap_or_default();
        let found = conditions.iter().find(|known| known.type_ == condition && known.status == "True");
        if let (Some(start), Some(time)) =
            (status.start_time, found.and_then(|found| found.last_transition_time.as_ref()))
        {
            return time.0.as_second() - start.0.as_second();
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_probe_is_ready_as_soon_as_its_program_listens() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: agnhost, args: \
             [netexec, --http-port=8080], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 100}}}}]}}}}"
        )
    };
    cluster.apply(&pod("listening")).await.expect("applied");
    assert!(became_true(&cluster, "listening", "Ready").await < 5, "not after a whole period of 100 s");
    cluster.stop().await;
}

/// The gate's condition came, and nobody looked whether the pod was ready now.
#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_when_its_readiness_gate_is_opened_and_not_when_it_is_closed() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: gated}, spec: {readinessGates: [{conditionType: example.com/gate}], containers: \
               [{name: c, image: busybox, command: [sleep, '9999']}]}}";
    cluster.apply(pod).await.expect("applied");
    let api: Api<Pod> = Api::default_namespaced(cluster.client());
    let ready = async || {
        cluster.settled().await;
        let status = api.get("gated").await.expect("the pod").status.expect("a status");
        let ready =
            status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready").expect("a condition");
        (ready.status, ready.reason.unwrap_or_default())
    };
    let shut = ("False".to_owned(), "ReadinessGatesNotReady".to_owned());
    assert_eq!(ready().await, shut);
    for (gate, expected) in [("True", ("True".to_owned(), String::new())), ("False", shut)] {
        let condition = serde_json::json!({"type": "example.com/gate", "status": gate});
        let patch = serde_json::json!({"status": {"conditions": [condition]}});
        api.patch_status("gated", &Default::default(), &kube::api::Patch::Strategic(patch)).await.expect("patched");
        assert_eq!(ready().await, expected, "{gate}");
    }
    cluster.stop().await;
}

/// It ran on for the ten minutes it had been given first, whoever was in a hurry.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_goes_sooner_when_its_grace_is_shortened() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let stubborn = "{apiVersion: v1, kind: Pod, metadata: {name: stubborn}, spec: {containers: [{name: c, image: busybox, command: \
                    [sh, -c, 'trap \"\" TERM; while true; do sleep 1; done']}]}}";
    cluster.apply(stubborn).await.expect("applied");
    became_true(&cluster, "stubborn", "Ready").await;
    let api: Api<Pod> = Api::default_namespaced(cluster.client());
    for grace in [600, 1] {
        let asked = DeleteParams { grace_period_seconds: Some(grace), ..Default::default() };
        api.delete("stubborn", &asked).await.expect("asked to go");
    }
    let asked = tokio::time::Instant::now();
    while api.get_opt("stubborn").await.expect("an answer").is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(asked.elapsed().as_secs() < 10, "gone only after {:?}", asked.elapsed());
    cluster.stop().await;
}
