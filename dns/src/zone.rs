//! The zone: an immutable snapshot of all names, from which [`crate::lookup`] answers.
//!
//! Its maps are persistent (`imbl`): [`crate::sync`] clones the zone, replaces what changed and swaps the clone in, so a
//! change costs as much as the one Service it is about. What is in it depends only on the objects, never on the order in
//! which they came.

use crate::config::{Config, PodRecords};
use crate::prebuilt::{ServiceAnswers, wire_key};
use crate::service::{Key, ServiceRecords};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable;
use imbl::{HashMap, OrdMap, OrdSet};
use std::net::IpAddr;
use std::sync::Arc;

/// All that the cluster's objects say about names.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// The zone's name, such as `cluster.local.`.
    pub(crate) origin: Name,
    /// The same as it stands on the wire.
    pub(crate) origin_wire: Box<[u8]>,
    pub(crate) ttl: u32,
    pub(crate) pod_records: PodRecords,
    /// The Service in front of this server.
    pub(crate) server: Key,
    /// Grows with every change.
    pub(crate) serial: u32,
    /// Whether every kind has been listed: before that, "there is none" cannot be said.
    pub(crate) complete: bool,
    namespaces: OrdSet<String>,
    services: OrdMap<Key, Arc<ServiceAnswers>>,
    /// The same by [`wire_key`].
    pub(crate) answers: HashMap<Box<[u8]>, Arc<ServiceAnswers>>,
    cluster_ips: OrdSet<(IpAddr, Arc<Key>)>,
    endpoint_ips: OrdSet<(IpAddr, Arc<Key>)>,
    pods: OrdMap<Key, Vec<IpAddr>>,
    pod_ips: OrdSet<(IpAddr, Arc<Key>)>,
}

impl Zone {
    /// A zone without names, incomplete.
    ///
    /// # Panics
    /// `config.zone` is no domain name.
    pub(crate) fn empty(config: &Config) -> Zone {
        let mut origin = Name::from_ascii(&config.zone).expect("the cluster's domain is a domain name").to_lowercase();
        origin.set_fqdn(true);
        Zone {
            origin_wire: origin.to_bytes().expect("a name has bytes").into(),
            origin,
            ttl: config.ttl_seconds(),
            pod_records: config.pods,
            server: Key::new(&config.service.0, &config.service.1),
            serial: 1,
            complete: false,
            namespaces: OrdSet::new(),
            services: OrdMap::new(),
            answers: HashMap::new(),
            cluster_ips: OrdSet::new(),
            endpoint_ips: OrdSet::new(),
            pods: OrdMap::new(),
            pod_ips: OrdSet::new(),
        }
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The Service of that name, in a namespace that exists.
    pub(crate) fn service(&self, key: &Key) -> Option<&ServiceRecords> {
        let found = self.services.get(key).filter(|_| self.has_namespace(&key.namespace));
        found.map(|service| &service.records)
    }

    /// The Service whose ClusterIP this is.
    pub(crate) fn service_at(&self, address: IpAddr) -> Option<&Key> {
        at(&self.cluster_ips, address).next()
    }

    /// The Services with a ready endpoint at that address.
    pub(crate) fn services_behind(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        at(&self.endpoint_ips, address)
    }

    /// Whether a pod of that namespace has that address.
    pub(crate) fn has_pod(&self, namespace: &str, address: IpAddr) -> bool {
        at(&self.pod_ips, address).any(|key| key.namespace == namespace)
    }

    /// Whether this changed the zone.
    pub(crate) fn set_namespace(&mut self, namespace: &str, exists: bool) -> bool {
        if exists {
            self.namespaces.insert(namespace.to_owned()).is_none()
        } else {
            self.namespaces.remove(namespace).is_some()
        }
    }

    /// Replaces a Service's records; `None` removes them. Whether this changed the zone.
    pub(crate) fn set_service(&mut self, key: &Key, records: Option<ServiceRecords>) -> bool {
        let old = self.services.get(key).cloned();
        let old = old.as_ref().map(|service| &service.records);
        if old == records.as_ref() {
            return false;
        }
        let shared = Arc::new(key.clone());
        if let Some(old) = old {
            old.cluster_ips().iter().for_each(|ip| drop(self.cluster_ips.remove(&(*ip, shared.clone()))));
            old.endpoints().iter().for_each(|end| drop(self.endpoint_ips.remove(&(end.address, shared.clone()))));
        }
        match records {
            None => {
                self.services.remove(key);
                self.answers.remove(&wire_key(key));
            }
            Some(records) => {
                self.cluster_ips.extend(records.cluster_ips().iter().map(|ip| (*ip, shared.clone())));
                self.endpoint_ips.extend(records.endpoints().iter().map(|end| (end.address, shared.clone())));
                let answers = Arc::new(ServiceAnswers::new(records, self.ttl));
                self.answers.insert(wire_key(key), answers.clone());
                self.services.insert(key.clone(), answers);
            }
        }
        true
    }

    /// Replaces a pod's addresses; none removes it. Whether this changed the zone.
    pub(crate) fn set_pod(&mut self, key: &Key, addresses: Vec<IpAddr>) -> bool {
        let old = self.pods.get(key).cloned().unwrap_or_default();
        if old == addresses {
            return false;
        }
        let shared = Arc::new(key.clone());
        old.into_iter().for_each(|ip| drop(self.pod_ips.remove(&(ip, shared.clone()))));
        self.pod_ips.extend(addresses.iter().map(|ip| (*ip, shared.clone())));
        if addresses.is_empty() {
            self.pods.remove(key);
        } else {
            self.pods.insert(key.clone(), addresses);
        }
        true
    }
}

fn at(index: &OrdSet<(IpAddr, Arc<Key>)>, address: IpAddr) -> impl Iterator<Item = &Key> {
    let entries = index.range((address, Arc::new(Key::least()))..);
    entries.take_while(move |(ip, _)| *ip == address).map(|(_, key)| &**key)
}
