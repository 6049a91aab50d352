//! Policies that are judged together: those of one namespace, or of one tier of the cluster.
//!
//! What they mean for a pod is compiled when a flow first asks, once per set of policies that selects the same pods.

use crate::endpoint::Identity;
use crate::hash::Map;
use crate::rule::{CompiledPolicy, Direction, Tier};
use crate::rule_set::RuleSet;
use parking_lot::RwLock;
use std::sync::Arc;

/// Identities come and go; of more than so many it is found anew which policies select them.
const REMEMBERED_IDENTITIES: usize = 4_096;

/// Some policies, and what they mean for the identities seen so far.
#[derive(Debug, Default)]
pub(crate) struct PolicyGroup {
    /// By priority and name, which is also the order of their rules.
    policies: imbl::OrdMap<(i32, String), Arc<CompiledPolicy>>,
    subjects: RwLock<Subjects>,
}

#[derive(Debug, Default)]
struct Subjects {
    by_identity: Map<u64, Arc<Subject>>,
    /// Identities that the same policies select share everything.
    by_selection: Map<Vec<u32>, Arc<Subject>>,
}

/// All that applies to one identity, in a set of policies.
#[derive(Debug)]
pub(crate) struct IdentityRules {
    /// Which set.
    pub(crate) generation: u64,
    /// By tier; `None`: it has no policies.
    pub(crate) subjects: [Option<Arc<Subject>>; Tier::ALL.len()],
}

impl IdentityRules {
    /// The tiers that have policies, in order.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = (Tier, &Arc<Subject>)> {
        Tier::ALL.into_iter().zip(&self.subjects).filter_map(|(tier, subject)| Some((tier, subject.as_ref()?)))
    }
}

/// What applies to the pods that a set of policies selects.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
    /// `None`: not isolated in this direction.
    ingress: Option<RuleSet>,
    egress: Option<RuleSet>,
}

impl Subject {
    pub(crate) fn rules(&self, direction: Direction) -> Option<&RuleSet> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl PolicyGroup {
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.policies.values()
    }

    /// The policy of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<CompiledPolicy>> {
        // NetworkPolicies have no priority, so for them this is a look-up; the administrator's are few.
        let named = || self.policies.values().find(|policy| policy.name == name);
        self.policies.get(&(0, name.to_owned())).or_else(named)
    }

    /// The next group, with this state of a policy.
    pub(crate) fn with(&self, policy: CompiledPolicy) -> PolicyGroup {
        let mut policies = self.policies.clone();
        if let Some(known) = self.get(&policy.name) {
            policies.remove(&(known.priority, known.name.clone()));
        }
        policies.insert((policy.priority, policy.name.clone()), Arc::new(policy));
        PolicyGroup { policies, subjects: RwLock::default() }
    }

    /// The next group, without a policy.
    pub(crate) fn without(&self, name: &str) -> PolicyGroup {
        let mut policies = self.policies.clone();
        if let Some(known) = self.get(name) {
            policies.remove(&(known.priority, known.name.clone()));
        }
        PolicyGroup { policies, subjects: RwLock::default() }
    }

    /// What applies to an identity.
    pub(crate) fn subject(&self, identity: &Identity) -> Arc<Subject> {
        if let Some(subject) = self.subjects.read().by_identity.get(&identity.id) {
            return subject.clone();
        }
        let numbered = (0u32..).zip(self.policies.values());
        let selecting = numbered.filter(|(_, policy)| policy.subject.selects(identity, &policy.namespace));
        let (selection, policies): (Vec<u32>, Vec<Arc<CompiledPolicy>>) =
            selecting.map(|(number, policy)| (number, policy.clone())).unzip();
        let mut subjects = self.subjects.write();
        if subjects.by_identity.len() >= REMEMBERED_IDENTITIES {
            subjects.by_identity.clear();
            // What still applies to somebody is kept there too.
            subjects.by_selection.retain(|_, subject| Arc::strong_count(subject) > 1);
        }
        let subject = subjects.by_selection.entry(selection).or_insert_with(|| {
            let ingress = RuleSet::compile(&policies, Direction::Ingress);
            let egress = RuleSet::compile(&policies, Direction::Egress);
            Arc::new(Subject { policies, ingress, egress })
        });
        let subject = subject.clone();
        subjects.by_identity.insert(identity.id, subject.clone());
        subject
    }
}
