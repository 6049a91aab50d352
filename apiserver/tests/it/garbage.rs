//! Whatever comes in, an answer goes out, and it is never the server's fault.

use crate::support::{CONFIGMAPS, Server, config, configmap, with};
use apiserver::{Config, admission};
use http::Method;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

/// JSON that looks like objects often enough to get far.
fn body() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "uid",
        "resourceVersion",
        "generateName",
        "managedFields",
        "spec",
        "status",
        "data",
        "replicas",
        "selector",
        "matchLabels",
        "template",
        "containers",
        "ports",
        "image",
        "clusterIP",
        "type",
        "target",
        "conditions",
        "gracePeriodSeconds",
        "propagationPolicy",
        "preconditions",
        "deleteOptions",
        "op",
        "path",
        "value",
        "$patch",
        "deletionTimestamp",
        "dryRun",
        "subsets",
        "rules",
        "involvedObject",
        "limits",
        "hard",
        "webhooks",
        "scaleTargetRef",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "v1",
            "ConfigMap",
            "Deployment",
            "apps/v1",
            "default",
            "0",
            "add",
            "/metadata/name",
            "10.96.0.1"
        ])
        .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn request() -> impl Strategy<Value = (Method, String, &'static str, Vec<u8>)> {
    let method = prop::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
    let resource = prop::sample::select(vec![
        "api/v1/namespaces/default/configmaps",
        "api/v1/namespaces/default/pods",
        "api/v1/namespaces/default/services",
        "api/v1/namespaces/default/events",
        "api/v1/namespaces/default/bindings",
        "api/v1/namespaces",
        "api/v1/nodes",
        "apis/apps/v1/namespaces/default/deployments",
        "apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
        "apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
        "apis/events.k8s.io/v1/namespaces/default/events",
        "apis/rbac.authorization.k8s.io/v1/clusterroles",
        "apis/batch/v1/namespaces/default/cronjobs",
        "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "api/v1/pods",
        "apis/none/v1/things",
        "",
    ]);
    let name = prop::sample::select(vec!["", "/a", "/b", "/%00", "/..%2Fa", "/a%20b"]);
    let subresource = prop::sample::select(vec![
        "",
        "",
        "",
        "/status",
        "/scale",
        "/binding",
        "/eviction",
        "/finalize",
        "/ephemeralcontainers",
        "/resize",
        "/x/y/z",
    ]);
    let query = prop::sample::select(vec![
        "",
        "?dryRun=All",
        "?fieldValidation=Strict",
        "?fieldManager=m&force=true",
        "?limit=1",
        "?labelSelector=a%3Db",
        "?continue=x",
        "?labelSelector=((",
        "?fieldSelector=metadata.name%3Da",
        "?resourceVersion=1&resourceVersionMatch=Exact",
        "?pretty",
        "?%ff=%zz&&=",
        "?gracePeriodSeconds=-9&propagationPolicy=Orphan",
    ]);
    let content_type = prop::sample::select(vec![
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "",
        "x/y; z",
    ]);
    let bytes = prop_oneof![
        4 => body().prop_map(|body| body.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => Just(Vec::new()),
    ];
    (method, resource, name, subresource, query, content_type, bytes).prop_map(
        |(method, resource, name, subresource, query, content_type, bytes)| {
            (method, format!("/{resource}{name}{subresource}{query}"), content_type, bytes)
        },
    )
}

async fn populated() -> Server {
    let server = with(Config { admission: admission::standard(), ..config() }).await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await.created();
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": "a"}, "spec": spec});
    server.post("/api/v1/namespaces/default/pods", pod).await.created();
    let labels = json!({"app": "a"});
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let deployment =
        json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": labels}, "template": template}});
    server.post("/apis/apps/v1/namespaces/default/deployments", deployment).await.created();
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}});
    server.post("/api/v1/namespaces/default/services", service).await.created();
    let backend = json!({"service": {"name": "a", "port": {"number": 1}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress = json!({"metadata": {"name": "a"}, "spec": {"rules": [{"host": "a.b", "http": {"paths": paths}}]}});
    server.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await.created();
    let rule = json!({"from": [{"podSelector": {}, "namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                      "ports": [{"port": 1, "endPort": 2, "protocol": "TCP"}]});
    let policy =
        json!({"metadata": {"name": "a"}, "spec": {"podSelector": {}, "ingress": [rule], "policyTypes": ["Ingress"]}});
    server.post("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", policy).await.created();
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let cron = json!({"metadata": {"name": "a"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}});
    server.post("/apis/batch/v1/namespaces/default/cronjobs", cron).await.created();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
    let scaler = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
    server.post("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", scaler).await.created();
    server
}

const OBJECTS: [&str; 9] = [
    CONFIGMAPS,
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/services",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
    "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
    "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
];

/// Every place in a value, for one of them to be changed.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn an_object_with_anything_in_any_place_is_taken_or_refused() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let server = runtime.block_on(populated());
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let change = (0..OBJECTS.len(), any::<prop::sample::Index>(), body(), any::<bool>());
    TestRunner::new_with_rng(config, rng)
        .run(&change, |(object, place, value, dry)| {
            let query = if dry { "?dryRun=All" } else { "" };
            let uri = format!("{}/a{query}", OBJECTS[object]);
            let mut object = runtime.block_on(server.get(&uri)).ok();
            let mut found = Vec::new();
            places(&object, "", &mut found);
            let place = place.get(&found);
            if let Some(target) = object.pointer_mut(place) {
                *target = value;
            }
            let answer = runtime.block_on(server.put(&uri, object));
            prop_assert!(answer.code.as_u16() < 500, "{place}: {}", answer.body);
            let read = runtime.block_on(server.get_as(&uri, "application/json;as=Table;v=v1;g=meta.k8s.io"));
            prop_assert_eq!(read.code.as_u16(), 200, "{}: {}", place, read.body);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn no_request_makes_the_server_fail() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let server = runtime.block_on(populated());
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&request(), |(method, uri, content_type, bytes)| {
            let answer = runtime.block_on(server.send(method, &uri, &[("content-type", content_type)], bytes));
            prop_assert!(answer.code.as_u16() < 500 || answer.code == 504, "{}: {}", answer.code, answer.body);
            if answer.code.as_u16() >= 400 {
                prop_assert_eq!(&answer.body["kind"], "Status");
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
