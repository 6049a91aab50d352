//! From a Service and its pods to endpoints: conditions, ports, names, zones and hints.

use crate::meta::labels;
use crate::pods::{is_ready, is_terminal, is_terminating, node_name};
use k8s_openapi::api::core::v1::{ContainerPort, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An address family, as slices and Services name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        }
    }

    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// The families of a Service, the primary one first.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let Some(spec) = &service.spec else { return vec![] };
    let named = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::Ipv4),
        "IPv6" => Some(Family::Ipv6),
        _ => None,
    });
    let families: Vec<Family> = named.collect();
    if !families.is_empty() {
        return families;
    }
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    vec![cluster_ip.map_or(Family::Ipv4, Family::of)]
}

/// Whether the Service has no ClusterIP.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// Whether endpoints count as ready whatever their pods say.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The pod's address of that family.
pub(crate) fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let all = listed.chain(status.pod_ip.as_deref());
    all.filter(|ip| ip.parse().is_ok_and(|ip| Family::of(ip) == family)).map(str::to_owned).next()
}

/// The zone of a node.
pub(crate) fn zone(node: &Node) -> Option<&str> {
    labels(&node.metadata).get("topology.kubernetes.io/zone").map(String::as_str).filter(|zone| !zone.is_empty())
}

/// The endpoint that a selected pod is, if it is one.
pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    nodes: &BTreeMap<String, Arc<Node>>,
    family: Family,
) -> Option<Endpoint> {
    if is_terminal(pod) {
        return None;
    }
    let address = address(pod, family)?;
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let node_name = node_name(pod).map(str::to_owned);
    let zone = node_name.as_ref().and_then(|name| nodes.get(name)).and_then(|node| zone(node)).map(str::to_owned);
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints(service, ready, zone.as_deref(), node_name.as_deref()),
        target_ref: Some(target_reference(pod)),
        node_name,
        zone,
        deprecated_topology: None,
    })
}

/// The pod's own name under the Service, if the pod asks for one there.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let under_service = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|hostname| !hostname.is_empty() && under_service)
}

pub(crate) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// KEP-4444: traffic stays in the zone, or on the node, where there is a ready endpoint.
fn hints(service: &Service, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
    match distribution {
        _ if !ready => None,
        "PreferClose" | "PreferSameZone" => {
            for_zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        "PreferSameNode" if for_nodes.is_some() || for_zones.is_some() => Some(EndpointHints { for_zones, for_nodes }),
        _ => None,
    }
}

/// The ports at which `pod` serves the Service. A named target port that the pod lacks is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// The number that a Service port's target has on this pod.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => container_ports(pod)
            .find(|candidate| {
                candidate.name.as_deref() == Some(name)
                    && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
            })
            .map(|found| found.container_port),
    }
}

/// TCP unless it says otherwise.
pub(crate) fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

/// Ports of the containers that keep running: the regular ones, then the restartable init containers (sidecars).
fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let regular = pod.spec.iter().flat_map(|spec| &spec.containers);
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    regular.chain(sidecars).flat_map(|container| container.ports.iter().flatten())
}
