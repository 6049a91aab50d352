//! One Service, compiled: its frontends and, per port, its endpoints.

use crate::endpoint::{Endpoints, Slices};
use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use netstack::Protocol;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

const DEFAULT_AFFINITY_TIMEOUT: Duration = Duration::from_secs(10_800);

/// A Service's namespace and name; of a host port, its pod's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ServiceName {
    pub(crate) fn of(service: &v1::Service) -> ServiceName {
        ServiceName::of_object(&service.metadata)
    }

    pub(crate) fn of_object(metadata: &ObjectMeta) -> ServiceName {
        ServiceName {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// By which of its addresses a Service was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum FrontendKind {
    /// `spec.clusterIPs`
    ClusterIp,
    /// `spec.externalIPs`
    ExternalIp,
    /// `status.loadBalancer.ingress` with `ipMode: VIP`
    LoadBalancer,
    /// `spec.ports[].nodePort` at a node's address
    NodePort,
    /// A container's `hostPort` at its node's address: no Service's
    HostPort,
    /// `spec.healthCheckNodePort` at a node's address: answered by the node, not by an endpoint
    HealthCheck,
}

/// What a flow must be addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrontendKey {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// One address of a Service port.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frontend {
    pub(crate) kind: FrontendKind,
    pub(crate) service: Arc<Service>,
    pub(crate) port: Arc<ServicePort>,
}

impl Frontend {
    /// Whether its traffic policy is `Local`.
    pub(crate) fn local_policy(&self) -> bool {
        match self.kind {
            FrontendKind::ClusterIp => self.service.internal_local,
            _ => self.service.external_local,
        }
    }
}

/// A frontend that is reachable from outside of the cluster: somebody may want to listen for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ExternalFrontend {
    /// Every kind but `ClusterIp`.
    pub kind: FrontendKind,
    /// The address inside the network.
    pub address: IpAddr,
    /// TCP, UDP or SCTP.
    #[serde(serialize_with = "crate::explain::protocol")]
    pub protocol: Protocol,
    /// The port at that address.
    pub port: u16,
    /// Whose it is: a Service's, or a pod's if it is a host port.
    pub service: ServiceName,
}

/// What all ports of a Service share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    /// Of two Services that claim one frontend, the older has it: seconds since the epoch.
    created: i64,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    /// `sessionAffinity: ClientIP` and how long it lasts.
    pub(crate) affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`; empty: everybody.
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) health_check_node_port: Option<u16>,
}

impl Service {
    /// Who of several claimants comes first.
    pub(crate) fn seniority(&self) -> (i64, &ServiceName) {
        (self.created, &self.name)
    }
}

/// One port of a Service and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    v4: Endpoints,
    v6: Endpoints,
}

impl ServicePort {
    /// The endpoints of `frontend`'s family: no translation crosses families.
    pub(crate) fn endpoints(&self, frontend: IpAddr) -> &Endpoints {
        if frontend.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// Both families' endpoints.
    pub(crate) fn families(&self) -> [&Endpoints; 2] {
        [&self.v4, &self.v6]
    }
}

/// A Service with everything that its slices say, ready to be put into the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompiledService {
    pub(crate) service: Arc<Service>,
    pub(crate) ports: Vec<Arc<ServicePort>>,
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Those with an address of their own.
    pub(crate) frontends: Vec<(FrontendKey, Frontend)>,
    /// Those at every node's address, by family: (IPv4?, protocol, port).
    pub(crate) node_ports: Vec<((bool, Protocol, u16), Frontend)>,
}

impl CompiledService {
    /// `None` for a Service that the data path never sees: headless, ExternalName, or not yet allocated.
    pub(crate) fn compile(object: &v1::Service, slices: &Slices) -> Option<CompiledService> {
        let spec = object.spec.as_ref()?;
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        let cluster_ips = cluster_ips(spec);
        if kind == "ExternalName" || cluster_ips.is_empty() {
            return None;
        }
        let service = Arc::new(service(object, spec));
        let mut compiled = CompiledService {
            service: service.clone(),
            ports: Vec::new(),
            frontends: Vec::new(),
            node_ports: Vec::new(),
            cluster_ips: cluster_ips.clone(),
        };
        let local = service.internal_local || service.external_local;
        let external_ips = parsed(&service, "spec.externalIPs", spec.external_ips.iter().flatten());
        let vips = if kind == "LoadBalancer" { virtual_ips(&service, object) } else { Vec::new() };
        for spec in spec.ports.iter().flatten() {
            let protocol_name = spec.protocol.as_deref().unwrap_or("TCP");
            let (Some(protocol), Ok(number)) = (protocol(protocol_name), u16::try_from(spec.port)) else {
                continue; // the API server lets neither through
            };
            let name = spec.name.clone().unwrap_or_default();
            let (v4, v6) = Endpoints::compile(slices, &name, protocol_name, local);
            let port = Arc::new(ServicePort { name, protocol, port: number, v4, v6 });
            compiled.ports.push(port.clone());
            let addresses = [
                (FrontendKind::ClusterIp, &cluster_ips),
                (FrontendKind::ExternalIp, &external_ips),
                (FrontendKind::LoadBalancer, &vips),
            ];
            for (kind, addresses) in addresses {
                compiled.frontends.extend(addresses.iter().map(|address| {
                    let key = FrontendKey { address: *address, protocol, port: number };
                    (key, Frontend { kind, service: service.clone(), port: port.clone() })
                }));
            }
            let node_port = spec.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
            if let Some(node_port) = node_port.filter(|_| matches!(kind, "NodePort" | "LoadBalancer")) {
                for v4 in compiled.families().collect::<Vec<_>>() {
                    let frontend =
                        Frontend { kind: FrontendKind::NodePort, service: service.clone(), port: port.clone() };
                    compiled.node_ports.push(((v4, protocol, node_port), frontend));
                }
            }
        }
        Some(compiled)
    }

    /// Whether any of its ports is UDP.
    pub(crate) fn has_udp(&self) -> bool {
        self.ports.iter().any(|port| port.protocol == Protocol::Udp)
    }

    /// Whether both offer the same to the outside, whatever their endpoints.
    pub(crate) fn same_outside(&self, other: &CompiledService) -> bool {
        let own = |compiled: &CompiledService| -> Vec<(FrontendKey, FrontendKind)> {
            let keys = compiled.frontends.iter().map(|(key, frontend)| (*key, frontend.kind));
            keys.filter(|(_, kind)| *kind != FrontendKind::ClusterIp).collect()
        };
        self.service.created == other.service.created
            && self.service.health_check_node_port == other.service.health_check_node_port
            && self.node_ports.iter().map(|(key, _)| key).eq(other.node_ports.iter().map(|(key, _)| key))
            && own(self) == own(other)
    }

    /// The families that it has addresses of.
    pub(crate) fn families(&self) -> impl Iterator<Item = bool> {
        [true, false].into_iter().filter(|v4| self.cluster_ips.iter().any(|ip| ip.is_ipv4() == *v4))
    }
}

fn service(object: &v1::Service, spec: &v1::ServiceSpec) -> Service {
    let name = ServiceName::of(object);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds);
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DEFAULT_AFFINITY_TIMEOUT, Duration::from_secs)
    });
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let source_ranges = ranges
        .filter_map(|range| match range.trim().parse::<IpNet>() {
            Ok(range) => Some(range),
            Err(error) => {
                warn!(service = %name, range, %error, "loadBalancerSourceRanges has no range");
                None
            }
        })
        .collect();
    Service {
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity,
        source_ranges,
        health_check_node_port: spec
            .health_check_node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
        name,
    }
}

/// None of a headless Service.
fn cluster_ips(spec: &v1::ServiceSpec) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.clone().unwrap_or_default();
    let all = if listed.is_empty() { spec.cluster_ip.clone().into_iter().collect() } else { listed };
    all.iter().filter_map(|ip| ip.parse().ok()).collect()
}

/// KEP-1860: with `ipMode: Proxy` the traffic must really go out to the load balancer.
fn virtual_ips(service: &Service, object: &v1::Service) -> Vec<IpAddr> {
    let ingress =
        object.status.iter().flat_map(|status| &status.load_balancer).flat_map(|lb| lb.ingress.iter().flatten());
    let virtual_ = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    parsed(service, "status.loadBalancer.ingress", virtual_.filter_map(|ingress| ingress.ip.as_ref()))
}

fn parsed<'a>(service: &Service, field: &str, values: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for value in values {
        match value.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) => warn!(service = %service.name, field, value, "not an IP address"),
        }
    }
    addresses
}

pub(crate) fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}
