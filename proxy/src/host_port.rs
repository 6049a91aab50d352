//! Host ports: a node's address and port that means one container of one pod.
//!
//! Kubernetes leaves them to the network plugin (portmap). They are here because they are translations, decided by the
//! same hook; Services come first. Whether two pods may claim the same one is the scheduler's business.

use crate::service::{ServiceName, protocol};
use k8s_openapi::api::core::v1::Pod;
use netstack::Protocol;
use std::net::{IpAddr, SocketAddr};

/// Where a host port is looked for: the node's name, protocol and port.
pub(crate) type HostPortKey = (String, Protocol, u16);

/// One host port of one pod, in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) pod: ServiceName,
    /// Of the node's addresses only this one; `None`: all of the target's family.
    host_ip: Option<IpAddr>,
    pub(crate) target: SocketAddr,
}

impl HostPort {
    /// Whether it is served at this address of its node.
    pub(crate) fn is_at(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.target.is_ipv4() && self.host_ip.is_none_or(|only| only == address)
    }

    /// The host ports of a pod that runs somewhere with addresses of its own; none otherwise.
    pub(crate) fn compile(pod: &Pod) -> Vec<(HostPortKey, HostPort)> {
        let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
        let Some(node) = &spec.node_name else { return Vec::new() };
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || spec.host_network.unwrap_or(false) {
            return Vec::new();
        }
        let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
        let mut ips: Vec<IpAddr> = listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
        ips.sort();
        ips.dedup();
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let mut compiled = Vec::new();
        for port in ports {
            let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
            let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"));
            let (Some(host_port), Some(container_port), Some(protocol)) =
                (port.host_port.and_then(number), number(port.container_port), protocol)
            else {
                continue;
            };
            let host_ip = port.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            for ip in &ips {
                let host_port_of_family = HostPort {
                    pod: ServiceName::of_object(&pod.metadata),
                    host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
                    target: SocketAddr::new(*ip, container_port),
                };
                compiled.push(((node.clone(), protocol, host_port), host_port_of_family));
            }
        }
        compiled
    }
}
