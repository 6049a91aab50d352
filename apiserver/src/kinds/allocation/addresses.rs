//! ClusterIPs: which are free, and the `IPAddress` object that says whose one is.

use super::{Allocator, PICKS, Write};
use crate::kinds::json::{list, text, texts};
use crate::kinds::names::Cidr;
use crate::status::{FieldError, Status};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;
use store::{Compare, KeyValue, Range, Revision, Store};

pub(super) const ADDRESSES: &str = "/registry/ipaddresses.networking.k8s.io/";
const NETWORKS: &str = "/registry/servicecidrs.networking.k8s.io/";
/// The name of the ServiceCIDR that stands for the configured networks.
const DEFAULT_NETWORK: &str = "kubernetes";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGED_BY: &str = "ipallocator.k8s.io";

/// Where the `IPAddress` of an address stands.
pub(super) fn key(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
}

impl Write<'_> {
    /// The write holds only as long as that ServiceCIDR stays as it is: one that is being deleted gives out no more addresses.
    fn relies_on(&mut self, source: &Source) {
        if !self.compares.iter().any(|compare| compare.key == source.object.key) {
            self.compares.push(source.object.clone());
        }
    }
}

/// The usable addresses of a network, in two bands of offsets: `1..=split` for those who name theirs, `split+1..=last` for the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bands {
    pub(super) split: u128,
    pub(super) last: u128,
}

impl Bands {
    /// The static band takes a sixteenth of the network, at least 16 and at most 256 addresses.
    pub(super) fn of(network: &Cidr) -> Bands {
        let bits = network.host_bits();
        let size = if bits >= 127 { u128::MAX >> 1 } else { 1 << bits };
        // The first is the network's own; the last of an IPv4 network is its broadcast address.
        let last = if network.address.is_ipv4() { size.saturating_sub(2) } else { size - 1 };
        let split = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        Bands { split, last }
    }
}

impl Allocator {
    /// Sees that `service` has an address of each of its families.
    pub(super) async fn cluster_ips(&self, write: &mut Write<'_>, service: &mut Value) -> Result<(), Status> {
        if crate::kinds::service::service_type(service) == "ExternalName" || crate::kinds::service::is_headless(service)
        {
            return Ok(());
        }
        let families: Vec<String> = texts(service, "/spec/ipFamilies").into_iter().map(str::to_owned).collect();
        let mut ips: Vec<String> = texts(service, "/spec/clusterIPs").into_iter().map(str::to_owned).collect();
        for (index, family) in families.iter().enumerate() {
            if index >= ips.len() {
                ips.push(String::new());
            }
            let wanted = ips[index].clone();
            let address = if wanted.is_empty() {
                self.next_address(write, family == "IPv4").await?
            } else {
                match self.requested_address(write, &wanted).await {
                    Ok(address) => address,
                    Err(why) => {
                        let detail = format!("failed to allocate IP {wanted}: {why}");
                        let error = FieldError::invalid("spec.clusterIPs", &service["spec"]["clusterIPs"], detail);
                        return Err(write.invalid(&[error]));
                    }
                }
            };
            if wanted.is_empty() {
                ips[index] = address.to_string();
            }
            if write.held.addresses.contains(&address) || !write.taken.addresses.insert(address) {
                continue;
            }
            let object = self.ip_address(address, (&write.namespace, &write.name), &write.born);
            write.put_new(key(address), &object);
        }
        service["spec"]["clusterIP"] = ips.first().cloned().unwrap_or_default().into();
        service["spec"]["clusterIPs"] = ips.into();
        Ok(())
    }

    async fn requested_address(&self, write: &mut Write<'_>, wanted: &str) -> Result<IpAddr, String> {
        let address: IpAddr = wanted.parse().map_err(|_| "not an IP address".to_owned())?;
        if write.held.addresses.contains(&address) {
            return Ok(address);
        }
        let usable = |source: &&Source| {
            let Bands { last, .. } = Bands::of(&source.network);
            source.network.offset(address).is_some_and(|offset| (1..=last).contains(&offset))
        };
        let sources = self.sources(write.store).await;
        let Some(source) = sources.iter().find(usable) else {
            let of_family = sources.iter().filter(|source| source.network.address.is_ipv4() == address.is_ipv4());
            let networks: Vec<String> = of_family.map(|source| source.network.to_string()).collect();
            if networks.is_empty() {
                return Err("the provided network does not match the current range".to_owned());
            }
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                networks.join(", ")
            ));
        };
        match write.is_free(&key(address)).await {
            Ok(true) => {
                write.relies_on(source);
                Ok(address)
            }
            Ok(false) => Err("provided IP is already allocated".to_owned()),
            Err(status) => Err(status.message),
        }
    }

    async fn next_address(&self, write: &mut Write<'_>, v4: bool) -> Result<IpAddr, Status> {
        for source in self.sources(write.store).await {
            if source.network.address.is_ipv4() == v4
                && let Some(address) = self.free_address(write, &source.network).await?
            {
                write.relies_on(&source);
                return Ok(address);
            }
        }
        Err(Status::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn free_address(&self, write: &Write<'_>, network: &Cidr) -> Result<Option<IpAddr>, Status> {
        let Bands { split, last } = Bands::of(network);
        let upper = last.saturating_sub(split);
        // The first address of the primary network is the API server's own, there already or not.
        let is_own = |offset: u128| offset == 1 && self.networks.first() == Some(network);
        if upper > 0 {
            for _ in 0..PICKS {
                let offset = split + 1 + self.below(upper);
                let address = network.nth(offset);
                let untouched = !is_own(offset) && !write.taken.addresses.contains(&address);
                if untouched && write.is_free(&key(address)).await? {
                    return Ok(Some(address));
                }
            }
        }
        let range = Range { prefix: ADDRESSES.to_owned(), ..Range::default() };
        let used: HashSet<u128> = write
            .store
            .range(range)
            .await
            .map_err(Status::internal)?
            .items
            .iter()
            .filter_map(|item| network.offset(item.key.strip_prefix(ADDRESSES)?.parse().ok()?))
            .collect();
        let is_free = |offset: &u128| {
            !used.contains(offset) && !is_own(*offset) && !write.taken.addresses.contains(&network.nth(*offset))
        };
        // From a random place on and round, so at most as many steps as there are used ones.
        let scan = |first: u128, count: u128| {
            let start = self.below(count);
            (0..count).map(move |step| first + (start + step) % count).find(is_free)
        };
        let found = scan(split + 1, upper).or_else(|| scan(1, split.min(last)));
        Ok(found.map(|offset| network.nth(offset)))
    }

    /// The `IPAddress` that says that a Service (namespace and name) has an address.
    pub(super) fn ip_address(&self, address: IpAddr, (namespace, name): (&str, &str), born: &Value) -> Value {
        json!({
            "kind": "IPAddress",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {
                "name": address.to_string(),
                "uid": self.uid(),
                "creationTimestamp": born,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": if address.is_ipv4() { "IPv4" } else { "IPv6" },
                    MANAGED_BY_LABEL: MANAGED_BY,
                },
            },
            "spec": {"parentRef": {
                "group": "", "resource": "services", "namespace": namespace, "name": name,
            }},
        })
    }
}

/// A network that gives out addresses, and the state of the ServiceCIDR that says so.
struct Source {
    network: Cidr,
    object: Compare,
}

impl Allocator {
    /// The networks that give out addresses: the configured ones first, then those of further ServiceCIDR objects.
    ///
    /// One that is on its way out, or not ready, gives none. The configured networks are the ServiceCIDR `kubernetes`, and give
    /// as long as it is not there too: it is made when the API is up, which takes addresses for the cluster's own Services.
    async fn sources(&self, store: &dyn Store) -> Vec<Source> {
        let default = format!("{NETWORKS}{DEFAULT_NETWORK}");
        let objects = service_cidrs(store).await;
        let (of_default, others): (Vec<_>, Vec<_>) = objects.iter().partition(|(kv, _)| *kv.key == *default);
        let mut sources = Vec::new();
        let default_state = match of_default.first() {
            Some((kv, object)) => gives(object).then(|| state(kv)),
            None => Some(Compare { key: default.as_str().into(), mod_revision: Revision(0) }),
        };
        if let Some(object) = default_state {
            sources.extend(self.networks.iter().map(|network| Source { network: *network, object: object.clone() }));
        }
        for (kv, object) in others.into_iter().filter(|(_, object)| gives(object)) {
            let networks = texts(object, "/spec/cidrs").into_iter().filter_map(Cidr::parse);
            sources.extend(networks.map(|network| Source { network, object: state(kv) }));
        }
        sources
    }
}

fn state(kv: &KeyValue) -> Compare {
    Compare { key: kv.key.clone(), mod_revision: kv.mod_revision }
}

/// Whether addresses of a ServiceCIDR may be given out. Before its controller has spoken it counts as ready, as upstream.
fn gives(object: &Value) -> bool {
    let mut conditions = list(object, "/status/conditions").iter();
    let ready = conditions.find(|condition| text(condition, "/type") == "Ready");
    let is_ready = ready.is_none_or(|condition| text(condition, "/status") == "True");
    is_ready && text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The networks of all ServiceCIDR objects: where addresses may be in use.
pub(super) async fn all_networks(store: &dyn Store) -> Vec<Cidr> {
    let objects = service_cidrs(store).await;
    let cidrs = objects.iter().flat_map(|(_, object)| texts(object, "/spec/cidrs"));
    cidrs.filter_map(Cidr::parse).collect()
}

async fn service_cidrs(store: &dyn Store) -> Vec<(KeyValue, Value)> {
    let range = Range { prefix: NETWORKS.to_owned(), ..Range::default() };
    let Ok(page) = store.range(range).await else { return Vec::new() };
    page.items.into_iter().map(|kv| (kv.clone(), serde_json::from_slice(&kv.value).unwrap_or_default())).collect()
}

/// Whether an `IPAddress` is one that Services are given.
pub(super) fn is_ours(object: &Value) -> bool {
    let manager = object.pointer("/metadata/labels").and_then(|labels| labels.get(MANAGED_BY_LABEL));
    manager.and_then(Value::as_str) == Some(MANAGED_BY)
}
