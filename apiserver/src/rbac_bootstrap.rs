//! The default roles and bindings, with which RBAC begins.
//!
//! Follows Kubernetes' "Default roles and role bindings": discovery and user-facing roles, and one role for each component of this
//! cluster with what it really does.

use serde_json::{Value, json};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

/// Resources that `view` reads and `edit` writes, by group. Secrets and RBAC are not for viewers.
const WORKLOADS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

/// Resources that are only ever read by users.
const STATES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "pods/log",
            "pods/status",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "services/status",
            "persistentvolumeclaims/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets/status",
            "deployments/status",
            "replicasets/status",
            "statefulsets/status",
        ],
    ),
    ("batch", &["cronjobs/status", "jobs/status"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses/status"]),
    ("policy", &["poddisruptionbudgets/status"]),
];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn paths(verbs: &[&str], urls: &[&str]) -> Value {
    json!({"verbs": verbs, "nonResourceURLs": urls})
}

fn metadata(name: &str, labels: Value) -> Value {
    let mut all = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    if let (Some(all), Some(labels)) = (all.as_object_mut(), labels.as_object()) {
        all.extend(labels.clone());
    }
    json!({"name": name, "labels": all, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

fn role(name: &str, rules: Vec<Value>) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(name, json!({})), "rules": rules})
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata(name, json!({})),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

/// Every default ClusterRole.
pub fn cluster_roles() -> Vec<Value> {
    let aggregated = |name: &str, label: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(name, json!({})),
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}, "rules": []})
    };
    let part = |name: &str, labels: &[&str], rules: Vec<Value>| {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|label| (format!("rbac.authorization.k8s.io/aggregate-to-{label}"), Value::from("true")))
            .collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(name, labels.into()), "rules": rules})
    };
    let of = |verbs: &'static [&'static str], table: &'static [(&'static str, &'static [&'static str])]| {
        table.iter().map(move |(group, resources)| rule(verbs, group, resources))
    };
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let streams =
        rule(&["create", "get"], "", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"]);
    vec![
        role("cluster-admin", vec![json!({"verbs": ALL, "apiGroups": ALL, "resources": ALL}), paths(ALL, ALL)]),
        aggregated("admin", "rbac.authorization.k8s.io/aggregate-to-admin"),
        aggregated("edit", "rbac.authorization.k8s.io/aggregate-to-edit"),
        aggregated("view", "rbac.authorization.k8s.io/aggregate-to-view"),
        part(
            "system:aggregate-to-view",
            &["view", "edit", "admin"],
            of(READ, WORKLOADS).chain(of(READ, STATES)).collect(),
        ),
        part(
            "system:aggregate-to-edit",
            &["edit", "admin"],
            of(WRITE, WORKLOADS)
                .chain([
                    rule(READ, "", &["secrets"]),
                    rule(WRITE, "", &["secrets"]),
                    streams,
                    rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
                    rule(&["patch", "update"], "", &["pods/ephemeralcontainers", "pods/resize"]),
                    rule(&["impersonate"], "", &["serviceaccounts"]),
                    rule(READ, "coordination.k8s.io", &["leases"]),
                    rule(WRITE, "coordination.k8s.io", &["leases"]),
                ])
                .collect(),
        ),
        part(
            "system:aggregate-to-admin",
            &["admin"],
            vec![
                rule(READ, "rbac.authorization.k8s.io", &["roles", "rolebindings"]),
                rule(WRITE, "rbac.authorization.k8s.io", &["roles", "rolebindings"]),
                rule(&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
            ],
        ),
        role(
            "system:basic-user",
            vec![
                rule(&["create"], "authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                rule(&["create"], "authentication.k8s.io", &["selfsubjectreviews"]),
            ],
        ),
        role("system:discovery", vec![paths(&["get"], &discovery)]),
        role("system:public-info-viewer", vec![paths(&["get"], &health)]),
        role(
            "system:monitoring",
            vec![paths(
                &["get"],
                &["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz", "/readyz/*"],
            )],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(
                &["get"],
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
            )],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
                rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:coracle:data-plane",
            vec![
                rule(READ, "", &["services", "pods", "namespaces", "nodes", "endpoints"]),
                rule(READ, "discovery.k8s.io", &["endpointslices"]),
                rule(READ, "networking.k8s.io", &["networkpolicies"]),
                rule(&["create", "patch", "update"], "", &["events"]),
            ],
        ),
        role(
            "system:node",
            vec![
                rule(READ, "", &["services", "pods", "configmaps", "secrets", "nodes", "namespaces"]),
                rule(&["create", "patch", "update"], "", &["nodes", "events"]),
                rule(&["patch", "update"], "", &["nodes/status", "pods/status"]),
                rule(&["delete"], "", &["pods"]),
                rule(&["create"], "", &["serviceaccounts/token"]),
                rule(&["create", "get", "patch", "update"], "coordination.k8s.io", &["leases"]),
                rule(READ, "discovery.k8s.io", &["endpointslices"]),
                rule(READ, "networking.k8s.io", &["networkpolicies"]),
            ],
        ),
        role(
            "system:kube-scheduler",
            vec![
                rule(
                    READ,
                    "",
                    &[
                        "nodes",
                        "pods",
                        "namespaces",
                        "services",
                        "replicationcontrollers",
                        "persistentvolumeclaims",
                        "persistentvolumes",
                    ],
                ),
                rule(READ, "apps", &["replicasets", "statefulsets"]),
                rule(READ, "policy", &["poddisruptionbudgets"]),
                rule(&["create"], "", &["pods/binding", "bindings"]),
                rule(&["patch", "update"], "", &["pods/status"]),
                rule(&["create", "patch", "update"], "", &["events"]),
            ],
        ),
        // The controller manager collects garbage of every kind, so it reads and deletes every kind.
        role("system:kube-controller-manager", vec![json!({"verbs": ALL, "apiGroups": ALL, "resources": ALL})]),
    ]
}

/// Every default ClusterRoleBinding.
pub fn cluster_role_bindings() -> Vec<Value> {
    let authenticated = || json!([group("system:authenticated")]);
    vec![
        binding("cluster-admin", "cluster-admin", json!([group("system:masters")])),
        binding("system:basic-user", "system:basic-user", authenticated()),
        binding("system:discovery", "system:discovery", authenticated()),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            json!([group("system:authenticated"), group("system:unauthenticated")]),
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            json!([group("system:serviceaccounts")]),
        ),
        binding("system:monitoring", "system:monitoring", json!([group("system:monitoring")])),
        binding("system:coracle:data-plane", "system:coracle:data-plane", json!([user("system:coracle:data-plane")])),
        binding("system:node", "system:node", json!([group("system:nodes")])),
        binding("system:kube-scheduler", "system:kube-scheduler", json!([user("system:kube-scheduler")])),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            json!([user("system:kube-controller-manager")]),
        ),
    ]
}
