//! Session affinity `ClientIP`: which client was sent where, and when last.
//!
//! Kept beside the snapshots, because it outlives them. Keyed by Service port, independent of the frontend used and
//! shared neither between ports nor between Services, as in kube-proxy.

use crate::endpoint::Endpoints;
use crate::service::ServiceName;
use netstack::Protocol;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// Which port of which Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PortId {
    pub(crate) service: ServiceName,
    pub(crate) port: String,
    pub(crate) protocol: Protocol,
}

#[derive(Debug)]
struct Held {
    endpoint: SocketAddr,
    last: Instant,
}

#[derive(Debug, Default)]
struct Clients {
    held: HashMap<IpAddr, Vec<Held>>,
    /// Expired clients are swept when this many are known: amortised O(1), bounded by the live ones.
    sweep_at: usize,
}

/// Who was sent where: by Service, since a change of one forgets some of its own.
#[derive(Debug, Default)]
pub(crate) struct Affinity(HashMap<ServiceName, HashMap<PortId, Clients>>);

impl Affinity {
    /// The first endpoint of `list` that holds `client` and has not expired.
    pub(crate) fn endpoint(
        &self,
        port: &PortId,
        client: IpAddr,
        (endpoints, list): (&Endpoints, &[u32]),
        timeout: Duration,
        now: Instant,
    ) -> Option<SocketAddr> {
        let held = self.0.get(&port.service)?.get(port)?.held.get(&client)?;
        let alive = held.iter().filter(|held| now.saturating_duration_since(held.last) < timeout);
        let listed = alive.filter_map(|held| {
            let (index, endpoint) = endpoints.find(held.endpoint)?;
            list.binary_search(&index).ok().map(|position| (position, endpoint.address))
        });
        listed.min().map(|(_, address)| address)
    }

    /// Notes a new connection: the timeout starts again.
    pub(crate) fn note(&mut self, port: PortId, client: IpAddr, endpoint: SocketAddr, timeout: Duration, now: Instant) {
        if !self.0.contains_key(&port.service) {
            self.0.insert(port.service.clone(), HashMap::new());
        }
        let Some(ports) = self.0.get_mut(&port.service) else { return };
        let clients = ports.entry(port).or_default();
        let held = clients.held.entry(client).or_default();
        match held.iter_mut().find(|held| held.endpoint == endpoint) {
            Some(held) => held.last = now,
            None => held.push(Held { endpoint, last: now }),
        }
        if clients.held.len() > clients.sweep_at {
            clients.held.retain(|_, held| {
                held.retain(|held| now.saturating_duration_since(held.last) < timeout);
                !held.is_empty()
            });
            clients.sweep_at = (2 * clients.held.len()).max(1024);
        }
    }

    /// Forgets the endpoints that `service` no longer has: one that comes back at the same address is a new one.
    /// `endpoints` answers for a port, by name and protocol; `None` when the port is gone or has no affinity.
    pub(crate) fn retain<'e>(
        &mut self,
        service: &ServiceName,
        mut endpoints: impl FnMut(&PortId) -> Option<[&'e Endpoints; 2]>,
    ) {
        let Some(ports) = self.0.get_mut(service) else { return };
        ports.retain(|port, clients| {
            let Some(families) = endpoints(port) else { return false };
            clients.held.retain(|_, held| {
                held.retain(|held| families.iter().any(|endpoints| endpoints.find(held.endpoint).is_some()));
                !held.is_empty()
            });
            true
        });
        if ports.is_empty() {
            self.0.remove(service);
        }
    }

    /// How many clients are remembered.
    pub(crate) fn len(&self) -> usize {
        self.0.values().flat_map(HashMap::values).map(|clients| clients.held.len()).sum()
    }
}
