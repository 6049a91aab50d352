//! All rules that apply to some pods in one direction, compiled so that a new flow costs two look-ups.
//!
//! A peer is a pod, found by its identity, or an address, found by the longest prefix; either leads to a [`PortMap`] of
//! exactly the rules whose peers match it. The maps of identities are made when an identity is first seen and
//! [remembered](crate::remembered). The maps of prefixes are made at once: the ranges and exceptions
//! of all rules cut the address space into regions, and in each region the same rules match.

use crate::answered_names::NamesView;
use crate::domain_name::NameIndex;
use crate::endpoint::{Endpoint, Identity};
use crate::hash::Map;
use crate::peer::{Block, Peer};
use crate::ports::{NamedPort, PortMap};
use crate::remembered::Remembered;
use crate::rule::{Action, CompiledPolicy, Direction, Rule};
use crate::table::NodeInfo;
use ipnet::IpNet;
use netstack::Protocol;
use parking_lot::RwLock;
use prefix_trie::joint::JointPrefixMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a rule stands: the policy, and its place there.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) policy: Arc<CompiledPolicy>,
    pub(crate) index: usize,
}

/// The rules of all policies that select the same pods, in one direction, in order.
#[derive(Debug)]
pub(crate) struct RuleSet {
    direction: Direction,
    rules: Vec<Origin>,
    /// What they do, in the same order; empty if all accept, as those of NetworkPolicies do.
    actions: Vec<Action>,
    /// The rules that match every peer: all that an address outside of every region meets.
    everyone: Arc<PortMap>,
    regions: JointPrefixMap<IpNet, Arc<PortMap>>,
    /// The rules that speak of nodes by their labels.
    of_nodes: Vec<u32>,
    /// The rules that speak of names.
    of_names: NameIndex<u32>,
    remembered: RwLock<Remembered>,
}

/// The other end of a flow as one side's rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerView<'t> {
    /// The pod it is, if its identity shows.
    pub(crate) pod: Option<&'t Endpoint>,
    /// The node whose address it is.
    pub(crate) node: Option<&'t NodeInfo>,
    pub(crate) address: IpAddr,
    /// The names of addresses, for those rules that go by them.
    pub(crate) names: Option<NamesView<'t>>,
}

/// What a flow asks of its destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortView<'t> {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// The destination pod's named ports; none of an external destination.
    pub(crate) named: &'t [NamedPort],
}

impl RuleSet {
    /// Compiles the rules of `policies`, which are in order; `None` if none of them isolates in this direction.
    pub(crate) fn compile(policies: &[Arc<CompiledPolicy>], direction: Direction) -> Option<RuleSet> {
        let mut isolating = policies.iter().filter_map(|policy| Some((policy, policy.rules(direction)?))).peekable();
        isolating.peek()?;
        let rules: Vec<Origin> = isolating
            .flat_map(|(policy, rules)| (0..rules.len()).map(|index| Origin { policy: policy.clone(), index }))
            .collect();
        let mut set = RuleSet {
            direction,
            rules,
            actions: Vec::new(),
            everyone: Arc::default(),
            regions: JointPrefixMap::new(),
            of_nodes: Vec::new(),
            of_names: NameIndex::default(),
            remembered: RwLock::default(),
        };
        let actions: Vec<Action> = set.all().map(|(_, rule)| rule.action).collect();
        if actions.iter().any(|action| *action != Action::Accept) {
            set.actions = actions;
        }
        let everyone: Vec<u32> = set.numbered().filter(|(_, rule)| rule.peers.is_none()).map(|(n, _)| n).collect();
        set.everyone = Arc::new(set.port_map(&everyone));
        set.regions = set.regions(&everyone);
        let speaks_of_nodes = |rule: &Rule| rule.peers.iter().flatten().any(|peer| matches!(peer, Peer::Nodes(_)));
        set.of_nodes = set.numbered().filter(|(_, rule)| speaks_of_nodes(rule)).map(|(number, _)| number).collect();
        let mut of_names = NameIndex::default();
        for (number, rule) in set.numbered() {
            for peer in rule.peers.iter().flatten() {
                if let Peer::Name(name) = peer {
                    of_names.insert(name, number);
                }
            }
        }
        set.of_names = of_names;
        Some(set)
    }

    /// The rule at a place of the order.
    pub(crate) fn rule(&self, number: u32) -> (&Origin, &Rule) {
        let origin = &self.rules[number as usize];
        let rules = origin.policy.rules(self.direction).expect("only isolating policies are compiled in");
        (origin, &rules[origin.index])
    }

    /// What the rule at a place of the order does.
    pub(crate) fn action(&self, number: u32) -> Action {
        self.actions.get(number as usize).copied().unwrap_or(Action::Accept)
    }

    /// Every rule, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Origin, &Rule)> {
        (0..self.rules.len() as u32).map(|number| self.rule(number))
    }

    /// What the rules do with a flow, if one matches: the action of the first, without looking for the first of several
    /// that would all accept.
    pub(crate) fn decision(&self, peer: PeerView<'_>, port: PortView<'_>) -> Option<Action> {
        if self.actions.is_empty() {
            let any = |map: &PortMap| map.first(port.protocol, port.port, port.named).is_some();
            if peer.pod.is_some_and(|pod| self.with_identity(&pod.identity, any)) {
                return Some(Action::Accept);
            }
        }
        self.first_match(peer, port).map(|number| self.action(number))
    }

    /// The first rule that matches.
    pub(crate) fn first_match(&self, peer: PeerView<'_>, port: PortView<'_>) -> Option<u32> {
        let first = |map: &PortMap| map.first(port.protocol, port.port, port.named);
        let region = if self.regions.is_empty() { None } else { self.regions.get_lpm(&IpNet::from(peer.address)) };
        let by_address = first(region.map_or(&self.everyone, |(_, map)| map));
        let by_identity = peer.pod.and_then(|pod| self.with_identity(&pod.identity, first));
        let by_node = peer.node.and_then(|node| self.first_of_node(node, port));
        let by_name = if self.of_names.is_empty() { None } else { self.first_of_name(peer, port) };
        [by_address, by_identity, by_node, by_name].into_iter().flatten().min()
    }

    fn first_of_name(&self, peer: PeerView<'_>, port: PortView<'_>) -> Option<u32> {
        let mut first: Option<u32> = None;
        peer.names?.of(peer.address, |name| {
            for number in self.of_names.matching(name).copied() {
                if first.is_none_or(|first| number < first) && self.rule(number).1.has_port(port) {
                    first = Some(number);
                }
            }
        });
        first
    }

    /// Nodes are few, and so are rules that speak of them: those are gone through.
    fn first_of_node(&self, node: &NodeInfo, port: PortView<'_>) -> Option<u32> {
        self.of_nodes.iter().copied().find(|number| {
            let rule = self.rule(*number).1;
            let selects = |peer: &Peer| matches!(peer, Peer::Nodes(selector) if selector.matches(&node.labels));
            rule.peers.iter().flatten().any(selects) && rule.has_port(port)
        })
    }

    /// Shows the rules whose peers select an identity.
    fn with_identity<T>(&self, identity: &Identity, show: impl FnOnce(&PortMap) -> T) -> T {
        if let Some(map) = self.remembered.read().get(identity.id) {
            return show(map);
        }
        let rules: Vec<u32> = self
            .numbered_with_origin()
            .filter(|(_, origin, rule)| {
                let peers = rule.peers.as_deref();
                peers.is_none_or(|peers| peers.iter().any(|peer| peer.selects(identity, &origin.policy.namespace)))
            })
            .map(|(number, _, _)| number)
            .collect();
        show(self.remembered.write().put(identity.id, rules, |rules| self.port_map(rules)))
    }

    fn regions(&self, everyone: &[u32]) -> JointPrefixMap<IpNet, Arc<PortMap>> {
        let mut blocks: JointPrefixMap<IpNet, Vec<(u32, &Block)>> = JointPrefixMap::new();
        for (number, rule) in self.numbered() {
            for peer in rule.peers.iter().flatten() {
                if let Peer::Block(block) = peer {
                    blocks.entry(block.cidr).or_default().push((number, block));
                    for range in &block.except {
                        blocks.entry(*range).or_default();
                    }
                }
            }
        }
        let mut shared: Map<Vec<u32>, Arc<PortMap>> = Map::default();
        let mut regions = JointPrefixMap::new();
        for region in blocks.keys() {
            let covering = blocks.cover(&region).flat_map(|(_, blocks)| blocks);
            // A region lies within an exception or outside of it, never across: the exception is itself a region.
            let matching = covering.filter(|(_, block)| !block.except.iter().any(|range| range.contains(&region)));
            let mut rules: Vec<u32> = matching.map(|(number, _)| *number).chain(everyone.iter().copied()).collect();
            rules.sort_unstable();
            rules.dedup();
            let map = shared.entry(rules).or_insert_with_key(|rules| Arc::new(self.port_map(rules)));
            regions.insert(region, map.clone());
        }
        regions
    }

    fn port_map(&self, rules: &[u32]) -> PortMap {
        PortMap::compile(rules.iter().map(|number| (*number, self.rule(*number).1.ports.as_slice())))
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Rule)> {
        self.numbered_with_origin().map(|(number, _, rule)| (number, rule))
    }

    fn numbered_with_origin(&self) -> impl Iterator<Item = (u32, &Origin, &Rule)> {
        (0u32..).zip(self.all()).map(|(number, (origin, rule))| (number, origin, rule))
    }
}
