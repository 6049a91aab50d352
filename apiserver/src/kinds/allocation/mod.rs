//! ClusterIPs and node ports, given out and taken back in the transaction that writes the Service.
//!
//! Every address in use is one key of the store, and that key is the `IPAddress` object; every node port in use is a key too. A Service's
//! write brings the puts of what it gains, each under the condition that the key is not there, and the deletes of what it gives up. So two
//! Services can never hold the same address, whatever raced, and no table in memory can go stale. A free one is found by trying random
//! ones; only a pool that is nearly full is listed.
//!
//! Follows KEP-1880 (IPAddress and ServiceCIDR), KEP-3070 and KEP-3668 (a lower band for static requests), KEP-563 (dual-stack).

mod addresses;
mod families;
mod node_ports;
mod repair;

use super::json::{int, list, text, texts};
use super::service::service_type;
use super::{Cidr, Networking};
use crate::registry::{Companion, Finding};
use crate::status::{FieldError, Status};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use store::{Compare, KeyValue, Operation, Revision, Store};

/// How many random picks come before the pool is listed.
const PICKS: usize = 24;

/// Gives out addresses and node ports to Services.
pub(super) struct Allocator {
    /// One network per family the cluster has, the primary first.
    networks: Vec<Cidr>,
    node_ports: RangeInclusive<u16>,
    random: Mutex<StdRng>,
}

/// What one Service holds of the pools.
#[derive(Debug, Default, PartialEq)]
struct Claims {
    addresses: BTreeSet<IpAddr>,
    node_ports: BTreeSet<u16>,
}

impl Claims {
    fn of(service: &Value) -> Claims {
        let kind = service_type(service);
        let mut claims = Claims::default();
        if kind != "ExternalName" {
            claims.addresses = texts(service, "/spec/clusterIPs").iter().filter_map(|ip| ip.parse().ok()).collect();
        }
        if matches!(kind, "NodePort" | "LoadBalancer") {
            let health_check = int(service, "/spec/healthCheckNodePort");
            claims.node_ports = list(service, "/spec/ports")
                .iter()
                .filter_map(|port| int(port, "/nodePort"))
                .chain(health_check)
                .filter_map(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .collect();
        }
        claims
    }
}

/// One Service's write in the making.
struct Write<'a> {
    store: &'a dyn Store,
    namespace: String,
    name: String,
    born: Value,
    /// What the Service holds already.
    held: Claims,
    /// What this write has taken so far.
    taken: Claims,
    compares: Vec<Compare>,
    operations: Vec<Operation>,
}

impl Write<'_> {
    fn invalid(&self, errors: &[FieldError]) -> Status {
        Status::invalid("", "Service", &self.name, errors)
    }

    async fn is_free(&self, key: &str) -> Result<bool, Status> {
        Ok(self.store.get(key).await.map_err(Status::internal)?.is_none())
    }

    fn put_new(&mut self, key: String, value: &Value) {
        self.compares.push(Compare { key: key.as_str().into(), mod_revision: Revision(0) });
        self.operations.push(Operation::Put { key: key.into(), value: Bytes::from(value.to_string()) });
    }
}

impl Allocator {
    pub(super) fn new(networking: Networking) -> Self {
        let mut networks: Vec<Cidr> = Vec::new();
        for network in networking.service_cidrs {
            let known = networks.iter().any(|first| first.address.is_ipv4() == network.address.is_ipv4());
            if networks.is_empty() || (networking.dual_stack && !known) {
                networks.push(network);
            }
        }
        let random = Mutex::new(StdRng::seed_from_u64(networking.seed));
        Allocator { networks, node_ports: networking.node_ports, random }
    }

    fn below(&self, bound: u128) -> u128 {
        if bound == 0 { 0 } else { self.random.lock().random_range(0..bound) }
    }

    fn uid(&self) -> String {
        // RFC 9562, version 4.
        let number = self.random.lock().random::<u128>() & !(0xf << 76 | 3 << 62) | 4 << 76 | 2 << 62;
        let hex = format!("{number:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

#[async_trait]
impl Companion for Allocator {
    async fn writes(
        &self,
        store: &dyn Store,
        old: Option<&Value>,
        new: Option<&mut Value>,
        dry_run: bool,
    ) -> Result<(Vec<Compare>, Vec<Operation>), Status> {
        let any: &Value = new.as_deref().or(old).unwrap_or(&Value::Null);
        let mut write = Write {
            store,
            namespace: text(any, "/metadata/namespace").to_owned(),
            name: text(any, "/metadata/name").to_owned(),
            born: any.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null),
            held: old.map(Claims::of).unwrap_or_default(),
            taken: Claims::default(),
            compares: Vec::new(),
            operations: Vec::new(),
        };
        let mut kept = Claims::default();
        if let Some(new) = new {
            if !new["spec"].is_object() {
                return Err(Status::bad_request("a Service needs a spec"));
            }
            self.settle_families(new, old).map_err(|errors| write.invalid(&errors))?;
            self.cluster_ips(&mut write, new).await?;
            self.service_node_ports(&mut write, new).await?;
            kept = Claims::of(new);
        }
        if dry_run {
            return Ok((Vec::new(), Vec::new()));
        }
        self.release(&mut write, &kept).await;
        Ok((write.compares, write.operations))
    }

    async fn repair(&self, store: &dyn Store) -> Result<Vec<Finding>, Status> {
        self.repair_all(store).await
    }

    fn kept_under(&self) -> Option<&'static str> {
        Some(addresses::ADDRESSES)
    }

    async fn restore(&self, store: &dyn Store, lost: &KeyValue) -> Option<Finding> {
        self.restore_address(store, lost).await
    }
}

impl Allocator {
    async fn release(&self, write: &mut Write<'_>, kept: &Claims) {
        let freed: Vec<IpAddr> = write.held.addresses.difference(&kept.addresses).copied().collect();
        for address in freed {
            let key = addresses::key(address);
            // Somebody may have deleted the IPAddress and another Service taken it since.
            let Ok(Some(found)) = write.store.get(&key).await else { continue };
            let object: Value = serde_json::from_slice(&found.value).unwrap_or_default();
            if text(&object, "/spec/parentRef/name") == write.name
                && text(&object, "/spec/parentRef/namespace") == write.namespace
            {
                write.compares.push(Compare { key: found.key.clone(), mod_revision: found.mod_revision });
                write.operations.push(Operation::Delete { key: found.key });
            }
        }
        let freed: Vec<u16> = write.held.node_ports.difference(&kept.node_ports).copied().collect();
        let owner = node_ports::owner((&write.namespace, &write.name));
        for port in freed {
            // As above: of two Services that claim one, it is the other's perhaps (see `repair`).
            let Ok(Some(found)) = write.store.get(&node_ports::key(port)).await else { continue };
            if serde_json::from_slice::<Value>(&found.value).is_ok_and(|holder| holder == owner) {
                write.compares.push(Compare { key: found.key.clone(), mod_revision: found.mod_revision });
                write.operations.push(Operation::Delete { key: found.key });
            }
        }
    }
}

#[cfg(test)]
mod tests;
