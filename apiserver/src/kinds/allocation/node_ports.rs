//! Node ports: one pool for the ports of all Services and their health checks.

use super::{Allocator, PICKS, Write};
use crate::kinds::json::{int, list};
use crate::kinds::service::{needs_health_check, needs_node_ports, service_type};
use crate::status::{FieldError, Status};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use store::Range;

pub(super) const NODE_PORTS: &str = "/registry/nodeports/";

const ALLOCATED: &str = "provided port is already allocated";

/// Where it says whose a node port is.
pub(super) fn key(port: u16) -> String {
    format!("{NODE_PORTS}{port}")
}

impl Allocator {
    /// Size of the band for those who name their port: a 32nd of the pool, at least 16 and at most 128 ports.
    pub(super) fn static_ports(&self) -> u16 {
        let size = self.node_ports.end().saturating_sub(*self.node_ports.start()).saturating_add(1);
        if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
    }

    /// Sees that the ports of `service` have their node ports, and its health check one if it needs it.
    pub(super) async fn service_node_ports(&self, write: &mut Write<'_>, service: &mut Value) -> Result<(), Status> {
        if !matches!(service_type(service), "NodePort" | "LoadBalancer") {
            return Ok(());
        }
        // What the user gave comes first, so that no other port of the Service is dealt it.
        let mut by_number: HashMap<i64, i64> = HashMap::new();
        let given: Vec<(usize, i64, i64)> = list(service, "/spec/ports")
            .iter()
            .enumerate()
            .filter_map(|(index, port)| {
                Some((index, int(port, "/port")?, int(port, "/nodePort").filter(|port| *port != 0)?))
            })
            .collect();
        let health_check = int(service, "/spec/healthCheckNodePort").unwrap_or_default();
        for (index, number, node_port) in given {
            let field = format!("spec.ports[{index}].nodePort");
            if node_port == health_check && needs_health_check(service) {
                // A node cannot answer for both there.
                let error = FieldError::invalid(&field, &json!(node_port), ALLOCATED);
                return Err(write.invalid(&[error]));
            }
            self.reserve(write, &field, node_port).await?;
            by_number.entry(number).or_insert(node_port);
        }
        if needs_health_check(service) && health_check != 0 {
            self.reserve(write, "spec.healthCheckNodePort", health_check).await?;
        }
        if needs_node_ports(service) {
            let count = list(service, "/spec/ports").len();
            for index in 0..count {
                let port = &service["spec"]["ports"][index];
                let number = int(port, "/port").unwrap_or_default();
                if int(port, "/nodePort").unwrap_or_default() != 0 {
                    continue;
                }
                // The same port of another protocol shares the node port.
                let node_port = match by_number.get(&number) {
                    Some(shared) => *shared,
                    None => self.next_port(write, "a nodePort").await?.into(),
                };
                by_number.insert(number, node_port);
                service["spec"]["ports"][index]["nodePort"] = node_port.into();
            }
        }
        if needs_health_check(service) && health_check == 0 {
            let port = self.next_port(write, "a HealthCheck NodePort").await?;
            service["spec"]["healthCheckNodePort"] = port.into();
        }
        Ok(())
    }

    async fn reserve(&self, write: &mut Write<'_>, field: &str, port: i64) -> Result<(), Status> {
        let number = u16::try_from(port).ok().filter(|port| self.node_ports.contains(port));
        let refused = |write: &Write<'_>, why: String| write.invalid(&[FieldError::invalid(field, &json!(port), why)]);
        let Some(number) = number else {
            let (first, last) = (self.node_ports.start(), self.node_ports.end());
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return Err(refused(write, why));
        };
        if write.held.node_ports.contains(&number) || !write.taken.node_ports.insert(number) {
            return Ok(()); // Validation has seen to it that it serves one port of each protocol.
        }
        if !write.is_free(&key(number)).await? {
            return Err(refused(write, ALLOCATED.to_owned()));
        }
        put(write, number);
        Ok(())
    }

    async fn next_port(&self, write: &mut Write<'_>, what: &str) -> Result<u16, Status> {
        let (first, last) = (*self.node_ports.start(), *self.node_ports.end());
        let dynamic = first.saturating_add(self.static_ports());
        let mut found = None;
        for _ in 0..PICKS {
            let pick = dynamic.saturating_add(self.below(u128::from(last.saturating_sub(dynamic)) + 1) as u16);
            if is_untouched(write, pick) && write.is_free(&key(pick)).await? {
                found = Some(pick);
                break;
            }
        }
        if found.is_none() {
            let range = Range { prefix: NODE_PORTS.to_owned(), ..Range::default() };
            let page = write.store.range(range).await.map_err(Status::internal)?;
            let used: HashSet<u16> =
                page.items.iter().filter_map(|item| item.key.strip_prefix(NODE_PORTS)?.parse().ok()).collect();
            let free = |ports: std::ops::RangeInclusive<u16>| -> Vec<u16> {
                ports.filter(|port| !used.contains(port) && is_untouched(write, *port)).collect()
            };
            let mut free_ports = free(dynamic..=last);
            if free_ports.is_empty() {
                free_ports = free(first..=dynamic.saturating_sub(1).max(first));
            }
            if !free_ports.is_empty() {
                found = Some(free_ports[self.below(free_ports.len() as u128) as usize]);
            }
        }
        let port = found.ok_or_else(|| Status::internal(format!("failed to allocate {what}: range is full")))?;
        write.taken.node_ports.insert(port);
        put(write, port);
        Ok(port)
    }
}

fn is_untouched(write: &Write<'_>, port: u16) -> bool {
    !write.taken.node_ports.contains(&port) && !write.held.node_ports.contains(&port)
}

fn put(write: &mut Write<'_>, port: u16) {
    let owner = owner((&write.namespace, &write.name));
    write.put_new(key(port), &owner);
}

/// What stands there: the Service that has it.
pub(super) fn owner((namespace, name): (&str, &str)) -> Value {
    json!({"service": format!("{namespace}/{name}")})
}
