//! NodeRestriction: what a node may write, which is itself, its lease, and the pods on it.
//!
//! Follows `plugin/pkg/admission/noderestriction` (KEP-279, KEP-2907 for tokens).

use crate::admission::{Admission, AdmissionOperation, AdmissionRequest};
use crate::authn::UserInfo;
use crate::node_authorizer::node_name;
use crate::request::RequestInfo;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::{Map, Value};

/// Labels that a node may give itself, of those with a prefix of Kubernetes.
const OWN_LABELS: [&str; 13] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
];

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        node_name(request.user).is_some()
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        let Some(node) = node_name(request.user) else { return Ok(()) };
        let kind = request.kind;
        let refused = match (&*kind.group, &*kind.plural, request.subresource) {
            ("", "pods", subresource) => pod(node, request, subresource, object),
            ("", "nodes", subresource) => own_node(node, request, subresource, object),
            ("coordination.k8s.io", "leases", _) => named(node, request, "lease"),
            ("storage.k8s.io", "csinodes", _) => named(node, request, "CSINode"),
            _ => None,
        };
        match refused {
            Some(why) => Err(request.forbidden(&why)),
            None => Ok(()),
        }
    }
}

fn pod(node: &str, request: &AdmissionRequest<'_>, subresource: &str, object: &Value) -> Option<String> {
    let on = |pod: &Value| pod["spec"]["nodeName"].as_str() == Some(node);
    let existing = request.old.unwrap_or(&Value::Null);
    match (request.operation, subresource) {
        (AdmissionOperation::Create, "") => {
            if object["metadata"]["annotations"]["kubernetes.io/config.mirror"].as_str().is_none() {
                return Some(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !on(object) {
                return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            let uses = object["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| {
                ["secret", "configMap", "persistentVolumeClaim", "projected"]
                    .iter()
                    .any(|kind| volume[kind].is_object())
            });
            uses.then(|| format!("node {node:?} can not create pods that reference secrets, configmaps, persistentvolumeclaims or projected volumes"))
        }
        (AdmissionOperation::Delete, _) => {
            (!on(existing)).then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (AdmissionOperation::Update, "status") => {
            if !on(existing) {
                return Some(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            let labels = |pod: &Value| pod["metadata"]["labels"].clone();
            (labels(existing) != labels(object))
                .then(|| format!("node {node:?} cannot update labels through pod status"))
        }
        (_, "eviction") => {
            (!on(existing)).then(|| format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        (operation, _) => {
            Some(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"))
        }
    }
}

fn own_node(node: &str, request: &AdmissionRequest<'_>, subresource: &str, object: &Value) -> Option<String> {
    if request.name != node {
        return Some(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    match request.operation {
        AdmissionOperation::Create => {
            if object["spec"]["configSource"].is_object() {
                return Some(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let forbidden = protected(&Map::new(), &labels(object));
            (!forbidden.is_empty())
                .then(|| format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        AdmissionOperation::Update => {
            let old = request.old?;
            let taints = |node: &Value| node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            if subresource != "status" && taints(old) != taints(object) {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            let owners = |node: &Value| node["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            if owners(old) != owners(object) {
                return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let forbidden = protected(&labels(old), &labels(object));
            (!forbidden.is_empty()).then(|| format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        AdmissionOperation::Delete => Some(format!("node {node:?} is not allowed to delete its own Node object")),
    }
}

fn labels(object: &Value) -> Map<String, Value> {
    object["metadata"]["labels"].as_object().cloned().unwrap_or_default()
}

/// The labels that differ and that a node may not change.
fn protected(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let changed = |key: &&String| old.get(*key) != new.get(*key);
    let all: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).filter(changed).collect();
    all.into_iter().filter(|key| is_protected(key)).cloned().collect()
}

fn is_protected(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let own = within("kubelet.kubernetes.io") || within("node.kubernetes.io") || OWN_LABELS.contains(&label);
    (within("kubernetes.io") || within("k8s.io")) && !own
}

fn named(node: &str, request: &AdmissionRequest<'_>, what: &str) -> Option<String> {
    let wanted = if what == "lease" && request.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    } else {
        request.name
    };
    (wanted != node).then(|| format!("can only access {what} with the same name as the requesting node"))
}

/// Whether a node may have this token: for a pod on it, and for an audience that the pod asks for.
pub(crate) fn check_token(
    user: &UserInfo,
    info: &RequestInfo,
    pod: Option<&Value>,
    audiences: &[String],
) -> Result<(), Status> {
    let Some(node) = node_name(user) else { return Ok(()) };
    let refuse = |why: &str| Err(Status::forbidden("", "serviceaccounts", &info.name, why));
    let Some(pod) = pod else { return refuse("node requested token not bound to a pod") };
    if pod["spec"]["nodeName"].as_str() != Some(node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let tokens = sources.map(|source| &source["serviceAccountToken"]).filter(|token| token.is_object());
    let known: Vec<&str> = tokens.map(|token| token["audience"].as_str().unwrap_or_default()).collect();
    if audiences.is_empty() {
        return Ok(());
    }
    match audiences.iter().find(|audience| !known.contains(&audience.as_str())) {
        Some(audience) => refuse(&format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            user.name
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_not_label_itself_into_a_protected_place() {
        let verdicts = [
            ("example.com/team", false),
            ("team", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/any", false),
            ("kubernetes.io/any", true),
            ("any.k8s.io/role", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/secure", true),
            ("team.node-restriction.kubernetes.io/secure", true),
            ("notkubernetes.io/any", false),
        ];
        for (label, expected) in verdicts {
            assert_eq!(is_protected(label), expected, "{label}");
        }
    }
}
