//! Places on the network as users write them: `shop/web:8080/TCP`, `svc/api:http`, `10.96.0.10:53/UDP`.

use super::{Refusal, Sources};
use apiserver::status::{FieldError, Status};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::Protocol;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The source port of a flow that is only thought of: the first of the dynamic ports (RFC 6335, 6).
pub(super) const EPHEMERAL: u16 = 49_152;

/// What somebody talks to, without the port.
#[derive(Clone, Debug)]
pub(super) enum Party {
    Pod(Arc<Pod>, IpAddr),
    Service(Arc<Service>),
    Address(IpAddr),
}

/// The text of a target, taken apart: `HOST:PORT[/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    /// A number, or a name that the pod or Service knows.
    pub(super) port: String,
    pub(super) protocol: Protocol,
}

const FORM: &str =
    "must be HOST:PORT or HOST:PORT/PROTOCOL, such as web:8080, shop/web:8080, svc/api:80 or 10.96.0.10:53/UDP";

impl Target {
    /// Takes the text of `field` apart.
    pub(super) fn parse(field: &str, text: &str) -> Result<Target, Refusal> {
        let malformed = || FieldError::invalid(field, &text.into(), FORM).into();
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "TCP" | "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "UDP" | "udp")) => (rest, Protocol::Udp),
            Some((rest, "SCTP" | "sctp")) => (rest, Protocol::Sctp),
            _ => (text, Protocol::Tcp),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || port.is_empty() || port.contains('/') {
            return Err(malformed());
        }
        Ok(Target { host: host.to_owned(), port: port.to_owned(), protocol })
    }

    /// The port if it is a number.
    pub(super) fn number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port != 0)
    }
}

impl Sources {
    /// Finds what `text` of `field` names; names without a namespace are looked for in `namespace`.
    pub(super) fn party(&self, field: &str, text: &str, namespace: &str) -> Result<Party, Refusal> {
        if text.is_empty() {
            return Err(FieldError::required(field, "").into());
        }
        if let Ok(address) = text.parse() {
            return Ok(Party::Address(address));
        }
        let service = text.strip_prefix("svc/").or_else(|| text.strip_prefix("service/"));
        let (namespace, name) = service.unwrap_or(text).split_once('/').unwrap_or((namespace, service.unwrap_or(text)));
        if service.is_some() {
            let found = self.services.get(namespace, name);
            return found.map(Party::Service).ok_or_else(|| Status::not_found("", "services", name).into());
        }
        let pod = self.pods.get(namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
        let address = pod_address(&pod)
            .ok_or_else(|| FieldError::invalid(field, &text.into(), "the pod has no address yet, or has ended"))?;
        Ok(Party::Pod(pod, address))
    }

    /// The address and port that a target stands for, before any translation.
    pub(super) fn destination(&self, field: &str, target: &Target, namespace: &str) -> Result<SocketAddr, Refusal> {
        let party = self.party(field, &target.host, namespace)?;
        let port = |named: Option<u16>| {
            target.number().or(named).ok_or_else(|| {
                let why = "no port of this name and protocol is declared; a number from 1 to 65535 always works";
                FieldError::invalid(field, &target.port.as_str().into(), why)
            })
        };
        match party {
            Party::Address(address) => Ok(SocketAddr::new(address, port(None)?)),
            Party::Pod(pod, address) => {
                let named = declared_ports(&pod)
                    .find(|(name, _, protocol)| *name == target.port && *protocol == target.protocol)
                    .map(|(_, number, _)| number);
                Ok(SocketAddr::new(address, port(named)?))
            }
            Party::Service(service) => {
                let spec = service.spec.as_ref();
                let address = spec.and_then(|spec| spec.cluster_ip.as_deref()?.parse().ok()).ok_or_else(|| {
                    let why = "the Service has no ClusterIP (it is headless or an ExternalName); name a pod instead";
                    FieldError::invalid(field, &target.host.as_str().into(), why)
                })?;
                let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
                let named = ports.iter().find(|port| port.name.as_deref() == Some(&target.port));
                Ok(SocketAddr::new(address, port(named.and_then(|port| u16::try_from(port.port).ok()))?))
            }
        }
    }

    /// The pod that has an address now.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<Arc<Pod>> {
        self.pods.list().into_iter().find(|pod| on_pod_network(pod) && pod_addresses(pod).contains(&address))
    }
}

/// The addresses of a pod that has not ended, the primary family's first.
pub(super) fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> =
        status.pod_ip.as_deref().into_iter().chain(listed).filter_map(|ip| ip.parse().ok()).collect();
    addresses.dedup();
    addresses
}

/// The primary address of a pod that has not ended.
pub(super) fn pod_address(pod: &Pod) -> Option<IpAddr> {
    pod_addresses(pod).first().copied()
}

/// Whether a pod has an address of its own.
pub(super) fn on_pod_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true))
}

/// `namespace/name`.
pub(super) fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// Name, number and protocol of every declared container port.
pub(super) fn declared_ports(pod: &Pod) -> impl Iterator<Item = (&str, u16, Protocol)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.as_deref().unwrap_or_default(), number, protocol(port.protocol.as_deref())?))
    })
}

/// A protocol by the API's name for it; TCP without one.
pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The API's name of a protocol.
pub(super) fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => "TCP".to_owned(),
        Protocol::Udp => "UDP".to_owned(),
        Protocol::Sctp => "SCTP".to_owned(),
        Protocol::Icmp => "ICMP".to_owned(),
        Protocol::Other(number) => number.to_string(),
    }
}

/// A port as users give it alone: `80`, `53/UDP`, or as a JSON number.
pub(super) fn port(field: &str, value: &IntOrString) -> Result<(u16, Protocol), Refusal> {
    let (number, named) = match value {
        IntOrString::Int(number) => (u16::try_from(*number).ok(), Some(Protocol::Tcp)),
        IntOrString::String(text) => match text.split_once('/') {
            Some((number, name)) => (number.parse().ok(), protocol(Some(&name.to_ascii_uppercase()))),
            None => (text.parse().ok(), Some(Protocol::Tcp)),
        },
    };
    match (number.filter(|number| *number != 0), named) {
        (Some(number), Some(protocol)) => Ok((number, protocol)),
        _ => {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            Err(FieldError::invalid(field, &value, "must be PORT or PORT/PROTOCOL, such as 80 or 53/UDP").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_host_port_and_protocol() {
        let cases = [
            ("web:80", "web", "80", Protocol::Tcp),
            ("shop/web:http", "shop/web", "http", Protocol::Tcp),
            ("svc/shop/api:80/TCP", "svc/shop/api", "80", Protocol::Tcp),
            ("10.96.0.10:53/udp", "10.96.0.10", "53", Protocol::Udp),
            ("[fd00::1]:80/SCTP", "fd00::1", "80", Protocol::Sctp),
        ];
        for (text, host, port, protocol) in cases {
            let expected = Target { host: host.into(), port: port.into(), protocol };
            assert_eq!(Target::parse("spec.to", text).expect(text), expected);
        }
        for text in ["", "web", "web:", ":80", "web:80/HTTP", "shop/web"] {
            let refusal = Target::parse("spec.to", text).expect_err(text);
            assert!(matches!(&refusal, Refusal::Field(error) if error.field == "spec.to"), "{refusal:?}");
        }
    }
}
