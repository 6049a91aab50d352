//! What the scheduler knows of nodes: which pods are on them, or will be, and what they use.

use super::filter::{self, Reason, Unschedulable};
use super::quantity::{Resources, milli, requests};
use super::{score, topology, uid};
use crate::meta::controller_of;
use crate::pods::{is_terminal, node_name};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Nodes and the pods placed on them.
pub(super) struct Cache {
    namespaces: Informer<Namespace>,
    nodes: BTreeMap<String, NodeState>,
    /// The node of each pod, by uid.
    placed: HashMap<String, String>,
    /// How many of the pods keep others away.
    loners: usize,
}

/// A node and what is on it.
#[derive(Default)]
pub(super) struct NodeState {
    /// Nothing as long as only its pods have been seen.
    pub(super) node: Option<Arc<Node>>,
    pub(super) allocatable: Option<Resources>,
    pub(super) used: Resources,
    pub(super) pods: BTreeMap<String, Placed>,
    /// Pods per controller.
    pub(super) owners: HashMap<String, usize>,
}

pub(super) struct Placed {
    pub(super) pod: Arc<Pod>,
    requests: Resources,
    is_assumed: bool,
}

impl Cache {
    /// Knows nothing yet. The namespaces' labels matter to pods that want to be near others.
    pub(super) fn new(namespaces: Informer<Namespace>) -> Self {
        Cache { namespaces, nodes: BTreeMap::new(), placed: HashMap::new(), loners: 0 }
    }

    /// Takes in a change of a node; true if pods that fitted nowhere may fit now.
    pub(super) fn node(&mut self, update: &Update<Node>) -> bool {
        let name = update.object().metadata.name.clone().unwrap_or_default();
        let state = self.nodes.entry(name.clone()).or_default();
        match update {
            Update::Applied(node) => {
                let matters = |node: &Node| {
                    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
                    (node.metadata.labels.clone(), node.spec.clone(), allocatable)
                };
                let changed = state.node.as_ref().is_none_or(|known| matters(known) != matters(node));
                state.allocatable =
                    node.status.as_ref().and_then(|status| status.allocatable.as_ref()).map(|allocatable| {
                        allocatable.iter().map(|(name, quantity)| (name.clone(), milli(quantity))).collect()
                    });
                state.node = Some(node.clone());
                changed
            }
            Update::Deleted(_) => {
                state.node = None;
                if state.pods.is_empty() {
                    self.nodes.remove(&name);
                }
                true // the reasons that pods are told have changed
            }
        }
    }

    /// Takes in a change of a pod; true if it has left a node.
    pub(super) fn pod(&mut self, update: &Update<Pod>) -> bool {
        let pod = update.object();
        match (update, node_name(pod)) {
            (Update::Applied(_), Some(node)) if !is_terminal(pod) => {
                let node = node.to_owned();
                self.put(pod.clone(), &node, false);
                false
            }
            // Not yet bound as far as the informer knows; it may be assumed.
            (Update::Applied(_), None) if !is_terminal(pod) => false,
            _ => self.remove(&uid(pod)),
        }
    }

    /// The node for a pod, or why there is none.
    pub(super) fn place(&self, pod: &Pod, seed: u64) -> Result<String, Unschedulable> {
        let wanted = filter::Wanted { pod, requests: requests(pod) };
        let rules = topology::Rules::new(pod, &self.nodes, &self.namespaces, self.loners > 0);
        let mut rejected: Vec<Vec<Reason>> = vec![];
        let mut best: Option<(score::Score, &String)> = None;
        for (name, state) in &self.nodes {
            let Some(node) = &state.node else { continue };
            match filter::fits(&wanted, node, state).and_then(|()| rules.check(node).map_err(|reason| vec![reason])) {
                Ok(()) => {
                    let score = score::score(pod, node, state, rules.preference(node), seed);
                    if best.as_ref().is_none_or(|(lowest, _)| score < *lowest) {
                        best = Some((score, name));
                    }
                }
                Err(reasons) => rejected.push(reasons),
            }
        }
        match best {
            Some((_, name)) => Ok(name.clone()),
            None => Err(Unschedulable(rejected)),
        }
    }

    /// Counts the pod as placed from now on.
    pub(super) fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        self.put(pod.clone(), node, true);
    }

    /// Takes an assumption back.
    pub(super) fn forget(&mut self, uid: &str) {
        let is_assumed = self
            .placed
            .get(uid)
            .and_then(|node| self.nodes.get(node)?.pods.get(uid))
            .is_some_and(|placed| placed.is_assumed);
        if is_assumed {
            self.remove(uid);
        }
    }

    /// Whether the pod is on a node, or assumed to be.
    pub(super) fn holds(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    fn put(&mut self, pod: Arc<Pod>, node: &str, is_assumed: bool) {
        let uid = uid(&pod);
        if let Some(known) = self
            .placed
            .get(&uid)
            .filter(|known| *known == node)
            .and_then(|known| self.nodes.get_mut(known)?.pods.get_mut(&uid))
        {
            // Requests cannot change without a resize; keep the sums as they are.
            known.pod = pod;
            known.is_assumed &= is_assumed;
            return;
        }
        self.remove(&uid);
        let state = self.nodes.entry(node.to_owned()).or_default();
        let requests = requests(&pod);
        for (name, amount) in &requests {
            *state.used.entry(name.clone()).or_insert(0) += amount;
        }
        if let Some(owner) = controller_of(&pod.metadata) {
            *state.owners.entry(owner.uid.clone()).or_insert(0) += 1;
        }
        self.loners += usize::from(topology::keeps_others_away(&pod));
        state.pods.insert(uid.clone(), Placed { pod, requests, is_assumed });
        self.placed.insert(uid, node.to_owned());
    }

    fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.placed.remove(uid) else { return false };
        let Some(state) = self.nodes.get_mut(&node) else { return false };
        let Some(Placed { pod, requests, .. }) = state.pods.remove(uid) else { return false };
        self.loners -= usize::from(topology::keeps_others_away(&pod));
        for (name, amount) in requests {
            *state.used.entry(name).or_insert(0) -= amount;
        }
        if let Some(owner) = controller_of(&pod.metadata)
            && let Some(count) = state.owners.get_mut(&owner.uid)
        {
            *count -= 1;
            if *count == 0 {
                state.owners.remove(&owner.uid);
            }
        }
        if state.pods.is_empty() && state.node.is_none() {
            self.nodes.remove(&node);
        }
        true
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
