//! What is said beside the answer to a valid write of a Service, a workload, a volume, …: what is deprecated, ignored or ambiguous.
//!
//! A pod's own are in [`super::pod`]. The texts are upstream's, since users search for them.

use super::json::{equal, int, list, object, present, text, texts};
use super::names::{self, Cidr};
use super::pod::warnings::{fraction, template, term_labels};
use crate::registry::ResourceKind;
use serde_json::Value;
use std::net::{IpAddr, Ipv6Addr};

const NODE_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// What is to be used in place of an old label of nodes.
pub(super) fn label_replaced_by(key: &str) -> Option<String> {
    let (_, since, new) = NODE_LABELS.into_iter().find(|(old, ..)| *old == key)?;
    Some(format!("deprecated since {since}; use {new:?} instead"))
}

/// About an address that is not written in the one form.
fn ip(field: &str, value: &str, said: &mut Vec<String>) {
    if let Ok(address) = value.parse::<Ipv6Addr>() {
        if let Some(mapped) = address.to_ipv4_mapped() {
            let why =
                format!("non-standard IP address {value:?} will be considered invalid in a future Kubernetes release");
            said.push(format!("{field}: {why}: use {:?}", mapped.to_string()));
        } else if address.to_string() != value {
            said.push(format!(
                "{field}: IPv6 address {value:?} should be in RFC 5952 canonical format ({:?})",
                address.to_string()
            ));
        }
    }
}

/// About a network with bits of a host in it.
fn network(field: &str, value: &str, said: &mut Vec<String>) {
    let Some(cidr) = Cidr::parse(value) else { return };
    let (first, bits) = (cidr.nth(0), if cidr.address.is_ipv4() { 32 } else { 128 });
    if first != cidr.address {
        let (whole, one) = (format!("{first}/{}", cidr.prefix), format!("{}/{bits}", cidr.address));
        said.push(format!(
            "{field}: CIDR value {value:?} is ambiguous in this context (should be {whole:?} or {one:?}?)"
        ));
    } else if let IpAddr::V6(_) = cidr.address
        && cidr.to_string() != value
    {
        let canonical = cidr.to_string();
        said.push(format!("{field}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({canonical:?})"));
    }
}

/// Service.
pub(super) fn service(_: &ResourceKind, service: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    let at = |name: &str| text(service, &format!("/spec/{name}"));
    let external_ips = texts(service, "/spec/externalIPs");
    let (headless, named) = (at("type") == "ClusterIP" && at("clusterIP") == "None", at("type") == "ExternalName");
    if object(service, "/metadata/annotations")
        .is_some_and(|all| all.contains_key("service.kubernetes.io/topology-aware-hints"))
    {
        let key = "service.kubernetes.io/topology-aware-hints";
        said.push(format!("annotation {key} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    for (index, address) in texts(service, "/spec/clusterIPs").into_iter().enumerate() {
        ip(&format!("spec.clusterIPs[{index}]"), address, &mut said);
    }
    if headless {
        let affinity = !matches!(at("sessionAffinity"), "" | "None");
        let ignored = [
            ("loadBalancerIP", !at("loadBalancerIP").is_empty()),
            ("externalIPs", !external_ips.is_empty()),
            ("SessionAffinity", affinity),
        ];
        let ignored = ignored.into_iter().filter(|(_, set)| *set);
        said.extend(ignored.map(|(name, _)| format!("spec.{name} is ignored for headless services")));
    }
    for (index, address) in external_ips.iter().enumerate() {
        ip(&format!("spec.externalIPs[{index}]"), address, &mut said);
    }
    if !external_ips.is_empty() && !headless && !named {
        said.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    ip("spec.loadBalancerIP", at("loadBalancerIP"), &mut said);
    for (index, range) in texts(service, "/spec/loadBalancerSourceRanges").into_iter().enumerate() {
        network(&format!("spec.loadBalancerSourceRanges[{index}]"), range, &mut said);
    }
    if named && !external_ips.is_empty() {
        said.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !at("externalName").is_empty() {
        said.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    // Ours: better told at once than looked for in packets.
    for (index, port) in list(service, "/spec/ports").iter().enumerate() {
        if text(port, "/protocol") == "SCTP" && !headless && !named {
            said.push(format!(
                "spec.ports[{index}].protocol: SCTP is carried by port between pods that speak it; pods that run in this process do not, and refuse it; node ports and load balancers do not carry it from the machine"
            ));
        }
    }
    if at("trafficDistribution") == "PreferClose" {
        said.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    said
}

/// Whatever makes pods of `spec.template`: about its name when it is new, about the template whenever the spec changes.
pub(super) fn workload(kind: &ResourceKind, workload: &Value, old: Option<&Value>) -> Vec<String> {
    of_template(kind, workload, old, "/spec/template", "spec.template.")
}

/// CronJob.
pub(super) fn cron_job(kind: &ResourceKind, job: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = of_template(kind, job, old, "/spec/jobTemplate/spec/template", "spec.jobTemplate.spec.template.");
    if text(job, "/spec/schedule").contains("TZ") {
        said.push(
            "CRON_TZ or TZ used in spec.schedule is not officially supported, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
    said
}

fn of_template(kind: &ResourceKind, workload: &Value, old: Option<&Value>, pointer: &str, field: &str) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_some_and(|old| equal(&old["spec"], &workload["spec"])) {
        return said;
    }
    let complaints = names::dns_label(text(workload, "/metadata/name"));
    if old.is_none() && kind.kind != "StatefulSet" && !complaints.is_empty() {
        said.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            complaints.join(" ")
        ));
    }
    if let Some(pod) = present(workload, pointer) {
        template(field, pod, &mut said);
    }
    if kind.kind == "StatefulSet" {
        for (index, claim) in list(workload, "/spec/volumeClaimTemplates").iter().enumerate() {
            let field = format!("spec.volumeClaimTemplates[{index}].spec.resources.requests");
            fraction(&field, claim, "/spec/resources/requests", "storage", &mut said);
        }
        if int(workload, "/spec/revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
            said.push(format!("spec.revisionHistoryLimit: {why}"));
        }
    }
    said
}

/// PersistentVolumeClaim.
pub(super) fn claim(_: &ResourceKind, claim: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    fraction("spec.resources.requests", claim, "/spec/resources/requests", "storage", &mut said);
    said
}

/// PersistentVolume.
pub(super) fn volume(_: &ResourceKind, volume: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    for (key, instead) in [
        ("volume.beta.kubernetes.io/storage-class", "storageClassName"),
        ("volume.beta.kubernetes.io/mount-options", "mountOptions"),
    ] {
        if object(volume, "/metadata/annotations").is_some_and(|all| all.contains_key(key)) {
            let why = if instead == "storageClassName" { "deprecated since v1.8" } else { "deprecated since v1.31" };
            said.push(format!("metadata.annotations[{key}]: {why}; use {instead:?} attribute instead"));
        }
    }
    if text(volume, "/spec/persistentVolumeReclaimPolicy") == "Recycle" {
        said.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use \
             dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = list(volume, "/spec/nodeAffinity/required/nodeSelectorTerms");
    for (index, term) in terms.iter().enumerate() {
        term_labels(&format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}]"), term, &mut said);
    }
    fraction("spec.capacity", volume, "/spec/capacity", "storage", &mut said);
    said
}

/// StorageClass.
pub(super) fn storage_class(_: &ResourceKind, class: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    for (index, topology) in list(class, "/allowedTopologies").iter().enumerate() {
        for (inner, expression) in list(topology, "/matchLabelExpressions").iter().enumerate() {
            let key = text(expression, "/key");
            if let Some(why) = label_replaced_by(key) {
                said.push(format!("allowedTopologies[{index}].matchLabelExpressions[{inner}].key: {key} is {why}"));
            }
        }
    }
    said
}

/// Ingress.
pub(super) fn ingress(_: &ResourceKind, ingress: &Value, old: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/ingress.class";
    let annotated = object(ingress, "/metadata/annotations").is_some_and(|all| all.contains_key(key));
    if old.is_none() && annotated {
        return vec![format!("annotation {key:?} is deprecated, please use 'spec.ingressClassName' instead")];
    }
    Vec::new()
}

/// NetworkPolicy.
pub(super) fn network_policy(_: &ResourceKind, policy: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (rule_index, rule) in list(policy, &format!("/spec/{direction}")).iter().enumerate() {
            for (index, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                let field = format!("spec.{direction}[{rule_index}].{peers}[{index}].ipBlock");
                network(&format!("{field}.cidr"), text(peer, "/ipBlock/cidr"), &mut said);
                for (index, except) in texts(peer, "/ipBlock/except").into_iter().enumerate() {
                    network(&format!("{field}.except[{index}]"), except, &mut said);
                }
            }
        }
    }
    said
}

/// ServiceAccount.
pub(super) fn service_account(_: &ResourceKind, account: &Value, _: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/enforce-mountable-secrets";
    if object(account, "/metadata/annotations").is_some_and(|all| all.contains_key(key)) {
        let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        return vec![format!("metadata.annotations[{key}]: {why}")];
    }
    Vec::new()
}

/// Node.
pub(super) fn node(_: &ResourceKind, node: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    if present(node, "/spec/configSource").is_some() {
        said.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(node, "/spec/externalID").is_empty() {
        said.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    said
}

/// Kinds that are kept although nobody acts on them here.
pub(super) fn not_acted_on(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    let what = match &*kind.kind {
        "CustomResourceDefinition" => "is stored, but its resources are not served",
        "APIService" if present(object, "/spec/service").is_none() => return Vec::new(),
        "APIService" => "is stored, but requests are not passed on to its service",
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            "is stored, but its webhooks are not called"
        }
        _ => "is stored, but not enforced",
    };
    if old.is_some() {
        return Vec::new();
    }
    vec![format!("this server has no use for a {} yet: it {what}", kind.kind)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn any() -> ResourceKind {
        ResourceKind::new("apps", "v1", "Deployment", "deployments")
    }

    #[test]
    fn what_a_service_ignores_is_pointed_out() {
        let said = |spec: Value| service(&any(), &json!({"spec": spec}), None);
        assert_eq!(
            said(
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP", "externalName": "x",
                "externalIPs": ["2001:DB8::1"], "loadBalancerSourceRanges": ["10.1.2.3/8"], "trafficDistribution": "PreferClose"})
            ),
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.loadBalancerSourceRanges[0]: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \
                 \"10.1.2.3/32\"?)",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
        assert_eq!(
            said(json!({"type": "NodePort", "externalIPs": ["192.0.2.1"]})),
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"]
        );
    }

    #[test]
    fn a_workload_is_told_about_its_template_when_its_spec_changes() {
        let object = |replicas: u32| json!({"metadata": {"name": "a.b"}, "spec": {"replicas": replicas, "template": {"spec": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}}}});
        let label = "spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead";
        let name = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
            recommended: [must not contain dots]";
        assert_eq!(workload(&any(), &object(1), None), [name, label]);
        assert_eq!(workload(&any(), &object(2), Some(&object(1))), [label]);
        assert_eq!(workload(&any(), &object(1), Some(&object(1))), Vec::<String>::new());
    }

    #[test]
    fn deprecated_ways_of_other_kinds_are_pointed_out() {
        let annotated = |key: &str| json!({"metadata": {"annotations": {key: "x"}}});
        assert_eq!(
            ingress(&any(), &annotated("kubernetes.io/ingress.class"), None),
            ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
        );
        let volume_of = json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle"}});
        assert_eq!(volume(&any(), &volume_of, None).len(), 1);
        let policy =
            json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.0.0/16"]}}]}]}});
        assert_eq!(
            network_policy(&any(), &policy, None),
            [
                "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
            ]
        );
    }
}
