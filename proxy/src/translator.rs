//! The hook of the switch: the newest table, the memory of session affinity, and chance.

use crate::affinity::{Affinity, PortId};
use crate::explain::{self, Explanation};
use crate::service::ServiceName;
use crate::table::{Balanced, Outcome, Route, ServiceTable};
use arc_swap::ArcSwap;
use netstack::{FiveTuple, PortTag, Translate, Translation};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// Translates new flows by the newest [`ServiceTable`]: a running [`Proxy`](crate::Proxy)'s, or one over a table that
/// somebody has built.
#[derive(Debug)]
pub struct Translator {
    table: ArcSwap<ServiceTable>,
    affinity: Mutex<Affinity>,
    random: Mutex<SmallRng>,
}

impl Translator {
    /// A translator over `table`, whose choices come from `seed`.
    pub fn new(table: ServiceTable, seed: u64) -> Translator {
        Translator {
            table: ArcSwap::from_pointee(table),
            affinity: Mutex::default(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
        }
    }

    /// The table in force.
    pub fn table(&self) -> Arc<ServiceTable> {
        self.table.load_full()
    }

    /// How many clients session affinity remembers.
    pub fn held_clients(&self) -> usize {
        self.affinity.lock().len()
    }

    /// Puts a table into force. `changed` are the Services whose endpoints may differ.
    pub(crate) fn swap<'a>(&self, table: ServiceTable, changed: impl Iterator<Item = &'a ServiceName>) {
        let mut affinity = self.affinity.lock();
        for name in changed {
            let compiled = table.service(name);
            affinity.retain(name, |id| {
                let compiled = compiled.filter(|compiled| compiled.service.affinity.is_some())?;
                let port = compiled.ports.iter().find(|port| port.name == id.port && port.protocol == id.protocol)?;
                Some(port.families())
            });
        }
        self.table.store(Arc::new(table));
    }

    /// Why `flow` goes where it goes; remembers nothing and draws nothing.
    pub fn explain(&self, flow: &FiveTuple, now: Instant) -> Explanation {
        let table = self.table.load();
        let route = table.route(flow, &mut |_| 0);
        let held = match &route.outcome {
            Outcome::Balanced(balanced) => self.held(&route, balanced, flow, now),
            _ => None,
        };
        explain::report(&table, flow, &route, held)
    }

    fn held(&self, route: &Route<'_>, balanced: &Balanced<'_>, flow: &FiveTuple, now: Instant) -> Option<SocketAddr> {
        let frontend = route.frontend?;
        let timeout = frontend.service.affinity?;
        let list = (balanced.endpoints, balanced.list);
        self.affinity.lock().endpoint(&port_id(route)?, flow.src.ip(), list, timeout, now)
    }

    fn choose(&self, route: &Route<'_>, balanced: &Balanced<'_>, flow: &FiveTuple, now: Instant) -> SocketAddr {
        let chosen = self.held(route, balanced, flow, now).unwrap_or_else(|| {
            let index = self.random.lock().random_range(0..balanced.list.len());
            balanced.endpoints.get(balanced.list[index]).address
        });
        let timeout = route.frontend.and_then(|frontend| frontend.service.affinity);
        if let (Some(timeout), Some(port)) = (timeout, port_id(route)) {
            self.affinity.lock().note(port, flow.src.ip(), chosen, timeout, now);
        }
        chosen
    }
}

impl Translate for Translator {
    fn translate(&self, flow: &FiveTuple, _from: PortTag, now: Instant) -> Translation {
        let table = self.table.load();
        let route = table.route(flow, &mut |nodes| self.random.lock().random_range(0..nodes));
        match &route.outcome {
            Outcome::Pass => Translation::Pass,
            Outcome::Leaves => {
                let snat = table.snat(flow, &route, flow.dst, true);
                Translation::To { dst: flow.dst, snat }
            }
            Outcome::Refused { reject: true, reason } => Translation::Reject(*reason),
            Outcome::Refused { reject: false, reason } => Translation::Drop(*reason),
            Outcome::Balanced(balanced) => {
                let dst = self.choose(&route, balanced, flow, now);
                Translation::To { dst, snat: table.snat(flow, &route, dst, balanced.masquerade) }
            }
            Outcome::HostPort(host_port) => {
                let dst = host_port.target;
                Translation::To { dst, snat: table.snat(flow, &route, dst, false) }
            }
        }
    }
}

fn port_id(route: &Route<'_>) -> Option<PortId> {
    let frontend = route.frontend?;
    Some(PortId {
        service: frontend.service.name.clone(),
        port: frontend.port.name.clone(),
        protocol: frontend.port.protocol,
    })
}
