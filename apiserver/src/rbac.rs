//! Role-based access control: roles and bindings from the store, compiled, and the question whether a user may do a thing.
//!
//! Follows Kubernetes' "Using RBAC Authorization". The compiled rules follow the store by a watch; before anything is denied they
//! are brought up to the newest revision, so that a binding works from the moment its write was answered.

use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision};
use crate::request::RequestInfo;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use store::{EventKind, Range, Revision, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SUFFIX: &str = ".rbac.authorization.k8s.io/";
const GROUP: &str = "rbac.authorization.k8s.io";

/// One PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    fn from_json(rule: &Value) -> Rule {
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

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if let Some(path) = attributes.path {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        let resource = |item: &String| match item.strip_prefix("*/") {
            Some(subresource) => attributes.resource.split_once('/').is_some_and(|(_, wanted)| wanted == subresource),
            None => item == "*" || item == attributes.resource,
        };
        has(&self.api_groups, attributes.group)
            && self.resources.iter().any(resource)
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == attributes.name))
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Verb such as `get`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource with its subresource: `pods/log`.
    pub resource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name, or empty.
    pub name: &'a str,
    /// Set for paths that are no resources.
    pub path: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Bindings of one subject: namespace (`""` is all) and the rules bound there, with the binding's and role's names.
#[derive(Debug, Default)]
struct Compiled {
    bindings: HashMap<Subject, Vec<Bound>>,
}

#[derive(Clone, Debug)]
struct Bound {
    namespace: String,
    rules: Arc<[Rule]>,
}

impl Compiled {
    fn rules<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.clone())));
        subjects
            .filter_map(|subject| self.bindings.get(&subject))
            .flatten()
            .filter(move |bound| bound.namespace.is_empty() || bound.namespace == namespace)
            .flat_map(|bound| bound.rules.iter())
    }
}

#[derive(Debug, Default)]
struct Objects {
    /// Rules of a Role (`namespace/name`) or ClusterRole (`/name`), labels for aggregation beside them.
    roles: HashMap<String, Role>,
    /// Bindings by store key.
    bindings: HashMap<String, Binding>,
}

#[derive(Debug)]
struct Role {
    rules: Vec<Rule>,
    labels: Value,
    /// `aggregationRule.clusterRoleSelectors`.
    selectors: Vec<Value>,
}

#[derive(Debug)]
struct Binding {
    namespace: String,
    role: String,
    subjects: Vec<Subject>,
}

/// The RBAC authorizer; ends with its last handle.
#[derive(Clone)]
pub struct Rbac(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    compiled: Arc<ArcSwap<Compiled>>,
    applied: watch::Receiver<Revision>,
    task: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Rbac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rbac(..)")
    }
}

impl Rbac {
    /// Reads roles and bindings from `store` (values are decoded by `decode`) and follows their changes.
    pub async fn start(store: Arc<dyn Store>, decode: fn(&[u8]) -> Option<Value>) -> Rbac {
        let mut objects = Objects::default();
        let revision = load(&*store, decode, &mut objects).await;
        let compiled = Arc::new(ArcSwap::from_pointee(compile(&objects)));
        let (sender, applied) = watch::channel(revision);
        let task = tokio::spawn(follow(store.clone(), decode, objects, revision, compiled.clone(), sender));
        Rbac(Arc::new(Inner { store, compiled, applied, task }))
    }

    /// Whether `user` may do this.
    pub async fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        if user.groups.iter().any(|group| group == "system:masters") {
            return true;
        }
        let allowed = || {
            let compiled = self.0.compiled.load();
            compiled.rules(user, attributes.namespace).any(|rule| rule.allows(attributes))
        };
        if allowed() {
            return true;
        }
        self.catch_up().await;
        allowed()
    }

    /// Every rule that holds for `user` in `namespace`.
    pub async fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if user.groups.iter().any(|group| group == "system:masters") {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
            return vec![resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }];
        }
        self.catch_up().await;
        self.0.compiled.load().rules(user, namespace).cloned().collect()
    }

    /// Waits until the compiled rules have followed the store to where it is now.
    async fn catch_up(&self) {
        let newest = self.0.store.revision();
        let mut applied = self.0.applied.clone();
        if *applied.borrow() < newest {
            self.0.store.request_progress();
            let _ = applied.wait_for(|revision| *revision >= newest).await;
        }
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let resource = request.resource_path();
        let attributes = if request.is_resource {
            Attributes {
                verb: &request.verb,
                group: &request.group,
                resource: &resource,
                namespace: &request.namespace,
                name: &request.name,
                path: None,
            }
        } else {
            Attributes { verb: &request.verb, path: Some(&request.path), ..Attributes::default() }
        };
        if self.allows(user, &attributes).await { Decision::Allow } else { Decision::Deny(String::new()) }
    }
}

const PLURALS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

async fn load(store: &dyn Store, decode: fn(&[u8]) -> Option<Value>, objects: &mut Objects) -> Revision {
    loop {
        *objects = Objects::default();
        let at = store.revision();
        let mut complete = true;
        for plural in PLURALS {
            let range = Range { prefix: format!("/registry/{plural}{SUFFIX}"), at: Some(at), ..Range::default() };
            match store.range(range).await {
                Ok(page) => {
                    for item in page.items {
                        objects.put(&item.key, decode(&item.value));
                    }
                }
                // The snapshot has been compacted meanwhile: begin anew.
                Err(_) => complete = false,
            }
        }
        if complete {
            return at;
        }
    }
}

async fn follow(
    store: Arc<dyn Store>,
    decode: fn(&[u8]) -> Option<Value>,
    mut objects: Objects,
    mut revision: Revision,
    compiled: Arc<ArcSwap<Compiled>>,
    applied: watch::Sender<Revision>,
) {
    loop {
        let mut watches: Vec<_> =
            PLURALS.iter().map(|plural| store.watch(&format!("/registry/{plural}{SUFFIX}"), revision)).collect();
        let mut reached = [revision; 4];
        'watching: loop {
            let next = futures::future::select_all(watches.iter_mut().map(StreamExt::next)).await;
            let (Some(Ok(batch)), index, _) = next else { break 'watching };
            for event in &batch.events {
                let value = (event.kind == EventKind::Put).then(|| decode(&event.kv.value)).flatten();
                objects.put(&event.kv.key, value);
            }
            if !batch.events.is_empty() {
                compiled.store(Arc::new(compile(&objects)));
            }
            reached[index] = reached[index].max(batch.revision);
            applied.send_replace(reached.into_iter().min().unwrap_or_default());
        }
        revision = load(&*store, decode, &mut objects).await;
        compiled.store(Arc::new(compile(&objects)));
        applied.send_replace(revision);
    }
}

impl Objects {
    /// Takes in the object under a store key; `None` if it is gone.
    fn put(&mut self, key: &str, value: Option<Value>) {
        let Some((plural, name)) = key.strip_prefix("/registry/").and_then(|rest| rest.split_once(SUFFIX)) else {
            return;
        };
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
}

impl Role {
    fn from_json(value: &Value) -> Role {
        let rules = value["rules"].as_array().into_iter().flatten().map(Rule::from_json).collect();
        let selectors = value["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
        Role { rules, labels: value["metadata"]["labels"].clone(), selectors }
    }
}

impl Binding {
    fn from_json(value: &Value) -> Binding {
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = value["roleRef"]["name"].as_str().unwrap_or_default();
        let role = match value["roleRef"]["kind"].as_str() {
            Some("Role") => format!("{namespace}/{name}"),
            _ => format!("/{name}"),
        };
        let subject = |subject: &Value| {
            let name = subject["name"].as_str()?;
            Some(match subject["kind"].as_str()? {
                "User" => Subject::User(name.to_owned()),
                "Group" => Subject::Group(name.to_owned()),
                "ServiceAccount" => {
                    let own = subject["namespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(&namespace);
                    Subject::User(format!("system:serviceaccount:{own}:{name}"))
                }
                _ => return None,
            })
        };
        let subjects = value["subjects"].as_array().into_iter().flatten().filter_map(subject).collect();
        Binding { namespace, role, subjects }
    }
}

fn compile(objects: &Objects) -> Compiled {
    let mut compiled = Compiled::default();
    for binding in objects.bindings.values() {
        let Some(role) = objects.roles.get(&binding.role) else { continue };
        let mut rules = role.rules.clone();
        // Aggregated roles take in the rules of the roles their selectors match.
        for (id, other) in &objects.roles {
            if id.starts_with('/') && role.selectors.iter().any(|selector| selects(selector, &other.labels)) {
                rules.extend(other.rules.iter().cloned());
            }
        }
        let bound = Bound { namespace: binding.namespace.clone(), rules: rules.into() };
        for subject in &binding.subjects {
            compiled.bindings.entry(subject.clone()).or_default().push(bound.clone());
        }
    }
    compiled
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(wanted) = selector["matchLabels"].as_object() else { return false };
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The group of the RBAC kinds.
pub const API_GROUP: &str = GROUP;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let key = |plural: &str, name: &str| format!("/registry/{plural}{SUFFIX}{name}");
        objects.put(
            &key("roles", "dev/reader"),
            Some(json!({"metadata": {"namespace": "dev"}, "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["update"], "apiGroups": ["apps"], "resources": ["*/scale"], "resourceNames": ["web"]}]})),
        );
        objects.put(&key("rolebindings", "dev/b"), Some(json!({"metadata": {"namespace": "dev"},
            "roleRef": {"kind": "Role", "name": "reader"}, "subjects": [{"kind": "ServiceAccount", "name": "bot"}, {"kind": "Group", "name": "devs"}]})));
        objects.put(
            &key("clusterroles", "health"),
            Some(json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}]})),
        );
        objects.put(
            &key("clusterrolebindings", "h"),
            Some(json!({"metadata": {}, "roleRef": {"kind": "ClusterRole", "name": "health"},
            "subjects": [{"kind": "User", "name": "eve"}]})),
        );
        objects
    }

    fn allowed(compiled: &Compiled, user: &UserInfo, attributes: Attributes<'_>) -> bool {
        compiled.rules(user, attributes.namespace).any(|rule| rule.allows(&attributes))
    }

    #[test]
    fn rules_hold_for_their_subjects_in_their_namespace() {
        let compiled = compile(&objects());
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
        let compiled = compile(&objects());
        let eve = UserInfo::new("eve", &[]);
        let path = |path| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        assert!(allowed(&compiled, &eve, path("/healthz/etcd")));
        assert!(allowed(&compiled, &eve, path("/version")));
        assert!(!allowed(&compiled, &eve, path("/version/x")));
        assert!(!allowed(&compiled, &eve, path("/metrics")));
    }
}
