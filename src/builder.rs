//! How a cluster is to be: what a user chooses before it starts.

use crate::addresses::{Addresses, Ipv6Addresses};
use crate::cluster::Cluster;
use crate::cni_profile::CniProfile;
use crate::dns_options::DnsOptions;
use crate::host_network::HostNetwork;
use anyhow::Result;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) nodes: u32,
    pub(crate) seed: Option<u64>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) addresses: Addresses,
    pub(crate) api: Option<SocketAddr>,
    pub(crate) unix_socket: Option<PathBuf>,
    pub(crate) host_ports: bool,
    pub(crate) host_network: HostNetwork,
    pub(crate) forward_outside: bool,
    pub(crate) cni_profile: CniProfile,
    pub(crate) dns: DnsOptions,
    pub(crate) deny_mode: policy::Denial,
    pub(crate) policy_established: policy::Established,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            nodes: 2,
            seed: None,
            data_dir: None,
            addresses: Addresses::default(),
            api: None,
            unix_socket: None,
            host_ports: false,
            host_network: HostNetwork::default(),
            forward_outside: false,
            cni_profile: CniProfile::default(),
            dns: DnsOptions::default(),
            deny_mode: policy::Denial::default(),
            policy_established: policy::Established::default(),
        }
    }
}

impl Builder {
    /// Number of virtual nodes (1 to 200; 2 by default, since conformance wants at least two).
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    /// Seed of every choice, so that a run can be repeated. Keys and certificates are always random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Keeps the state in this directory; without one everything is in memory.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Serves the API over TLS at this address of the machine; port 0 takes a free one.
    pub fn api(mut self, address: SocketAddr) -> Self {
        self.api = Some(address);
        self
    }

    /// Serves the API to the owner on this unix socket, without credentials.
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix_socket = Some(path.into());
        self
    }

    /// Makes NodePorts and load balancers reachable on the machine's loopback addresses.
    pub fn host_ports(mut self, open: bool) -> Self {
        self.host_ports = open;
        self
    }

    /// How this machine reaches pods, Services and nodes.
    pub fn host_network(mut self, host_network: HostNetwork) -> Self {
        self.host_network = host_network;
        self
    }

    /// Lets pods reach addresses outside the cluster, and names be asked of the machine's resolvers.
    pub fn forward_outside(mut self, forward: bool) -> Self {
        self.forward_outside = forward;
        self
    }

    /// Which network plug-in the cluster behaves like.
    pub fn cni_profile(mut self, profile: CniProfile) -> Self {
        self.cni_profile = profile;
        self
    }

    /// What becomes of connections that policies do not allow: dropped, so that clients time out, or refused at once.
    pub fn deny_mode(mut self, mode: policy::Denial) -> Self {
        self.deny_mode = mode;
        self
    }

    /// What becomes of connections that were allowed when they were opened and are not any more.
    pub fn policy_established(mut self, established: policy::Established) -> Self {
        self.policy_established = established;
        self
    }

    /// Gives nodes, pods and (as their `ipFamilyPolicy` says) Services an IPv6 address beside their IPv4 one.
    pub fn dual_stack(mut self, dual_stack: bool) -> Self {
        self.addresses.ipv6 = dual_stack.then(Ipv6Addresses::default);
        self
    }

    /// Starts the cluster. When this returns, the API answers, the nodes are Ready and DNS answers.
    ///
    /// # Errors
    /// What could not be opened, listened on or read, and why.
    pub async fn start(self) -> Result<Cluster> {
        self.start_with(|_| {}).await
    }
}
