//! Writes in the corners: what a delete leaves, what counts up the generation, what is said beside the answer.

use crate::support::{Answer, CONFIGMAPS, Server, configmap, server};
use serde_json::{Value, json};
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()}})
}

fn job(name: &str) -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"metadata": {"name": name}, "spec": {"template": template}})
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect()
}

async fn bound_pod(server: &Server, name: &str) {
    server.post(PODS, pod(name)).await.created();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-1"}});
    server.post(&format!("{PODS}/{name}/binding"), binding).await.created();
}

#[tokio::test(start_paused = true)]
async fn delete_options_that_mean_nothing_are_refused() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a");
    for (options, code, message) in [
        (
            json!({"propagationPolicy": "Sideways"}),
            422,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            422,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and \
             deletionPropagation cannot be both set",
        ),
        (
            json!({"dryRun": ["Some"]}),
            422,
            "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\"",
        ),
        (json!({"kind": "Pod", "apiVersion": "v1"}), 400, "the body of the request is not DeleteOptions: it is Pod"),
    ] {
        assert_eq!(server.delete(&path, options).await.expect(code)["message"], message);
    }
    let wrong = json!({"preconditions": {"uid": "other"}});
    let uid = server.get(&path).await.ok()["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        server.delete(&path, wrong).await.expect(409)["message"],
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record \
             ({uid}). The object might have been deleted and then recreated"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_delete_makes_the_grace_period_of_a_pod_shorter_and_never_longer() {
    let server = server().await;
    bound_pod(&server, "a").await;
    let path = format!("{PODS}/a");
    let delete = async |body: Value| server.delete(&path, body).await.ok()["metadata"].clone();
    let ends = |metadata: &Value| {
        (
            metadata["deletionTimestamp"].clone(),
            metadata["deletionGracePeriodSeconds"].clone(),
            metadata["generation"].clone(),
        )
    };
    let first = delete(json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(ends(&first), (json!("2026-01-01T00:01:00Z"), json!(60), json!(2)));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(delete(json!({"gracePeriodSeconds": 90})).await, first);
    assert_eq!(delete(Value::Null).await, first);
    let shorter = delete(json!({"gracePeriodSeconds": 10})).await;
    assert_eq!(
        ends(&shorter),
        (json!("2026-01-01T00:00:10Z"), json!(10), json!(2)),
        "it counts from the first delete, and is no new generation"
    );
    let undecided = delete(json!({"gracePeriodSeconds": 20, "propagationPolicy": "Foreground"})).await;
    assert_eq!(undecided.get("finalizers"), None, "a delete that shortens nothing decides nothing");
    let now = delete(json!({"gracePeriodSeconds": -1})).await;
    assert_eq!(now["deletionGracePeriodSeconds"], 1, "what is negative means a second");
    delete(json!({"gracePeriodSeconds": 0})).await;
    server.get(&path).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_job_outlive_it_unless_its_delete_says_otherwise() {
    let server = server().await;
    for name in ["a", "b"] {
        server.post(JOBS, job(name)).await.created();
    }
    let answer = server.delete(&format!("{JOBS}/a"), Value::Null).await;
    assert_eq!(
        warnings(&answer),
        [
            "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
          propagationPolicy=Orphan to suppress this warning\""
        ]
    );
    assert_eq!(answer.ok()["metadata"]["finalizers"], json!(["orphan"]));
    let answer = server.delete(&format!("{JOBS}/b"), json!({"propagationPolicy": "Background"})).await;
    assert_eq!(warnings(&answer), Vec::<&str>::new());
    assert_eq!(answer.ok()["status"], "Success");
}

#[tokio::test(start_paused = true)]
async fn the_generation_counts_what_was_meant_to_change() {
    let server = server().await;
    server.post(DEPLOYMENTS, deployment()).await.created();
    let path = format!("{DEPLOYMENTS}/web");
    let generation = async |patch: Value| {
        server.patch(&path, "merge-patch+json", patch).await.ok()["metadata"]["generation"].clone()
    };
    assert_eq!(generation(json!({"metadata": {"labels": {"a": "b"}}})).await, 1);
    assert_eq!(
        generation(json!({"metadata": {"annotations": {"a": "b"}}})).await,
        2,
        "a Deployment's annotations go to its ReplicaSets"
    );
    assert_eq!(generation(json!({"spec": {"replicas": 3}})).await, 3);
    assert_eq!(
        generation(json!({"spec": {"template": {"spec": {"volumes": []}}}})).await,
        3,
        "empty and absent are the same"
    );
    let status =
        server.patch(&format!("{path}/status"), "merge-patch+json", json!({"status": {"replicas": 1}})).await.ok();
    assert_eq!(status["metadata"]["generation"], 3);
    let noted = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}});
    let noted = server.patch(&format!("{path}/status"), "merge-patch+json", noted).await.ok();
    assert_eq!(noted["metadata"]["generation"], 3, "what a controller notes beside the status is no new intention");
}

#[tokio::test(start_paused = true)]
async fn a_valid_write_is_told_what_may_surprise_once() {
    let server = server().await;
    let mut object = deployment();
    object["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]);
    let said = "299 - \"spec.template.spec.containers[0].env[1]: hides previous definition of \\\"X\\\", which may be dropped when \
        using apply\"";
    let answer = server.post(DEPLOYMENTS, object.clone()).await;
    assert_eq!(warnings(&answer), [said]);
    let stored = answer.created();
    let path = format!("{DEPLOYMENTS}/web");
    let labelled = server.patch(&path, "merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(warnings(&labelled), Vec::<&str>::new(), "the spec is as it was");
    let scaled = server.patch(&path, "merge-patch+json", json!({"spec": {"replicas": 2}})).await;
    assert_eq!(warnings(&scaled), [said]);
    assert_ne!(scaled.ok()["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"]);
    object["spec"]["replicas"] = (-1).into();
    object["metadata"]["name"] = "other".into();
    assert_eq!(
        warnings(&server.post(DEPLOYMENTS, object).await),
        Vec::<&str>::new(),
        "what is refused has other worries"
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_that_must_say_what_it_has_seen_is_told_so_in_kubernetes_words() {
    let server = server().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a";
    server.put(path, json!({"metadata": {"name": "a"}})).await.created();
    assert_eq!(
        server.put(path, json!({"metadata": {"name": "a"}})).await.expect(422)["message"],
        "leases.coordination.k8s.io \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_nobody_could_create_is_refused_for_its_namespace_first() {
    let server = server().await;
    let status =
        server.post("/api/v1/namespaces/none/pods", json!({"metadata": {"name": "a"}, "spec": {}})).await.expect(404);
    assert_eq!(status["message"], "namespaces \"none\" not found");
}
