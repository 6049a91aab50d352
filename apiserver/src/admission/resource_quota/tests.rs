//! What objects count for, and which quotas they concern.

use super::usage::{Resource, counted, of, unsaid};
use super::*;
use serde_json::json;

fn resource(name: &str) -> Resource<'_> {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    Resource { group, plural }
}

/// `name=amount` of everything but the object count.
fn shown(name: &str, object: Value) -> String {
    let usage = of(resource(name), &object);
    let shown = usage.iter().filter(|(name, _)| !name.starts_with("count/"));
    shown.map(|(name, amount)| format!("{name}={}", amount.canonical())).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_object_counts_under_its_name_and_the_old_one() {
    for (name, counts) in
        [("deployments.apps", "count/deployments.apps"), ("widgets.example.com", "count/widgets.example.com")]
    {
        let usage = of(resource(name), &Value::Null);
        assert_eq!(usage.keys().map(String::as_str).collect::<Vec<_>>(), [counts]);
    }
    assert_eq!(shown("configmaps", json!({})), "configmaps=1");
    assert_eq!(shown("secrets", json!({})), "secrets=1");
    assert_eq!(shown("endpoints", json!({})), "");
}

#[test]
fn a_pod_counts_for_what_it_asks_until_it_has_ended() {
    let resources = json!({"requests": {"cpu": "500m", "memory": "1Gi", "hugepages-2Mi": "4Mi", "example.com/gpu": "2", "other": "1"},
        "limits": {"cpu": "1", "ephemeral-storage": "1G", "hugepages-2Mi": "4Mi"}});
    let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}], "overhead": {"cpu": "100m"}}});
    assert_eq!(
        shown("pods", pod.clone()),
        "cpu=600m hugepages-2Mi=4Mi limits.cpu=1100m limits.ephemeral-storage=1G memory=1Gi pods=1 requests.cpu=600m \
         requests.example.com/gpu=2 requests.hugepages-2Mi=4Mi requests.memory=1Gi"
    );
    pod["status"]["phase"] = "Succeeded".into();
    assert_eq!(shown("pods", pod.clone()), "");
    assert!(of(PODS, &pod).contains_key("count/pods"), "it is still an object");
}

#[test]
fn services_count_their_node_ports_and_load_balancers() {
    let service = |spec: Value| shown("services", json!({"spec": spec}));
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    assert_eq!(
        service(json!({"type": "ClusterIP", "ports": ports})),
        "services=1 services.loadbalancers=0 services.nodeports=0"
    );
    assert_eq!(
        service(json!({"type": "NodePort", "ports": ports})),
        "services=1 services.loadbalancers=0 services.nodeports=2"
    );
    assert_eq!(
        service(json!({"type": "LoadBalancer", "ports": ports})),
        "services=1 services.loadbalancers=1 services.nodeports=2"
    );
    assert_eq!(
        service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports})),
        "services=1 services.loadbalancers=1 services.nodeports=1"
    );
}

#[test]
fn claims_count_by_storage_class_too() {
    let mut claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(
        shown("persistentvolumeclaims", claim.clone()),
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=2Gi \
         persistentvolumeclaims=1 requests.storage=2Gi"
    );
    claim["spec"]["storageClassName"] = "".into();
    claim["status"]["allocatedResources"]["storage"] = "3Gi".into();
    assert_eq!(shown("persistentvolumeclaims", claim), "persistentvolumeclaims=1 requests.storage=3Gi");
}

#[test]
fn a_quotas_names_lead_to_the_kinds_it_counts() {
    let kinds = |name: &str| {
        let kinds = counted([name]).into_iter();
        kinds.map(|kind| format!("{}.{}", kind.plural, kind.group)).collect::<Vec<_>>().join(" ")
    };
    for (name, expected) in [
        ("pods", "pods."),
        ("limits.memory", "pods."),
        ("requests.example.com/gpu", "pods."),
        ("requests.hugepages-2Mi", "pods."),
        ("services.nodeports", "services."),
        ("requests.storage", "persistentvolumeclaims."),
        ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims."),
        ("count/jobs.batch", "jobs.batch"),
        ("count/events", ""),
        ("secrets", "secrets."),
        ("limits.hugepages-2Mi", ""),
    ] {
        assert_eq!(kinds(name), expected, "{name}");
    }
}

#[test]
fn where_cpu_or_memory_is_limited_every_container_has_to_say_how_much() {
    let pod = json!({"spec": {
        "initContainers": [{"name": "b"}],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}, {"name": "a"}]}});
    assert_eq!(
        unsaid(&pod, &["pods", "requests.cpu", "limits.memory"]),
        "limits.memory for: a,b,c; requests.cpu for: a,b"
    );
    assert_eq!(unsaid(&pod, &["pods", "ephemeral-storage"]), "");
    let whole = json!({"spec": {"resources": {"limits": {"cpu": "1"}}, "containers": [{"name": "c"}]}});
    assert_eq!(unsaid(&whole, &["requests.cpu", "limits.memory"]), "");
}

#[test]
fn scopes_choose_the_pods_a_quota_is_about() {
    let plain = json!({"spec": {"containers": [{"name": "a"}]}});
    let with = |fields: Value| {
        let mut pod = plain.clone();
        for (field, value) in fields.as_object().expect("fields") {
            pod["spec"][field] = value.clone();
        }
        pod
    };
    let burstable = with(json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
    let ending = with(json!({"activeDeadlineSeconds": 5}));
    let high = with(json!({"priorityClassName": "high"}));
    let term = |field: &str| {
        json!({"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {field: ["x"]}}]}}})
    };
    let (away, home) = (with(term("namespaces")), with(term("matchLabelKeys")));
    let scoped = |scope: &str| json!({"scopes": [scope]});
    let select = |scope: &str, operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
    for (spec, yes, no) in [
        (scoped("BestEffort"), &plain, &burstable),
        (scoped("NotBestEffort"), &burstable, &plain),
        (scoped("Terminating"), &ending, &plain),
        (scoped("NotTerminating"), &plain, &ending),
        (scoped("CrossNamespacePodAffinity"), &away, &home),
        (select("PriorityClass", "In", json!(["high"])), &high, &plain),
        (select("PriorityClass", "NotIn", json!(["high"])), &plain, &high),
        (select("PriorityClass", "Exists", Value::Null), &high, &plain),
        (select("PriorityClass", "DoesNotExist", Value::Null), &plain, &high),
        (json!({"scopes": ["NotTerminating", "BestEffort"]}), &plain, &burstable),
    ] {
        assert!(scopes::matches(&spec, PODS, yes), "{spec} {yes}");
        assert!(!scopes::matches(&spec, PODS, no), "{spec} {no}");
    }
    assert!(!scopes::matches(&scoped("NotTerminating"), QUOTAS, &json!({})), "only pods have scopes");
    let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
    let claims = Resource { group: "", plural: "persistentvolumeclaims" };
    assert!(scopes::matches(&select("VolumeAttributesClass", "In", json!(["gold"])), claims, &gold));
    assert!(scopes::matches(&json!({}), QUOTAS, &json!({})));
}
