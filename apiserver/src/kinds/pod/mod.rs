//! Pod and PodTemplate: what is filled in, what is wrong, what a write may not touch, and a pod's line in a table.
//!
//! `defaults` and `validation` work on a pod spec wherever it stands, so the workload kinds use them for their templates.

mod containers;
pub(super) mod defaults;
mod printer;
mod resources;
mod scheduling;
mod security;
pub(super) mod validation;
mod volumes;
pub(super) mod warnings;

pub(super) use defaults::default;
pub(super) use printer::row;
pub(super) use validation::{errors, update_errors};

use super::json::{carry_over, list, object, put, text};
use super::quantity::Quantity;
use super::strategy;
use crate::registry::ResourceKind;
use serde_json::{Value, json};

/// A pod begins `Pending`; only its status changes through `/status`, only its ephemeral containers through `/ephemeralcontainers`, only
/// resources through `/resize`.
pub(super) fn prepare(_: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    let Some(old) = old else {
        for pointer in ["/metadata/generation", "/metadata/deletionTimestamp", "/metadata/deletionGracePeriodSeconds"] {
            super::json::remove(new, pointer);
        }
        let class = qos_class(new);
        put(new, "status", Some(json!({"phase": "Pending", "qosClass": class})));
        return;
    };
    strategy::metadata(new, old);
    match subresource {
        "status" => {
            strategy::keep_all_but(new, old, &["status", "metadata"]);
            carry_over(new, old, "/metadata/ownerReferences");
            carry_over(new, old, "/status/qosClass");
        }
        "ephemeralcontainers" => {
            let wanted = new.pointer("/spec/ephemeralContainers").cloned();
            strategy::keep_all_but(new, old, &["metadata"]);
            if let Some(spec) = new.get_mut("spec") {
                put(spec, "ephemeralContainers", wanted);
            }
        }
        "resize" => resize(new, old),
        _ => carry_over(new, old, "/status"),
    }
}

fn resize(new: &mut Value, old: &Value) {
    let wanted = new.clone();
    strategy::keep_all_but(new, old, &["metadata"]);
    for group in ["/spec/containers", "/spec/initContainers"] {
        for container in super::json::list_mut(new, group) {
            let name = text(container, "/name").to_owned();
            let found = list(&wanted, group).iter().find(|wanted| text(wanted, "/name") == name);
            if let Some(found) = found {
                put(container, "resources", found.get("resources").cloned());
                put(container, "resizePolicy", found.get("resizePolicy").cloned());
            }
        }
    }
}

/// `BestEffort` without any request or limit of CPU and memory, `Guaranteed` if every container has limits for both that equal its
/// requests, else `Burstable`.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let containers = list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers"));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let of = |which: &str, resource: &str| {
            let pointer = format!("/resources/{which}/{resource}");
            container.pointer(&pointer).and_then(Quantity::of).filter(|quantity| *quantity > Quantity::ZERO)
        };
        for resource in ["cpu", "memory"] {
            let (limit, request) = (of("limits", resource), of("requests", resource));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Mounts the API credentials of the pod's service account into every container that has nothing mounted there, as a projected volume
/// `kube-api-access-<suffix>`. Does nothing if the pod says it does not want them, or has them already. Called by admission.
pub(crate) fn mount_service_account_token(pod: &mut Value, suffix: &str) {
    const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let wanted = pod.pointer("/spec/automountServiceAccountToken") != Some(&Value::Bool(false));
    let has_volume =
        list(pod, "/spec/volumes").iter().any(|volume| text(volume, "/name").starts_with("kube-api-access-"));
    if !wanted || has_volume || object(pod, "/spec").is_none() {
        return;
    }
    let name = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for group in ["/spec/initContainers", "/spec/containers"] {
        for container in super::json::list_mut(pod, group) {
            if list(container, "/volumeMounts").iter().any(|mount| text(mount, "/mountPath") == PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": PATH});
            mounted |= push(container, "volumeMounts", mount);
        }
    }
    if mounted {
        let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}});
        push(&mut pod["spec"], "volumes", volume);
    }
}

fn push(value: &mut Value, key: &str, item: Value) -> bool {
    let Some(fields) = value.as_object_mut() else { return false };
    let items = fields.entry(key).or_insert_with(|| json!([]));
    if items.is_null() {
        *items = json!([]);
    }
    match items.as_array_mut() {
        Some(items) => {
            items.push(item);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_kind() -> ResourceKind {
        ResourceKind::new("", "v1", "Pod", "pods").with_status()
    }

    #[test]
    fn a_pod_begins_pending_with_its_quality_of_service() {
        let resources = |requests: Value, limits: Value| {
            let mut pod = json!({"spec": {"containers": [{"resources": {"requests": requests, "limits": limits}}]}, "status": {"phase": "Running"}});
            prepare(&pod_kind(), &mut pod, None, "");
            assert_eq!(pod["status"]["phase"], "Pending");
            text(&pod, "/status/qosClass").to_owned()
        };
        assert_eq!(resources(json!({}), json!({})), "BestEffort");
        assert_eq!(resources(json!({"cpu": "1"}), json!({})), "Burstable");
        assert_eq!(resources(json!({}), json!({"cpu": "1", "memory": "1Gi"})), "Guaranteed");
        assert_eq!(
            resources(json!({"cpu": "500m", "memory": "1Gi"}), json!({"cpu": "1", "memory": "1Gi"})),
            "Burstable"
        );
    }

    #[test]
    fn each_subresource_of_a_pod_changes_its_own_part() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Pending", "qosClass": "BestEffort"}});
        let wanted = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "status": {"phase": "Running"}, "spec": {
            "containers": [{"name": "c", "image": "j", "resources": {"limits": {"cpu": "1"}}}], "ephemeralContainers": [{"name": "e"}]}});
        let through = |subresource: &str| {
            let mut new = wanted.clone();
            prepare(&pod_kind(), &mut new, Some(&old), subresource);
            new
        };
        let status = through("status");
        assert_eq!(
            (&status["spec"], &status["status"]),
            (&old["spec"], &json!({"phase": "Running", "qosClass": "BestEffort"}))
        );
        let ephemeral = through("ephemeralcontainers");
        assert_eq!(ephemeral["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(ephemeral["spec"]["ephemeralContainers"], json!([{"name": "e"}]));
        let resized = through("resize");
        assert_eq!(
            resized["spec"]["containers"],
            json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}])
        );
        assert_eq!(through("")["status"], old["status"]);
    }

    #[test]
    fn the_service_account_token_is_mounted_once_and_on_request_not() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_service_account_token(&mut pod, "abcde");
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        let once = pod.clone();
        mount_service_account_token(&mut pod, "fghij");
        assert_eq!(pod, once);
        let mut without = json!({"spec": {"automountServiceAccountToken": false, "containers": [{"name": "a"}]}});
        mount_service_account_token(&mut without, "abcde");
        assert_eq!(without["spec"].get("volumes"), None);
    }
}
