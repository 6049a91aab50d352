//! The pod sandbox: the pod's address, its host on the network, its volumes and name files, shared by its containers.

use crate::environment::{Addresses, ConfigError, References};
use crate::files::Files;
use crate::kubelet::Shared;
use crate::resolv_conf::{self, ResolvConf};
use crate::volumes::{self, Credentials, Sources};
use k8s_openapi::api::core::v1 as core;
use netstack::Host;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) struct Sandbox {
    /// Its addresses, the primary family's first.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host: Host,
    pub(crate) hostname: String,
    pub(crate) hosts: String,
    pub(crate) resolv_conf: ResolvConf,
    pub(crate) volumes: BTreeMap<String, Files>,
    /// The pod has a host and an address of its own (not `hostNetwork`).
    own_network: bool,
}

/// Why a sandbox could not be made: it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error(transparent)]
    Exhausted(#[from] crate::ipam::Exhausted),
    #[error(transparent)]
    Hostname(#[from] resolv_conf::FqdnTooLong),
    #[error(transparent)]
    Attach(#[from] netstack::AttachError),
}

impl Sandbox {
    /// Gives the pod its place on the network. Policies for it are in force before this returns (SEMANTICS 11.13).
    pub(crate) async fn create(kubelet: &Arc<Shared>, pod: &core::Pod) -> Result<Sandbox, SandboxError> {
        let spec = pod.spec.clone().unwrap_or_default();
        let own_network = spec.host_network != Some(true);
        let (zone, node) = (&kubelet.config.dns.zone, &kubelet.config.node_name);
        let hostname = if own_network { resolv_conf::kernel_hostname(pod, zone)? } else { node.clone() };
        let (ips, host) = if own_network {
            let ips = kubelet.ipam.allocate(&known_addresses(pod))?;
            let attached = kubelet.network.attach_host(&ips, kubelet.next_tag());
            let host = attached.inspect_err(|_| kubelet.ipam.release(&ips))?;
            kubelet.config.hooks.before_start(pod, &ips).await;
            (ips, host)
        } else {
            (kubelet.config.node_ips.clone(), kubelet.node_host().clone())
        };
        let dns = &kubelet.config.dns;
        Ok(Sandbox {
            hosts: if own_network {
                resolv_conf::hosts(pod, &ips, zone)
            } else {
                resolv_conf::node_hosts(pod, &ips, node)
            },
            ips,
            host,
            hostname,
            resolv_conf: resolv_conf::resolv_conf(pod, dns),
            volumes: spec.volumes.iter().flatten().map(|volume| (volume.name.clone(), Files::new())).collect(),
            own_network,
        })
    }

    /// Fills the pod's volumes from what they refer to.
    pub(crate) async fn fill_volumes(
        &self,
        kubelet: &Arc<Shared>,
        pod: &core::Pod,
        references: &References,
    ) -> Result<(), ConfigError> {
        let spec = pod.spec.clone().unwrap_or_default();
        let wants_token = |volume: &core::Volume| {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            sources.into_iter().find_map(|source| source.service_account_token.clone())
        };
        let mut credentials = Credentials::default();
        if let Some(wanted) = spec.volumes.iter().flatten().find_map(wants_token) {
            credentials.token = kubelet.token(pod, &wanted).await?;
        }
        let addresses = self.addresses(kubelet);
        let sources = Sources { pod, addresses: &addresses, references, credentials: &credentials };
        for volume in spec.volumes.iter().flatten() {
            volumes::fill(volume, &self.volumes[&volume.name], &sources)?;
        }
        Ok(())
    }

    /// Takes the pod off the network.
    pub(crate) fn remove(&self, kubelet: &Shared) {
        if !self.own_network {
            return;
        }
        self.host.shutdown();
        kubelet.config.hooks.removed(&self.ips);
        kubelet.ipam.release(&self.ips);
    }

    /// The primary address.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ips.first().copied().unwrap_or(IpAddr::from([0; 4]))
    }

    /// What the downward API says of the pod's place.
    pub(crate) fn addresses<'a>(&'a self, kubelet: &'a Shared) -> Addresses<'a> {
        Addresses { pod: &self.ips, host: &kubelet.config.node_ips }
    }
}

/// The addresses that a pod has had in an earlier life of the cluster.
fn known_addresses(pod: &core::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect()
}
