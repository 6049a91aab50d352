//! Role-based access control: roles and bindings from the store, compiled, and the question whether a user may do a thing.
//!
//! Follows Kubernetes' "Using RBAC Authorization". The compiled rules follow the store (`crate::follow`); before anything is denied
//! they are brought up to the newest revision, so that a binding works from the moment its write was answered. What a user may grant
//! to others is decided in [`crate::rbac_escalation`].

use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision, Rules};
use crate::follow::{Fold, Follower};
use crate::request::RequestInfo;
use crate::selector::Selector;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use store::Store;

const SUFFIX: &str = ".rbac.authorization.k8s.io/";

/// The group of the RBAC kinds.
pub const API_GROUP: &str = "rbac.authorization.k8s.io";

const PREFIXES: &[&str] = &[
    "/registry/clusterroles.rbac.authorization.k8s.io/",
    "/registry/roles.rbac.authorization.k8s.io/",
    "/registry/clusterrolebindings.rbac.authorization.k8s.io/",
    "/registry/rolebindings.rbac.authorization.k8s.io/",
];

/// One PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Verbs; `*` is all.
    pub verbs: Vec<String>,
    /// API groups; `*` is all.
    pub api_groups: Vec<String>,
    /// Resources such as `pods`, `pods/log`, `*`, `*/scale`.
    pub resources: Vec<String>,
    /// Names; empty is all.
    pub resource_names: Vec<String>,
    /// Paths such as `/healthz`, `/healthz/*`, `*`.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    pub(crate) fn from_json(rule: &Value) -> Rule {
        let list = |field: &str| -> Vec<String> {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// As `PolicyRule` or `ResourceRule` has it.
    pub fn to_json(&self) -> Value {
        let mut rule = serde_json::json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() {
                rule[field] = serde_json::json!(list);
            }
        }
        rule
    }

    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if let Some(path) = attributes.path {
            return self.non_resource_urls.iter().any(|url| covers_path(url, path));
        }
        has(&self.api_groups, attributes.group)
            && self.resources.iter().any(|item| covers_resource(item, attributes.resource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == attributes.name))
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// With its subresource: `pods/log`.
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for paths that are no resources.
    pub(crate) path: Option<&'a str>,
}

/// Whether a rule's resource (`pods`, `*`, `*/scale`) stands for this one (`deployments/scale`).
pub(crate) fn covers_resource(rule: &str, wanted: &str) -> bool {
    match rule.strip_prefix("*/") {
        Some(subresource) => wanted.split_once('/').is_some_and(|(_, of)| of == subresource),
        None => rule == "*" || rule == wanted,
    }
}

/// Whether a rule's path (`/healthz`, `/healthz/*`, `*`) stands for this one.
pub(crate) fn covers_path(rule: &str, wanted: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => wanted.starts_with(prefix),
        None => rule == wanted,
    }
}

/// What is bound to each subject, and the rules of each role.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    users: HashMap<String, Vec<Bound>>,
    groups: HashMap<String, Vec<Bound>>,
    roles: HashMap<String, Arc<[Rule]>>,
}

/// A binding as one of its subjects has it.
#[derive(Clone, Debug)]
struct Bound {
    /// `""` is all.
    namespace: String,
    /// Or the key of the role that is not there.
    rules: Result<Arc<[Rule]>, String>,
    /// Which binding of which role to whom, for people.
    origin: Arc<str>,
}

impl Compiled {
    fn bound<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Bound> {
        let own = self.users.get(&user.name).into_iter();
        own.chain(user.groups.iter().filter_map(|group| self.groups.get(group)))
            .flatten()
            .filter(move |bound| bound.namespace.is_empty() || bound.namespace == namespace)
    }

    fn rules<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.bound(user, namespace).filter_map(|bound| bound.rules.as_ref().ok()).flat_map(|rules| rules.iter())
    }

    /// The binding that allows this.
    fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Option<Arc<str>> {
        let mut all = self.bound(user, attributes.namespace);
        let found =
            all.find(|bound| bound.rules.as_ref().is_ok_and(|rules| rules.iter().any(|rule| rule.allows(attributes))));
        found.map(|bound| bound.origin.clone())
    }

    /// The roles that `user` is bound to and that do not exist.
    fn missing(&self, user: &UserInfo, namespace: &str) -> Vec<String> {
        let missing: BTreeSet<&String> =
            self.bound(user, namespace).filter_map(|bound| bound.rules.as_ref().err()).collect();
        missing.into_iter().map(|role| not_found(role)).collect()
    }
}

/// Says that there is no such role; `role` is its key.
fn not_found(role: &str) -> String {
    match role.split_once('/') {
        Some(("", name)) => format!("clusterrole.{API_GROUP} {name:?} not found"),
        _ => format!("role.{API_GROUP} {:?} not found", role.rsplit('/').next().unwrap_or_default()),
    }
}

#[derive(Debug, Default)]
struct Objects {
    /// By `namespace/name` for Roles, `/name` for ClusterRoles.
    roles: HashMap<String, Role>,
    /// Bindings by store key.
    bindings: HashMap<String, Binding>,
}

#[derive(Debug)]
struct Role {
    rules: Vec<Rule>,
    /// The labels, as an object that selectors can be asked about.
    labelled: Value,
    /// `aggregationRule.clusterRoleSelectors`.
    selectors: Vec<Value>,
}

#[derive(Debug)]
struct Binding {
    namespace: String,
    role: String,
    origin: String,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
struct Subject {
    is_group: bool,
    name: String,
    /// For people.
    text: String,
}

/// The RBAC authorizer; ends with its last handle.
#[derive(Clone)]
pub struct Rbac(Arc<Follower<Compiled>>);

impl std::fmt::Debug for Rbac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rbac(..)")
    }
}

impl Rbac {
    /// Reads roles and bindings from `store` and follows their changes.
    pub async fn start(store: Arc<dyn Store>) -> Rbac {
        Rbac(Arc::new(Follower::start(store, PREFIXES, Objects::default()).await))
    }

    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        // Upstream's authorizer of privileged groups, which stands before all others.
        if user.groups.iter().any(|group| group == "system:masters") {
            return Decision::Allow(None);
        }
        if let Some(origin) = self.0.view().allows(user, attributes) {
            return Decision::Allow(Some(origin));
        }
        self.0.catch_up().await;
        let compiled = self.0.view();
        match compiled.allows(user, attributes) {
            Some(origin) => Decision::Allow(Some(origin)),
            None => match compiled.missing(user, attributes.namespace).as_slice() {
                [] => Decision::Deny(String::new()),
                [one] => Decision::Deny(format!("RBAC: {one}")),
                more => Decision::Deny(format!("RBAC: [{}]", more.join(", "))),
            },
        }
    }

    /// Every rule that holds for `user` in `namespace`, and what could not be found out.
    pub async fn rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        self.0.catch_up().await;
        let compiled = self.0.view();
        (compiled.rules(user, namespace).cloned().collect(), compiled.missing(user, namespace))
    }

    /// The rules of a role that a binding in `namespace` (`""`: a ClusterRoleBinding) refers to; `None` if there is no such role.
    pub(crate) async fn role_rules(&self, namespace: &str, reference: &Value) -> Option<Arc<[Rule]>> {
        self.0.catch_up().await;
        self.0.view().roles.get(&role_key(namespace, reference)).cloned()
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        if !request.is_resource {
            let attributes = Attributes { verb: &request.verb, path: Some(&request.path), ..Attributes::default() };
            return self.decide(user, &attributes).await;
        }
        let path;
        let resource = if request.subresource.is_empty() {
            &request.resource
        } else {
            path = request.resource_path();
            &path
        };
        let attributes = Attributes {
            verb: &request.verb,
            group: &request.group,
            resource,
            namespace: &request.namespace,
            name: &request.name,
            path: None,
        };
        self.decide(user, &attributes).await
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (rules, errors) = Rbac::rules(self, user, namespace).await;
        Rules { rules, errors }
    }
}

impl Fold for Objects {
    type View = Compiled;

    fn put(&mut self, key: &str, value: Option<&[u8]>) {
        let Some((plural, name)) = key.strip_prefix("/registry/").and_then(|rest| rest.split_once(SUFFIX)) else {
            return;
        };
        let value = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        match (plural, value) {
            ("clusterroles" | "roles", value) => {
                let id = if plural == "roles" { name.to_owned() } else { format!("/{name}") };
                match value {
                    Some(value) => self.roles.insert(id, Role::from_json(&value)),
                    None => self.roles.remove(&id),
                };
            }
            (_, Some(value)) => {
                self.bindings.insert(key.to_owned(), Binding::from_json(&value));
            }
            (_, None) => {
                self.bindings.remove(key);
            }
        }
    }

    fn clear(&mut self) {
        *self = Objects::default();
    }

    fn view(&mut self) -> Compiled {
        let mut compiled = Compiled::default();
        for id in self.roles.keys() {
            let mut rules = Vec::new();
            self.rules(id, &mut vec![], &mut rules);
            compiled.roles.insert(id.clone(), rules.into());
        }
        for binding in self.bindings.values() {
            let rules = compiled.roles.get(&binding.role).cloned().ok_or_else(|| binding.role.clone());
            for subject in &binding.subjects {
                let origin = format!("RBAC: allowed by {} to {}", binding.origin, subject.text).into();
                let bound = Bound { namespace: binding.namespace.clone(), rules: rules.clone(), origin };
                let all = if subject.is_group { &mut compiled.groups } else { &mut compiled.users };
                all.entry(subject.name.clone()).or_default().push(bound);
            }
        }
        compiled
    }
}

impl Objects {
    /// The rules of a role; an aggregated one has those of the roles its selectors match, each once.
    fn rules<'a>(&'a self, id: &'a str, within: &mut Vec<&'a str>, rules: &mut Vec<Rule>) {
        let Some(role) = self.roles.get(id).filter(|_| !within.contains(&id)) else { return };
        if role.selectors.is_empty() {
            for rule in &role.rules {
                if within.is_empty() || !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            return;
        }
        within.push(id);
        let selected = |other: &Role| {
            role.selectors.iter().any(|selector| Selector::matches_label_selector(selector, &other.labelled))
        };
        let mut parts: Vec<&String> = self
            .roles
            .iter()
            .filter(|(other, role)| other.starts_with('/') && selected(role))
            .map(|(id, _)| id)
            .collect();
        parts.sort();
        for part in parts {
            self.rules(part, within, rules);
        }
        within.pop();
    }
}

impl Role {
    fn from_json(value: &Value) -> Role {
        let rules = value["rules"].as_array().into_iter().flatten().map(Rule::from_json).collect();
        let selectors = value["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
        Role { rules, labelled: json!({"metadata": {"labels": value["metadata"]["labels"]}}), selectors }
    }
}

fn role_key(namespace: &str, reference: &Value) -> String {
    let name = reference["name"].as_str().unwrap_or_default();
    match reference["kind"].as_str() {
        Some("Role") => format!("{namespace}/{name}"),
        _ => format!("/{name}"),
    }
}

impl Binding {
    fn from_json(value: &Value) -> Binding {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = text(&value["metadata"]["namespace"]);
        let (name, reference) = (text(&value["metadata"]["name"]), &value["roleRef"]);
        let of = format!("of {} {:?}", text(&reference["kind"]), text(&reference["name"]));
        let origin = if namespace.is_empty() {
            format!("ClusterRoleBinding {name:?} {of}")
        } else {
            format!("RoleBinding {:?} {of}", format!("{name}/{namespace}"))
        };
        let subject = |subject: &Value| {
            let (kind, name) = (subject["kind"].as_str()?, subject["name"].as_str()?.to_owned());
            let (is_group, name, shown) = match kind {
                "User" => (false, name.clone(), name),
                "Group" => (true, name.clone(), name),
                "ServiceAccount" => {
                    let own = subject["namespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(&namespace);
                    (false, format!("system:serviceaccount:{own}:{name}"), format!("{name}/{own}"))
                }
                _ => return None,
            };
            Some(Subject { is_group, name, text: format!("{kind} {shown:?}") })
        };
        let subjects = value["subjects"].as_array().into_iter().flatten().filter_map(subject).collect();
        Binding { role: role_key(&namespace, reference), namespace, origin, subjects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let mut put = |plural: &str, name: &str, value: Value| {
            objects.put(&format!("/registry/{plural}{SUFFIX}{name}"), Some(value.to_string().as_bytes()));
        };
        put(
            "roles",
            "dev/reader",
            json!({"metadata": {"namespace": "dev"}, "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["update"], "apiGroups": ["apps"], "resources": ["*/scale"], "resourceNames": ["web"]}]}),
        );
        put(
            "rolebindings",
            "dev/b",
            json!({"metadata": {"namespace": "dev", "name": "b"}, "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "bot"}, {"kind": "Group", "name": "devs"}]}),
        );
        put(
            "clusterroles",
            "health",
            json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}]}),
        );
        put(
            "clusterrolebindings",
            "h",
            json!({"metadata": {"name": "h"}, "roleRef": {"kind": "ClusterRole", "name": "health"},
            "subjects": [{"kind": "User", "name": "eve"}]}),
        );
        objects
    }

    fn allowed(compiled: &Compiled, user: &UserInfo, attributes: Attributes<'_>) -> bool {
        compiled.allows(user, &attributes).is_some()
    }

    #[test]
    fn rules_hold_for_their_subjects_in_their_namespace() {
        let compiled = objects().view();
        let bot = UserInfo::new("system:serviceaccount:dev:bot", &[]);
        let dev = UserInfo::new("ann", &["devs"]);
        let get = Attributes { verb: "get", resource: "pods", namespace: "dev", name: "x", ..Attributes::default() };
        assert!(allowed(&compiled, &bot, get));
        assert!(allowed(&compiled, &dev, Attributes { resource: "pods/log", ..get }));
        assert!(!allowed(&compiled, &dev, Attributes { resource: "pods/exec", ..get }));
        assert!(!allowed(&compiled, &dev, Attributes { namespace: "prod", ..get }));
        assert!(!allowed(&compiled, &dev, Attributes { verb: "delete", ..get }));
        assert!(!allowed(&compiled, &UserInfo::new("mallory", &[]), get));
        let scale = Attributes {
            verb: "update",
            group: "apps",
            resource: "deployments/scale",
            namespace: "dev",
            name: "web",
            ..Attributes::default()
        };
        assert!(allowed(&compiled, &dev, scale));
        assert!(!allowed(&compiled, &dev, Attributes { name: "api", ..scale }));
    }

    #[test]
    fn paths_are_matched_exactly_or_by_their_prefix() {
        let compiled = objects().view();
        let eve = UserInfo::new("eve", &[]);
        let path = |path| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        assert!(allowed(&compiled, &eve, path("/healthz/etcd")));
        assert!(allowed(&compiled, &eve, path("/version")));
        assert!(!allowed(&compiled, &eve, path("/version/x")));
        assert!(!allowed(&compiled, &eve, path("/metrics")));
    }

    #[test]
    fn who_is_allowed_is_told_by_which_binding() {
        let compiled = objects().view();
        let get = Attributes { verb: "get", resource: "pods", namespace: "dev", ..Attributes::default() };
        let why = |user: &UserInfo| compiled.allows(user, &get).expect("allowed").to_string();
        assert_eq!(
            why(&UserInfo::new("system:serviceaccount:dev:bot", &[])),
            "RBAC: allowed by RoleBinding \"b/dev\" of Role \"reader\" to ServiceAccount \"bot/dev\""
        );
        assert_eq!(
            why(&UserInfo::new("ann", &["devs"])),
            "RBAC: allowed by RoleBinding \"b/dev\" of Role \"reader\" to Group \"devs\""
        );
    }

    #[test]
    fn an_aggregated_role_has_the_rules_of_what_its_parts_aggregate_too() {
        let mut objects = Objects::default();
        let mut put = |name: &str, value: Value| {
            objects.put(&format!("/registry/clusterroles{SUFFIX}{name}"), Some(value.to_string().as_bytes()));
        };
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let selects = |label: &str| json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        put("look", json!({"metadata": {"labels": {"to-view": "true"}}, "rules": [rule("get")]}));
        put("change", json!({"metadata": {"labels": {"to-edit": "true"}}, "rules": [rule("update"), rule("get")]}));
        put(
            "view",
            json!({"metadata": {"labels": {"to-edit": "true"}}, "aggregationRule": selects("to-view"), "rules": [rule("stale")]}),
        );
        // It selects itself as well.
        put("edit", json!({"metadata": {"labels": {"to-edit": "true"}}, "aggregationRule": selects("to-edit")}));
        let compiled = objects.view();
        let verbs =
            |role: &str| -> Vec<String> { compiled.roles[role].iter().flat_map(|rule| rule.verbs.clone()).collect() };
        assert_eq!(verbs("/view"), ["get"]);
        assert_eq!(verbs("/edit"), ["update", "get"]);
    }

    #[test]
    fn a_binding_to_a_role_that_is_not_there_is_said() {
        let mut objects = objects();
        objects.put(&format!("/registry/roles{SUFFIX}dev/reader"), None);
        let missing = objects.view().missing(&UserInfo::new("ann", &["devs"]), "dev");
        assert_eq!(missing, ["role.rbac.authorization.k8s.io \"reader\" not found"]);
    }
}
