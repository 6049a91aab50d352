//! Rules between pods: affinity, anti-affinity and topology spread.
//!
//! Computed once per pod over all nodes, then asked per node. A domain is one value of one node label.
//!
//! Follows KEP-895 (pod topology spread), KEP-3022 (minDomains), KEP-3094 (node inclusion policies) and the inter-pod
//! affinity of kube-scheduler.

use super::cache::NodeState;
use super::filter::{Reason, matches_affinity, tolerates};
use crate::meta::{labels, selects};
use crate::pods::is_terminating;
use informer::Informer;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodAffinityTerm, Taint, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, HashMap};

/// Node label and its value.
type Domain = (String, String);

/// What the pods that are there mean for one pod that comes.
#[derive(Default)]
pub(super) struct Rules {
    /// Required affinity: topology keys, and in which domains pods match all terms together.
    near: Option<Near>,
    /// Domains with a pod that this one may not be near.
    avoided: HashMap<Domain, ()>,
    /// Domains with a pod that does not want this one near.
    avoiding: HashMap<Domain, ()>,
    spread: Vec<Spread>,
    /// Weighted wishes, for and against.
    wishes: HashMap<Domain, i32>,
}

struct Near {
    keys: Vec<String>,
    domains: HashMap<Domain, usize>,
    /// No pod matches anywhere, but this one matches itself: somebody has to be the first.
    is_first: bool,
}

struct Spread {
    key: String,
    max_skew: i32,
    counts: HashMap<String, i32>,
    least: i32,
    counts_itself: i32,
    is_required: bool,
}

/// Whether a pod has required anti-affinity of its own, which others must respect.
pub(super) fn keeps_others_away(pod: &Pod) -> bool {
    !anti_terms(pod).is_empty()
}

fn anti_terms(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref());
    terms.unwrap_or_default()
}

fn domain(node: &Node, key: &str) -> Option<Domain> {
    Some((key.to_owned(), labels(&node.metadata).get(key)?.clone()))
}

impl Rules {
    /// The rules for `pod` among the pods on `nodes`; `has_loners` if any of those keeps others away.
    pub(super) fn new(
        pod: &Pod,
        nodes: &BTreeMap<String, NodeState>,
        namespaces: &Informer<Namespace>,
        has_loners: bool,
    ) -> Self {
        let mut rules = Rules::default();
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let constraints = spec.and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
        if near.is_none() && far.is_none() && constraints.is_empty() && !has_loners {
            return rules;
        }
        let placed = || {
            let known = nodes.values().filter_map(|state| Some((state.node.as_deref()?, state)));
            known.flat_map(|(node, state)| state.pods.values().map(move |placed| (node, &*placed.pod)))
        };
        let required = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_deref());
        if let Some(terms) = required.filter(|terms| !terms.is_empty()) {
            let all = |other: &Pod| terms.iter().all(|term| matches(term, pod, other, namespaces));
            let mut domains: HashMap<Domain, usize> = HashMap::new();
            for (node, _) in placed().filter(|(_, other)| all(other)) {
                for domain in terms.iter().filter_map(|term| domain(node, &term.topology_key)) {
                    *domains.entry(domain).or_insert(0) += 1;
                }
            }
            let is_first = domains.is_empty() && all(pod);
            let keys = terms.iter().map(|term| term.topology_key.clone()).collect();
            rules.near = Some(Near { keys, domains, is_first });
        }
        for term in anti_terms(pod) {
            let matching = placed().filter(|(_, other)| matches(term, pod, other, namespaces));
            rules.avoided.extend(matching.filter_map(|(node, _)| Some((domain(node, &term.topology_key)?, ()))));
        }
        if has_loners {
            for (node, other) in placed() {
                for term in anti_terms(other).iter().filter(|term| matches(term, other, pod, namespaces)) {
                    rules.avoiding.extend(domain(node, &term.topology_key).map(|domain| (domain, ())));
                }
            }
        }
        let wishes = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let fears = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref());
        let wishes = wishes.into_iter().flatten().map(|term| (&term.pod_affinity_term, term.weight));
        let fears = fears.into_iter().flatten().map(|term| (&term.pod_affinity_term, -term.weight));
        for (term, weight) in wishes.chain(fears) {
            for (node, _) in placed().filter(|(_, other)| matches(term, pod, other, namespaces)) {
                if let Some(domain) = domain(node, &term.topology_key) {
                    *rules.wishes.entry(domain).or_insert(0) += weight;
                }
            }
        }
        rules.spread = constraints.iter().map(|constraint| Spread::new(constraint, pod, nodes, constraints)).collect();
        rules
    }

    /// Why the node is ruled out, if it is.
    pub(super) fn check(&self, node: &Node) -> Result<(), Reason> {
        for spread in self.spread.iter().filter(|spread| spread.is_required) {
            match labels(&node.metadata).get(&spread.key) {
                None => {
                    let text = "node(s) didn't match pod topology spread constraints (missing required label)";
                    return Err(Reason::firm(text));
                }
                Some(value) if spread.skew(value) > spread.max_skew => {
                    return Err(Reason::occupied("node(s) didn't match pod topology spread constraints"));
                }
                Some(_) => {}
            }
        }
        if let Some(near) = &self.near {
            let is_met = near
                .keys
                .iter()
                .all(|key| domain(node, key).is_some_and(|domain| near.is_first || near.domains.contains_key(&domain)));
            if !is_met {
                return Err(Reason::firm("node(s) didn't match pod affinity rules"));
            }
        }
        let of_node = |domains: &HashMap<Domain, ()>| {
            domains.keys().any(|(key, value)| labels(&node.metadata).get(key) == Some(value))
        };
        if of_node(&self.avoided) {
            return Err(Reason::occupied("node(s) didn't match pod anti-affinity rules"));
        }
        if of_node(&self.avoiding) {
            return Err(Reason::occupied("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    /// How much the pod wants this node: more is better.
    pub(super) fn preference(&self, node: &Node) -> i32 {
        let labels = labels(&node.metadata);
        let wishes = self.wishes.iter().filter(|((key, value), _)| labels.get(key) == Some(value));
        let crowding = self.spread.iter().filter_map(|spread| Some(spread.skew(labels.get(&spread.key)?)));
        wishes.map(|(_, weight)| weight).sum::<i32>() - crowding.sum::<i32>()
    }
}

impl Spread {
    fn new(
        constraint: &TopologySpreadConstraint,
        pod: &Pod,
        nodes: &BTreeMap<String, NodeState>,
        all: &[TopologySpreadConstraint],
    ) -> Self {
        let is_required = constraint.when_unsatisfiable == "DoNotSchedule";
        let selector =
            with_label_keys(constraint.label_selector.as_ref(), constraint.match_label_keys.as_deref(), &[], pod);
        let counts_in = |other: &Pod| {
            other.metadata.namespace == pod.metadata.namespace
                && !is_terminating(other)
                && selector.as_ref().is_some_and(|selector| selects(selector, labels(&other.metadata)))
        };
        let honours =
            |policy: &Option<String>, default: bool| policy.as_deref().map_or(default, |policy| policy == "Honor");
        let tolerations = || pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
        let is_welcome = |taint: &&Taint| {
            taint.effect == "PreferNoSchedule" || tolerations().any(|toleration| tolerates(toleration, taint))
        };
        let mut counts: HashMap<String, i32> = HashMap::new();
        for state in nodes.values() {
            let Some(node) = state.node.as_deref() else { continue };
            let labels = labels(&node.metadata);
            let is_complete = all.iter().all(|constraint| labels.contains_key(&constraint.topology_key));
            let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            if !is_complete
                || honours(&constraint.node_affinity_policy, true) && !matches_affinity(pod, node)
                || honours(&constraint.node_taints_policy, false) && !taints.all(|taint| is_welcome(&taint))
            {
                continue;
            }
            let here = state.pods.values().filter(|placed| counts_in(&placed.pod)).count();
            let Some(value) = labels.get(&constraint.topology_key) else { continue };
            *counts.entry(value.clone()).or_insert(0) += i32::try_from(here).unwrap_or(i32::MAX);
        }
        let enough =
            constraint.min_domains.is_none_or(|least| usize::try_from(least).is_ok_and(|least| counts.len() >= least));
        let least = if enough { counts.values().min().copied().unwrap_or(0) } else { 0 };
        Spread {
            key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew,
            least,
            counts,
            counts_itself: i32::from(
                selector.as_ref().is_some_and(|selector| selects(selector, labels(&pod.metadata))),
            ),
            is_required,
        }
    }

    /// How far this domain would be ahead of the emptiest with the pod in it.
    fn skew(&self, value: &str) -> i32 {
        self.counts.get(value).copied().unwrap_or(0) + self.counts_itself - self.least
    }
}

/// Whether `other` is meant by a term of `owner`.
fn matches(term: &PodAffinityTerm, owner: &Pod, other: &Pod, namespaces: &Informer<Namespace>) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if listed.is_empty() => owner.metadata.namespace == other.metadata.namespace,
        None => listed.iter().any(|name| name == namespace),
        Some(selector) => {
            listed.iter().any(|name| name == namespace)
                || namespaces.get("", namespace).is_some_and(|known| selects(selector, labels(&known.metadata)))
                || *selector == LabelSelector::default()
        }
    };
    let keys = term.match_label_keys.as_deref();
    let mismatched = term.mismatch_label_keys.as_deref().unwrap_or_default();
    let selector = with_label_keys(term.label_selector.as_ref(), keys, mismatched, owner);
    in_namespace && selector.is_some_and(|selector| selects(&selector, labels(&other.metadata)))
}

/// The selector with the pod's own values of the named labels added (KEP-3633); no selector selects nothing.
fn with_label_keys(
    selector: Option<&LabelSelector>,
    keys: Option<&[String]>,
    mismatched: &[String],
    pod: &Pod,
) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    let own = labels(&pod.metadata);
    for key in keys.unwrap_or_default() {
        if let Some(value) = own.get(key) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    for key in mismatched {
        if let Some(value) = own.get(key) {
            let requirement = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                key: key.clone(),
                operator: "NotIn".to_owned(),
                values: Some(vec![value.clone()]),
            };
            selector.match_expressions.get_or_insert_default().push(requirement);
        }
    }
    Some(selector)
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
