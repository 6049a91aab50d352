//! The policy table: every policy and every pod of the cluster, and the judgement of one new flow.
//!
//! A [`PolicyTable`] is immutable and cheap to clone; the next one shares everything with it that has not changed, with
//! what has been compiled of it.

use crate::admin_network_policy::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::answered_names::{AnsweredNames, NamesView};
use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::domain_name::NameIndex;
use crate::endpoint::{Endpoint, Endpoints, Identity};
use crate::group::{IdentityRules, PolicyGroup, Subject};
use crate::hash::{Map, PersistentMap};
use crate::peer::Peer;
use crate::reason;
use crate::rule::{Action, CompiledPolicy, Direction, Tier};
use crate::rule_set::{PeerView, PortView};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{NewFlow, Reason};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// Numbers every set of policies there has been in this process; 0 is the empty one.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// An immutable snapshot of all policies and of the pods they may select.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    pub(crate) endpoints: PersistentMap<IpAddr, Arc<Endpoint>>,
    /// Which set of policies this is: what identities remember of it holds for no other.
    generation: u64,
    /// NetworkPolicies, by namespace.
    namespaces: imbl::HashMap<String, Arc<PolicyGroup>>,
    admin: Arc<PolicyGroup>,
    baseline: Arc<PolicyGroup>,
    /// Which node has an address.
    pub(crate) nodes: Arc<Map<IpAddr, NodeInfo>>,
    /// Which names addresses have: shared by all tables, and written to by answers.
    pub(crate) names: Arc<AnsweredNames>,
}

/// A node, as [`PolicyTable::build`] takes it for each of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Pods that run on it always accept its traffic.
    pub name: String,
    /// What the `nodes` of a policy's rule select by.
    pub labels: BTreeMap<String, String>,
}

/// A pod and its addresses, as [`PolicyTable::build`] takes them.
#[derive(Clone, Debug)]
pub struct PodInfo<'a> {
    /// The object: labels, named ports and node matter.
    pub pod: &'a Pod,
    /// Its addresses.
    pub ips: &'a [IpAddr],
}

/// What one end of a flow says to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// This end is no pod with an identity.
    NoPod,
    /// Policies do not speak of this flow.
    Exempt(&'static str),
    /// No policy has decided, and no NetworkPolicy isolates the pod in this direction.
    NotIsolated,
    /// This rule of those of the tier allows it.
    Allowed(Tier, u32),
    /// This rule denies it; or without one, the pod is isolated and no rule allows it.
    Denied(Tier, Option<u32>),
}

impl Side {
    pub(crate) fn refusal(&self, direction: Direction) -> Option<Reason> {
        match self {
            Side::Denied(tier, _) => Some(refusal(*tier, direction)),
            _ => None,
        }
    }
}

/// The code of a tier's refusal.
fn refusal(tier: Tier, direction: Direction) -> Reason {
    match (tier, direction) {
        (Tier::NetworkPolicy, Direction::Ingress) => reason::POLICY_DENIED_INGRESS,
        (Tier::NetworkPolicy, Direction::Egress) => reason::POLICY_DENIED_EGRESS,
        (Tier::Admin | Tier::Baseline, Direction::Ingress) => reason::CNP_DENY_INGRESS,
        (Tier::Admin | Tier::Baseline, Direction::Egress) => reason::CNP_DENY_EGRESS,
    }
}

/// What both ends look at, and see of each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parties<'t> {
    pub(crate) source: Option<&'t Endpoint>,
    pub(crate) destination: Option<&'t Endpoint>,
    pub(crate) port: PortView<'t>,
    /// The destination as the source's egress rules see it.
    pub(crate) egress_peer: PeerView<'t>,
    /// The source as the destination's ingress rules see it.
    pub(crate) ingress_peer: PeerView<'t>,
    /// The flow does not leave the pod.
    own_address: bool,
    /// It comes from the destination's node.
    own_node: bool,
}

impl PolicyTable {
    /// The table of exactly these objects. `nodes`: who has which address.
    pub fn build<'a>(
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        pods: impl IntoIterator<Item = PodInfo<'a>>,
        nodes: impl IntoIterator<Item = (IpAddr, NodeInfo)>,
    ) -> PolicyTable {
        let mut endpoints = Endpoints::default();
        for namespace in namespaces {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            endpoints.set_namespace(name, namespace.metadata.labels.as_ref());
        }
        for PodInfo { pod, ips } in pods {
            endpoints.attach(pod, ips);
        }
        let table = PolicyTable::default().with_endpoints(&endpoints).with_nodes(nodes.into_iter().collect());
        policies.into_iter().fold(table, |table, policy| table.with_policy(policy))
    }

    /// The next table, with this state of a policy: also for asking what would be if it were applied.
    pub fn with_policy(&self, policy: &NetworkPolicy) -> PolicyTable {
        let compiled = CompiledPolicy::compile(policy);
        let namespace = compiled.namespace.clone();
        let group = self.namespaces.get(&namespace);
        if group.and_then(|group| group.get(&compiled.name)).is_some_and(|known| **known == compiled) {
            return self.clone();
        }
        let group = match group {
            Some(group) => group.with(compiled),
            None => PolicyGroup::default().with(compiled),
        };
        let mut table = self.next();
        table.namespaces.insert(namespace, Arc::new(group));
        table
    }

    /// The next table, without a policy.
    pub fn without_policy(&self, namespace: &str, name: &str) -> PolicyTable {
        let Some(group) = self.namespaces.get(namespace).filter(|group| group.get(name).is_some()) else {
            return self.clone();
        };
        let mut table = self.next();
        let left = group.without(name);
        if left.is_empty() {
            table.namespaces.remove(namespace);
        } else {
            table.namespaces.insert(namespace.to_owned(), Arc::new(left));
        }
        table
    }

    /// The next table, with this state of a policy of the whole cluster.
    pub fn with_cluster_policy(&self, policy: &ClusterNetworkPolicy) -> PolicyTable {
        self.with_tier_policy(policy.metadata.name.as_deref().unwrap_or_default(), policy.compile())
    }

    /// The next table, with this state of an AdminNetworkPolicy.
    pub fn with_admin_policy(&self, policy: &AdminNetworkPolicy) -> PolicyTable {
        self.with_tier_policy(&policy.full_name(), policy.compile())
    }

    /// The next table, with this state of a BaselineAdminNetworkPolicy.
    pub fn with_baseline_policy(&self, policy: &BaselineAdminNetworkPolicy) -> PolicyTable {
        self.with_tier_policy(&policy.full_name(), policy.compile())
    }

    fn with_tier_policy(&self, name: &str, compiled: Option<CompiledPolicy>) -> PolicyTable {
        let known = self.admin.get(name).or_else(|| self.baseline.get(name));
        if known.map(|known| &**known) == compiled.as_ref() {
            return self.clone();
        }
        let mut table = self.without_cluster_policy(name).next();
        match compiled {
            Some(compiled) if compiled.tier == Tier::Admin => table.admin = Arc::new(table.admin.with(compiled)),
            Some(compiled) => table.baseline = Arc::new(table.baseline.with(compiled)),
            None => {}
        }
        table
    }

    /// The next table, without a policy of the whole cluster: the name of a ClusterNetworkPolicy,
    /// `adminnetworkpolicy/NAME` or `baselineadminnetworkpolicy/NAME`.
    pub fn without_cluster_policy(&self, name: &str) -> PolicyTable {
        let mut table = self.clone();
        for (group, old) in [(&mut table.admin, &self.admin), (&mut table.baseline, &self.baseline)] {
            if old.get(name).is_some() {
                *group = Arc::new(old.without(name));
                table.generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
            }
        }
        table
    }

    /// This table, to be given other policies.
    fn next(&self) -> PolicyTable {
        PolicyTable { generation: GENERATIONS.fetch_add(1, Ordering::Relaxed), ..self.clone() }
    }

    /// The next table, with these pods.
    pub(crate) fn with_endpoints(&self, endpoints: &Endpoints) -> PolicyTable {
        PolicyTable { endpoints: endpoints.by_address(), ..self.clone() }
    }

    /// The next table, with these nodes' addresses.
    pub(crate) fn with_nodes(&self, nodes: Map<IpAddr, NodeInfo>) -> PolicyTable {
        PolicyTable { nodes: Arc::new(nodes), ..self.clone() }
    }

    /// This table, with what these names have been answered with.
    pub fn with_names(&self, names: Arc<AnsweredNames>) -> PolicyTable {
        PolicyTable { names, ..self.clone() }
    }

    /// The names that its rules speak of.
    pub(crate) fn names_of_rules(&self) -> NameIndex<()> {
        let policies = self.of_tier(Tier::Admin).chain(self.of_tier(Tier::Baseline));
        let rules = policies.flat_map(|policy| policy.egress.iter().flatten());
        let mut names = NameIndex::default();
        for peer in rules.flat_map(|rule| rule.peers.iter().flatten()) {
            if let Peer::Name(name) = peer {
                names.insert(name, ());
            }
        }
        names
    }

    /// Whether both tables hold the very same policies.
    pub(crate) fn same_policies(&self, other: &PolicyTable) -> bool {
        self.generation == other.generation
    }

    /// The policies of one tier that is the whole cluster's, by priority and name.
    pub(crate) fn of_tier(&self, tier: Tier) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        let group = if tier == Tier::Admin { &self.admin } else { &self.baseline };
        group.policies()
    }

    /// Whether `flow` may pass, and why not: egress is judged first.
    pub fn allows(&self, flow: &NewFlow) -> Result<(), Reason> {
        self.permits_both(self.parties(flow, None))
    }

    /// Whether a flow that was let in at `since` may go on: an address that had a name then keeps it for this flow.
    pub fn still_allows(&self, flow: &NewFlow, since: Instant) -> Result<(), Reason> {
        self.permits_both(self.parties(flow, Some(since)))
    }

    fn permits_both(&self, parties: Parties<'_>) -> Result<(), Reason> {
        if parties.own_address {
            return Ok(());
        }
        let Parties { source, destination, port, egress_peer, ingress_peer, .. } = parties;
        self.permits(source, Direction::Egress, egress_peer, port)?;
        if parties.own_node { Ok(()) } else { self.permits(destination, Direction::Ingress, ingress_peer, port) }
    }

    /// [`Self::side`] without the number of the rule: one look-up less where it does not matter which rule allows.
    fn permits(
        &self,
        pod: Option<&Endpoint>,
        direction: Direction,
        peer: PeerView<'_>,
        port: PortView<'_>,
    ) -> Result<(), Reason> {
        let Some(pod) = pod else { return Ok(()) };
        self.with_rules(&pod.identity, |rules| {
            for (tier, subject) in rules.tiers() {
                let Some(rules) = subject.rules(direction) else { continue };
                match rules.decision(peer, port) {
                    Some(Action::Accept) => return Ok(()),
                    Some(Action::Deny) => return Err(refusal(tier, direction)),
                    None if tier == Tier::NetworkPolicy => return Err(refusal(tier, direction)),
                    Some(Action::Pass) | None => {}
                }
            }
            Ok(())
        })
    }

    /// Who a flow is between: what live packets, explanations and what-if questions are all judged by.
    ///
    /// The source is a pod by the address it sent from, so that hairpin masquerading hides nobody from itself. Where the
    /// destination would see a node instead (node ports, load balancers), so do its rules.
    pub(crate) fn parties(&self, flow: &NewFlow, since: Option<Instant>) -> Parties<'_> {
        let (sent_from, seen_from) = (flow.original.src.ip(), flow.translated.src.ip());
        let arrives_at = flow.translated.dst.ip();
        let source = self.endpoints.get(&sent_from).map(|pod| &**pod);
        let destination = self.endpoints.get(&arrives_at).map(|pod| &**pod);
        // All addresses of a pod lead to one entry.
        let same_pod = matches!((source, destination), (Some(a), Some(b)) if std::ptr::eq(a, b));
        let named = destination.map_or(&[][..], |pod| &pod.ports);
        let port = PortView { protocol: flow.translated.protocol, port: flow.translated.dst.port(), named };
        // No pod has a node's address, so whoever is a pod needs no look-up among the nodes.
        let node = if destination.is_none() { self.nodes.get(&arrives_at) } else { None };
        let egress_peer = PeerView {
            pod: destination,
            node,
            address: arrives_at,
            names: Some(NamesView { names: &self.names, since }),
        };
        let seen = source.filter(|_| seen_from == sent_from || same_pod);
        let ingress_peer = PeerView { pod: seen, node: None, address: seen_from, names: None };
        let own_address = same_pod && source.is_some_and(|pod| pod.ips.contains(&flow.original.dst.ip()));
        let own_node = source.is_none()
            && destination.is_some_and(|pod| {
                let node = self.nodes.get(&sent_from);
                node.is_some_and(|node| Some(&node.name) == pod.node.as_ref())
            });
        Parties { source, destination, port, egress_peer, ingress_peer, own_address, own_node }
    }

    /// What the source's policies say.
    pub(crate) fn egress(&self, parties: &Parties<'_>) -> Side {
        if parties.own_address {
            return Side::Exempt("a pod may always talk to its own address");
        }
        self.side(parties.source, Direction::Egress, parties.egress_peer, parties.port)
    }

    /// What the destination's policies say.
    pub(crate) fn ingress(&self, parties: &Parties<'_>) -> Side {
        if parties.own_address {
            return Side::Exempt("its own address");
        }
        if parties.own_node {
            return Side::Exempt("traffic from the pod's own node is always allowed");
        }
        self.side(parties.destination, Direction::Ingress, parties.ingress_peer, parties.port)
    }

    fn side(&self, pod: Option<&Endpoint>, direction: Direction, peer: PeerView<'_>, port: PortView<'_>) -> Side {
        let Some(pod) = pod else { return Side::NoPod };
        self.with_rules(&pod.identity, |rules| {
            for (tier, subject) in rules.tiers() {
                let Some(rules) = subject.rules(direction) else { continue };
                match rules.first_match(peer, port).map(|number| (number, rules.action(number))) {
                    Some((number, Action::Accept)) => return Side::Allowed(tier, number),
                    Some((number, Action::Deny)) => return Side::Denied(tier, Some(number)),
                    None if tier == Tier::NetworkPolicy => return Side::Denied(tier, None),
                    Some((_, Action::Pass)) | None => {}
                }
            }
            Side::NotIsolated
        })
    }

    /// Shows all that applies to an identity. It is remembered there, for the set of policies that was asked last.
    pub(crate) fn with_rules<T>(&self, identity: &Identity, show: impl FnOnce(&IdentityRules) -> T) -> T {
        let remembered = identity.rules.load();
        match &*remembered {
            Some(rules) if rules.generation == self.generation => show(rules),
            _ => {
                let subjects = Tier::ALL.map(|tier| self.subject(tier, identity));
                let rules = Arc::new(IdentityRules { generation: self.generation, subjects });
                identity.rules.store(Some(rules.clone()));
                show(&rules)
            }
        }
    }

    /// What a tier says to an identity; `None` when it has no policies.
    pub(crate) fn subject(&self, tier: Tier, identity: &Identity) -> Option<Arc<Subject>> {
        let group = match tier {
            Tier::Admin => &self.admin,
            Tier::NetworkPolicy => self.namespaces.get(&identity.namespace)?,
            Tier::Baseline => &self.baseline,
        };
        (!group.is_empty()).then(|| group.subject(identity))
    }
}
