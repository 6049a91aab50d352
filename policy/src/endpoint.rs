//! Pods as policies see them: an identity (namespace and labels), named ports, a node, and addresses.

use crate::group::IdentityRules;
use crate::hash::PersistentMap;
use crate::ports::NamedPort;
use crate::selector::Labels;
use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use netstack::Protocol;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// The label that every namespace carries.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What selectors look at. Immutable; pods with equal labels in one namespace share it, and so do their compiled rules.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Never given twice in a process: a key for caches.
    pub(crate) id: u64,
    pub(crate) namespace: String,
    pub(crate) namespace_labels: Arc<Labels>,
    pub(crate) labels: Arc<Labels>,
    /// What applies to it, in the set of policies that was asked last.
    pub(crate) rules: ArcSwapOption<IdentityRules>,
}

/// A pod with addresses of its own.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) key: PodKey,
    pub(crate) identity: Arc<Identity>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) node: Option<String>,
    pub(crate) ips: Vec<IpAddr>,
}

impl Endpoint {
    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.key.namespace, self.key.name)
    }
}

/// What a Pod says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    labels: Arc<Labels>,
    ports: Vec<NamedPort>,
    node: Option<String>,
}

/// Which pod: a name may come back with another uid while the old pod is still being stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodKey {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Debug)]
struct Known {
    /// The resourceVersion of its description.
    version: u64,
    description: Description,
    ips: Vec<IpAddr>,
}

/// Every attached pod and every namespace's labels; makes the map from address to [`Endpoint`].
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    pods: BTreeMap<PodKey, Known>,
    namespaces: HashMap<String, Arc<Labels>>,
    /// By the labels of namespace and pod; those of a namespace have its name among them.
    identities: HashMap<(Arc<Labels>, Arc<Labels>), Weak<Identity>>,
    /// Dead identities are swept when this many are known.
    sweep_at: usize,
    next_id: u64,
    by_address: PersistentMap<IpAddr, Arc<Endpoint>>,
}

impl Endpoints {
    /// The map, as it is now: O(1).
    pub(crate) fn by_address(&self) -> PersistentMap<IpAddr, Arc<Endpoint>> {
        self.by_address.clone()
    }

    /// Takes in a pod that is about to run at these addresses. Pods of the host network have no identity.
    pub(crate) fn attach(&mut self, pod: &Pod, ips: &[IpAddr]) {
        if ips.is_empty() || on_host_network(pod) {
            return;
        }
        let key = PodKey::of(pod);
        if let Some(known) = self.pods.remove(&key) {
            for ip in &known.ips {
                self.by_address.remove(ip);
            }
        }
        let known = Known { version: version_of(pod), description: Description::of(pod), ips: ips.to_vec() };
        let endpoint = self.endpoint(&key, &known);
        for ip in ips {
            self.by_address.insert(*ip, endpoint.clone());
        }
        self.pods.insert(key, known);
    }

    /// The pods at these addresses are gone. Says whether there were any.
    pub(crate) fn detach(&mut self, ips: &[IpAddr]) -> bool {
        let gone: Vec<Arc<Endpoint>> = ips.iter().filter_map(|ip| self.by_address.remove(ip)).collect();
        for endpoint in &gone {
            if endpoint.ips.iter().all(|ip| ips.contains(ip)) {
                self.pods.remove(&endpoint.key);
            }
        }
        !gone.is_empty()
    }

    /// Takes in a newer state of an attached pod. Says whether that matters.
    pub(crate) fn update(&mut self, pod: &Pod) -> bool {
        let key = PodKey::of(pod);
        let (description, version) = (Description::of(pod), version_of(pod));
        let Some(known) = self.pods.get_mut(&key).filter(|known| known.version <= version) else { return false };
        known.version = version;
        if known.description == description {
            return false;
        }
        known.description = description;
        self.replace(&key);
        true
    }

    /// Takes in a namespace's labels. Says whether that matters to any pod.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) -> bool {
        let labels = namespace_labels(name, labels);
        if self.namespaces.get(name).is_some_and(|known| **known == labels) {
            return false;
        }
        self.namespaces.insert(name.to_owned(), Arc::new(labels));
        self.replace_all(name)
    }

    /// A namespace is gone: pods that are still stopping keep only its name.
    pub(crate) fn remove_namespace(&mut self, name: &str) -> bool {
        self.namespaces.remove(name).is_some() && self.replace_all(name)
    }

    fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&PodKey, &Known)> {
        let first = PodKey { namespace: namespace.to_owned(), name: String::new(), uid: String::new() };
        self.pods.range(first..).take_while(move |(key, _)| key.namespace == namespace)
    }

    /// The identities of a namespace's pods, or of all.
    pub(crate) fn identities(&self, namespace: Option<&str>) -> Vec<Arc<Identity>> {
        let address = |known: &Known| self.by_address.get(known.ips.first()?);
        let identity = |known: &Known| Some(address(known)?.identity.clone());
        match namespace {
            Some(namespace) => self.of_namespace(namespace).filter_map(|(_, known)| identity(known)).collect(),
            None => self.pods.values().filter_map(identity).collect(),
        }
    }

    fn replace_all(&mut self, namespace: &str) -> bool {
        let keys: Vec<PodKey> = self.of_namespace(namespace).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.replace(key);
        }
        !keys.is_empty()
    }

    fn replace(&mut self, key: &PodKey) {
        let Some(known) = self.pods.remove(key) else { return };
        let endpoint = self.endpoint(key, &known);
        for ip in &known.ips {
            // The address may have been given to another pod meanwhile.
            if self.by_address.get(ip).is_some_and(|at| at.key == *key) {
                self.by_address.insert(*ip, endpoint.clone());
            }
        }
        self.pods.insert(key.clone(), known);
    }

    fn endpoint(&mut self, key: &PodKey, known: &Known) -> Arc<Endpoint> {
        let identity = self.identity(&key.namespace, &known.description.labels);
        Arc::new(Endpoint {
            key: key.clone(),
            identity,
            ports: known.description.ports.clone(),
            node: known.description.node.clone(),
            ips: known.ips.clone(),
        })
    }

    fn identity(&mut self, namespace: &str, labels: &Arc<Labels>) -> Arc<Identity> {
        let namespace_labels = match self.namespaces.get(namespace) {
            Some(known) => known.clone(),
            None => {
                let unlabelled = Arc::new(namespace_labels(namespace, None));
                self.namespaces.insert(namespace.to_owned(), unlabelled.clone());
                unlabelled
            }
        };
        let key = (namespace_labels.clone(), labels.clone());
        if let Some(identity) = self.identities.get(&key).and_then(Weak::upgrade) {
            return identity;
        }
        self.next_id += 1;
        let identity = Arc::new(Identity {
            id: self.next_id,
            namespace: namespace.to_owned(),
            namespace_labels,
            labels: labels.clone(),
            rules: ArcSwapOption::empty(),
        });
        self.identities.insert(key, Arc::downgrade(&identity));
        if self.identities.len() > self.sweep_at {
            self.identities.retain(|_, identity| identity.strong_count() > 0);
            self.sweep_at = (2 * self.identities.len()).max(1024);
        }
        identity
    }
}

fn namespace_labels(name: &str, labels: Option<&Labels>) -> Labels {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
    labels
}

impl PodKey {
    fn of(pod: &Pod) -> PodKey {
        PodKey {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl Description {
    fn of(pod: &Pod) -> Description {
        let spec = pod.spec.as_ref();
        Description {
            labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
            ports: spec.map(named_ports).unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()),
        }
    }
}

/// The named ports of everything that keeps running: containers, then init containers that are restarted always.
fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                _ => return None,
            };
            let number = u16::try_from(port.container_port).ok()?;
            Some(NamedPort { name: port.name.clone()?, protocol, number })
        })
        .collect()
}

/// Whether the pod has its node's addresses instead of its own.
pub(crate) fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// The resourceVersion; 0 when it has none.
pub(crate) fn version_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2));

    fn pod(name: &str, version: &str, app: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.resource_version = Some(version.into());
        pod.metadata.labels = Some(Labels::from([("app".into(), app.into())]));
        pod
    }

    fn app(endpoints: &Endpoints) -> Option<String> {
        endpoints.by_address().get(&IP).and_then(|endpoint| endpoint.identity.labels.get("app").cloned())
    }

    #[test]
    fn an_older_state_that_is_told_late_does_not_count() {
        let mut endpoints = Endpoints::default();
        endpoints.attach(&pod("a", "9", "new"), &[IP]);
        assert!(!endpoints.update(&pod("a", "5", "old")));
        assert_eq!(app(&endpoints).as_deref(), Some("new"));
        assert!(endpoints.update(&pod("a", "10", "newest")));
        assert_eq!(app(&endpoints).as_deref(), Some("newest"));
    }

    #[test]
    fn a_pod_that_has_lost_its_address_to_another_does_not_take_it_back() {
        let mut endpoints = Endpoints::default();
        endpoints.attach(&pod("a", "1", "a"), &[IP]);
        endpoints.attach(&pod("b", "2", "b"), &[IP]);
        endpoints.update(&pod("a", "3", "changed"));
        assert_eq!(app(&endpoints).as_deref(), Some("b"));
        endpoints.set_namespace("default", Some(&Labels::from([("x".into(), "y".into())])));
        assert_eq!(app(&endpoints).as_deref(), Some("b"));
        assert!(endpoints.detach(&[IP]));
        assert_eq!(app(&endpoints), None);
    }

    #[test]
    fn pods_with_equal_labels_share_their_identity() {
        let mut endpoints = Endpoints::default();
        let other = IpAddr::from([10, 244, 1, 3]);
        endpoints.attach(&pod("a", "1", "web"), &[IP]);
        endpoints.attach(&pod("b", "1", "web"), &[other]);
        let map = endpoints.by_address();
        assert!(Arc::ptr_eq(&map[&IP].identity, &map[&other].identity));
    }
}
