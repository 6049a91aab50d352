//! Which nodes a DaemonSet's pod belongs on, and how a pod is tied to its node.

use crate::pods::node_name;
use crate::scheduler::filter::{matches_affinity, tolerates};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

/// Taints that do not keep daemons away: they are what makes a node work again.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a node gets a pod, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) should_run: bool,
    pub(super) may_stay: bool,
}

pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let node_name = node.metadata.name.as_deref().unwrap_or_default();
    if template.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != node_name) {
        return Fit { should_run: false, may_stay: false };
    }
    let pod = Pod { spec: Some(template), ..Pod::default() };
    if !matches_affinity(&pod, node) {
        return Fit { should_run: false, may_stay: false };
    }
    let mut spec = pod.spec.unwrap_or_default();
    tolerate(&mut spec);
    let tolerations = spec.tolerations.unwrap_or_default();
    let cordon = node.spec.iter().filter(|spec| spec.unschedulable == Some(true)).map(|_| Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    });
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).cloned();
    let unwelcome: Vec<Taint> = taints
        .chain(cordon)
        .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .collect();
    let has = |effect: &str| unwelcome.iter().any(|taint| taint.effect == effect);
    Fit { should_run: !has("NoSchedule") && !has("NoExecute"), may_stay: !has("NoExecute") }
}

fn tolerate(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host.then_some(NETWORK_UNAVAILABLE)) {
        let known = |known: &Toleration| known.key.as_deref() == Some(key) && known.effect.as_deref() == Some(effect);
        if !tolerations.iter().any(known) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
}

/// Lets the scheduler bind the pod to this node only.
pub(super) fn tie(pod: &mut Pod, node: &str) {
    let spec = pod.spec.get_or_insert_default();
    tolerate(spec);
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = &mut affinity.required_during_scheduling_ignored_during_execution;
    let terms = required.take().map(|required| required.node_selector_terms).unwrap_or_default();
    let terms = if terms.is_empty() { vec![NodeSelectorTerm::default()] } else { terms };
    let tied = terms.into_iter().map(|term| NodeSelectorTerm { match_fields: Some(vec![requirement.clone()]), ..term });
    *required = Some(NodeSelector { node_selector_terms: tied.collect() });
}

/// The node a daemon pod is on, or tied to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let tied = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        let field = fields.find(|field| field.key == "metadata.name")?;
        field.values.as_ref()?.first().map(String::as_str)
    };
    node_name(pod).or_else(tied)
}
