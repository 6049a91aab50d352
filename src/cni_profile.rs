//! CNI profiles: the observable behaviour of well-known network plug-ins, on the same virtual network.
//!
//! A profile changes what a user of such a cluster can see: whether NetworkPolicies are enforced, the MTU, where pod addresses
//! come from, how many pods a node takes, and what the nodes' route tables say. It does not imitate a plug-in's own machinery.
//! `docs/cni-profiles.md` sets them side by side.

use crate::Addresses;
use apiserver::admission::{Admission, AdmissionOperation, AdmissionRequest};
use apiserver::status::Status;
use async_trait::async_trait;
use informer::{Informers, Update};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use netstack::{Filter, NewFlow, Verdict};
use policy::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use policy::v1alpha2::ClusterNetworkPolicy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tracing::debug;

/// Which network plug-in a cluster behaves like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CniProfile {
    /// Coracle's own: no overlay, policies enforced.
    #[default]
    Coracle,
    /// A VXLAN overlay that does not enforce NetworkPolicies. So does kubenet, without the overlay.
    Flannel,
    /// IP-in-IP between nodes whose routes BGP has spread, policies enforced.
    Calico,
    /// A VXLAN overlay, verdicts by identity, a flow log.
    Cilium,
    /// An encrypted overlay, policies enforced. The project was archived in 2024.
    Weave,
    /// Pod addresses from the nodes' own network (the VPC), as many per node as its interfaces (ENIs) have; no overlay.
    AwsVpc,
    /// A pod range of its own that the virtual network routes; no overlay header.
    Azure,
    /// Pod addresses from the virtual network (VNet) that the nodes are in.
    AzureVnet,
}

/// The label of nodes that says so.
const LABEL: &str = "net.coracle.dev/cni-profile";
/// The reason of Events on policies that are not enforced.
const NOT_ENFORCED: &str = "NotEnforced";
/// Policies that an Event has been written for are remembered up to this number.
const REMEMBERED: usize = 4096;

/// One line of a node's route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) node: String,
    pub(crate) destination: String,
    /// The next node; "" on the node itself.
    pub(crate) via: String,
    pub(crate) device: &'static str,
    /// Who has put it there, as `ip route` says it.
    pub(crate) protocol: &'static str,
    pub(crate) encapsulation: &'static str,
    pub(crate) encrypted: bool,
}

/// A profile's figures.
struct Facts {
    name: &'static str,
    mtu: usize,
    pods: u32,
    /// Device of a node's own pods, and of the way to other nodes' pods.
    devices: (&'static str, &'static str),
    protocol: &'static str,
    encapsulation: &'static str,
}

impl CniProfile {
    /// Every profile, Coracle's own first.
    pub const ALL: [CniProfile; 8] = [
        CniProfile::Coracle,
        CniProfile::Flannel,
        CniProfile::Calico,
        CniProfile::Cilium,
        CniProfile::Weave,
        CniProfile::AwsVpc,
        CniProfile::Azure,
        CniProfile::AzureVnet,
    ];

    fn facts(self) -> Facts {
        let facts = |name, mtu, pods, devices, protocol, encapsulation| Facts {
            name,
            mtu,
            pods,
            devices,
            protocol,
            encapsulation,
        };
        match self {
            CniProfile::Coracle => facts("coracle", 1500, 250, ("coracle0", "coracle0"), "kernel", "none"),
            // VXLAN takes 50 bytes of 1500 (RFC 7348: 14 + 20 + 8 + 8).
            CniProfile::Flannel => facts("flannel", 1450, 110, ("cni0", "flannel.1"), "onlink", "vxlan"),
            // An outer IPv4 header (RFC 2003).
            CniProfile::Calico => facts("calico", 1480, 110, ("cali+", "tunl0"), "bird", "ipip"),
            CniProfile::Cilium => facts("cilium", 1450, 110, ("lxc+", "cilium_vxlan"), "kernel", "vxlan"),
            // Weave's own default: room for its encryption.
            CniProfile::Weave => facts("weave", 1376, 110, ("weave", "vxlan-6784"), "kernel", "vxlan"),
            // An m5.large: 3 interfaces of 10 addresses, one of each for itself, and two pods on the host's network.
            CniProfile::AwsVpc => facts("aws-vpc", 9001, 29, ("eni+", "eth0"), "vpc", "none"),
            CniProfile::Azure => facts("azure", 1500, 250, ("azv+", "eth0"), "vnet", "none"),
            CniProfile::AzureVnet => facts("azure-vnet", 1500, 30, ("azv+", "eth0"), "vnet", "none"),
        }
    }

    /// As `--cni-profile` and the label `net.coracle.dev/cni-profile` of nodes have it.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<CniProfile> {
        CniProfile::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Largest packet between pods, in bytes.
    pub fn mtu(self) -> usize {
        self.facts().mtu
    }

    /// Most pods on a node.
    pub fn pods_per_node(self) -> u32 {
        self.facts().pods
    }

    /// Whether NetworkPolicies have an effect.
    pub fn enforces_policies(self) -> bool {
        self != CniProfile::Flannel
    }

    /// Whether what goes from node to node is encrypted.
    pub fn is_encrypted(self) -> bool {
        self == CniProfile::Weave
    }

    /// Whether pods and nodes have addresses of one network.
    fn shares_node_network(self) -> bool {
        matches!(self, CniProfile::AwsVpc | CniProfile::AzureVnet)
    }

    /// The address plan: pods among the nodes, where the profile has them there.
    pub(crate) fn addresses(self, mut addresses: Addresses) -> Addresses {
        if self.shares_node_network() {
            let [first, second, ..] = addresses.gateway.octets();
            addresses.pods = (Ipv4Addr::new(first, second, 0, 0), 16);
            if let Some(v6) = &mut addresses.ipv6 {
                // A VPC has a /56 and a subnet of it a /64: the nodes' is the first, and each node's pods have one.
                v6.pods = (Ipv6Addr::from(u128::from(v6.gateway) & (u128::MAX << 72)), 56);
            }
        }
        addresses
    }

    /// Which addresses are pods': what comes from others and goes to a Service is masqueraded.
    pub(crate) fn pod_networks(self, addresses: &Addresses, nodes: u32) -> Vec<(IpAddr, u8)> {
        if !self.shares_node_network() {
            return addresses.pod_networks();
        }
        (1..=nodes).flat_map(|index| addresses.pod_networks_of(index)).collect()
    }

    /// Labels of the node with that number, from 1.
    pub(crate) fn node_labels(self, index: u32) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), format!("zone-{index}"))]);
        if self != CniProfile::Coracle {
            labels.insert(LABEL.to_owned(), self.name().to_owned());
        }
        labels
    }

    /// The filter of the network, given the policies'.
    pub(crate) fn filter(self, policies: Arc<dyn Filter>) -> Arc<dyn Filter> {
        if self.enforces_policies() { policies } else { Arc::new(Unfiltered) }
    }

    /// What has to be said when policies are written.
    pub(crate) fn admission(self) -> Option<Arc<dyn Admission>> {
        self.warning().map(|warning| Arc::new(NotEnforcedWarning(warning)) as Arc<dyn Admission>)
    }

    /// The route tables of the nodes, given their names, addresses and pod networks.
    pub(crate) fn routes(self, nodes: &[(String, String, String)]) -> Vec<Route> {
        let Facts { devices: (local, remote), protocol, encapsulation, .. } = self.facts();
        let mut routes = Vec::new();
        for (node, ..) in nodes {
            for (other, address, pods) in nodes {
                let is_own = node == other;
                routes.push(Route {
                    node: node.clone(),
                    destination: pods.clone(),
                    via: if is_own { String::new() } else { address.clone() },
                    device: if is_own { local } else { remote },
                    protocol: if is_own { "kernel" } else { protocol },
                    encapsulation: if is_own { "none" } else { encapsulation },
                    encrypted: !is_own && self.is_encrypted(),
                });
            }
        }
        routes
    }

    /// What is said where a policy is applied or asked about and has no effect.
    pub(crate) fn warning(self) -> Option<String> {
        (!self.enforces_policies()).then(|| {
            format!(
                "NetworkPolicies are not enforced: the cluster's network behaves as {} does; choose another --cni-profile",
                self.name()
            )
        })
    }
}

/// The filter of a network that enforces nothing.
struct Unfiltered;

impl Filter for Unfiltered {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

/// Says on every write of a policy that it has no effect.
struct NotEnforcedWarning(String);

#[async_trait]
impl Admission for NotEnforcedWarning {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        let of_cluster = ["clusternetworkpolicies", "adminnetworkpolicies", "baselineadminnetworkpolicies"];
        let is_policy = request.is_about("networking.k8s.io", "networkpolicies")
            || of_cluster.iter().any(|plural| request.is_about("policy.networking.k8s.io", plural));
        is_policy && request.operation != AdmissionOperation::Delete && request.subresource.is_empty()
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, _: &Value) -> Result<(), Status> {
        request.warn(self.0.clone());
        Ok(())
    }
}

/// Puts an Event on every policy that has no effect, once per policy. Ends with the informers.
pub(crate) async fn tell_not_enforced(
    informers: Informers,
    client: kube::Client,
    warning: String,
    now: impl Fn() -> Timestamp,
) {
    tokio::join!(
        tell_of::<NetworkPolicy>(&informers, &client, &warning, &now),
        tell_of::<ClusterNetworkPolicy>(&informers, &client, &warning, &now),
        tell_of::<AdminNetworkPolicy>(&informers, &client, &warning, &now),
        tell_of::<BaselineAdminNetworkPolicy>(&informers, &client, &warning, &now),
    );
}

async fn tell_of<K: informer::Resource>(
    informers: &Informers,
    client: &kube::Client,
    warning: &str,
    now: &impl Fn() -> Timestamp,
) {
    let mut changes = informers.of::<K>().subscribe();
    let mut told: VecDeque<String> = VecDeque::new();
    while let Some(change) = changes.next().await {
        let Update::Applied(policy) = &change.update else { continue };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let metadata = k8s_openapi::Metadata::metadata(&**policy);
        let (namespace, name, uid) = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
        // Events of what has no namespace stand in `default`, as upstream has it.
        let home = if namespace.is_empty() { "default" } else { &namespace };
        if told.contains(&uid) {
            continue;
        }
        let at = now();
        let time = Timestamp::from_second(at.as_second()).unwrap_or(at);
        let event = json!({
            "metadata": {"name": format!("{name}.{:x}", at.as_nanosecond()), "namespace": home},
            "involvedObject": {"apiVersion": K::API_VERSION, "kind": K::KIND, "name": name,
                "namespace": namespace, "uid": uid, "resourceVersion": metadata.resource_version},
            "type": "Warning", "reason": NOT_ENFORCED, "message": warning, "count": 1, "firstTimestamp": time,
            "lastTimestamp": time, "source": {"component": "coracle-policy"}, "reportingComponent": "coracle-policy",
        });
        let Ok(event) = serde_json::from_value::<Event>(event) else { continue };
        if let Err(error) = Api::<Event>::namespaced(client.clone(), home).create(&PostParams::default(), &event).await
        {
            debug!(%error, "event not written");
        }
        told.push_back(uid);
        if told.len() > REMEMBERED {
            told.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name() {
        for profile in CniProfile::ALL {
            assert_eq!(CniProfile::named(profile.name()), Some(profile));
        }
        assert_eq!(CniProfile::named("kindnet"), None);
    }

    #[test]
    fn rule_18_every_profile_has_the_mtu_the_pods_per_node_and_the_way_between_nodes_of_its_plug_in() {
        //            name          mtu   pods  between nodes  encrypted  enforces  pods in the nodes' network
        let table = [
            ("coracle", 1500, 250, "none", false, true, false),
            ("flannel", 1450, 110, "vxlan", false, false, false),
            ("calico", 1480, 110, "ipip", false, true, false),
            ("cilium", 1450, 110, "vxlan", false, true, false),
            ("weave", 1376, 110, "vxlan", true, true, false),
            ("aws-vpc", 9001, 29, "none", false, true, true),
            ("azure", 1500, 250, "none", false, true, false),
            ("azure-vnet", 1500, 30, "none", false, true, true),
        ];
        let of = |profile: CniProfile| {
            let shares = profile.addresses(Addresses::default()).pods != Addresses::default().pods;
            let (name, enforces) = (profile.name(), profile.enforces_policies());
            let encapsulation = profile.facts().encapsulation;
            (name, profile.mtu(), profile.pods_per_node(), encapsulation, profile.is_encrypted(), enforces, shares)
        };
        assert_eq!(CniProfile::ALL.map(of), table);
    }

    #[test]
    fn rule_18_pods_of_a_vpc_have_addresses_of_the_nodes_network_and_none_of_a_node() {
        for profile in [CniProfile::AwsVpc, CniProfile::AzureVnet] {
            let dual = Addresses { ipv6: Some(Default::default()), ..Addresses::default() };
            let plan = profile.addresses(dual);
            let v6 = plan.ipv6.as_ref().expect("both families");
            let (vpc, others) = (u128::from(v6.gateway) >> 72, [v6.services.0, v6.load_balancers.0]);
            assert!(others.iter().all(|ip| u128::from(*ip) >> 72 != vpc), "{profile:?}");
            let in_network = |ip: Ipv4Addr| ip.octets()[..2] == plan.gateway.octets()[..2];
            for index in 1..=200 {
                let (network, prefix) = plan.pod_network(index);
                assert!(in_network(network) && prefix == 24);
                assert_ne!(network.octets()[2], plan.node(index).octets()[2], "nodes have a subnet of their own");
                assert_ne!(network.octets()[2], plan.load_balancers.0.octets()[2]);
                let [_, (IpAddr::V6(six), 64)] = plan.pod_networks_of(index)[..] else { panic!("no IPv6") };
                assert!(u128::from(six) >> 72 == vpc && u128::from(six) >> 64 != u128::from(v6.gateway) >> 64, "{six}");
            }
        }
    }

    #[test]
    fn a_route_table_leads_to_the_other_nodes_as_the_plug_in_would() {
        let nodes = [
            ("a".to_owned(), "172.18.0.2".to_owned(), "10.244.1.0/24".to_owned()),
            ("b".to_owned(), "172.18.0.3".to_owned(), "10.244.2.0/24".to_owned()),
        ];
        let routes = CniProfile::Weave.routes(&nodes);
        assert_eq!(routes.len(), 4);
        assert_eq!((routes[0].via.as_str(), routes[0].device, routes[0].encrypted), ("", "weave", false));
        assert_eq!(
            (routes[1].via.as_str(), routes[1].encapsulation, routes[1].encrypted),
            ("172.18.0.3", "vxlan", true)
        );
        assert_eq!(CniProfile::Calico.routes(&nodes)[1].protocol, "bird");
    }
}
