//! The standard plug-ins.

use crate::support::{Server, config, with};
use apiserver::{Config, admission};
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn server() -> Server {
    with(Config { admission: admission::standard(), ..config() }).await
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn service_account(server: &Server, account: Value) {
    server.post("/api/v1/namespaces/default/serviceaccounts", account).await.created();
}

#[tokio::test(start_paused = true)]
async fn a_pod_finds_the_token_of_its_service_account_mounted() {
    let server = server().await;
    let secrets = json!([{"name": "pull"}]);
    service_account(&server, json!({"metadata": {"name": "default"}, "imagePullSecrets": secrets})).await;
    service_account(&server, json!({"metadata": {"name": "none"}, "automountServiceAccountToken": false})).await;
    let created = server.post(PODS, pod("a")).await.created();
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["spec"]["imagePullSecrets"], secrets);
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], created["spec"]["volumes"][0]["name"]);
    let mut other = pod("b");
    other["spec"]["serviceAccountName"] = "none".into();
    let created = server.post(PODS, other).await.created();
    assert_eq!(created["spec"].get("volumes"), None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_a_moment_for_its_service_account_and_is_refused_without() {
    let server = Arc::new(server().await);
    let status = server.post(PODS, pod("a")).await.expect(403);
    assert_eq!(
        status["message"],
        "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.post(PODS, pod("a")).await.created() }
    });
    tokio::task::yield_now().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    waiting.await.expect("a created pod");
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_the_priority_of_its_class() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    server
        .post(classes, json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}))
        .await
        .created();
    server.post(classes, json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true})).await.created();
    let with_class = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["priorityClassName"] = class.into();
        pod
    };
    let high = server.post(PODS, with_class("a", "high")).await.created();
    assert_eq!((&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    let usual = server.post(PODS, pod("b")).await.created();
    assert_eq!((&usual["spec"]["priority"], &usual["spec"]["priorityClassName"]), (&json!(7), &json!("usual")));
    let system = server.post(PODS, with_class("c", "system-node-critical")).await.created();
    assert_eq!(system["spec"]["priority"], 2_000_001_000);
    let status = server.post(PODS, with_class("d", "none")).await.expect(403);
    assert_eq!(status["message"], "pods \"d\" is forbidden: no PriorityClass with name none was found");
}

#[tokio::test(start_paused = true)]
async fn a_limit_range_is_applied_to_pods_that_can_be_read_and_no_others() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let limits = json!([{"type": "Container", "max": {"memory": "1Gi"}}]);
    let range = json!({"metadata": {"name": "memory"}, "spec": {"limits": limits}});
    server.post("/api/v1/namespaces/default/limitranges", range).await.created();
    let pod = |resources: Value| json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}});
    for wrong in [json!("x"), json!({"limits": "x"}), json!({"limits": []})] {
        server.post(PODS, pod(wrong)).await.expect(400);
    }
    let refused = server.post(PODS, pod(json!({"limits": {"memory": "2Gi"}}))).await.expect(403);
    let why = "pods \"a\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi";
    assert_eq!(refused["message"], why);
    let made = server.post(PODS, pod(json!({}))).await.created();
    let given = json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], given);
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container c; memory limit for container c"
    );
}

#[tokio::test(start_paused = true)]
async fn names_that_are_made_up_are_not_known_to_who_changes_but_to_who_judges() {
    let server = server().await;
    let status =
        server.post(PODS, json!({"metadata": {"generateName": "a-"}, "spec": pod("")["spec"]})).await.expect(403);
    assert_eq!(
        status["message"],
        "pods \"a-\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    let absent = server.post("/api/v1/namespaces/nowhere/pods", pod("a")).await.expect(404);
    assert_eq!(absent["message"], "namespaces \"nowhere\" not found");
}

#[tokio::test(start_paused = true)]
async fn a_pods_priority_cannot_be_set_past_its_class_and_one_class_is_the_default() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let default = |name: &str| json!({"metadata": {"name": name}, "value": 7, "globalDefault": true});
    server.post(classes, default("one")).await.created();
    let refused = server.post(classes, default("two")).await.expect(403);
    assert_eq!(
        refused["message"],
        "priorityclasses.scheduling.k8s.io \"two\" is forbidden: PriorityClass one is already marked as default. Only one default can exist"
    );
    let mut set = pod("a");
    set["spec"]["priority"] = 8.into();
    let refused = server.post(PODS, set).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"a\" is forbidden: the integer value of priority (8) must not be provided in pod spec; priority admission \
         controller computed 7 from the given PriorityClass name"
    );
    let created = server.post(PODS, pod("a")).await.created();
    assert_eq!((&created["spec"]["priority"], &created["spec"]["priorityClassName"]), (&json!(7), &json!("one")));
    // A client that leaves out what it was given does not change it.
    let mut sent = created.clone();
    for field in ["priority", "preemptionPolicy"] {
        sent["spec"].as_object_mut().expect("a spec").remove(field);
    }
    sent["metadata"]["labels"] = json!({"a": "b"});
    let updated = server.put(&format!("{PODS}/a"), sent).await.ok();
    assert_eq!((&updated["spec"]["priority"], &updated["metadata"]["generation"]), (&json!(7), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_must_exist_and_gives_overhead_and_a_place() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let class = json!({"metadata": {"name": "heavy"}, "handler": "heavy", "overhead": {"podFixed": {"cpu": "0.25"}},
        "scheduling": {"nodeSelector": {"kind": "big"}, "tolerations": [{"key": "big", "operator": "Exists"}]}});
    server.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.created();
    let with = |fields: Value| {
        let mut pod = pod("a");
        for (field, value) in fields.as_object().expect("fields") {
            pod["spec"][field] = value.clone();
        }
        pod
    };
    for (fields, why) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "heavy", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"runtimeClassName": "heavy", "nodeSelector": {"kind": "small"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kind] = big; pod.spec.nodeSelector[kind] = small",
        ),
    ] {
        let refused = server.post(PODS, with(fields)).await.expect(403);
        assert_eq!(refused["message"], format!("pods \"a\" is forbidden: {why}"));
    }
    let spec = server.post(PODS, with(json!({"runtimeClassName": "heavy"}))).await.created()["spec"].clone();
    assert_eq!((&spec["overhead"], &spec["nodeSelector"]), (&json!({"cpu": "250m"}), &json!({"kind": "big"})));
    assert!(
        spec["tolerations"].as_array().is_some_and(|all| all.contains(&json!({"key": "big", "operator": "Exists"})))
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_begins_with_a_taint_and_its_zone_becomes_its_pods_label() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let node = json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}});
    let node = server.post("/api/v1/nodes", node).await.created();
    assert_eq!(node["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    let created = server.post(PODS, pod("a")).await.created();
    assert_eq!(created["metadata"]["labels"], Value::Null);
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    server.post(&format!("{PODS}/a/binding"), binding).await.created();
    let bound = server.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(bound["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z"}));
}

#[tokio::test(start_paused = true)]
async fn claims_are_protected_and_grow_only_where_their_class_allows_it() {
    let server = server().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    for (name, expandable) in [("fixed", false), ("elastic", true)] {
        let class = json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": expandable});
        server.post("/apis/storage.k8s.io/v1/storageclasses", class).await.created();
        let claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}}});
        let created = server.post(claims, claim).await.created();
        assert_eq!(created["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    }
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let path = |name: &str| format!("{claims}/{name}");
    // A claim that is not bound yet does not pass validation.
    server.patch(&path("elastic"), "merge-patch+json", grow.clone()).await.expect(422);
    for name in ["fixed", "elastic"] {
        let bound = json!({"status": {"phase": "Bound"}});
        server.patch(&format!("{}/status", path(name)), "merge-patch+json", bound).await.ok();
    }
    let refused = server.patch(&path("fixed"), "merge-patch+json", grow.clone()).await.expect(403);
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"fixed\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass \
         that provisions the pvc must support resize"
    );
    let grown = server.patch(&path("elastic"), "merge-patch+json", grow).await.ok();
    assert_eq!(grown["spec"]["resources"]["requests"]["storage"], "2Gi");
}

fn warnings(answer: &crate::support::Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|value| value.to_str().expect("text").trim_start_matches("299 - ").replace("\\\"", "'")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_enforces_a_level_on_pods_and_warns_of_templates() {
    let server = server().await;
    service_account(&server, json!({"metadata": {"name": "default"}})).await;
    let namespace = "/api/v1/namespaces/default";
    let label = |name: &str, value: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{name}"): value}}});
    for name in ["one", "other", "third"] {
        let mut pod = pod(name);
        pod["spec"]["hostNetwork"] = (name != "third").into();
        server.post(PODS, pod).await.created();
    }
    let answer = server.patch(namespace, "merge-patch+json", label("enforce", "baseline")).await;
    assert_eq!(
        warnings(&answer),
        [
            "\"existing pods in namespace 'default' violate the new PodSecurity enforce level 'baseline:latest'\"",
            "\"one (and 1 other pod): host namespaces\"",
        ]
    );
    answer.ok();
    let mut bad = pod("bad");
    bad["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
    let refused = server.post(PODS, bad.clone()).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
         securityContext.privileged=true)"
    );
    assert_eq!(refused["details"], json!({"name": "bad", "kind": "pods"}));
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": bad["spec"]}}});
    let answer = server.post("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(
        warnings(&answer),
        [
            "\"would violate PodSecurity 'baseline:latest': privileged (container 'c' must not set securityContext.privileged=true)\""
        ]
    );
    answer.created();
    // What was there before may be changed where the standards do not look.
    let relabelled = json!({"metadata": {"labels": {"x": "y"}}});
    server.patch(&format!("{PODS}/one"), "merge-patch+json", relabelled).await.ok();
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "j"}]);
    server.patch(&format!("{PODS}/one"), "json-patch+json", image).await.expect(403);
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "i", "securityContext": {"privileged": true}}]}});
    let path = format!("{PODS}/third/ephemeralcontainers");
    server.patch(&path, "strategic-merge-patch+json", debugger).await.expect(403);
    let answer = server.patch(namespace, "merge-patch+json", label("warn", "restricted")).await;
    assert_eq!(warnings(&answer), Vec::<String>::new());
    let answer = server.post(PODS, pod("plain")).await;
    assert_eq!(warnings(&answer).len(), 1);
    assert!(
        warnings(&answer)[0].starts_with("\"would violate PodSecurity 'restricted:latest': allowPrivilegeEscalation")
    );
    answer.created();
}

#[tokio::test(start_paused = true)]
async fn labels_of_pod_security_must_make_sense_when_they_are_written() {
    let server = server().await;
    let namespace =
        |value: &str| json!({"metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": value}}});
    let refused = server.post("/api/v1/namespaces", namespace("strict")).await.expect(422);
    assert_eq!(
        refused["message"],
        "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one \
         of privileged, baseline, restricted"
    );
    server.post("/api/v1/namespaces", namespace("baseline")).await.created();
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn-version": "1.30"}}});
    let refused = server.patch("/api/v1/namespaces/n", "merge-patch+json", label).await.expect(422);
    assert!(
        refused["message"].as_str().is_some_and(|text| text.ends_with("must be \"latest\" or \"v1.x\"")),
        "{refused}"
    );
}
