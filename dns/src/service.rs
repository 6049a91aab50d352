//! What one Service and its EndpointSlices say, reduced to what DNS needs.
//!
//! Pure: the zone takes these in one by one. EndpointSlices are united whoever wrote them, and only ready endpoints count.

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn least() -> Key {
        Key::new("", "")
    }
}

/// One Service, as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceRecords {
    ClusterIp { addresses: Vec<IpAddr>, ports: Vec<Port>, endpoints: Vec<Endpoint> },
    Headless { endpoints: Vec<Endpoint> },
    ExternalName(Name),
}

/// A port of a Service, or of an endpoint (then the target port).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// May be empty: it has no SRV name of its own then.
    pub(crate) name: String,
    /// In lower case.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// A ready endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its label below the Service: the hostname, else the dashed address.
    pub(crate) label: String,
    pub(crate) address: IpAddr,
    /// One list for all endpoints of a slice.
    pub(crate) ports: Arc<[Port]>,
}

impl ServiceRecords {
    /// `None` for a Service without an answer: an ExternalName that is no domain name.
    pub(crate) fn of<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Option<ServiceRecords> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return external_name(spec.external_name.as_deref()?).map(ServiceRecords::ExternalName);
        }
        let endpoints = endpoints(slices);
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(ServiceRecords::Headless { endpoints });
        }
        let given = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in given.filter_map(|ip| ip.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Port::of(port.name.as_deref(), port.protocol.as_deref(), Some(port.port)));
        Some(ServiceRecords::ClusterIp { addresses, ports: ports.collect(), endpoints })
    }

    /// The ClusterIPs; none of a headless Service or ExternalName.
    pub(crate) fn cluster_ips(&self) -> &[IpAddr] {
        match self {
            ServiceRecords::ClusterIp { addresses, .. } => addresses,
            _ => &[],
        }
    }

    /// The ready endpoints.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match self {
            ServiceRecords::ClusterIp { endpoints, .. } | ServiceRecords::Headless { endpoints } => endpoints,
            ServiceRecords::ExternalName(_) => &[],
        }
    }
}

impl Port {
    fn of(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
        Some(Port {
            name: name.unwrap_or_default().to_ascii_lowercase(),
            protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(number?).ok()?,
        })
    }
}

/// The union of the slices: one entry per label and address, with the ports of all slices it is in.
fn endpoints<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Endpoint> {
    let mut found: BTreeMap<(String, IpAddr), Arc<[Port]>> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type != "FQDN") {
        let ports: BTreeSet<Port> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Port::of(port.name.as_deref(), port.protocol.as_deref(), port.port))
            .collect();
        let ports: Arc<[Port]> = ports.into_iter().collect();
        for endpoint in slice.endpoints.iter().flatten() {
            // `ready: null` is ready.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                let label = match endpoint.hostname.as_deref() {
                    Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
                    _ => dashed(address),
                };
                let known = found.entry((label, address)).or_insert_with(|| ports.clone());
                if *known != ports {
                    let both: BTreeSet<Port> = known.iter().chain(&*ports).cloned().collect();
                    *known = both.into_iter().collect();
                }
            }
        }
    }
    found.into_iter().map(|((label, address), ports)| Endpoint { label, address, ports }).collect()
}

/// An address as a label: `10-244-1-5`, `fd00--5`. A label may not end in a dash, so `fd00::` is `fd00--0`.
pub(crate) fn dashed(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    if label.starts_with('-') {
        label.insert(0, '0');
    }
    label
}

fn external_name(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    // Label by label, as it stands: nothing is escaped in an API object.
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_one_label() {
        let cases = [
            ("10.244.1.5", "10-244-1-5"),
            ("fd00::5", "fd00--5"),
            ("fd00:1:2:3:4:5:6:7", "fd00-1-2-3-4-5-6-7"),
            ("fd00::", "fd00--0"),
            ("::1", "0--1"),
        ];
        for (address, label) in cases {
            assert_eq!(dashed(address.parse().unwrap()), label);
        }
    }

    #[test]
    fn an_external_name_that_is_no_domain_name_has_no_records() {
        assert_eq!(external_name("db.example.com.").unwrap().to_ascii(), "db.example.com.");
        assert_eq!(external_name("a..b"), None);
        assert_eq!(external_name(&"a".repeat(64)), None);
    }
}
