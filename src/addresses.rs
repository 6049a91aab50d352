//! The address plan of the virtual network (`ARCHITECTURE.md` has it as a table): who is where, in one family or in two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: its first address and the length of its prefix.
pub(crate) type Network = (IpAddr, u8);

/// Addresses of the virtual network; see `ARCHITECTURE.md`.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Pods: node i has the i-th /24.
    pub pods: (Ipv4Addr, u8),
    /// Services.
    pub services: (Ipv4Addr, u8),
    /// The gateway, at which the API server is reached from inside too.
    pub gateway: Ipv4Addr,
    /// Means the loopback of the machine: `host.coracle.internal`.
    pub host: Ipv4Addr,
    /// The machine itself, if it is on the network: [`HostNetwork::Tun`](crate::HostNetwork::Tun).
    pub machine: Ipv4Addr,
    /// LoadBalancer Services.
    pub load_balancers: (Ipv4Addr, u8),
    /// The second family of a dual-stack cluster.
    pub ipv6: Option<Ipv6Addresses>,
}

/// The same in IPv6, for a dual-stack cluster (KEP-563).
#[derive(Clone, Debug)]
pub struct Ipv6Addresses {
    /// Pods: node i has the i-th /64.
    pub pods: (Ipv6Addr, u8),
    /// Services.
    pub services: (Ipv6Addr, u8),
    /// The gateway.
    pub gateway: Ipv6Addr,
    /// Means the loopback of the machine.
    pub host: Ipv6Addr,
    /// The machine itself, if it is on the network.
    pub machine: Ipv6Addr,
    /// LoadBalancer Services.
    pub load_balancers: (Ipv6Addr, u8),
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses {
            pods: (Ipv4Addr::new(10, 244, 0, 0), 16),
            services: (Ipv4Addr::new(10, 96, 0, 0), 12),
            gateway: Ipv4Addr::new(172, 18, 0, 1),
            host: Ipv4Addr::new(172, 18, 0, 254),
            machine: Ipv4Addr::new(172, 18, 0, 253),
            load_balancers: (Ipv4Addr::new(172, 18, 255, 0), 24),
            ipv6: None,
        }
    }
}

impl Default for Ipv6Addresses {
    /// Unique local addresses (RFC 4193) that read like the IPv4 ones.
    fn default() -> Self {
        let of = |segments: [u16; 4], last: u16| {
            let [a, b, c, d] = segments;
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)
        };
        Ipv6Addresses {
            pods: (of([0xfd00, 0x10, 0x244, 0], 0), 56),
            services: (of([0xfd00, 0x10, 0x96, 0], 0), 112),
            gateway: of([0xfd00, 0x172, 0x18, 0], 1),
            host: of([0xfd00, 0x172, 0x18, 0], 0x254),
            machine: of([0xfd00, 0x172, 0x18, 0], 0x253),
            load_balancers: (of([0xfd00, 0x172, 0x18, 0x255], 0), 112),
        }
    }
}

/// Nodes and gateway of the IPv6 plan are within one network of this prefix, load balancers too.
const NODES_PREFIX: u8 = 48;

impl Addresses {
    /// The IPv4 address of node i, from 1.
    pub fn node(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) + index)
    }

    /// The `kubernetes` Service.
    pub fn kubernetes(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.0) + 1)
    }

    /// The `kube-dns` Service; its IPv6 address has the same number.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.0) + 10)
    }

    /// The IPv4 podCIDR of node i, from 1.
    pub fn pod_network(&self, index: u32) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from(u32::from(self.pods.0) + (index << 8)), 24)
    }

    /// One of each family, the primary first.
    fn both<T>(&self, v4: T, v6: impl FnOnce(&Ipv6Addresses) -> T) -> Vec<T> {
        std::iter::once(v4).chain(self.ipv6.as_ref().map(v6)).collect()
    }

    /// The addresses of node i, from 1.
    pub(crate) fn node_addresses(&self, index: u32) -> Vec<IpAddr> {
        self.both(self.node(index).into(), |v6| Ipv6Addr::from(u128::from(v6.gateway) + u128::from(index)).into())
    }

    /// The podCIDRs of node i, from 1.
    pub(crate) fn pod_networks_of(&self, index: u32) -> Vec<Network> {
        let (network, prefix) = self.pod_network(index);
        self.both((network.into(), prefix), |v6| {
            (Ipv6Addr::from(u128::from(v6.pods.0) + (u128::from(index) << 64)).into(), 64)
        })
    }

    /// The gateway's addresses.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        self.both(self.gateway.into(), |v6| v6.gateway.into())
    }

    /// The addresses that mean the machine's loopback, each with the one that it means.
    pub(crate) fn hosts(&self) -> Vec<(IpAddr, IpAddr)> {
        self.both((self.host.into(), Ipv4Addr::LOCALHOST.into()), |v6| (v6.host.into(), Ipv6Addr::LOCALHOST.into()))
    }

    /// The machine's own addresses on the network.
    #[cfg(target_os = "linux")]
    pub(crate) fn machines(&self) -> Vec<IpAddr> {
        self.both(self.machine.into(), |v6| v6.machine.into())
    }

    /// The addresses of the `kube-dns` Service.
    pub(crate) fn dns_addresses(&self) -> Vec<IpAddr> {
        self.both(self.dns().into(), |v6| Ipv6Addr::from(u128::from(v6.services.0) + 10).into())
    }

    /// Where Services have their ClusterIPs.
    pub(crate) fn service_networks(&self) -> Vec<Network> {
        self.both((self.services.0.into(), self.services.1), |v6| (v6.services.0.into(), v6.services.1))
    }

    /// Where all pods have their addresses.
    pub(crate) fn pod_networks(&self) -> Vec<Network> {
        self.both((self.pods.0.into(), self.pods.1), |v6| (v6.pods.0.into(), v6.pods.1))
    }

    /// Where load balancers have theirs, as CIDRs.
    pub(crate) fn load_balancer_networks(&self) -> Vec<String> {
        let cidr = |(network, prefix): Network| format!("{network}/{prefix}");
        let (v4, prefix) = self.load_balancers;
        self.both(cidr((v4.into(), prefix)), |v6| cidr((v6.load_balancers.0.into(), v6.load_balancers.1)))
    }

    /// Every network of the cluster: nothing for them leaves it.
    pub(crate) fn inside(&self) -> Vec<Network> {
        let nodes = self.both((self.gateway.into(), 16), |v6| (v6.gateway.into(), NODES_PREFIX));
        self.pod_networks().into_iter().chain(self.service_networks()).chain(nodes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_cluster_has_two_of_everything_and_a_single_stack_one_has_one() {
        let mut addresses = Addresses::default();
        let text = |ips: Vec<IpAddr>| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        let networks = |all: Vec<Network>| all.iter().map(|(ip, n)| format!("{ip}/{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(text(addresses.node_addresses(2)), "172.18.0.3");
        assert_eq!(networks(addresses.pod_networks_of(2)), "10.244.2.0/24");
        assert_eq!(networks(addresses.inside()), "10.244.0.0/16 10.96.0.0/12 172.18.0.1/16");

        addresses.ipv6 = Some(Ipv6Addresses::default());
        assert_eq!(text(addresses.node_addresses(2)), "172.18.0.3 fd00:172:18::3");
        assert_eq!(networks(addresses.pod_networks_of(200)), "10.244.200.0/24 fd00:10:244:c8::/64");
        assert_eq!(text(addresses.gateways()), "172.18.0.1 fd00:172:18::1");
        assert_eq!(text(addresses.dns_addresses()), "10.96.0.10 fd00:10:96::a");
        assert_eq!(networks(addresses.service_networks()), "10.96.0.0/12 fd00:10:96::/112");
        assert_eq!(addresses.load_balancer_networks(), ["172.18.255.0/24", "fd00:172:18:255::/112"]);
    }
}
