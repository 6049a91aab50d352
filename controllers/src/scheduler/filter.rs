//! Can this node run this pod, and if not, in kube-scheduler's words why.

use super::cache::NodeState;
use super::quantity::Resources;
use crate::endpoint_slice::desired::protocol;
use crate::meta::labels;
use k8s_openapi::api::core::v1::{
    ContainerPort, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use std::collections::BTreeMap;
use std::fmt;

/// A pod and what it asks for.
pub(super) struct Wanted<'a> {
    pub(super) pod: &'a Pod,
    pub(super) requests: Resources,
}

/// Why a node does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    text: String,
    /// Whether the node would fit if pods went away.
    is_occupied: bool,
}

impl Reason {
    pub(super) fn firm(text: impl Into<String>) -> Self {
        Reason { text: text.into(), is_occupied: false }
    }

    pub(super) fn occupied(text: impl Into<String>) -> Self {
        Reason { text: text.into(), is_occupied: true }
    }
}

/// Why a pod fits nowhere: the reasons of every node.
#[derive(Debug)]
pub(super) struct Unschedulable(pub(super) Vec<Vec<Reason>>);

impl fmt::Display for Unschedulable {
    /// As kube-scheduler says it: `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.0.len();
        if nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let count = |texts: &mut dyn Iterator<Item = &str>| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            texts.for_each(|text| *counts.entry(text).or_insert(0) += 1);
            let mut lines: Vec<String> = counts.into_iter().map(|(text, count)| format!("{count} {text}")).collect();
            lines.sort();
            lines.join(", ")
        };
        let reasons = count(&mut self.0.iter().flatten().map(|reason| reason.text.as_str()));
        let preemption = count(&mut self.0.iter().map(|reasons| {
            if reasons.iter().any(|reason| reason.is_occupied) {
                "No preemption victims found for incoming pod."
            } else {
                "Preemption is not helpful for scheduling."
            }
        }));
        write!(f, "0/{nodes} nodes are available: {reasons}. ")?;
        write!(f, "preemption: 0/{nodes} nodes are available: {preemption}")
    }
}

/// Whether the pod can run on the node, in the order in which kube-scheduler asks.
pub(super) fn fits(wanted: &Wanted<'_>, node: &Node, state: &NodeState) -> Result<(), Vec<Reason>> {
    let pod = wanted.pod;
    let tolerations: Vec<&Toleration> = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        let cordoned =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !tolerations.iter().any(|toleration| tolerates(toleration, &cordoned)) {
            return Err(vec![Reason::firm("node(s) were unschedulable")]);
        }
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    for taint in taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")) {
        if !tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
            return Err(vec![Reason::firm("node(s) had untolerated taint(s)")]);
        }
    }
    if !matches_affinity(pod, node) {
        return Err(vec![Reason::firm("node(s) didn't match Pod's node affinity/selector")]);
    }
    if has_port_conflict(pod, state) {
        return Err(vec![Reason::occupied("node(s) didn't have free ports for the requested pod ports")]);
    }
    let lacking = lacking_resources(&wanted.requests, state);
    if lacking.is_empty() { Ok(()) } else { Err(lacking) }
}

fn lacking_resources(requests: &Resources, state: &NodeState) -> Vec<Reason> {
    // A node that says nothing about its size is taken to be large enough.
    let Some(allocatable) = &state.allocatable else { return vec![] };
    let mut lacking = vec![];
    let pods = i128::try_from(state.pods.len()).unwrap_or(i128::MAX);
    if allocatable.get("pods").is_some_and(|most| (pods + 1) * 1000 > *most) {
        lacking.push(Reason::occupied("Too many pods"));
    }
    for (name, amount) in requests {
        let there = allocatable.get(name).copied().unwrap_or(0);
        let used = state.used.get(name).copied().unwrap_or(0);
        if used + amount > there {
            let text = format!("Insufficient {name}");
            // More than the whole node: nothing that goes away would help.
            lacking.push(if *amount > there { Reason::firm(text) } else { Reason::occupied(text) });
        }
    }
    lacking
}

/// Whether the toleration covers the taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if !text(&toleration.effect).is_empty() && text(&toleration.effect) != taint.effect {
        return false;
    }
    let key = text(&toleration.key);
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// `nodeSelector` and the required node affinity.
pub(crate) fn matches_affinity(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let of_node = labels(&node.metadata);
    if !spec.node_selector.iter().flatten().all(|(key, value)| of_node.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// Whether all requirements of a term hold; a term without any matches nothing.
pub(super) fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| labels(&node.metadata).get(key).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    expressions.iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| holds(requirement, field(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers().is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

fn has_port_conflict(pod: &Pod, state: &NodeState) -> bool {
    let wanted: Vec<HostPort<'_>> = host_ports(pod).collect();
    !wanted.is_empty()
        && state
            .pods
            .values()
            .flat_map(|placed| host_ports(&placed.pod))
            .any(|taken| wanted.iter().any(|port| port.conflicts(&taken)))
}

#[derive(Clone, Copy)]
struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: i32,
}

impl HostPort<'_> {
    /// The same port and protocol at the same address; 0.0.0.0 is every address.
    fn conflicts(&self, other: &HostPort<'_>) -> bool {
        const ANY: [&str; 3] = ["", "0.0.0.0", "::"];
        let same_ip = self.ip == other.ip || ANY.contains(&self.ip) || ANY.contains(&other.ip);
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let ports =
        pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(move |port: &ContainerPort| {
        let number = port.host_port.filter(|port| *port > 0).or(on_host.then_some(port.container_port))?;
        Some(HostPort {
            ip: port.host_ip.as_deref().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref()),
            port: number,
        })
    })
}
