//! Answers from the zone: name and type to records. Pure.
//!
//! Follows the Kubernetes DNS specification 1.1.0; which names exist without records (NODATA) and which do not exist
//! (NXDOMAIN) as CoreDNS has it.

use crate::config::PodRecords;
use crate::reverse::ReverseName;
use crate::service::{Endpoint, Key, Port, ServiceRecords};
use crate::zone::Zone;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::IpAddr;

/// The version of the specification which the zone follows, and how long that may be remembered.
const SCHEMA_VERSION: &str = "1.1.0";
const SCHEMA_TTL: u32 = 28_800;
/// Refresh, retry and expiry in the SOA record, in seconds. Nobody transfers the zone.
pub(crate) const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

/// What is known about a name and type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// There is no such name.
    NxDomain,
    /// The name exists, without records of this type.
    NoData,
    /// The name is another name for this one.
    Alias(Name),
    /// The records' data, and records which the asker will want next.
    Data { ttl: u32, records: Vec<RData>, additionals: Vec<Record> },
}

impl Found {
    /// These records, or NODATA if there are none.
    pub(crate) fn data_or_nothing(ttl: u32, records: Vec<RData>) -> Found {
        if records.is_empty() { Found::NoData } else { Found::Data { ttl, records, additionals: Vec::new() } }
    }
}

/// The A or AAAA records of these addresses, each once; none for other types.
pub(crate) fn address_records(addresses: impl Iterator<Item = IpAddr>, kind: RecordType) -> Vec<RData> {
    let mut seen = std::collections::HashSet::new();
    addresses
        .filter_map(|address| {
            let data = match (address, kind) {
                (IpAddr::V4(ip), RecordType::A) => RData::A(A(ip)),
                (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(ip)),
                _ => return None,
            };
            seen.insert(address).then_some(data)
        })
        .collect()
}

/// A name's labels as lower-case text; `None` if one is not text.
pub(crate) fn labels(name: &Name) -> Option<Vec<String>> {
    let text = |label: &[u8]| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase);
    name.iter().map(text).collect()
}

impl Zone {
    /// Whether the name is the zone's own or below it.
    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.origin.zone_of(name)
    }

    /// Answers for a name in the zone.
    pub(crate) fn lookup(&self, name: &Name, kind: RecordType) -> Found {
        let Some(labels) = labels(name) else { return Found::NxDomain };
        let below = labels.len().saturating_sub(usize::from(self.origin.num_labels()));
        let path: Vec<&str> = labels[..below].iter().map(String::as_str).collect();
        match path.as_slice() {
            [] => self.apex(kind),
            ["dns-version"] => {
                let version = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
                Found::data_or_nothing(SCHEMA_TTL, if kind == RecordType::TXT { vec![version] } else { Vec::new() })
            }
            ["dns"] => Found::NoData,
            ["ns", "dns"] => {
                let server = self.service(&self.server);
                let addresses = server.iter().flat_map(|service| service.cluster_ips()).copied();
                Found::data_or_nothing(self.ttl, address_records(addresses, kind))
            }
            [path @ .., "svc"] => self.service_lookup(path, kind),
            [path @ .., "pod"] => self.pod_lookup(path, kind),
            _ => Found::NxDomain,
        }
    }

    fn apex(&self, kind: RecordType) -> Found {
        match kind {
            RecordType::SOA => Found::data_or_nothing(self.ttl, vec![self.soa_data()]),
            RecordType::NS => {
                let (server, addresses) = self.name_server();
                let mut additionals = Vec::new();
                self.add_addresses(&mut additionals, &server, &addresses);
                Found::Data { ttl: self.ttl, records: vec![RData::NS(NS(server))], additionals }
            }
            _ => Found::NoData,
        }
    }

    /// The Service in front of this server, and its addresses; a name below the zone while there is none.
    fn name_server(&self) -> (Name, Vec<IpAddr>) {
        let addresses = self.service(&self.server).map(|service| service.cluster_ips().to_vec()).unwrap_or_default();
        let named = if addresses.is_empty() { None } else { self.service_name(&self.server) };
        (named.unwrap_or_else(|| self.name_below(&["ns", "dns"]).unwrap_or_else(|| self.origin.clone())), addresses)
    }

    /// What says how long "there is none" may be remembered (RFC 2308): goes into the authority section.
    pub(crate) fn soa(&self, owner: Name) -> Record {
        Record::from_rdata(owner, self.ttl, self.soa_data())
    }

    fn soa_data(&self) -> RData {
        let name = |labels: &[&str]| self.name_below(labels).unwrap_or_else(|| self.origin.clone());
        let (server, contact) = (name(&["ns", "dns"]), name(&["hostmaster"]));
        let [refresh, retry, expire] = SOA_TIMES.map(|time| i32::try_from(time).unwrap_or(i32::MAX));
        RData::SOA(SOA::new(server, contact, self.serial, refresh, retry, expire, self.ttl))
    }

    fn service_lookup(&self, path: &[&str], kind: RecordType) -> Found {
        let (key, below): (Key, &[&str]) = match path {
            [] => return Found::NoData,
            [namespace] if self.has_namespace(namespace) => return Found::NoData,
            [below @ .., service, namespace] => (Key::new(namespace, service), below),
            _ => return Found::NxDomain,
        };
        let Some(service) = self.service(&key) else { return Found::NxDomain };
        match (below, service) {
            ([], ServiceRecords::ExternalName(target)) => Found::Alias(target.clone()),
            ([], ServiceRecords::ClusterIp { addresses, ports, .. }) => match kind {
                RecordType::SRV => self.cluster_ip_srv(&key, addresses, ports.iter()),
                _ => Found::data_or_nothing(self.ttl, address_records(addresses.iter().copied(), kind)),
            },
            ([], ServiceRecords::Headless { endpoints }) => self.endpoint_lookup(&key, endpoints.iter(), kind),
            (_, ServiceRecords::ExternalName(_)) => Found::NxDomain,
            ([label], service) => {
                let named = service.endpoints().iter().filter(|endpoint| endpoint.label == *label);
                self.endpoint_lookup(&key, named, kind)
            }
            ([port, protocol], service) => {
                let (Some(name), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                    return Found::NxDomain;
                };
                self.port_lookup(&key, service, name, protocol, kind)
            }
            _ => Found::NxDomain,
        }
    }

    /// Records of some endpoints of a Service; no endpoint, no name.
    fn endpoint_lookup<'a>(
        &self,
        key: &Key,
        endpoints: impl Iterator<Item = &'a Endpoint> + Clone,
        kind: RecordType,
    ) -> Found {
        if endpoints.clone().next().is_none() {
            return Found::NxDomain;
        }
        match kind {
            RecordType::SRV => self.endpoint_srv(key, endpoints, |_| true),
            _ => Found::data_or_nothing(self.ttl, address_records(endpoints.map(|end| end.address), kind)),
        }
    }

    fn port_lookup(&self, key: &Key, service: &ServiceRecords, name: &str, protocol: &str, kind: RecordType) -> Found {
        let wanted = |port: &Port| !name.is_empty() && port.name == name && port.protocol == protocol;
        let found = match service {
            ServiceRecords::ClusterIp { addresses, ports, .. } => {
                self.cluster_ip_srv(key, addresses, ports.iter().filter(|port| wanted(port)))
            }
            _ => self.endpoint_srv(key, service.endpoints().iter(), wanted),
        };
        match found {
            // No record here means that no port is named so.
            Found::NoData => Found::NxDomain,
            _ if kind != RecordType::SRV => Found::NoData,
            found => found,
        }
    }

    fn cluster_ip_srv<'a>(&self, key: &Key, addresses: &[IpAddr], ports: impl Iterator<Item = &'a Port>) -> Found {
        let Some(name) = self.service_name(key) else { return Found::NoData };
        let mut additionals = Vec::new();
        self.add_addresses(&mut additionals, &name, addresses);
        self.srv(ports.map(|port| (port.number, name.clone())).collect(), additionals)
    }

    fn endpoint_srv<'a>(
        &self,
        key: &Key,
        endpoints: impl Iterator<Item = &'a Endpoint>,
        wanted: impl Fn(&Port) -> bool,
    ) -> Found {
        let (mut targets, mut additionals) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let Some(name) = self.endpoint_name(key, &endpoint.label) else { continue };
            let before = targets.len();
            for port in endpoint.ports.iter().filter(|port| wanted(port)) {
                targets.push((port.number, name.clone()));
            }
            if targets.len() > before {
                self.add_addresses(&mut additionals, &name, &[endpoint.address]);
            }
        }
        self.srv(targets, additionals)
    }

    /// SRV records of equal weight, each once: an endpoint with two addresses has one target.
    fn srv(&self, mut targets: Vec<(u16, Name)>, additionals: Vec<Record>) -> Found {
        targets.sort();
        targets.dedup();
        if targets.is_empty() {
            return Found::NoData;
        }
        let weight = u16::try_from(100 / targets.len()).unwrap_or(0).max(1);
        let records = targets.into_iter().map(|(port, target)| RData::SRV(SRV::new(0, weight, port, target))).collect();
        Found::Data { ttl: self.ttl, records, additionals }
    }

    fn add_addresses(&self, records: &mut Vec<Record>, name: &Name, addresses: &[IpAddr]) {
        for kind in [RecordType::A, RecordType::AAAA] {
            let data = address_records(addresses.iter().copied(), kind);
            records.extend(data.into_iter().map(|data| Record::from_rdata(name.clone(), self.ttl, data)));
        }
    }

    fn pod_lookup(&self, path: &[&str], kind: RecordType) -> Found {
        let (label, namespace) = match path {
            [] => return Found::NoData,
            [namespace] if self.has_namespace(namespace) => return Found::NoData,
            [label, namespace] if self.has_namespace(namespace) => (*label, *namespace),
            _ => return Found::NxDomain,
        };
        let Some(address) = undashed(label) else { return Found::NxDomain };
        let exists = match self.pod_records {
            PodRecords::Disabled => false,
            PodRecords::Insecure => true,
            PodRecords::Verified => self.has_pod(namespace, address),
        };
        if !exists {
            return Found::NxDomain;
        }
        Found::data_or_nothing(self.ttl, address_records(std::iter::once(address), kind))
    }

    /// Answers for a reverse name: a ClusterIP's Service, else all endpoints with that address; `None` if nobody has it.
    pub(crate) fn reverse_lookup(&self, name: &ReverseName, kind: RecordType) -> Option<Found> {
        let address = name.address?;
        let mut names: Vec<Name> = match self.service_at(address) {
            Some(key) => self.service_name(key).into_iter().collect(),
            None => {
                let services = self.services_behind(address).filter_map(|key| Some((key, self.service(key)?)));
                let endpoints =
                    services.flat_map(|(key, service)| service.endpoints().iter().map(move |end| (key, end)));
                let here = endpoints.filter(|(_, endpoint)| endpoint.address == address);
                here.filter_map(|(key, endpoint)| self.endpoint_name(key, &endpoint.label)).collect()
            }
        };
        if names.is_empty() {
            return None;
        }
        names.sort();
        names.dedup();
        let records = names.into_iter().map(|name| RData::PTR(PTR(name)));
        Some(Found::data_or_nothing(self.ttl, if kind == RecordType::PTR { records.collect() } else { Vec::new() }))
    }

    fn service_name(&self, key: &Key) -> Option<Name> {
        self.name_below(&[&key.name, &key.namespace, "svc"])
    }

    fn endpoint_name(&self, key: &Key, label: &str) -> Option<Name> {
        self.name_below(&[label, &key.name, &key.namespace, "svc"])
    }

    /// `None` if it would be longer than a name may be.
    fn name_below(&self, labels: &[&str]) -> Option<Name> {
        Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?.append_domain(&self.origin).ok()
    }
}

/// The address that a pod's label stands for.
fn undashed(label: &str) -> Option<IpAddr> {
    // Both readings need the right number of parts, so at most one succeeds.
    let v4 = label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}
