//! Who may open what to whom, over all pairs at once.
//!
//! The same rules in the same order as for one flow ([`PolicyTable::allows`]), but each rule is asked once for everybody:
//! which of all sources its peers select, and which of all destinations. A thousand pods by a thousand pods cost little
//! more than a thousand policies read once, and nothing is remembered afterwards. A property test holds both equal.

use crate::crowd::{Bits, Crowd, Party};
use crate::endpoint::Endpoint;
use crate::group::Subject;
use crate::ports::PortMatch;
use crate::rule::{Action, Direction, Rule, Tier};
use crate::rule_set::Origin;
use crate::table::PolicyTable;
use netstack::Protocol;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Where a flow of a matrix goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// To whom.
    pub address: IpAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// At which port; 0 for protocols without.
    pub port: u16,
}

impl PolicyTable {
    /// Whether each of `from` may open a flow to each of `to`: one row per source, one cell per destination. Nothing is
    /// translated on the way.
    pub fn matrix(&self, from: &[IpAddr], to: &[Destination]) -> Vec<Vec<bool>> {
        let sources = Crowd::new(self, from.iter().copied());
        let destinations = Crowd::new(self, to.iter().map(|destination| destination.address));
        let mut egress = Egress { to, crowd: &destinations, known: HashMap::new() };
        let rows: Vec<Rc<Bits>> = sources.parties.iter().map(|source| egress.from(self.rules_of(source.pod))).collect();
        let columns: Vec<Bits> = to
            .iter()
            .zip(&destinations.parties)
            .map(|(destination, party)| {
                let subjects = self.rules_of(party.pod);
                decide(&subjects, Direction::Ingress, from.len(), |origin, rule| {
                    has_port(rule, destination, party.pod).then(|| sources.selected(&origin.policy, rule))
                })
            })
            .collect();
        let cells = |(source, row): (&Party<'_>, Rc<Bits>), index: usize| -> Vec<bool> {
            let cell = |(number, (column, party)): (usize, (&Bits, &Party<'_>))| {
                is_own_address(source, party) || (row.has(number) && (column.has(index) || is_own_node(source, party)))
            };
            columns.iter().zip(&destinations.parties).enumerate().map(cell).collect()
        };
        sources.parties.iter().zip(rows).enumerate().map(|(index, pair)| cells(pair, index)).collect()
    }

    fn rules_of(&self, pod: Option<&Endpoint>) -> Subjects {
        pod.map(|pod| self.with_rules(&pod.identity, |rules| rules.subjects.clone())).unwrap_or_default()
    }
}

/// What applies to a pod, by tier.
type Subjects = [Option<Arc<Subject>>; Tier::ALL.len()];

fn is_own_address(source: &Party<'_>, destination: &Party<'_>) -> bool {
    matches!((source.pod, destination.pod), (Some(a), Some(b)) if a.key == b.key)
}

fn is_own_node(source: &Party<'_>, destination: &Party<'_>) -> bool {
    let node = destination.pod.and_then(|pod| pod.node.as_ref());
    source.node.is_some_and(|at| Some(&at.name) == node)
}

fn has_port(rule: &Rule, to: &Destination, pod: Option<&Endpoint>) -> bool {
    let named = pod.map_or(&[][..], |pod| &pod.ports);
    let matches = |port: &PortMatch| port.matches(to.protocol, to.port, named);
    rule.ports.is_empty() || rule.ports.iter().any(matches)
}

/// What rules leave of `count` flows: those that are let through. `matching` says of which a rule speaks.
fn decide(
    subjects: &Subjects,
    direction: Direction,
    count: usize,
    mut matching: impl FnMut(&Origin, &Rule) -> Option<Rc<Bits>>,
) -> Bits {
    let mut undecided = Bits::full(count);
    let mut allowed = Bits::empty(count);
    for (tier, subject) in Tier::ALL.into_iter().zip(subjects) {
        let Some(rules) = subject.as_ref().and_then(|subject| subject.rules(direction)) else { continue };
        let mut passed = Bits::empty(count);
        for (origin, rule) in rules.all() {
            let Some(matched) = matching(origin, rule) else { continue };
            match rule.action {
                Action::Accept => allowed.add(&undecided, &matched),
                Action::Pass => passed.add(&undecided, &matched),
                Action::Deny => {}
            }
            undecided.remove(&matched);
        }
        // A pod that a NetworkPolicy isolates receives nothing that no rule allows.
        undecided = if tier == Tier::NetworkPolicy { passed } else { undecided.or(&passed) };
    }
    allowed.or(&undecided)
}

/// The egress of sources: those that the same policies select share their row.
struct Egress<'a> {
    to: &'a [Destination],
    crowd: &'a Crowd<'a>,
    known: HashMap<[Option<usize>; Tier::ALL.len()], (Subjects, Rc<Bits>)>,
}

impl Egress<'_> {
    fn from(&mut self, subjects: Subjects) -> Rc<Bits> {
        // The subjects are kept with the key, so that no other can get the address of one of them.
        let key = subjects.each_ref().map(|subject| subject.as_ref().map(|subject| Arc::as_ptr(subject) as usize));
        if let Some((_, row)) = self.known.get(&key) {
            return row.clone();
        }
        let row = decide(&subjects, Direction::Egress, self.to.len(), |origin, rule| {
            let mut matched = self.crowd.selected(&origin.policy, rule);
            if !rule.ports.is_empty() {
                let narrowed = Rc::make_mut(&mut matched);
                for number in 0..self.to.len() {
                    if narrowed.has(number) && !has_port(rule, &self.to[number], self.crowd.parties[number].pod) {
                        narrowed.clear(number);
                    }
                }
            }
            Some(matched)
        });
        let row = Rc::new(row);
        self.known.insert(key, (subjects, row.clone()));
        row
    }
}
