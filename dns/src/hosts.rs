//! Static names from the configuration, both ways.

use crate::lookup::{Found, address_records};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::HashMap;
use std::net::IpAddr;

/// Names and their addresses. Matching ignores case, as [`Name`] does.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    addresses: HashMap<Name, Vec<IpAddr>>,
    names: HashMap<Name, Name>,
}

impl Hosts {
    /// What is no domain name is left out.
    pub(crate) fn new(entries: &[(String, IpAddr)]) -> Hosts {
        let mut hosts = Hosts::default();
        for (text, address) in entries {
            let Ok(mut name) = Name::from_ascii(text) else { continue };
            name.set_fqdn(true);
            hosts.names.entry(Name::from(*address)).or_insert_with(|| name.clone());
            hosts.addresses.entry(name).or_default().push(*address);
        }
        hosts
    }

    /// Whether one of the names is in this zone.
    pub(crate) fn any_within(&self, zone: &Name) -> bool {
        self.addresses.keys().any(|name| zone.zone_of(name))
    }

    /// `None` for a name that is not among them.
    pub(crate) fn lookup(&self, name: &Name, kind: RecordType, ttl: u32) -> Option<Found> {
        if let Some(addresses) = self.addresses.get(name) {
            return Some(Found::data_or_nothing(ttl, address_records(addresses.iter().copied(), kind)));
        }
        let host = self.names.get(name)?;
        let records = if kind == RecordType::PTR { vec![RData::PTR(PTR(host.clone()))] } else { Vec::new() };
        Some(Found::data_or_nothing(ttl, records))
    }
}
