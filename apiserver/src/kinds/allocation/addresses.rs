//! ClusterIPs: which are free, and the `IPAddress` object that says whose one is.

use super::{Allocator, PICKS, Write};
use crate::kinds::json::{list, text, texts};
use crate::kinds::names::Cidr;
use crate::status::{FieldError, Status};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;
use store::Range;

const ADDRESSES: &str = "/registry/ipaddresses.networking.k8s.io/";
const NETWORKS: &str = "/registry/servicecidrs.networking.k8s.io/";
/// The name of the ServiceCIDR that stands for the configured networks.
const DEFAULT_NETWORK: &str = "kubernetes";

/// Where the `IPAddress` of an address stands.
pub(super) fn key(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
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
            let object = self.object(write, address);
            write.put_new(key(address), &object);
        }
        service["spec"]["clusterIP"] = ips.first().cloned().unwrap_or_default().into();
        service["spec"]["clusterIPs"] = ips.into();
        Ok(())
    }

    async fn requested_address(&self, write: &Write<'_>, wanted: &str) -> Result<IpAddr, String> {
        let address: IpAddr = wanted.parse().map_err(|_| "not an IP address".to_owned())?;
        if write.held.addresses.contains(&address) {
            return Ok(address);
        }
        let usable = |network: &Cidr| {
            let Bands { last, .. } = Bands::of(network);
            network.offset(address).is_some_and(|offset| (1..=last).contains(&offset))
        };
        if !self.networks.iter().any(usable) && !further_networks(write).await.iter().any(usable) {
            let networks: Vec<String> = self
                .networks
                .iter()
                .filter(|network| network.address.is_ipv4() == address.is_ipv4())
                .map(Cidr::to_string)
                .collect();
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                networks.join(", ")
            ));
        }
        match write.is_free(&key(address)).await {
            Ok(true) => Ok(address),
            Ok(false) => Err("provided IP is already allocated".to_owned()),
            Err(status) => Err(status.message),
        }
    }

    async fn next_address(&self, write: &Write<'_>, v4: bool) -> Result<IpAddr, Status> {
        for network in self.networks.iter().filter(|network| network.address.is_ipv4() == v4) {
            if let Some(address) = self.free_address(write, network).await? {
                return Ok(address);
            }
        }
        for network in further_networks(write).await.iter().filter(|network| network.address.is_ipv4() == v4) {
            if let Some(address) = self.free_address(write, network).await? {
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

    fn object(&self, write: &Write<'_>, address: IpAddr) -> Value {
        json!({
            "kind": "IPAddress",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {
                "name": address.to_string(),
                "uid": self.uid(),
                "creationTimestamp": write.born,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": if address.is_ipv4() { "IPv4" } else { "IPv6" },
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            },
            "spec": {"parentRef": {
                "group": "", "resource": "services", "namespace": write.namespace, "name": write.name,
            }},
        })
    }
}

/// The networks of ServiceCIDR objects that are not on their way out.
async fn further_networks(write: &Write<'_>) -> Vec<Cidr> {
    let range = Range { prefix: NETWORKS.to_owned(), ..Range::default() };
    let Ok(page) = write.store.range(range).await else { return Vec::new() };
    let mut networks = Vec::new();
    for item in page.items {
        let object: Value = serde_json::from_slice(&item.value).unwrap_or_default();
        let ready = !list(&object, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "False");
        let leaving = !text(&object, "/metadata/deletionTimestamp").is_empty();
        if text(&object, "/metadata/name") != DEFAULT_NETWORK && ready && !leaving {
            networks.extend(texts(&object, "/spec/cidrs").into_iter().filter_map(Cidr::parse));
        }
    }
    networks
}
