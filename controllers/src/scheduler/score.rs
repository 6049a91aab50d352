//! Among the nodes that fit, the one to take: the lowest score.

use super::cache::NodeState;
use super::filter::{matches_term, tolerates};
use super::uid;
use crate::meta::controller_of;
use crate::random::fnv1a_64;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::cmp::Reverse;

/// Compared from left to right: taints that would rather not, wishes of the pod, siblings on the node, pods on the node, chance.
pub(super) type Score = (usize, Reverse<i32>, usize, usize, u64);

/// The score of a node that fits; `preference` is what the rules between pods add to the pod's own wishes.
pub(super) fn score(pod: &Pod, node: &Node, state: &NodeState, preference: i32, seed: u64) -> Score {
    let spec = pod.spec.as_ref();
    let tolerations = || spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let unwelcome = taints
        .filter(|taint| {
            taint.effect == "PreferNoSchedule" && !tolerations().any(|toleration| tolerates(toleration, taint))
        })
        .count();
    let affinity = spec.and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity
        .iter()
        .flat_map(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let wishes: i32 = preferred.filter(|term| matches_term(&term.preference, node)).map(|term| term.weight).sum();
    let siblings = controller_of(&pod.metadata).and_then(|owner| state.owners.get(&owner.uid)).copied().unwrap_or(0);
    // Neither the order in which pods come nor the names of nodes decide between equals: only the seed.
    let chance = format!("{seed}/{}/{}", node.metadata.name.as_deref().unwrap_or_default(), tie(pod));
    (unwelcome, Reverse(wishes.saturating_add(preference)), siblings, state.pods.len(), fnv1a_64(chance.as_bytes()))
}

fn tie(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_else(|| uid(pod))
}
