//! The options that every command which starts a cluster takes.

use clap::{Args, ValueEnum};
use coracle::{Builder, Cluster, HostNetwork};

/// How the cluster is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterOptions {
    /// Number of virtual nodes, 1 to 200
    #[arg(long, default_value_t = 2)]
    nodes: u32,
    /// Seed of every choice, to repeat a run
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    dns: super::dns_flags::DnsFlags,
    /// How this machine reaches pods, Services and nodes: by loopback addresses only, or by a TUN device and routes (as root)
    #[arg(long, value_enum, default_value_t = HostNetworkOption::Loopback)]
    host_network: HostNetworkOption,
}

/// [`HostNetwork`] as an option's value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HostNetworkOption {
    Loopback,
    Tun,
}

impl ClusterOptions {
    /// A builder with these options.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = self.dns.apply(Cluster::builder().nodes(self.nodes)).host_network(match self.host_network {
            HostNetworkOption::Loopback => HostNetwork::Loopback,
            HostNetworkOption::Tun => HostNetwork::Tun,
        });
        if let Some(seed) = self.seed {
            builder = builder.seed(seed);
        }
        builder
    }
}
