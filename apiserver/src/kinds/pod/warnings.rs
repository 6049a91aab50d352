//! What is said to somebody whose pod is valid and yet may not do what he means: fields that hide each other, are deprecated or do nothing.
//!
//! Upstream says it when a pod is created, and for the template of a workload whenever its spec changes (`pkg/api/pod/warnings.go`).

use crate::kinds::json::{int, list, object, present, text};
use crate::kinds::names;
use crate::kinds::quantity::Quantity;
use crate::kinds::warnings::label_replaced_by;
use crate::registry::ResourceKind;
use serde_json::Value;
use std::collections::HashSet;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// About a new pod. Updates are the machinery's, and are told nothing.
pub(in crate::kinds) fn warnings(_: &ResourceKind, pod: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_none() {
        let complaints = names::dns_label(text(pod, "/metadata/name"));
        if !complaints.is_empty() {
            said.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                complaints.join(" ")
            ));
        }
        template("", pod, &mut said);
    }
    said
}

/// About a pod, or the pod template at `field` (with a dot at its end, or empty).
pub(in crate::kinds) fn template(field: &str, pod: &Value, said: &mut Vec<String>) {
    labels(field, pod, said);
    let annotated = |key: &str| object(pod, "/metadata/annotations").is_some_and(|all| all.contains_key(key));
    for (key, why) in ANNOTATIONS {
        if annotated(key) {
            said.push(format!("{field}metadata.annotations[{key}]: {why}"));
        }
    }
    volumes(field, pod, said);
    repeated(field, pod, said);
    fractions(&format!("{field}spec.overhead"), pod, "/spec/overhead", said);
    let use_field = |key: &str, what: &str, since: &str| {
        format!("{field}metadata.annotations[{key}]: {since}; use the \"{what}\" field instead")
    };
    if present(pod, "/spec/securityContext/seccompProfile").is_none() && annotated(SECCOMP_POD) {
        said.push(use_field(SECCOMP_POD, "seccompProfile", "non-functional in v1.27+"));
    }
    for (at, container) in containers(field, pod) {
        let own = text(container, "/name");
        let key = format!("{SECCOMP_CONTAINER}{own}");
        if present(container, "/securityContext/seccompProfile").is_none() && annotated(&key) {
            said.push(use_field(&key, "seccompProfile", "non-functional in v1.27+"));
        }
        let key = format!("{APP_ARMOR}{own}");
        let armored = [
            pod.pointer("/spec/securityContext/appArmorProfile"),
            container.pointer("/securityContext/appArmorProfile"),
        ];
        if !field.is_empty() && armored.iter().all(|profile| profile.is_none_or(Value::is_null)) && annotated(&key) {
            said.push(use_field(&key, "appArmorProfile", "deprecated since v1.30"));
        }
        for which in ["limits", "requests"] {
            fractions(&format!("{at}.resources.{which}"), container, &format!("/resources/{which}"), said);
        }
        environment(&at, container, said);
    }
    ports(field, pod, said);
    if int(pod, "/spec/terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        said.push(format!("{field}spec.terminationGracePeriodSeconds: {why}"));
    }
    pod_affinity(field, pod, said);
}

/// Init, regular and ephemeral containers with their paths, in upstream's order.
fn containers<'a>(field: &str, pod: &'a Value) -> Vec<(String, &'a Value)> {
    let mut all = Vec::new();
    for group in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(pod, &format!("/spec/{group}")).iter().enumerate() {
            all.push((format!("{field}spec.{group}[{index}]"), container));
        }
    }
    all
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

fn labels(field: &str, pod: &Value, said: &mut Vec<String>) {
    for (key, _) in object(pod, "/spec/nodeSelector").into_iter().flatten() {
        if let Some(why) = label_replaced_by(key) {
            said.push(format!("{field}spec.nodeSelector[{key}]: {why}"));
        }
    }
    let affinity = format!("{field}spec.affinity.nodeAffinity");
    let of = |name: &str| format!("/spec/affinity/nodeAffinity/{name}");
    for (index, term) in list(pod, &format!("{}/nodeSelectorTerms", of(REQUIRED))).iter().enumerate() {
        term_labels(&format!("{affinity}.{REQUIRED}.nodeSelectorTerms[{index}]"), term, said);
    }
    for (index, preferred) in list(pod, &of(PREFERRED)).iter().enumerate() {
        term_labels(&format!("{affinity}.{PREFERRED}[{index}].preference"), &preferred["preference"], said);
    }
    for (index, constraint) in list(pod, "/spec/topologySpreadConstraints").iter().enumerate() {
        let (at, key) = (format!("{field}spec.topologySpreadConstraints[{index}]"), text(constraint, "/topologyKey"));
        if let Some(why) = label_replaced_by(key) {
            said.push(format!("{at}.topologyKey: {key} is {why}"));
        }
        if present(constraint, "/labelSelector").is_none() {
            said.push(format!("{at}.labelSelector: {NO_SELECTOR}"));
        }
    }
}

/// About the label keys of a node selector's term at `field`.
pub(in crate::kinds) fn term_labels(field: &str, term: &Value, said: &mut Vec<String>) {
    for (index, expression) in list(term, "/matchExpressions").iter().enumerate() {
        let key = text(expression, "/key");
        if let Some(why) = label_replaced_by(key) {
            said.push(format!("{field}.matchExpressions[{index}].key: {key} is {why}"));
        }
    }
}

fn volumes(field: &str, pod: &Value, said: &mut Vec<String>) {
    for (index, volume) in list(pod, "/spec/volumes").iter().enumerate() {
        for (source, why) in VOLUMES {
            if present(volume, &format!("/{source}")).is_some() {
                let shown = if source == "storageos" { "storageOS" } else { source };
                said.push(format!("{field}spec.volumes[{index}].{shown}: {why}"));
            }
        }
        let template = "/ephemeral/volumeClaimTemplate/spec/resources/requests";
        let at = format!("{field}spec.volumes[{index}]{}", template.replace('/', "."));
        fraction(&at, volume, template, "storage", said);
    }
}

fn repeated(field: &str, pod: &Value, said: &mut Vec<String>) {
    for (list_name, part) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut known = HashSet::new();
        for (index, item) in list(pod, &format!("/spec/{list_name}")).iter().enumerate() {
            let value = text(item, &format!("/{part}"));
            if !known.insert(value) {
                said.push(format!("{field}spec.{list_name}[{index}].{part}: duplicate {part} {value:?}"));
            }
            if part == "name" && value.is_empty() {
                said.push(format!("{field}spec.{list_name}[{index}].name: invalid empty name \"\""));
            }
        }
    }
}

fn fractions(field: &str, value: &Value, pointer: &str, said: &mut Vec<String>) {
    for resource in ["memory", "ephemeral-storage"] {
        fraction(field, value, pointer, resource, said);
    }
}

/// There is no half byte.
pub(in crate::kinds) fn fraction(field: &str, value: &Value, pointer: &str, resource: &str, said: &mut Vec<String>) {
    let quantity = object(value, pointer).and_then(|all| all.get(resource)).and_then(Quantity::of);
    if let Some(quantity) = quantity.filter(|quantity| !quantity.is_whole()) {
        let shown = quantity.to_string();
        said.push(format!("{field}[{resource}]: fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

fn environment(field: &str, container: &Value, said: &mut Vec<String>) {
    let mut known = HashSet::new();
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let own = text(variable, "/name");
        if known.insert(own) {
            continue;
        }
        // Adding to what was there (`$(X)123`) is what repetition is good for.
        let (reference, value) = (format!("$({own})"), text(variable, "/value"));
        if present(variable, "/valueFrom").is_some() || value == reference || !value.contains(&reference) {
            let why = format!("hides previous definition of {own:?}, which may be dropped when using apply");
            said.push(format!("{field}.env[{index}]: {why}"));
        }
    }
}

fn ports(field: &str, pod: &Value, said: &mut Vec<String>) {
    let mut known: Vec<(String, &Value)> = Vec::new();
    for (at, container) in containers(field, pod) {
        for (index, port) in list(container, "/ports").iter().enumerate() {
            let at = format!("{at}.ports[{index}]");
            let (ip, host) = (text(port, "/hostIP"), int(port, "/hostPort").unwrap_or_default());
            let number = int(port, "/containerPort").unwrap_or_default();
            if !ip.is_empty() && host == 0 {
                let (own, protocol) = (text(port, "/name"), text(port, "/protocol"));
                said.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{own} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let same = |other: &Value| {
                int(other, "/containerPort") == int(port, "/containerPort")
                    && text(other, "/protocol") == text(port, "/protocol")
            };
            for (before, other) in known.iter().filter(|(_, other)| same(other)) {
                let (other_ip, other_host) = (text(other, "/hostIP"), int(other, "/hostPort").unwrap_or_default());
                let what = if (ip, host) == (other_ip, other_host) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                said.push(format!("{at}: {what} port definition with {before}"));
            }
            known.push((at, port));
        }
    }
}

fn pod_affinity(field: &str, pod: &Value, said: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (name, inner) in [(REQUIRED, ""), (PREFERRED, "podAffinityTerm")] {
            for (index, term) in list(pod, &format!("/spec/affinity/{kind}/{name}")).iter().enumerate() {
                let term = if inner.is_empty() { term } else { &term[inner] };
                if present(term, "/labelSelector").is_none() {
                    let dot = if inner.is_empty() { "" } else { "." };
                    let at = format!("{field}spec.affinity.{kind}.{name}[{index}]{dot}{inner}.labelSelector");
                    said.push(format!("{at}: {NO_SELECTOR}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn said(spec: Value, expected: &[&str]) {
        let kind = ResourceKind::new("", "v1", "Pod", "pods");
        let pod = json!({"metadata": {"name": "web", "annotations": {
            "scheduler.alpha.kubernetes.io/critical-pod": "", "container.seccomp.security.alpha.kubernetes.io/z": ""}}, "spec": spec});
        let annotation = "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
            \"priorityClassName\" field instead";
        let mut found = warnings(&kind, &pod, None);
        assert!(found.iter().any(|warning| warning == annotation));
        found.retain(|warning| warning != annotation);
        assert_eq!(found, expected);
        assert_eq!(warnings(&kind, &pod, Some(&pod)), Vec::<String>::new(), "nobody is told on an update");
    }

    #[test]
    fn definitions_that_hide_each_other_are_pointed_out() {
        said(
            json!({"containers": [
                {"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "$(X)2"}, {"name": "X", "value": "3"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]},
                {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 8080}]}],
                "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}], "imagePullSecrets": [{"name": ""}]}),
            &[
                "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                "spec.containers[0].env[2]: hides previous definition of \"X\", which may be dropped when using apply",
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
            ],
        );
    }

    #[test]
    fn old_labels_half_bytes_and_selectors_that_select_nothing_are_pointed_out() {
        said(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
                "containers": [{"name": "a", "resources": {"requests": {"memory": "100m"}}}],
                "volumes": [{"name": "v", "gitRepo": {}}],
                "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}}}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \
                 \"topology.kubernetes.io/zone\" instead",
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.volumes[0].gitRepo: deprecated in v1.11",
                "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null \
                 labelSelector results in matching no pod",
            ],
        );
    }
}
