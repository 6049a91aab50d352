//! Node and Namespace.

use super::field::{complaints, one_of};
use super::json::{carry_over, child, fill, flag, is_unset, list, object, put, same, text};
use super::table::{NONE, UNKNOWN, age, name};
use super::{metadata, names, strategy};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// Everything wrong with a Node.
pub(super) fn errors(kind: &ResourceKind, node: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, node, old);
    for (index, cidr) in super::json::texts(node, "/spec/podCIDRs").into_iter().enumerate() {
        errors.extend(complaints(&format!("spec.podCIDRs[{index}]"), cidr, names::cidr(cidr)));
    }
    let mut taints = HashSet::new();
    for (index, taint) in list(node, "/spec/taints").iter().enumerate() {
        let at = |part: &str| format!("spec.taints[{index}]{part}");
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        errors.extend(complaints(&at(".key"), key, names::qualified_name(key)));
        errors.extend(complaints(&at(".value"), value, names::label_value(value)));
        if effect.is_empty() {
            errors.push(FieldError::required(at(".effect"), ""));
        } else {
            one_of(&mut errors, at(".effect"), effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        }
        if !taints.insert((key, effect)) {
            errors.push(FieldError::duplicate(at(""), taint));
        }
    }
    if let Some(old) = old {
        for (field, shown) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
            let pointer = format!("/spec/{field}");
            if !is_unset(old, &pointer) && !same(node, old, &pointer) {
                let detail = format!("node updates may not change {shown} except from \"\" to valid");
                errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
            }
        }
    }
    errors
}

/// What a new node has may also be given away, unless it says otherwise; the older name of the pod CIDR follows the newer.
pub(super) fn default(_: &ResourceKind, node: &mut Value) {
    child(node, "spec");
    let cidrs = list(node, "/spec/podCIDRs").first().cloned();
    let single = node.pointer("/spec/podCIDR").filter(|cidr| !super::json::is_zero(cidr)).cloned();
    match (single, cidrs) {
        (None, Some(first)) => put(&mut node["spec"], "podCIDR", Some(first)),
        (Some(only), None) => put(&mut node["spec"], "podCIDRs", Some(json!([only]))),
        _ => {}
    }
    if is_unset(node, "/status/allocatable")
        && let Some(capacity) = node.pointer("/status/capacity").cloned()
    {
        put(&mut node["status"], "allocatable", Some(capacity));
    }
    for pointer in ["/status/capacity", "/status/allocatable"] {
        super::quantity::canonicalize(node, pointer);
    }
}

/// A node comes with its status.
pub(super) fn prepare(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    if old.is_some() {
        strategy::prepare(kind, new, old, subresource);
    }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    list(node, "/status/addresses")
        .iter()
        .find(|address| text(address, "/type") == kind)
        .map_or(NONE, |address| text(address, "/address"))
}

fn or_unknown(text: &str) -> Value {
    if text.is_empty() { UNKNOWN.into() } else { text.into() }
}

/// NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME.
pub(super) fn row(_: &ResourceKind, node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(node, "/status/conditions").iter().find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        None => "Unknown".to_owned(),
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if flag(node, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = object(node, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let info = |field: &str| text(node, &format!("/status/nodeInfo/{field}")).to_owned();
    vec![
        name(node),
        status.into(),
        super::table::joined(roles),
        age(node, now),
        info("kubeletVersion").into(),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        or_unknown(&info("osImage")),
        or_unknown(&info("kernelVersion")),
        or_unknown(&info("containerRuntimeVersion")),
    ]
}

/// Every namespace carries its name as a label, so that selectors can name it, and is kept by the finalizer `kubernetes`.
pub(super) fn default_namespace(_: &ResourceKind, namespace: &mut Value) {
    let own = text(namespace, "/metadata/name").to_owned();
    if !own.is_empty()
        && let Some(labels) = child(namespace, "metadata").and_then(|metadata| child(metadata, "labels"))
    {
        put(labels, "kubernetes.io/metadata.name", Some(own.into()));
    }
    child(namespace, "spec");
    if let Some(status) = child(namespace, "status") {
        fill(status, "phase", "Active");
    }
}

/// Finalizers of the spec are written through `/finalize` only.
pub(super) fn prepare_namespace(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    let wanted = new.pointer("/spec/finalizers").cloned();
    strategy::prepare(kind, new, old, if subresource == "status" { "status" } else { "" });
    child(new, "spec");
    match old {
        None => {
            let kept = super::json::texts(new, "/spec/finalizers").contains(&"kubernetes");
            if !kept && let Some(spec) = child(new, "spec") {
                let mut finalizers = wanted.and_then(|wanted| wanted.as_array().cloned()).unwrap_or_default();
                finalizers.push("kubernetes".into());
                put(spec, "finalizers", Some(finalizers.into()));
            }
            put(new, "status", Some(json!({"phase": "Active"})));
        }
        Some(_) if subresource == "finalize" => {}
        Some(old) => carry_over(new, old, "/spec/finalizers"),
    }
}

/// NAME STATUS AGE.
pub(super) fn namespace_row(_: &ResourceKind, namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(namespace), text(namespace, "/status/phase").into(), age(namespace, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    #[test]
    fn a_node_is_shown_with_readiness_roles_and_system() {
        let mut node = json!({"metadata": {"name": "node-1", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {
                "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "a": "b"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Coracle", "kernelVersion": "6"}}});
        assert_eq!(
            row_of("", "Node", &node),
            "node-1 | Ready | control-plane,worker | 3h5m | v1.36.0 | 172.18.0.2 | <none> | Coracle | 6 | <unknown>"
        );
        node["spec"] = json!({"unschedulable": true});
        node["status"] = json!({"conditions": [{"type": "Ready", "status": "Unknown"}]});
        node["metadata"]["labels"] = json!({});
        assert_eq!(
            row_of("", "Node", &node),
            "node-1 | NotReady,SchedulingDisabled | <none> | 3h5m |  | <none> | <none> | <unknown> | <unknown> | <unknown>"
        );
    }

    #[test]
    fn a_nodes_pod_network_is_given_once() {
        let node = |cidr: &str| json!({"metadata": {"name": "node-1"}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        assert_eq!(
            said("", "Node", node("10.244.1.0/24"), Some(json!({"metadata": {"name": "node-1"}}))),
            Vec::<String>::new()
        );
        assert_eq!(
            said("", "Node", node("10.244.2.0/24"), Some(node("10.244.1.0/24"))),
            ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
        );
        assert_eq!(
            said(
                "",
                "Node",
                json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
                None
            ),
            [
                "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\""
            ]
        );
    }

    #[test]
    fn rule_11_5_every_namespace_carries_its_name() {
        let kind = ResourceKind::new("", "v1", "Namespace", "namespaces").cluster_scoped().with_status();
        let mut namespace = json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "other"}}});
        prepare_namespace(&kind, &mut namespace, None, "");
        default_namespace(&kind, &mut namespace);
        assert_eq!(
            namespace,
            json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
    }

    #[test]
    fn a_namespaces_finalizers_go_through_finalize() {
        let kind = ResourceKind::new("", "v1", "Namespace", "namespaces").cluster_scoped().with_status();
        let old = json!({"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
        let through = |subresource: &str| {
            let mut new = json!({"metadata": {"name": "shop"}, "spec": {}, "status": {"phase": "Gone"}});
            prepare_namespace(&kind, &mut new, Some(&old), subresource);
            new
        };
        assert_eq!(through("")["spec"], old["spec"]);
        assert_eq!(through("finalize")["spec"], json!({}));
        assert_eq!((&through("status")["spec"], &through("status")["status"]["phase"]), (&old["spec"], &json!("Gone")));
    }
}
