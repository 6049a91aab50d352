//! The node authorizer: a node may read what its own pods use, and nothing of others.
//!
//! Which pod uses which Secret, ConfigMap, claim and service account is kept as an index that follows the store. What is not about
//! such objects is decided by the rules of the role `system:node`. What a node may write is narrowed further by
//! [`crate::node_restriction`]. Follows Kubernetes' "Using Node Authorization" (KEP-279, KEP-4601).

use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision, Rules};
use crate::follow::{Fold, Follower};
use crate::rbac::{Attributes, Rule};
use crate::rbac_bootstrap;
use crate::request::RequestInfo;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::Store;

const PREFIXES: &[&str] = &["/registry/pods/"];

/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";

/// The node that a user is.
pub(crate) fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

/// The authorizer; ends with its last handle.
#[derive(Clone)]
pub struct NodeAuthorizer {
    graph: Arc<Follower<Uses>>,
    rules: Arc<[Rule]>,
    store: Arc<dyn Store>,
}

/// Nodes by what their pods use: `kind/namespace/name`.
#[derive(Default)]
pub(crate) struct Uses(HashMap<String, HashSet<Arc<str>>>);

/// Pods by store key: their node and what they use.
#[derive(Default)]
struct Pods(HashMap<String, (Arc<str>, Arc<[String]>)>);

impl Fold for Pods {
    type View = Uses;

    fn put(&mut self, key: &str, value: Option<&[u8]>) {
        #[derive(Deserialize)]
        struct Pod {
            #[serde(default)]
            spec: Value,
        }
        // What a bound pod uses does not change.
        let pod = match value {
            Some(_) if self.0.contains_key(key) => return,
            Some(value) => serde_json::from_slice::<Pod>(value).ok(),
            None => None,
        };
        let placed = pod.and_then(|pod| {
            let node = pod.spec["nodeName"].as_str().filter(|node| !node.is_empty())?;
            let (namespace, name) = key.strip_prefix(PREFIXES[0])?.split_once('/')?;
            Some((Arc::from(node), used(namespace, name, &pod.spec).into()))
        });
        match placed {
            Some(placed) => drop(self.0.insert(key.to_owned(), placed)),
            None => drop(self.0.remove(key)),
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn view(&mut self) -> Uses {
        let mut uses = Uses::default();
        for (node, used) in self.0.values() {
            for object in used.iter() {
                uses.0.entry(object.clone()).or_default().insert(node.clone());
            }
        }
        uses
    }
}

/// Everything a pod uses, itself included.
fn used(namespace: &str, name: &str, spec: &Value) -> Vec<String> {
    let mut all = vec![format!("pods/{namespace}/{name}")];
    let mut add = |kind: &str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            all.push(format!("{kind}/{namespace}/{name}"));
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    add("serviceaccounts", &spec["serviceAccountName"]);
    list(&spec["imagePullSecrets"]).iter().for_each(|secret| add("secrets", &secret["name"]));
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&spec[kind]) {
            for from in list(&container["envFrom"]) {
                add("secrets", &from["secretRef"]["name"]);
                add("configmaps", &from["configMapRef"]["name"]);
            }
            for variable in list(&container["env"]) {
                add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
                add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        if volume["ephemeral"].is_object() {
            let claim = format!("{name}-{}", volume["name"].as_str().unwrap_or_default());
            add("persistentvolumeclaims", &claim.into());
        }
        add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for plugin in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add("secrets", &volume[plugin]["secretRef"]["name"]);
        }
        add("secrets", &volume["azureFile"]["secretName"]);
        for source in list(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
    }
    all
}

impl NodeAuthorizer {
    /// Follows the pods in `store`.
    pub async fn start(store: Arc<dyn Store>) -> NodeAuthorizer {
        let role = rbac_bootstrap::objects().into_iter().find(|object| object["metadata"]["name"] == "system:node");
        let rules = role.iter().flat_map(|role| role["rules"].as_array()).flatten().map(Rule::from_json).collect();
        let graph = Arc::new(Follower::start(store.clone(), PREFIXES, Pods::default()).await);
        NodeAuthorizer { graph, rules, store }
    }

    /// Whether a pod on `node` uses the object.
    async fn uses(&self, node: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let object = format!("{kind}/{namespace}/{name}");
        let known = || self.graph.view().0.get(&object).is_some_and(|nodes| nodes.contains(node));
        if known() {
            return true;
        }
        self.graph.catch_up().await;
        known()
    }

    async fn related(&self, node: &str, request: &RequestInfo) -> Result<(), String> {
        let RequestInfo { resource, namespace, name, .. } = request;
        let unrelated = || format!("no relationship found between node '{node}' and this object");
        if name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        let kind = if resource == "persistentvolumes" { "persistentvolumeclaims" } else { resource };
        let (namespace, name) = if resource == "persistentvolumes" {
            self.claim_of(name).await.ok_or_else(unrelated)?
        } else {
            (namespace.clone(), name.clone())
        };
        if self.uses(node, kind, &namespace, &name).await { Ok(()) } else { Err(unrelated()) }
    }

    /// Namespace and name of the claim that a volume is bound to.
    async fn claim_of(&self, volume: &str) -> Option<(String, String)> {
        let kv = self.store.get(&format!("/registry/persistentvolumes/{volume}")).await.ok()??;
        let volume: Value = serde_json::from_slice(&kv.value).ok()?;
        let text = |field: &str| volume["spec"]["claimRef"][field].as_str().map(str::to_owned);
        Some((text("namespace")?, text("name")?))
    }

    /// `Ok(true)`: allowed; `Ok(false)`: the rules decide.
    async fn narrowed(&self, node: &str, request: &RequestInfo) -> Result<bool, String> {
        let RequestInfo { verb, group, resource, subresource, namespace, name, field_selector, .. } = request;
        let reading = matches!(verb.as_str(), "get" | "list" | "watch");
        match (group.as_str(), resource.as_str(), subresource.as_str()) {
            ("", "secrets" | "configmaps", sub) => {
                if !reading {
                    return Err("can only read resources of this type".to_owned());
                }
                if !sub.is_empty() {
                    return Err("cannot read subresource".to_owned());
                }
                if name.is_empty() || namespace.is_empty() {
                    return Err("can only read namespaced object of this type".to_owned());
                }
                self.related(node, request).await.map(|()| true)
            }
            ("", "persistentvolumeclaims", "status") if matches!(verb.as_str(), "get" | "update" | "patch") => {
                self.related(node, request).await.map(|()| true)
            }
            ("", "persistentvolumeclaims" | "persistentvolumes", sub) => {
                if verb != "get" || !sub.is_empty() {
                    return Err("can only get individual resources of this type".to_owned());
                }
                self.related(node, request).await.map(|()| true)
            }
            ("", "serviceaccounts", "token") => {
                if verb != "create" {
                    return Err("can only create tokens for individual service accounts".to_owned());
                }
                self.related(node, request).await.map(|()| true)
            }
            ("", "pods", "") => match verb.as_str() {
                "get" => self.related(node, request).await.map(|()| true),
                "list" | "watch" if selects(field_selector, "spec.nodeName", node) => Ok(true),
                "list" | "watch" => {
                    Err(format!("can only list/watch pods with spec.nodeName field selector for node '{node}'"))
                }
                _ => Ok(false),
            },
            ("", "nodes", "") if reading => match name.as_str() {
                own if own == node => Ok(true),
                "" => Err(format!("node '{node}' cannot list or watch all nodes, only its own Node object")),
                other => Err(format!("node '{node}' cannot read '{other}', only its own Node object")),
            },
            ("coordination.k8s.io", "leases", sub) => {
                if !sub.is_empty() || !matches!(verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
                    return Err("can only get, create, update, patch, or delete a node lease".to_owned());
                }
                if namespace != LEASES {
                    return Err(format!("can only access leases in the {LEASES:?} system namespace"));
                }
                // The name of a new one is not known yet; node_restriction looks at it.
                if verb != "create" && name != node {
                    return Err("can only access node lease with the same name as the requesting node".to_owned());
                }
                Ok(true)
            }
            ("storage.k8s.io", "csinodes", _) => {
                if !matches!(verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
                    return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
                }
                if verb != "create" && name != node {
                    return Err("can only access CSINode with the same name as the requesting node".to_owned());
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Whether a field selector demands that `field` be `value`.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let wanted = term.trim().strip_prefix(field).and_then(|rest| rest.strip_prefix('='));
        wanted.is_some_and(|wanted| wanted.strip_prefix('=').unwrap_or(wanted) == value)
    })
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let Some(node) = node_name(user) else { return Decision::Deny(String::new()) };
        if request.is_resource {
            match self.narrowed(node, request).await {
                Ok(true) => return Decision::Allow(None),
                Ok(false) => {}
                Err(why) => return Decision::Deny(why),
            }
        }
        let resource = request.resource_path();
        let attributes = Attributes {
            verb: &request.verb,
            group: &request.group,
            resource: &resource,
            namespace: &request.namespace,
            name: &request.name,
            path: (!request.is_resource).then_some(&*request.path),
        };
        match self.rules.iter().any(|rule| rule.allows(&attributes)) {
            true => Decision::Allow(None),
            false => Decision::Deny(String::new()),
        }
    }

    async fn rules(&self, user: &UserInfo, _: &str) -> Rules {
        let unlisted = || "node authorizer does not support user rule resolution".to_owned();
        Rules { rules: Vec::new(), errors: node_name(user).map(|_| unlisted()).into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_uses_what_its_spec_names() {
        let spec = json!({"serviceAccountName": "bot", "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}, {"valueFrom": {"configMapKeyRef": {"name": "c2"}}}]}],
            "volumes": [{"secret": {"secretName": "s3"}}, {"configMap": {"name": "c3"}},
                {"persistentVolumeClaim": {"claimName": "p1"}}, {"name": "scratch", "ephemeral": {}},
                {"projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}}]});
        let mut used = used("ns", "web", &spec);
        used.sort();
        let expected = "configmaps/ns/c1 configmaps/ns/c2 configmaps/ns/c3 configmaps/ns/c4 \
            persistentvolumeclaims/ns/p1 persistentvolumeclaims/ns/web-scratch pods/ns/web secrets/ns/pull secrets/ns/s1 \
            secrets/ns/s2 secrets/ns/s3 secrets/ns/s4 serviceaccounts/ns/bot";
        assert_eq!(used, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_selector_demands_a_value_only_by_equality() {
        assert!(selects("spec.nodeName=n", "spec.nodeName", "n"));
        assert!(selects("status.phase!=Failed,spec.nodeName==n", "spec.nodeName", "n"));
        assert!(!selects("spec.nodeName!=n", "spec.nodeName", "n"));
        assert!(!selects("spec.nodeName=m", "spec.nodeName", "n"));
        assert!(!selects("", "spec.nodeName", "n"));
    }
}
