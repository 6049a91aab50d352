//! The policy table: every policy and every pod of the cluster, and the judgement of one new flow.
//!
//! A [`PolicyTable`] is immutable and cheap to clone; the next one shares everything with it that has not changed, with
//! what has been compiled of it.

use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::endpoint::{Endpoint, Endpoints, Identity};
use crate::group::{PolicyGroup, Subject};
use crate::reason;
use crate::rule::{Action, CompiledPolicy, Direction, Tier};
use crate::rule_set::{PeerView, PortView};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{NewFlow, Reason};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An immutable snapshot of all policies and of the pods they may select.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    endpoints: imbl::HashMap<IpAddr, Arc<Endpoint>>,
    /// NetworkPolicies, by namespace.
    namespaces: imbl::HashMap<String, Arc<PolicyGroup>>,
    admin: Arc<PolicyGroup>,
    baseline: Arc<PolicyGroup>,
    /// Which node has an address.
    nodes: Arc<HashMap<IpAddr, String>>,
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
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// This end is no pod with an identity.
    NoPod,
    /// Policies do not speak of this flow.
    Exempt(&'static str),
    /// No policy has decided, and no NetworkPolicy isolates the pod in this direction.
    NotIsolated,
    /// This rule of the subject allows it.
    Allowed(Tier, Arc<Subject>, u32),
    /// This rule denies it; or without one, the pod is isolated and no rule allows it.
    Denied(Tier, Arc<Subject>, Option<u32>),
}

impl Side {
    fn refusal(&self, direction: Direction) -> Option<Reason> {
        match (self, direction) {
            (Side::Denied(Tier::NetworkPolicy, ..), Direction::Ingress) => Some(reason::POLICY_DENIED_INGRESS),
            (Side::Denied(Tier::NetworkPolicy, ..), Direction::Egress) => Some(reason::POLICY_DENIED_EGRESS),
            (Side::Denied(..), _) => Some(reason::CNP_DENY),
            _ => None,
        }
    }
}

/// Both ends' judgement of a flow, and what they looked at.
#[derive(Debug)]
pub(crate) struct Judgement<'t> {
    pub(crate) source: Option<&'t Endpoint>,
    pub(crate) destination: Option<&'t Endpoint>,
    pub(crate) port: PortView<'t>,
    /// The destination as the source's egress rules see it.
    pub(crate) egress_peer: PeerView<'t>,
    /// The source as the destination's ingress rules see it.
    pub(crate) ingress_peer: PeerView<'t>,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
}

impl Judgement<'_> {
    /// Why the flow may not pass, if it may not.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        self.egress.refusal(Direction::Egress).or_else(|| self.ingress.refusal(Direction::Ingress))
    }
}

impl PolicyTable {
    /// The table of exactly these objects. `nodes`: which node has an address.
    pub fn build<'a>(
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        pods: impl IntoIterator<Item = PodInfo<'a>>,
        nodes: impl IntoIterator<Item = (IpAddr, String)>,
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
        let mut table = self.clone();
        table.namespaces.insert(namespace, Arc::new(group));
        table
    }

    /// The next table, without a policy.
    pub fn without_policy(&self, namespace: &str, name: &str) -> PolicyTable {
        let mut table = self.clone();
        let Some(group) = self.namespaces.get(namespace).filter(|group| group.get(name).is_some()) else {
            return table;
        };
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
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let compiled = policy.compile();
        let known = self.admin.get(name).or_else(|| self.baseline.get(name));
        if known.map(|known| &**known) == compiled.as_ref() {
            return self.clone();
        }
        let mut table = self.without_cluster_policy(name);
        match compiled {
            Some(compiled) if compiled.tier == Tier::Admin => table.admin = Arc::new(table.admin.with(compiled)),
            Some(compiled) => table.baseline = Arc::new(table.baseline.with(compiled)),
            None => {}
        }
        table
    }

    /// The next table, without a policy of the whole cluster.
    pub fn without_cluster_policy(&self, name: &str) -> PolicyTable {
        let mut table = self.clone();
        for group in [&mut table.admin, &mut table.baseline] {
            if group.get(name).is_some() {
                *group = Arc::new(group.without(name));
            }
        }
        table
    }

    /// The next table, with these pods.
    pub(crate) fn with_endpoints(&self, endpoints: &Endpoints) -> PolicyTable {
        PolicyTable { endpoints: endpoints.by_address(), ..self.clone() }
    }

    /// The next table, with these nodes' addresses.
    pub(crate) fn with_nodes(&self, nodes: HashMap<IpAddr, String>) -> PolicyTable {
        PolicyTable { nodes: Arc::new(nodes), ..self.clone() }
    }

    /// Whether both tables hold the very same policies.
    pub(crate) fn same_policies(&self, other: &PolicyTable) -> bool {
        self.namespaces.ptr_eq(&other.namespaces)
            && Arc::ptr_eq(&self.admin, &other.admin)
            && Arc::ptr_eq(&self.baseline, &other.baseline)
    }

    /// Whether `flow` may pass, and why not: egress is judged first.
    pub fn allows(&self, flow: &NewFlow) -> Result<(), Reason> {
        self.judge(flow).refusal().map_or(Ok(()), Err)
    }

    /// Judges a flow: what live packets, explanations and what-if questions all come from.
    ///
    /// The source is a pod by the address it sent from, so that hairpin masquerading hides nobody from itself. Where the
    /// destination would see a node instead (node ports, load balancers), so do its rules.
    pub(crate) fn judge(&self, flow: &NewFlow) -> Judgement<'_> {
        let source = self.endpoints.get(&flow.original.src.ip()).map(|pod| &**pod);
        let destination = self.endpoints.get(&flow.translated.dst.ip()).map(|pod| &**pod);
        let same_pod = matches!((source, destination), (Some(a), Some(b)) if std::ptr::eq(a, b) || a.key == b.key);
        let masqueraded = flow.translated.src.ip() != flow.original.src.ip();
        let named = destination.map_or(&[][..], |pod| &pod.ports);
        let port = PortView { protocol: flow.translated.protocol, port: flow.translated.dst.port(), named };
        let egress_peer = PeerView { pod: destination, address: flow.translated.dst.ip() };
        let seen = source.filter(|_| !masqueraded || same_pod);
        let ingress_peer = PeerView { pod: seen, address: flow.translated.src.ip() };

        let own_address = same_pod && source.is_some_and(|pod| pod.ips.contains(&flow.original.dst.ip()));
        let own_node = || {
            let node = destination.and_then(|pod| pod.node.as_ref());
            node.is_some() && self.nodes.get(&flow.original.src.ip()) == node
        };
        let (egress, ingress) = if own_address {
            // It does not leave the pod.
            (Side::Exempt("a pod may always talk to its own address"), Side::Exempt("its own address"))
        } else {
            let egress = self.side(source, Direction::Egress, egress_peer, port);
            let ingress = if own_node() {
                Side::Exempt("traffic from the pod's own node is always allowed")
            } else {
                self.side(destination, Direction::Ingress, ingress_peer, port)
            };
            (egress, ingress)
        };
        Judgement { source, destination, port, egress_peer, ingress_peer, egress, ingress }
    }

    fn side(&self, pod: Option<&Endpoint>, direction: Direction, peer: PeerView<'_>, port: PortView<'_>) -> Side {
        let Some(pod) = pod else { return Side::NoPod };
        for tier in Tier::ALL {
            let Some(subject) = self.subject(tier, &pod.identity) else { continue };
            let Some(rules) = subject.rules(direction) else { continue };
            let matched = rules.first_match(peer, port).map(|number| (number, rules.rule(number).1.action));
            match matched {
                Some((number, Action::Accept)) => return Side::Allowed(tier, subject, number),
                Some((number, Action::Deny)) => return Side::Denied(tier, subject, Some(number)),
                None if tier == Tier::NetworkPolicy => return Side::Denied(tier, subject, None),
                Some((_, Action::Pass)) | None => {}
            }
        }
        Side::NotIsolated
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
