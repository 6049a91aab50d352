//! Policies of one tier that have the same priority and speak of the same connections: the API leaves open which comes
//! first. Here the name decides, and [`crate::status`] tells an Event.

use crate::crowd::{Bits, Crowd};
use crate::peer::Peer;
use crate::ports::PortMatch;
use crate::rule::{CompiledPolicy, Direction, Rule, Tier};
use crate::table::PolicyTable;
use std::sync::Arc;

/// Of more policies with one priority than this, only the first are looked at: it is a warning, not a proof.
const MOST: usize = 64;

/// Two policies that are at odds. The first one counts.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    pub(crate) tier: &'static str,
    pub(crate) priority: i32,
    pub(crate) first: String,
    pub(crate) second: String,
    /// Where: `ingress rule 0 of a and rule 2 of b, for pod x`.
    pub(crate) place: String,
}

impl PolicyTable {
    /// Policies of equal priority with rules that may match the same connection of a pod there is.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut everybody = None;
        for tier in [Tier::Admin, Tier::Baseline] {
            let policies: Vec<&Arc<CompiledPolicy>> = self.of_tier(tier).collect();
            for equal in policies.chunk_by(|one, other| one.priority == other.priority) {
                let equal = &equal[..equal.len().min(MOST)];
                for (index, first) in equal.iter().enumerate() {
                    for second in &equal[index + 1..] {
                        let everybody = everybody.get_or_insert_with(|| self.everybody());
                        let Some(place) = everybody.place(first, second) else { continue };
                        let (first, second) = (first.full_name(), second.full_name());
                        let priority = equal[0].priority;
                        conflicts.push(Conflict { tier: tier.name(), priority, first, second, place });
                    }
                }
            }
        }
        conflicts
    }

    fn everybody(&self) -> Crowd<'_> {
        let mut addresses: Vec<_> = self.endpoints.keys().chain(self.nodes.keys()).copied().collect();
        addresses.sort_unstable();
        Crowd::new(self, addresses.into_iter())
    }
}

impl Crowd<'_> {
    /// Where two policies speak of the same connection.
    fn place(&self, first: &CompiledPolicy, second: &CompiledPolicy) -> Option<String> {
        let subjects = [self.pods(&first.subject, ""), self.pods(&second.subject, "")];
        let subject = Bits::common(&[&subjects[0], &subjects[1]], self.parties.len())?;
        let pod = self.parties[subject].pod?.full_name();
        for (direction, word) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
            let (Some(ours), Some(theirs)) = (first.rules(direction), second.rules(direction)) else { continue };
            for (index, one) in ours.iter().enumerate() {
                let at_odds = |other: &Rule| ports_meet(one, other) && self.peers_meet(first, one, second, other);
                if let Some(other) = theirs.iter().position(at_odds) {
                    let (first, second) = (first.full_name(), second.full_name());
                    return Some(format!("{word} rule {index} of {first} and rule {other} of {second}, for pod {pod}"));
                }
            }
        }
        None
    }

    fn peers_meet(&self, first: &CompiledPolicy, one: &Rule, second: &CompiledPolicy, other: &Rule) -> bool {
        let (Some(ours), Some(theirs)) = (&one.peers, &other.peers) else { return true };
        let by_themselves = ours.iter().any(|one| {
            theirs.iter().any(|other| match (one, other) {
                (Peer::Block(one), Peer::Block(other)) => {
                    one.contains(other.cidr.addr()) || other.contains(one.cidr.addr())
                }
                (Peer::Name(one), Peer::Name(other)) => one.meets(other),
                _ => false,
            })
        });
        let selected = [self.selected(first, one), self.selected(second, other)];
        by_themselves || Bits::common(&[&selected[0], &selected[1]], self.parties.len()).is_some()
    }
}

fn ports_meet(one: &Rule, other: &Rule) -> bool {
    let meet = |one: &PortMatch, other: &PortMatch| match (one, other) {
        (PortMatch::Range(a, first, last), PortMatch::Range(b, other_first, other_last)) => {
            a == b && first <= other_last && other_first <= last
        }
        (PortMatch::Named(a, one), PortMatch::Named(b, other)) => a == b && one == other,
        // What number a name has depends on the pod.
        (PortMatch::Named(a, _), PortMatch::Range(b, ..)) | (PortMatch::Range(a, ..), PortMatch::Named(b, _)) => a == b,
    };
    let anything = one.ports.is_empty() || other.ports.is_empty();
    anything || one.ports.iter().any(|one| other.ports.iter().any(|other| meet(one, other)))
}
