//! Rules of fit: what a node has room for, and how a refusal is told.

use super::*;
use informer::Activity;
use serde_json::{Value, json};

fn node(name: &str, change: Value) -> Node {
    let mut node: Node = serde_json::from_value(change).expect("a Node");
    node.metadata.name = Some(name.to_owned());
    node
}

fn pod(name: &str, change: Value) -> Arc<Pod> {
    let mut pod: Pod = serde_json::from_value(change).expect("a Pod");
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = Some(name.to_owned());
    Arc::new(pod)
}

fn cache(nodes: &[Node]) -> Cache {
    let mut cache = Cache::new(Informer::detached(Activity::default()));
    for node in nodes {
        cache.node(&Update::Applied(Arc::new(node.clone())));
    }
    cache
}

fn small(name: &str) -> Node {
    node(name, json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}}}))
}

fn spec(spec: Value) -> Value {
    let mut spec = spec;
    spec["containers"].as_array().is_none().then(|| spec["containers"] = json!([]));
    json!({"spec": spec})
}

fn why(cache: &Cache, pod: &Pod) -> String {
    cache.place(pod, 1).expect_err("fits nowhere").to_string()
}

fn cpu(amount: &str) -> Value {
    spec(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}))
}

#[test]
fn without_nodes_the_reason_says_so() {
    assert_eq!(why(&cache(&[]), &pod("a", spec(json!({})))), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_over_all_nodes() {
    let cordoned = node("c", json!({"spec": {"unschedulable": true}}));
    let tainted = node("t", json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}));
    let cache = cache(&[small("a"), small("b"), cordoned, tainted]);
    assert_eq!(
        why(&cache, &pod("p", cpu("3"))),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. \
         preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
}

#[test]
fn assumed_pods_use_their_node_at_once_and_forgotten_ones_no_more() {
    let mut cache = cache(&[small("a")]);
    let first = pod("first", cpu("1500m"));
    let node = cache.place(&first, 1).expect("fits");
    cache.assume(&first, &node);
    let second = pod("second", cpu("600m"));
    assert!(why(&cache, &second).contains("1 Insufficient cpu"));
    assert!(why(&cache, &second).ends_with("1 No preemption victims found for incoming pod."));
    cache.forget("first");
    assert_eq!(cache.place(&second, 1).expect("fits"), "a");
}

#[test]
fn a_pod_that_ends_or_goes_frees_its_node() {
    let mut cache = cache(&[small("a")]);
    let mut bound = cpu("2");
    bound["spec"]["nodeName"] = json!("a");
    let running = pod("p", bound.clone());
    assert!(!cache.pod(&Update::Applied(running.clone())));
    assert!(cache.place(&pod("q", cpu("1")), 1).is_err());
    bound["status"] = json!({"phase": "Succeeded"});
    assert!(cache.pod(&Update::Applied(pod("p", bound))));
    assert!(cache.place(&pod("q", cpu("1")), 1).is_ok());
    assert!(!cache.pod(&Update::Deleted(running)), "it had left already");
}

#[test]
fn replicas_of_one_owner_spread_before_pods_even_out() {
    let mut cache = cache(&[node("a", json!({})), node("b", json!({}))]);
    for n in 0..5 {
        cache.assume(&pod(&format!("other-{n}"), spec(json!({}))), "a");
    }
    let owned = |name: &str| {
        let mut value = spec(json!({}));
        value["metadata"] = json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]});
        pod(name, value)
    };
    let mut nodes = vec![];
    for n in 0..4 {
        let pod = owned(&format!("web-{n}"));
        let node = cache.place(&pod, 1).expect("fits");
        cache.assume(&pod, &node);
        nodes.push(node);
    }
    assert_eq!(nodes, ["b", "a", "b", "a"]);
}

#[test]
fn the_seed_decides_between_equal_nodes() {
    let cache = cache(&[node("a", json!({})), node("b", json!({}))]);
    let place = |seed| -> Vec<String> {
        (0..32).map(|n| cache.place(&pod(&format!("p{n}"), spec(json!({}))), seed).expect("fits")).collect()
    };
    assert_eq!(place(1), place(1));
    assert_ne!(place(1), place(2));
    assert!(place(1).contains(&"a".to_owned()) && place(1).contains(&"b".to_owned()));
}

#[test]
fn selectors_affinity_and_node_names_narrow_the_choice() {
    let cache =
        cache(&[node("a", json!({"metadata": {"labels": {"disk": "ssd", "size": "5"}}})), node("b", json!({}))]);
    let required = |term: Value| {
        spec(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}),
        )
    };
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let cases = [
        (spec(json!({"nodeSelector": {"disk": "ssd"}})), "a"),
        (required(expression("disk", "In", json!(["ssd", "hdd"]))), "a"),
        (required(expression("disk", "NotIn", json!(["ssd"]))), "b"),
        (required(expression("disk", "Exists", Value::Null)), "a"),
        (required(expression("disk", "DoesNotExist", Value::Null)), "b"),
        (required(expression("size", "Gt", json!(["4"]))), "a"),
        (required(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})), "b"),
    ];
    for (value, expected) in cases {
        assert_eq!(cache.place(&pod("p", value.clone()), 1).expect("fits"), expected, "{value}");
    }
    let nowhere = pod("p", required(expression("size", "Lt", json!(["5"]))));
    assert!(why(&cache, &nowhere).contains("2 node(s) didn't match Pod's node affinity/selector"));
    assert!(cache.place(&pod("p", required(json!({}))), 1).is_err(), "an empty term matches nothing");
}

#[test]
fn taints_need_a_toleration_that_covers_them() {
    let cache =
        cache(&[node("a", json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}))]);
    let fits = |toleration: Value| cache.place(&pod("p", spec(json!({"tolerations": [toleration]}))), 1).is_ok();
    assert!(fits(json!({"key": "gpu", "operator": "Exists"})));
    assert!(fits(json!({"key": "gpu", "value": "yes"})));
    assert!(fits(json!({"operator": "Exists"})));
    assert!(!fits(json!({"key": "gpu", "value": "no"})));
    assert!(!fits(json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"})));
    assert!(!fits(json!({"value": "yes"})));
}

#[test]
fn preferred_things_decide_but_do_not_forbid() {
    let rather_not = node("a", json!({"spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}}));
    let two = cache(&[rather_not.clone(), node("b", json!({}))]);
    assert!((0..8).all(|n| two.place(&pod(&format!("p{n}"), spec(json!({}))), 1).expect("fits") == "b"));
    assert!(cache(&[rather_not]).place(&pod("p", spec(json!({}))), 1).is_ok());
    let wish = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}]}}});
    let fast = cache(&[node("a", json!({})), node("b", json!({"metadata": {"labels": {"fast": ""}}}))]);
    assert!((0..8).all(|n| fast.place(&pod(&format!("p{n}"), spec(wish.clone())), 1).expect("fits") == "b"));
}

#[test]
fn a_host_port_is_taken_once_per_protocol_and_address() {
    let mut cache = cache(&[node("a", json!({}))]);
    let with = |ip: &str, protocol: &str| {
        spec(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}]}]}),
        )
    };
    cache.assume(&pod("p", with("10.0.0.1", "TCP")), "a");
    let fits = |ip, protocol| cache.place(&pod("q", with(ip, protocol)), 1).is_ok();
    assert!(!fits("10.0.0.1", "TCP"));
    assert!(!fits("0.0.0.0", "TCP"));
    assert!(fits("10.0.0.2", "TCP"));
    assert!(fits("10.0.0.1", "UDP"));
}

#[test]
fn a_full_node_takes_no_more_pods() {
    let mut cache = cache(&[small("a")]);
    for n in 0..3 {
        cache.assume(&pod(&format!("p{n}"), spec(json!({}))), "a");
    }
    assert!(why(&cache, &pod("q", spec(json!({})))).contains("1 Too many pods"));
}

#[test]
fn only_a_change_that_matters_is_an_occasion_to_try_again() {
    let mut cache = cache(&[small("a")]);
    let mut heartbeat = small("a");
    heartbeat.status.as_mut().expect("a status").conditions = Some(vec![]);
    assert!(!cache.node(&Update::Applied(Arc::new(heartbeat))));
    assert!(cache.node(&Update::Applied(Arc::new(node("a", json!({"metadata": {"labels": {"new": "label"}}}))))));
}
