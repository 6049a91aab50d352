//! The options that every command which starts a cluster takes.

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use coracle::{Builder, Cluster, CniProfile, Denial, Established, HostNetwork};

/// How the cluster is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterOptions {
    /// Number of virtual nodes, 1 to 200
    #[arg(long, default_value_t = 2)]
    nodes: u32,
    /// Give nodes, pods and Services IPv6 addresses beside the IPv4 ones
    #[arg(long)]
    dual_stack: bool,
    /// Seed of every choice, to repeat a run
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    dns: super::dns_flags::DnsFlags,
    /// How this machine reaches pods, Services and nodes: by loopback addresses only, or by a TUN device and routes (as root)
    #[arg(long, value_enum, default_value_t = HostNetworkOption::Loopback)]
    host_network: HostNetworkOption,
    /// Which network plug-in the cluster behaves like: docs/cni-profiles.md sets them side by side
    #[arg(long, default_value = "coracle", value_parser = cni_profiles())]
    cni_profile: CniProfile,
    /// What becomes of connections that policies do not allow: no answer, as in most clusters, or a refusal at once
    #[arg(long, value_enum, default_value_t = DenyMode::Drop)]
    deny_mode: DenyMode,
    /// What becomes of open connections that policies do not allow any more: cut at their next packet, or kept until they end
    #[arg(long, value_enum, default_value_t = PolicyEstablished::ReEvaluate)]
    policy_established: PolicyEstablished,
}

fn cni_profiles() -> impl TypedValueParser<Value = CniProfile> {
    let names = PossibleValuesParser::new(CniProfile::ALL.map(CniProfile::name));
    names.map(|name| CniProfile::named(&name).unwrap_or_default())
}

/// [`HostNetwork`] as an option's value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HostNetworkOption {
    Loopback,
    Tun,
}

/// [`Denial`] as an option's value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DenyMode {
    Drop,
    Reject,
}

/// [`Established`] as an option's value.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyEstablished {
    ReEvaluate,
    Keep,
}

impl ClusterOptions {
    /// A builder with these options.
    pub(crate) fn builder(&self) -> Builder {
        let builder = Cluster::builder().nodes(self.nodes).cni_profile(self.cni_profile);
        let builder = builder.dual_stack(self.dual_stack);
        let builder = builder.deny_mode(match self.deny_mode {
            DenyMode::Drop => Denial::Drop,
            DenyMode::Reject => Denial::Reject,
        });
        let builder = builder.policy_established(match self.policy_established {
            PolicyEstablished::ReEvaluate => Established::ReEvaluate,
            PolicyEstablished::Keep => Established::Keep,
        });
        let mut builder = self.dns.apply(builder).host_network(match self.host_network {
            HostNetworkOption::Loopback => HostNetwork::Loopback,
            HostNetworkOption::Tun => HostNetwork::Tun,
        });
        if let Some(seed) = self.seed {
            builder = builder.seed(seed);
        }
        builder
    }
}
