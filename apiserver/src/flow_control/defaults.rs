//! The FlowSchemas and PriorityLevelConfigurations every cluster begins with, those of Kubernetes v1.36.
//!
//! The mandatory ones are always in force and are restored when somebody changes them; the suggested ones follow the defaults as long
//! as their annotation `apf.kubernetes.io/autoupdate-spec` is not `"false"`.

use serde_json::{Value, json};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, shares, lendable per cent, and (queues, hand, longest) of the levels that let requests wait.
const LEVELS: [(&str, u64, u64, Option<[u64; 3]>); 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some([128, 6, 50])),
    ("leader-election", 10, 0, Some([16, 4, 50])),
    ("node-high", 40, 25, Some([64, 6, 50])),
    ("system", 30, 33, Some([64, 6, 50])),
    ("workload-high", 40, 50, Some([128, 6, 50])),
    ("workload-low", 100, 90, Some([128, 6, 50])),
];

/// Name, level, precedence and distinguisher.
const SCHEMAS: [(&str, &str, i64, &str); 13] = [
    ("exempt", "exempt", 1, ""),
    ("probes", "exempt", 2, ""),
    ("system-leader-election", "leader-election", 100, "ByUser"),
    ("endpoint-controller", "workload-high", 150, "ByUser"),
    ("workload-leader-election", "leader-election", 200, "ByUser"),
    ("system-node-high", "node-high", 400, "ByUser"),
    ("system-nodes", "system", 500, "ByUser"),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace"),
    ("kube-scheduler", "workload-high", 800, "ByNamespace"),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace"),
    ("service-accounts", "workload-low", 9000, "ByUser"),
    ("global-default", "global-default", 9900, "ByUser"),
    ("catch-all", "catch-all", 10000, "ByUser"),
];

/// Every default object: levels first.
pub fn objects() -> Vec<Value> {
    let exempt =
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}));
    let limited = LEVELS.map(|(name, shares, lendable, queuing)| {
        let response = match queuing {
            Some([queues, hand, longest]) => json!({"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": longest}}),
            None => json!({"type": "Reject"}),
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        level(name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(exempt).chain(limited).chain(SCHEMAS.map(schema)).collect()
}

/// Those that hold whatever anybody writes.
pub(super) fn mandatory() -> impl Iterator<Item = Value> {
    objects().into_iter().filter(|object| is_mandatory(name(object)))
}

/// Whether an object of this name is mandatory, of either kind.
pub(super) fn is_mandatory(name: &str) -> bool {
    matches!(name, "exempt" | "catch-all")
}

/// `metadata.name`.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Where objects like this one are created.
pub fn collection(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("FlowSchema") => "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
        _ => "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
    }
}

/// What a start makes of `existing`, whose default is `wanted`; `None` if it may stay.
pub fn reconciled(existing: &Value, wanted: &Value) -> Option<Value> {
    let left_alone = existing["metadata"]["annotations"][AUTO_UPDATE] == "false" && !is_mandatory(name(wanted));
    if left_alone || agrees(&existing["spec"], &wanted["spec"]) {
        return None;
    }
    let mut new = existing.clone();
    new["spec"] = wanted["spec"].clone();
    Some(new)
}

/// Whether `is` says everything that `wanted` says; defaults that were filled in do not matter.
pub(super) fn agrees(is: &Value, wanted: &Value) -> bool {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| is.get(key).is_some_and(|is| agrees(is, wanted)))
        }
        (Value::Array(is), Value::Array(wanted)) => {
            is.len() == wanted.len() && is.iter().zip(wanted).all(|(is, wanted)| agrees(is, wanted))
        }
        _ => is == wanted,
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

fn schema((name, level, precedence, distinguisher): (&str, &str, i64, &str)) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rules(name)]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn rules(name: &str) -> Value {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let account =
        |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}});
    let everybody = || json!([group("system:unauthenticated"), group("system:authenticated")]);
    let resource = |verbs: &[&str], api_group: &str, resources: &[&str], namespaces: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [api_group], "resources": resources});
        if !namespaces.is_empty() {
            rule["namespaces"] = json!(namespaces);
        }
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let everything = |subjects: Value| {
        json!({"subjects": subjects, "resourceRules": [resource(&["*"], "*", &["*"], &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
    };
    let elect = ["get", "create", "update"];
    let leases = |namespaces: &[&str]| resource(&elect, "coordination.k8s.io", &["leases"], namespaces, false);
    let managers = || vec![user("system:kube-controller-manager"), user("system:kube-scheduler")];
    match name {
        "exempt" => everything(json!([group("system:masters")])),
        "probes" => json!({"subjects": everybody(),
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
        "system-leader-election" => {
            let subjects: Vec<Value> = managers().into_iter().chain([account("*")]).collect();
            json!({"subjects": subjects, "resourceRules": [leases(&["kube-system"])]})
        }
        "endpoint-controller" => json!({
            "subjects": [user("system:kube-controller-manager"), account("endpoint-controller"),
                account("endpointslicemirroring-controller")],
            "resourceRules": [resource(&elect, "", &["endpoints"], &["*"], false)]}),
        "workload-leader-election" => json!({"subjects": [account("*")], "resourceRules": [leases(&["*"])]}),
        "system-node-high" => json!({"subjects": [group("system:nodes")], "resourceRules": [
            resource(&["*"], "", &["nodes", "nodes/status"], &["*"], true),
            resource(&["*"], "coordination.k8s.io", &["leases"], &["*"], false)]}),
        "system-nodes" => everything(json!([group("system:nodes")])),
        "kube-controller-manager" => everything(json!([user("system:kube-controller-manager")])),
        "kube-scheduler" => everything(json!([user("system:kube-scheduler")])),
        "kube-system-service-accounts" => everything(json!([account("*")])),
        "service-accounts" => everything(json!([group("system:serviceaccounts")])),
        _ => everything(everybody()),
    }
}
