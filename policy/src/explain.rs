//! Why a flow may pass or not, in words: from the very judgement that live packets get.

use crate::endpoint::Endpoint;
use crate::peer::Peer;
use crate::ports::{PortMatch, name_of};
use crate::reason;
use crate::rule::{Action, CompiledPolicy, Direction, Rule, Tier};
use crate::rule_set::{Origin, PeerView, PortView};
use crate::selector::Scope;
use crate::table::{Parties, PolicyTable, Side};
use netstack::NewFlow;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// More near misses than this help nobody.
const NEAR_MISSES: usize = 16;

/// Why a flow may pass, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether it may.
    pub allowed: bool,
    /// The code of a refusal.
    pub reason: Option<&'static str>,
    /// TCP, UDP, SCTP, ICMP or a number.
    pub protocol: String,
    /// Who sends.
    pub source: PartyReport,
    /// Who receives, after translation.
    pub destination: PartyReport,
    /// What the source's policies say.
    pub egress: DirectionReport,
    /// What the destination's policies say.
    pub ingress: DirectionReport,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartyReport {
    /// The address that the other end's rules see.
    pub address: SocketAddr,
    /// `namespace/name`, if it is a pod.
    pub pod: Option<String>,
}

/// What one side's policies say to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionReport {
    /// How it came out.
    pub ruling: Ruling,
    /// The same as a sentence.
    pub why: String,
    /// The tier that decided: `Admin`, `NetworkPolicy` or `Baseline`.
    pub tier: Option<&'static str>,
    /// The policies of all tiers that select the pod and speak of this direction, in order.
    pub policies: Vec<String>,
    /// The rule that allowed or denied it.
    pub decided_by: Option<RuleReport>,
    /// Rules that would have allowed it but for one thing.
    pub near_misses: Vec<NearMiss>,
}

/// How a side's judgement came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Ruling {
    /// This end is no pod, or one of the host network.
    NoPod,
    /// Policies do not speak of it.
    Exempt,
    /// No policy has decided, and none isolates the pod in this direction.
    NotIsolated,
    /// A rule allows it.
    Allowed,
    /// A rule denies it, or the pod is isolated and no rule allows it.
    Denied,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub policy: String,
    /// The rule's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place in `spec.ingress` or `spec.egress`, from 0.
    pub rule: usize,
}

/// A rule that would have allowed a flow but for one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// Which.
    pub rule: RuleReport,
    /// What is in the way.
    pub problem: String,
}

impl PolicyTable {
    /// Why `flow` may pass, or not.
    pub fn explain(&self, flow: &NewFlow) -> Explanation {
        let parties = self.parties(flow, None);
        let (egress, ingress) = (self.egress(&parties), self.ingress(&parties));
        let refused = |side: Side, direction| side.refusal(direction);
        let refusal = refused(egress, Direction::Egress).or_else(|| refused(ingress, Direction::Ingress));
        let name = |pod: Option<&Endpoint>| pod.map(Endpoint::full_name);
        Explanation {
            allowed: refusal.is_none(),
            reason: refusal.map(reason::code),
            protocol: name_of(parties.port.protocol),
            source: PartyReport { address: flow.translated.src, pod: name(parties.source) },
            destination: PartyReport { address: flow.translated.dst, pod: name(parties.destination) },
            egress: report(self, &parties, egress, Direction::Egress),
            ingress: report(self, &parties, ingress, Direction::Ingress),
        }
    }
}

fn report(table: &PolicyTable, parties: &Parties<'_>, side: Side, direction: Direction) -> DirectionReport {
    let (pod, peer) = match direction {
        Direction::Ingress => (parties.destination, parties.ingress_peer),
        Direction::Egress => (parties.source, parties.egress_peer),
    };
    let word = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let mut report = DirectionReport {
        ruling: Ruling::NoPod,
        why: String::new(),
        tier: None,
        policies: Vec::new(),
        decided_by: None,
        near_misses: Vec::new(),
    };
    let Some(pod) = pod else {
        report.why = "not a pod: no policy applies".into();
        return report;
    };
    let subjects = Tier::ALL.into_iter().filter_map(|tier| table.subject(tier, &pod.identity));
    let policies: Vec<Arc<CompiledPolicy>> = subjects.flat_map(|subject| subject.policies.clone()).collect();
    let speaking = policies.iter().filter(|policy| policy.rules(direction).is_some());
    report.policies = speaking.clone().map(|policy| policy.full_name()).collect();
    let deciding = |tier| table.subject(tier, &pod.identity).expect("a tier that decides has policies");
    let pod_name = pod.full_name();
    match side {
        Side::NoPod => {}
        Side::Exempt(why) => (report.ruling, report.why) = (Ruling::Exempt, why.into()),
        Side::NotIsolated => {
            report.ruling = Ruling::NotIsolated;
            report.why = format!("no policy isolates {pod_name} for {word}");
        }
        Side::Allowed(tier, number) => {
            let subject = deciding(tier);
            let rules = subject.rules(direction).expect("a side that allows by a rule has rules");
            let (origin, rule) = rules.rule(number);
            let decided = rule_report(origin, rule);
            report.ruling = Ruling::Allowed;
            report.tier = Some(tier.name());
            report.why = format!("{word} rule {} of {} allows it", decided.rule, decided.policy);
            report.decided_by = Some(decided);
        }
        Side::Denied(tier, number) => {
            let subject = deciding(tier);
            let rules = subject.rules(direction).expect("a side that denies has rules");
            report.ruling = Ruling::Denied;
            report.tier = Some(tier.name());
            if let Some(number) = number {
                let (origin, rule) = rules.rule(number);
                let decided = rule_report(origin, rule);
                report.why = format!("{word} rule {} of {} denies it", decided.rule, decided.policy);
                report.decided_by = Some(decided);
            } else {
                let isolating = speaking.filter(|policy| policy.tier == tier).map(|policy| policy.full_name());
                let isolating = isolating.collect::<Vec<_>>().join(", ");
                report.why = format!("{pod_name} is isolated for {word} by {isolating}; no rule matched");
            }
            // Only what comes before the denial could have prevented it.
            let before = rules.all().take(number.map_or(usize::MAX, |number| number as usize));
            let allowing = before.filter(|(_, rule)| rule.action == Action::Accept);
            let misses = allowing.flat_map(|(origin, rule)| near_misses(origin, rule, peer, parties.port));
            report.near_misses = misses.take(NEAR_MISSES).collect();
        }
    }
    report
}

fn rule_report(origin: &Origin, rule: &Rule) -> RuleReport {
    RuleReport { policy: origin.policy.full_name(), name: rule.name.clone(), rule: origin.index }
}

/// What keeps a rule from matching, if it is either the port or the peer and not both.
fn near_misses(origin: &Origin, rule: &Rule, peer: PeerView<'_>, port: PortView<'_>) -> Vec<NearMiss> {
    let port_problem = port_problem(&rule.ports, port);
    let peer_problems = peer_problems(origin, rule, peer);
    let problems = match (peer_problems, port_problem) {
        (None, Some(problem)) => vec![problem],
        (Some(problems), None) => problems,
        _ => Vec::new(),
    };
    problems.into_iter().map(|problem| NearMiss { rule: rule_report(origin, rule), problem }).collect()
}

fn port_problem(ports: &[PortMatch], port: PortView<'_>) -> Option<String> {
    if ports.is_empty() || ports.iter().any(|allowed| allowed.matches(port.protocol, port.port, port.named)) {
        return None;
    }
    let list = ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(", ");
    if !matches!(port.protocol, netstack::Protocol::Tcp | netstack::Protocol::Udp | netstack::Protocol::Sctp) {
        return Some(format!("{} has no ports, and the rule names ports: [{list}]", name_of(port.protocol)));
    }
    Some(format!("port {}/{} is not in [{list}]", port.port, name_of(port.protocol)))
}

/// One problem per peer, or `None` if one of them matches.
fn peer_problems(origin: &Origin, rule: &Rule, view: PeerView<'_>) -> Option<Vec<String>> {
    let mut problems = Vec::new();
    for peer in rule.peers.as_ref()? {
        problems.push(peer_problem(peer, &origin.policy.namespace, view)?);
    }
    Some(problems)
}

fn peer_problem(peer: &Peer, policy_namespace: &str, view: PeerView<'_>) -> Option<String> {
    match peer {
        Peer::Nothing => Some("the peer is invalid and matches nothing".into()),
        Peer::Nodes(selector) => match view.node {
            None => Some(format!("{} is no node's address", view.address)),
            Some(node) => selector.mismatch(&node.labels, "node", &node.name),
        },
        Peer::Name(name) => {
            let names = view.names?;
            (!names.has(name, view.address)).then(|| names.names.problem(name, view.address))
        }
        Peer::Block(block) if block.contains(view.address) => None,
        Peer::Block(block) => Some(block_problem(block.cidr, &block.except, view.address)),
        Peer::Pods(Scope { namespaces, pods }) => {
            let Some(pod) = view.pod else {
                return Some(format!("{} is seen as an address, and selectors match only pods", view.address));
            };
            let identity = &pod.identity;
            let namespace = match namespaces {
                None if identity.namespace == policy_namespace => None,
                None => Some(format!(
                    "a `podSelector` alone means pods of namespace `{policy_namespace}`, and `{}` is in `{}`",
                    pod.full_name(),
                    identity.namespace
                )),
                Some(selector) => selector.mismatch(&identity.namespace_labels, "namespace", &identity.namespace),
            };
            namespace.or_else(|| pods.mismatch(&identity.labels, "pod", &pod.full_name()))
        }
    }
}

fn block_problem(cidr: ipnet::IpNet, except: &[ipnet::IpNet], address: IpAddr) -> String {
    match except.iter().find(|range| range.contains(&address)) {
        Some(range) if cidr.contains(&address) => format!("{address} is in {cidr}, but {range} is excepted"),
        _ => format!("{address} is not in {cidr}"),
    }
}
