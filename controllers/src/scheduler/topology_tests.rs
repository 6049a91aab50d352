//! Rules of place: affinity, anti-affinity and spread over domains.

use super::super::cache::Cache;
use informer::{Activity, Informer, Update};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};
use std::sync::Arc;

/// Nodes as "name:zone"; a node without a zone has no zone label.
fn cluster(nodes: &str) -> Cache {
    let namespaces = Informer::detached(Activity::default());
    let team = json!({"metadata": {"name": "team", "labels": {"trusted": "yes"}}});
    namespaces.apply(serde_json::from_value::<Namespace>(team).expect("a Namespace"));
    let mut cache = Cache::new(namespaces);
    for text in nodes.split_whitespace() {
        let (name, zone) = text.split_once(':').unwrap_or((text, ""));
        let mut labels = json!({"host": name});
        if !zone.is_empty() {
            labels["zone"] = json!(zone);
        }
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).expect("a Node");
        cache.node(&Update::Applied(Arc::new(node)));
    }
    cache
}

fn pod(name: &str, app: &str, spec: Value) -> Arc<Pod> {
    let (namespace, app) = app.split_once('/').unwrap_or(("default", app));
    let mut spec = spec;
    spec["containers"] = json!([]);
    let pod =
        json!({"metadata": {"name": name, "uid": name, "namespace": namespace, "labels": {"app": app}}, "spec": spec});
    Arc::new(serde_json::from_value(pod).expect("a Pod"))
}

/// Puts pods onto nodes: "a=web" is a pod labelled app=web on node a.
fn with(mut cache: Cache, pods: &str) -> Cache {
    for (n, text) in pods.split_whitespace().enumerate() {
        let (node, app) = text.split_once('=').expect("node=app");
        cache.assume(&pod(&format!("{text}-{n}"), app, json!({})), node);
    }
    cache
}

/// The nodes that a pod may go to, found by ruling out one after the other.
fn choices(cache: &Cache, app: &str, spec: &Value, nodes: &[&str]) -> String {
    let allowed = nodes.iter().filter(|node| {
        let mut spec = spec.clone();
        spec["nodeSelector"] = json!({"host": node});
        cache.place(&pod("new", app, spec), 1).is_ok()
    });
    allowed.copied().collect::<Vec<_>>().join(" ")
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn affinity(kind: &str, term: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

const NODES: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn affinity_wants_the_domain_of_a_matching_pod() {
    let cache = with(cluster("a:1 b:1 c:2 d"), "a=db");
    assert_eq!(choices(&cache, "web", &affinity("podAffinity", term("db", "zone")), &NODES), "a b");
    assert_eq!(choices(&cache, "web", &affinity("podAffinity", term("db", "host")), &NODES), "a");
    assert_eq!(choices(&cache, "web", &affinity("podAffinity", term("none", "zone")), &NODES), "");
}

#[test]
fn the_first_pod_of_a_group_may_go_anywhere_with_the_label() {
    let cache = cluster("a:1 b:1 c:2 d");
    assert_eq!(choices(&cache, "web", &affinity("podAffinity", term("web", "zone")), &NODES), "a b c");
}

#[test]
fn anti_affinity_avoids_the_domains_of_matching_pods() {
    let cache = with(cluster("a:1 b:1 c:2 d"), "a=web");
    assert_eq!(choices(&cache, "web", &affinity("podAntiAffinity", term("web", "zone")), &NODES), "c d");
    assert_eq!(choices(&cache, "web", &affinity("podAntiAffinity", term("web", "host")), &NODES), "b c d");
}

#[test]
fn a_loner_keeps_others_away() {
    let mut cache = cluster("a:1 b:1 c:2 d");
    cache.assume(&pod("loner", "db", affinity("podAntiAffinity", term("web", "zone"))), "a");
    assert_eq!(choices(&cache, "web", &json!({}), &NODES), "c d");
    assert_eq!(choices(&cache, "other", &json!({}), &NODES), "a b c d");
    cache.forget("loner");
    assert_eq!(choices(&cache, "web", &json!({}), &NODES), "a b c d");
}

#[test]
fn terms_look_into_their_own_namespace_unless_they_say_otherwise() {
    let cache = with(cluster("a b"), "a=team/db");
    let reaching = |field: &str, value: Value| {
        let mut term = term("db", "host");
        term[field] = value;
        choices(&cache, "web", &affinity("podAffinity", term), &["a", "b"])
    };
    assert_eq!(reaching("namespaces", Value::Null), "");
    assert_eq!(reaching("namespaces", json!(["team"])), "a");
    assert_eq!(reaching("namespaceSelector", json!({"matchLabels": {"trusted": "yes"}})), "a");
    assert_eq!(reaching("namespaceSelector", json!({"matchLabels": {"trusted": "no"}})), "");
    assert_eq!(reaching("namespaceSelector", json!({})), "a");
}

fn spread(change: Value) -> Value {
    // The tests look at one node at a time by its selector, which must not hide the other domains.
    let mut constraint = json!({"maxSkew": 1, "nodeAffinityPolicy": "Ignore", "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
    for (field, value) in change.as_object().expect("fields") {
        constraint[field] = value.clone();
    }
    json!({"topologySpreadConstraints": [constraint]})
}

#[test]
fn spreading_keeps_domains_within_the_skew() {
    let cache = with(cluster("a:1 b:1 c:2 d"), "a=web b=web c=web");
    assert_eq!(choices(&cache, "web", &spread(json!({})), &NODES), "c", "d has no zone");
    assert_eq!(choices(&cache, "web", &spread(json!({"maxSkew": 2})), &NODES), "a b c");
    // With three domains wanted and two there, the least is zero.
    assert_eq!(choices(&cache, "web", &spread(json!({"maxSkew": 2, "minDomains": 3})), &NODES), "c");
}

#[test]
fn the_reasons_are_told_in_the_schedulers_words() {
    let cache = with(cluster("a:1 b"), "a=web");
    let why = |spec: Value| cache.place(&pod("new", "web", spec), 1).expect_err("fits nowhere").to_string();
    let spreading = why(spread(json!({"maxSkew": 1, "minDomains": 2})));
    assert!(spreading.contains("1 node(s) didn't match pod topology spread constraints, "), "{spreading}");
    assert!(spreading.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"));
    assert!(why(affinity("podAffinity", term("db", "zone"))).contains("2 node(s) didn't match pod affinity rules"));
    let far = cluster("a");
    let far = with(far, "a=web");
    let why =
        far.place(&pod("new", "web", affinity("podAntiAffinity", term("web", "host"))), 1).expect_err("fits nowhere");
    assert!(why.to_string().contains("1 node(s) didn't match pod anti-affinity rules"));
}

#[test]
fn wishes_decide_among_nodes_that_fit() {
    let cache = with(cluster("a b"), "a=db");
    let wish = |kind: &str| json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": term("db", "host")}]}}});
    let place = |spec: Value| cache.place(&pod("new", "web", spec), 1).expect("fits");
    assert_eq!(place(wish("podAffinity")), "a");
    assert_eq!(place(wish("podAntiAffinity")), "b");
    let anyway = with(cluster("a:1 b:2"), "a=web b=x b=x");
    let evenly = spread(json!({"whenUnsatisfiable": "ScheduleAnyway"}));
    assert_eq!(anyway.place(&pod("new", "web", evenly), 1).expect("fits"), "b");
}
