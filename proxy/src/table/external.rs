//! What of the table the outside can reach: kept as a set that changes with each Service, so that one change of many costs
//! no more than itself.

use super::ServiceTable;
use crate::service::{CompiledService, ExternalFrontend, Frontend, FrontendKind, ServiceName};
use imbl::OrdSet;
use netstack::{FiveTuple, Protocol};
use std::net::{IpAddr, SocketAddr};

/// The frontends that the outside can reach. Cheap to clone.
pub type ExternalFrontends = OrdSet<ExternalFrontend>;

impl ServiceTable {
    /// Every frontend that is reachable from outside.
    pub fn external_frontends(&self) -> ExternalFrontends {
        let services = self.services.values().flat_map(|compiled| self.external_of(compiled));
        let host_ports = self.pods.keys().flat_map(|pod| self.external_of_pod(pod));
        services.chain(host_ports).collect()
    }

    /// Brings the set of `old`, an earlier table, in line with this one, when only these Services and pods have changed. Whether
    /// that changes it.
    pub(crate) fn update_external<'a>(
        &self,
        set: &mut ExternalFrontends,
        old: &ServiceTable,
        services: impl Iterator<Item = &'a ServiceName>,
        pods: impl Iterator<Item = &'a ServiceName>,
    ) -> bool {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for name in services {
            let (before, after) = (old.services.get(name), self.services.get(name));
            if let (Some(before), Some(after)) = (before, after)
                && before.same_outside(after)
            {
                continue;
            }
            for compiled in before.into_iter().chain(after) {
                // Whoever else claims a frontend of it gets it, or gives it up.
                for other in self.rivals(old, compiled) {
                    gone.extend(old.services.get(&other).into_iter().flat_map(|compiled| old.external_of(compiled)));
                    come.extend(self.services.get(&other).into_iter().flat_map(|compiled| self.external_of(compiled)));
                }
            }
        }
        for pod in pods {
            for other in self.rivals_of_pod(old, pod) {
                gone.extend(old.external_of_pod(&other));
                come.extend(self.external_of_pod(&other));
            }
        }
        if gone == come {
            return false;
        }
        for frontend in gone {
            set.remove(&frontend);
        }
        for frontend in come {
            set.insert(frontend);
        }
        true
    }

    /// The Services that claim any frontend of `compiled` now or claimed it before, itself included.
    fn rivals(&self, old: &ServiceTable, compiled: &CompiledService) -> Vec<ServiceName> {
        let mut names = vec![compiled.service.name.clone()];
        for table in [old, self] {
            let own = compiled.frontends.iter().filter_map(|(key, _)| table.frontends.get(key));
            let at_nodes = compiled.node_ports.iter().filter_map(|(key, _)| table.node_ports.get(key));
            names.extend(own.chain(at_nodes).flat_map(|claims| claims.iter()).map(|other| other.service.name.clone()));
        }
        names.sort();
        names.dedup();
        names
    }

    /// What of a Service the outside reaches: where it is the senior claimant.
    fn external_of(&self, compiled: &CompiledService) -> Vec<ExternalFrontend> {
        let service = &compiled.service.name;
        let is_first = |claims: Option<&super::Claims>, kind: FrontendKind| {
            claims
                .and_then(|claims| claims.first())
                .is_some_and(|first: &Frontend| first.kind == kind && first.service.name == *service)
        };
        let own = compiled.frontends.iter().filter(|(key, frontend)| {
            frontend.kind != FrontendKind::ClusterIp && is_first(self.frontends.get(key), frontend.kind)
        });
        let external = |kind, address, protocol, port| ExternalFrontend {
            kind,
            address,
            protocol,
            port,
            service: service.clone(),
        };
        let mut all: Vec<_> =
            own.map(|(key, frontend)| external(frontend.kind, key.address, key.protocol, key.port)).collect();
        for (key, frontend) in &compiled.node_ports {
            if is_first(self.node_ports.get(key), frontend.kind) {
                let (v4, protocol, port) = *key;
                all.extend(self.node_addresses(v4).map(|at| external(FrontendKind::NodePort, at, protocol, port)));
            }
        }
        if let Some(port) = compiled.service.health_check_node_port {
            let addresses = compiled.families().flat_map(|v4| self.node_addresses(v4));
            all.extend(addresses.map(|at| external(FrontendKind::HealthCheck, at, Protocol::Tcp, port)));
        }
        all
    }

    /// The pods that claim a host port of this one, itself included.
    fn rivals_of_pod(&self, old: &ServiceTable, pod: &ServiceName) -> Vec<ServiceName> {
        let mut names = vec![pod.clone()];
        for table in [old, self] {
            let keys = table.pods.get(pod).into_iter().flat_map(|host_ports| host_ports.iter().map(|(key, _)| key));
            let claims = keys.filter_map(|key| table.host_ports.get(key)).flatten();
            names.extend(claims.map(|host_port| host_port.pod.clone()));
        }
        names.sort();
        names.dedup();
        names
    }

    fn external_of_pod(&self, pod: &ServiceName) -> Vec<ExternalFrontend> {
        let Some(host_ports) = self.pods.get(pod) else { return Vec::new() };
        let mut all = Vec::new();
        for ((name, protocol, port), host_port) in host_ports.iter() {
            let Some(node) = self.nodes.all().iter().find(|node| node.name == *name) else { continue };
            for address in node.addresses.iter().filter(|address| host_port.is_at(**address)) {
                let dst = SocketAddr::new(*address, *port);
                let flow = FiveTuple { protocol: *protocol, src: dst, dst };
                if self.host_port(&flow) == Some(host_port) {
                    let (kind, service) = (FrontendKind::HostPort, pod.clone());
                    all.push(ExternalFrontend { kind, address: *address, protocol: *protocol, port: *port, service });
                }
            }
        }
        all
    }

    fn node_addresses(&self, v4: bool) -> impl Iterator<Item = IpAddr> {
        let addresses = self.nodes.all().iter().flat_map(|node| node.addresses.iter().copied());
        addresses.filter(move |address| address.is_ipv4() == v4)
    }
}
