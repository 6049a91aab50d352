//! The default roles and bindings, and how they are kept as they are meant to be.
//!
//! `rbac_defaults.txt` says which; [`reconciled`] says what a start makes of one that stands there from an earlier run: what is
//! missing is added, what an administrator has added stays, and an object annotated `rbac.authorization.kubernetes.io/autoupdate:
//! "false"` is left alone. Follows Kubernetes' "Default roles and role bindings".

use crate::rbac::{API_GROUP as GROUP, Rule};
use crate::rbac_escalation::uncovered;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const TABLE: &str = include_str!("rbac_defaults.txt");
const CONTROLLER: &str = "system:controller:";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Every default role and binding: ClusterRoles first, then what refers to them.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.retain(|word| *word != "+");
        match (line.starts_with(' '), words.as_slice()) {
            (true, words) => {
                let role = objects.last_mut().and_then(|role| role["rules"].as_array_mut());
                role.expect("a rule stands under a role").push(rule(words));
            }
            (false, ["role", name, labels @ ..]) => objects.push(role("", name, labels)),
            (false, ["bind", name, of, subjects]) => objects.push(binding("", name, of, subjects)),
            (false, ["in", namespace, "role", name]) => objects.push(role(namespace, name, &[])),
            (false, ["in", namespace, "bind", name, of, subjects]) => {
                objects.push(binding(namespace, name, of, subjects));
            }
            _ => unreachable!("a line of rbac_defaults.txt: {line}"),
        }
    }
    let names: Vec<String> = controllers(&objects).map(str::to_owned).collect();
    for name in names {
        let role = format!("{CONTROLLER}{name}");
        objects.push(binding("", &role, &role, &format!("sa:kube-system/{name}")));
    }
    objects.sort_by_key(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding")));
    objects
}

/// The names of all controllers that have a role, which are those of their service accounts.
fn controllers(objects: &[Value]) -> impl Iterator<Item = &str> {
    let cluster_roles = objects.iter().filter(|object| object["kind"] == "ClusterRole");
    cluster_roles.filter_map(|role| role["metadata"]["name"].as_str()?.strip_prefix(CONTROLLER))
}

/// Where objects like this one are created.
pub fn collection(object: &Value) -> String {
    let plural = format!("{}s", object["kind"].as_str().unwrap_or_default().to_lowercase());
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/{GROUP}/v1/namespaces/{namespace}/{plural}"),
        None => format!("/apis/{GROUP}/v1/{plural}"),
    }
}

fn rule(words: &[&str]) -> Value {
    let [verbs, group, resources, names @ ..] = words else { unreachable!("a rule has three columns") };
    let verbs: BTreeSet<&str> =
        verbs.split(',').flat_map(|verb| meant(verb).iter().copied().chain(word(verb))).collect();
    if *group == "url" {
        return json!({"verbs": verbs, "nonResourceURLs": resources.split(',').collect::<Vec<_>>()});
    }
    let resources: Vec<&str> = resources.split(',').collect();
    let groups: Vec<&str> = group.split(',').map(|group| if group == "core" { "" } else { group }).collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
    if let [names] = names {
        rule["resourceNames"] = names.trim_start_matches('=').split(',').collect();
    }
    rule
}

/// The verbs behind a short word.
fn meant(word: &str) -> &'static [&'static str] {
    match word {
        "read" => &["get", "list", "watch"],
        "write" => &["create", "delete", "deletecollection", "patch", "update"],
        "event" => &["create", "patch", "update"],
        _ => &[],
    }
}

/// A word that stands for itself.
fn word(word: &str) -> Option<&str> {
    meant(word).is_empty().then_some(word)
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTO_UPDATE: "true"}});
    let mut kind = kind.to_owned();
    if namespace.is_empty() {
        kind.insert_str(0, "Cluster");
    } else {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

fn role(namespace: &str, name: &str, labels: &[&str]) -> Value {
    let mut role = object("Role", namespace, name);
    role["rules"] = json!([]);
    for label in labels {
        let key = format!("{GROUP}/aggregate-to-{}", &label[1..]);
        if label.starts_with('<') {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {key: "true"}}]});
        } else {
            role["metadata"]["labels"][key] = "true".into();
        }
    }
    role
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &str) -> Value {
    let mut binding = object("RoleBinding", namespace, name);
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let subject = |subject: &str| match subject.split_once(':') {
        Some(("user", name)) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        Some(("group", name)) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        Some((_, account)) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("kube-system", account));
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        None => Value::Null,
    };
    let subjects: Vec<Value> = subjects.split(',').map(subject).filter(|subject| !subject.is_null()).collect();
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
    binding
}

/// What a start makes of `existing`, whose default is `wanted`; `None` if it may stay.
///
/// A binding to another role cannot be changed: it has to be deleted and created anew, which the caller sees by its `roleRef`.
pub fn reconciled(existing: &Value, wanted: &Value) -> Option<Value> {
    if existing["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return None;
    }
    let mut new = existing.clone();
    for field in ["labels", "annotations"] {
        let mut all: Map<String, Value> = existing["metadata"][field].as_object().cloned().unwrap_or_default();
        all.extend(wanted["metadata"][field].as_object().cloned().unwrap_or_default());
        new["metadata"][field] = all.into();
    }
    match wanted.get("aggregationRule") {
        Some(aggregation) => {
            let field = "clusterRoleSelectors";
            new["aggregationRule"][field] = joined(&existing["aggregationRule"][field], &aggregation[field]);
        }
        None if wanted.get("rules").is_some() => {
            let held = rules(existing);
            let lacking = uncovered(&held, &rules(wanted));
            if !lacking.is_empty() {
                new["rules"] = held.iter().chain(&lacking).map(Rule::to_json).collect();
            }
        }
        None => {
            new["roleRef"] = wanted["roleRef"].clone();
            if wanted.get("subjects").is_some() {
                new["subjects"] = joined(&existing["subjects"], &wanted["subjects"]);
            }
        }
    }
    (new != *existing).then_some(new)
}

/// What stands in the one list, then what stands in the other only.
fn joined(one: &Value, other: &Value) -> Value {
    let mut all = one.as_array().cloned().unwrap_or_default();
    for item in other.as_array().into_iter().flatten() {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    all.into()
}

fn rules(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(Rule::from_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
        let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn the_table_makes_roles_and_bindings() {
        let objects = objects();
        let edit = named(&objects, "ClusterRole", "edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        let selector = &edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        assert_eq!(selector["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        let signers = &named(&objects, "ClusterRole", "system:certificates.k8s.io:kubelet-serving-approver")["rules"];
        assert_eq!(
            *signers,
            json!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
                "resourceNames": ["kubernetes.io/kubelet-serving"]}])
        );
        let events = &named(&objects, "ClusterRole", "system:controller:ttl-controller")["rules"][1];
        assert_eq!(events["apiGroups"], json!(["", "events.k8s.io"]));
        let binding = named(&objects, "ClusterRoleBinding", "system:controller:job-controller");
        assert_eq!(
            binding["subjects"][0],
            json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": "job-controller"})
        );
        let public = named(&objects, "ClusterRoleBinding", "system:public-info-viewer");
        assert_eq!(public["subjects"][1]["name"], "system:unauthenticated");
        assert!(named(&objects, "ClusterRoleBinding", "system:node").get("subjects").is_none());
        for binding in objects.iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
            named(&objects, "ClusterRole", binding["roleRef"]["name"].as_str().expect("a role's name"));
        }
    }

    #[test]
    fn a_default_role_keeps_what_was_added_and_gets_back_what_was_taken_away() {
        let wanted = role_of("discovery", json!([{"verbs": ["get"], "nonResourceURLs": ["/a", "/b"]}]));
        assert_eq!(reconciled(&wanted, &wanted), None);
        let changed = role_of("discovery", json!([{"verbs": ["get"], "nonResourceURLs": ["/a", "/c"]}]));
        let new = reconciled(&changed, &wanted).expect("a change");
        assert_eq!(
            new["rules"],
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a", "/c"]}, {"verbs": ["get"], "nonResourceURLs": ["/b"]}])
        );
        let mut left_alone = changed;
        left_alone["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(reconciled(&left_alone, &wanted), None);
    }

    fn role_of(name: &str, rules: Value) -> Value {
        let mut role = role("", name, &[]);
        role["rules"] = rules;
        role
    }

    #[test]
    fn a_default_binding_keeps_its_subjects_and_gets_back_its_own() {
        let wanted = binding("", "b", "r", "group:a,user:b");
        let changed = binding("", "b", "r", "user:c,user:b");
        let new = reconciled(&changed, &wanted).expect("a change");
        let names: Vec<&str> = new["subjects"]
            .as_array()
            .expect("subjects")
            .iter()
            .filter_map(|subject| subject["name"].as_str())
            .collect();
        assert_eq!(names, ["c", "b", "a"]);
    }
}
