//! Allocations checked against the Services they are for: at the start, and when somebody deletes an `IPAddress` that is in use.
//!
//! Since every allocation is written with its Service, there is nothing to find unless objects came another way: an edited or older
//! store, a snapshot, an `IPAddress` deleted by hand. What is missing is reserved, what belongs to nobody is freed; where two Services
//! claim the same, the one that holds it keeps it and the other is told so. Reasons and texts are those of upstream's repair
//! controllers, since users search for them.

use super::addresses::{self, ADDRESSES};
use super::node_ports::{self, NODE_PORTS};
use super::{Allocator, Claims};
use crate::kinds::Cidr;
use crate::kinds::json::text;
use crate::registry::Finding;
use crate::status::Status;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use store::{Compare, Key, KeyValue, Operation, Range, Revision, Store, Txn, TxnError};

const SERVICES: &str = "/registry/services/";
/// Other writes may come between reading and repairing; then it is read again.
const ATTEMPTS: usize = 8;
/// Repairs in one transaction.
const AT_ONCE: usize = 512;

/// A Service as it stands in the store.
struct Claimant {
    kv: KeyValue,
    object: Value,
    claims: Claims,
}

impl Claimant {
    fn of(kv: KeyValue) -> Claimant {
        let object: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        let claims = Claims::of(&object);
        Claimant { kv, object, claims }
    }

    fn name(&self) -> (&str, &str) {
        (text(&self.object, "/metadata/namespace"), text(&self.object, "/metadata/name"))
    }

    fn finding(&self, reason: &'static str, message: String) -> Finding {
        let (namespace, name) = self.name();
        let uid = text(&self.object, "/metadata/uid");
        let object = json!({"apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": name, "uid": uid});
        Finding { object, reason, message }
    }
}

/// What is to be written, each repair under the condition that nothing it rests on has changed.
#[derive(Default)]
struct Plan {
    repairs: Vec<(Vec<Compare>, Operation)>,
    findings: Vec<Finding>,
}

impl Plan {
    /// Writes `value`, if its claimant and what stands there are still the same.
    fn put(&mut self, claimant: &Claimant, key: Key, known: Option<&KeyValue>, value: &Value) {
        let compares = vec![unchanged(&claimant.kv), Compare { key: key.clone(), mod_revision: revision(known) }];
        self.repairs.push((compares, Operation::Put { key, value: Bytes::from(value.to_string()) }));
    }

    fn free(&mut self, known: &KeyValue) {
        self.repairs.push((vec![unchanged(known)], Operation::Delete { key: known.key.clone() }));
    }
}

fn unchanged(kv: &KeyValue) -> Compare {
    Compare { key: kv.key.clone(), mod_revision: kv.mod_revision }
}

fn revision(known: Option<&KeyValue>) -> Revision {
    known.map_or(Revision(0), |kv| kv.mod_revision)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

async fn all(store: &dyn Store, prefix: &str) -> Result<Vec<KeyValue>, Status> {
    let range = Range { prefix: prefix.to_owned(), ..Range::default() };
    Ok(store.range(range).await.map_err(Status::internal)?.items)
}

impl Allocator {
    /// Brings all allocations in line with the Services; what was found.
    pub(super) async fn repair_all(&self, store: &dyn Store) -> Result<Vec<Finding>, Status> {
        'again: for _ in 0..ATTEMPTS {
            let plan = self.plan(store).await?;
            for repairs in plan.repairs.chunks(AT_ONCE) {
                let mut txn = Txn { compares: Vec::new(), operations: Vec::new() };
                for (compares, operation) in repairs {
                    txn.compares.extend(compares.iter().cloned());
                    txn.operations.push(operation.clone());
                }
                match store.txn(txn).await {
                    Ok(_) => {}
                    Err(TxnError::Conflict { .. }) => continue 'again,
                    Err(error) => return Err(Status::internal(error)),
                }
            }
            return Ok(plan.findings);
        }
        Ok(Vec::new())
    }

    async fn plan(&self, store: &dyn Store) -> Result<Plan, Status> {
        let mut services: Vec<Claimant> = all(store, SERVICES).await?.into_iter().map(Claimant::of).collect();
        // The oldest first: of two that claim the same it has the better right.
        services.sort_by(|one, other| {
            let age = |claimant: &Claimant| text(&claimant.object, "/metadata/creationTimestamp").to_owned();
            (age(one), one.name()).cmp(&(age(other), other.name()))
        });
        let mut plan = Plan::default();
        self.plan_addresses(store, &services, &mut plan).await?;
        self.plan_ports(store, &services, &mut plan).await?;
        Ok(plan)
    }

    async fn plan_addresses(&self, store: &dyn Store, services: &[Claimant], plan: &mut Plan) -> Result<(), Status> {
        let further = addresses::all_networks(store).await;
        let networks: Vec<&Cidr> = self.networks.iter().chain(&further).collect();
        let mut known: BTreeMap<IpAddr, (KeyValue, Value)> = BTreeMap::new();
        for kv in all(store, ADDRESSES).await? {
            let object: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            if let Some(address) = kv.key.strip_prefix(ADDRESSES).and_then(|ip| ip.parse().ok()) {
                known.insert(address, (kv, object));
            }
        }
        let by_name: HashMap<(&str, &str), &Claimant> =
            services.iter().map(|service| (service.name(), service)).collect();
        let mut holders: HashMap<IpAddr, &Claimant> = HashMap::new();
        for (address, (_, object)) in &known {
            if let Some(holder) =
                by_name.get(&parent(object)).filter(|holder| holder.claims.addresses.contains(address))
            {
                holders.insert(*address, holder);
            }
        }
        for service in services {
            for address in &service.claims.addresses {
                let (namespace, name) = service.name();
                let family = family(*address);
                if let Some(holder) = holders.get(address) {
                    if holder.name() != service.name() {
                        let message = format!(
                            "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
                        );
                        plan.findings.push(service.finding("ClusterIPAlreadyAllocated", message));
                    }
                    continue;
                }
                if !networks.iter().any(|network| network.contains(*address)) {
                    let message = format!(
                        "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
                    );
                    plan.findings.push(service.finding("ClusterIPOutOfRange", message));
                    continue;
                }
                holders.insert(*address, service);
                let found = known.get(address).map(|(kv, _)| kv);
                let message = match found {
                    None => format!("Cluster IP [{family}]: {address} is not allocated; repairing"),
                    Some(_) => format!(
                        "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
                    ),
                };
                plan.findings.push(service.finding("ClusterIPNotAllocated", message));
                plan.put(service, addresses::key(*address).into(), found, &self.address_of(service, *address));
            }
        }
        for (address, (kv, object)) in &known {
            // What somebody else reserves is none of ours.
            if holders.contains_key(address) || !addresses::is_ours(object) {
                continue;
            }
            let (namespace, name) = parent(object);
            let message =
                format!("IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up");
            let uid = text(object, "/metadata/uid");
            let object =
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "name": address, "uid": uid});
            plan.findings.push(Finding { object, reason: "IPAddressNotAllocated", message });
            plan.free(kv);
        }
        Ok(())
    }

    async fn plan_ports(&self, store: &dyn Store, services: &[Claimant], plan: &mut Plan) -> Result<(), Status> {
        let mut known: BTreeMap<u16, (KeyValue, Value)> = BTreeMap::new();
        for kv in all(store, NODE_PORTS).await? {
            let object: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            if let Some(port) = kv.key.strip_prefix(NODE_PORTS).and_then(|port| port.parse().ok()) {
                known.insert(port, (kv, object));
            }
        }
        let owner = |service: &Claimant| node_ports::owner(service.name());
        let mut holders: HashMap<u16, (&str, &str)> = HashMap::new();
        for service in services {
            for port in &service.claims.node_ports {
                if known.get(port).is_some_and(|(_, held)| *held == owner(service)) {
                    holders.insert(*port, service.name());
                }
            }
        }
        for service in services {
            for port in &service.claims.node_ports {
                if let Some(holder) = holders.get(port) {
                    if *holder != service.name() {
                        let message = format!("Port {port} was assigned to multiple services; please recreate service");
                        plan.findings.push(service.finding("PortAlreadyAllocated", message));
                    }
                    continue;
                }
                if !self.node_ports.contains(port) {
                    let (first, last) = (self.node_ports.start(), self.node_ports.end());
                    let message =
                        format!("Port {port} is not within the port range {first}-{last}; please recreate service");
                    plan.findings.push(service.finding("PortOutOfRange", message));
                    continue;
                }
                holders.insert(*port, service.name());
                let message = format!("Port {port} is not allocated; repairing");
                plan.findings.push(service.finding("PortNotAllocated", message));
                let found = known.get(port).map(|(kv, _)| kv);
                plan.put(service, node_ports::key(*port).into(), found, &owner(service));
            }
        }
        for (port, (kv, _)) in &known {
            if !holders.contains_key(port) {
                tracing::warn!(port, "node port of no Service: freed");
                plan.free(kv);
            }
        }
        Ok(())
    }

    /// Reserves an address again whose `IPAddress` has been deleted, if its Service still has it.
    pub(super) async fn restore_address(&self, store: &dyn Store, lost: &KeyValue) -> Option<Finding> {
        let object: Value = serde_json::from_slice(&lost.value).ok()?;
        let address: IpAddr = lost.key.strip_prefix(ADDRESSES)?.parse().ok()?;
        for _ in 0..ATTEMPTS {
            let (namespace, name) = parent(&object);
            let service = Claimant::of(store.get(&format!("{SERVICES}{namespace}/{name}")).await.ok()??);
            if !service.claims.addresses.contains(&address) {
                return None;
            }
            let mut plan = Plan::default();
            plan.put(&service, lost.key.clone(), None, &self.address_of(&service, address));
            let (compares, operation) = plan.repairs.pop()?;
            match store.txn(Txn { compares, operations: vec![operation] }).await {
                Ok(_) => {
                    let message = format!("Cluster IP [{}]: {address} is not allocated; repairing", family(address));
                    return Some(service.finding("ClusterIPNotAllocated", message));
                }
                // The Service has changed: look again. Somebody has the address: the check at the next start says who is to give way.
                Err(TxnError::Conflict { key, .. }) if key == service.kv.key => {}
                Err(_) => return None,
            }
        }
        None
    }

    fn address_of(&self, service: &Claimant, address: IpAddr) -> Value {
        let born = service.object.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null);
        self.ip_address(address, service.name(), &born)
    }
}

/// Namespace and name of the Service that an `IPAddress` is for.
fn parent(address: &Value) -> (&str, &str) {
    match text(address, "/spec/parentRef/resource") {
        "services" => (text(address, "/spec/parentRef/namespace"), text(address, "/spec/parentRef/name")),
        _ => ("", ""),
    }
}
