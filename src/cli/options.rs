//! The options that every command which starts a cluster takes.

use clap::Args;
use coracle::{Builder, Cluster};

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
}

impl ClusterOptions {
    /// A builder with these options.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = self.dns.apply(Cluster::builder().nodes(self.nodes));
        if let Some(seed) = self.seed {
            builder = builder.seed(seed);
        }
        builder
    }
}
