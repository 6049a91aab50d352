//! The pod sandbox: the pod's address, its host on the network, its volumes and name files, shared by its containers.

use crate::environment::{ConfigError, References};
use crate::files::Files;
use crate::kubelet::Shared;
use crate::resolv_conf;
use crate::volumes::{self, Credentials, Sources};
use k8s_openapi::api::core::v1 as core;
use netstack::Host;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) struct Sandbox {
    pub(crate) ip: IpAddr,
    pub(crate) host: Host,
    pub(crate) hostname: String,
    pub(crate) hosts: String,
    pub(crate) resolv_conf: String,
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
    Attach(#[from] netstack::AttachError),
}

impl Sandbox {
    /// Gives the pod its place on the network. Policies for it are in force before this returns (SEMANTICS 11.13).
    pub(crate) async fn create(kubelet: &Arc<Shared>, pod: &core::Pod) -> Result<Sandbox, SandboxError> {
        let spec = pod.spec.clone().unwrap_or_default();
        let own_network = spec.host_network != Some(true);
        let (ip, host) = if own_network {
            let wanted = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse().ok());
            let ip = kubelet.ipam.allocate(wanted)?;
            let attached = kubelet.network.attach_host(&[ip.into()], kubelet.next_tag());
            let host = attached.inspect_err(|_| kubelet.ipam.release(ip))?;
            kubelet.config.hooks.before_start(pod, &[ip.into()]).await;
            (IpAddr::from(ip), host)
        } else {
            (kubelet.config.node_ip, kubelet.node_host().clone())
        };
        let dns = &kubelet.config.dns;
        Ok(Sandbox {
            ip,
            host,
            hostname: if own_network { resolv_conf::hostname(pod) } else { kubelet.config.node_name.clone() },
            hosts: resolv_conf::hosts(pod, ip, &dns.zone),
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
        let (pod_ip, host_ip) = (self.ip.to_string(), kubelet.config.node_ip.to_string());
        let sources = Sources { pod, pod_ip: &pod_ip, host_ip: &host_ip, references, credentials: &credentials };
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
        kubelet.config.hooks.removed(&[self.ip]);
        if let IpAddr::V4(ip) = self.ip {
            kubelet.ipam.release(ip);
        }
    }
}
