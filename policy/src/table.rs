//! The policy table: every policy and every pod of the cluster, and the judgement of one new flow.
//!
//! A [`PolicyTable`] is immutable and cheap to clone; the next one shares everything with it that has not changed. What
//! a pod's policies say is compiled when a flow first asks, once per set of policies that selects the same pods.

use crate::endpoint::{Endpoint, Endpoints, Identity};
use crate::rule::{CompiledPolicy, Direction};
use crate::rule_set::{PeerView, PortView, RuleSet};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::NewFlow;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An immutable snapshot of all policies and of the pods they may select.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    endpoints: imbl::HashMap<IpAddr, Arc<Endpoint>>,
    namespaces: imbl::HashMap<String, Arc<NamespacePolicies>>,
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

/// The policies of one namespace, and what they mean for the identities seen so far.
#[derive(Debug, Default)]
struct NamespacePolicies {
    /// By name, which is also the order in which rules are reported.
    policies: imbl::OrdMap<String, Arc<CompiledPolicy>>,
    subjects: RwLock<Subjects>,
}

#[derive(Debug, Default)]
struct Subjects {
    by_identity: HashMap<u64, Arc<Subject>>,
    /// Identities that the same policies select share everything.
    by_selection: HashMap<Vec<u32>, Arc<Subject>>,
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

/// What one end of a flow says to it.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// This end is no pod with an identity.
    NoPod,
    /// Policies do not speak of this flow.
    Exempt(&'static str),
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// This rule of the subject allows it.
    Allowed(Arc<Subject>, u32),
    /// The pod is isolated, and no rule allows it.
    Denied(Arc<Subject>),
}

impl Side {
    pub(crate) fn allows(&self) -> bool {
        !matches!(self, Side::Denied(_))
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
        let known = self.namespaces.get(&compiled.namespace).and_then(|known| known.policies.get(&compiled.name));
        if known.is_some_and(|known| **known == compiled) {
            return self.clone();
        }
        let namespace = compiled.namespace.clone();
        self.with_policies(&namespace, |policies| {
            policies.insert(compiled.name.clone(), Arc::new(compiled));
        })
    }

    /// The next table, without a policy.
    pub fn without_policy(&self, namespace: &str, name: &str) -> PolicyTable {
        if !self.namespaces.get(namespace).is_some_and(|known| known.policies.contains_key(name)) {
            return self.clone();
        }
        self.with_policies(namespace, |policies| {
            policies.remove(name);
        })
    }

    fn with_policies(
        &self,
        namespace: &str,
        change: impl FnOnce(&mut imbl::OrdMap<String, Arc<CompiledPolicy>>),
    ) -> PolicyTable {
        let mut policies = self.namespaces.get(namespace).map(|known| known.policies.clone()).unwrap_or_default();
        change(&mut policies);
        let mut table = self.clone();
        if policies.is_empty() {
            table.namespaces.remove(namespace);
        } else {
            let fresh = NamespacePolicies { policies, subjects: RwLock::default() };
            table.namespaces.insert(namespace.to_owned(), Arc::new(fresh));
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
    }

    /// Whether `flow` may pass, and which side says no.
    pub fn allows(&self, flow: &NewFlow) -> Result<(), netstack::Reason> {
        let judgement = self.judge(flow);
        if !judgement.egress.allows() {
            Err(crate::reason::POLICY_DENIED_EGRESS)
        } else if !judgement.ingress.allows() {
            Err(crate::reason::POLICY_DENIED_INGRESS)
        } else {
            Ok(())
        }
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
        let Some(subject) = self.subject(&pod.identity) else { return Side::NotIsolated };
        let Some(rules) = subject.rules(direction) else { return Side::NotIsolated };
        match rules.first_match(peer, port) {
            Some(rule) => Side::Allowed(subject, rule),
            None => Side::Denied(subject),
        }
    }

    /// What applies to an identity; `None` when its namespace has no policies.
    pub(crate) fn subject(&self, identity: &Identity) -> Option<Arc<Subject>> {
        let namespace = self.namespaces.get(&identity.namespace)?;
        Some(namespace.subject(identity))
    }
}

impl NamespacePolicies {
    fn subject(&self, identity: &Identity) -> Arc<Subject> {
        if let Some(subject) = self.subjects.read().by_identity.get(&identity.id) {
            return subject.clone();
        }
        let selecting =
            (0u32..).zip(self.policies.values()).filter(|(_, policy)| policy.selector.matches(&identity.labels));
        let (selection, policies): (Vec<u32>, Vec<Arc<CompiledPolicy>>) =
            selecting.map(|(number, policy)| (number, policy.clone())).unzip();
        let mut subjects = self.subjects.write();
        if subjects.by_identity.len() >= REMEMBERED_IDENTITIES {
            *subjects = Subjects::default();
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

/// Identities come and go; beyond so many remembered ones a namespace starts afresh.
const REMEMBERED_IDENTITIES: usize = 65_536;
