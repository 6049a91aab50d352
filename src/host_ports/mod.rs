//! NodePorts and load balancers on the machine's loopback: listeners of the operating system, spliced to the cluster's network.
//!
//! The first node is 127.0.0.1 (and ::1); every other IPv4 address inside (a further node, a load balancer) has its own one in
//! 127.0.0.0/8: the same with 127 in front, so 172.18.255.1 is reached at 127.18.255.1. IPv6 has one loopback address only, so
//! there is none for others. Nothing listens beyond loopback. What cannot be opened is tried again; [`report`] tells users.

mod report;

use crate::addresses::Addresses;
use netstack::{Host, Protocol};
use proxy::{ExternalFrontend, ExternalFrontends, FrontendKind, ServiceName};
pub(crate) use report::Reporter;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// A port that somebody else has is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// One port on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// TCP, UDP or SCTP.
    protocol: Protocol,
    at: SocketAddr,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            _ => "TCP",
        };
        write!(f, "{}/{protocol}", self.at)
    }
}

/// Whose host side it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Service(ServiceName),
    Pod(ServiceName),
}

/// What of a Service, or of a pod's host ports, is reachable on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostSide {
    /// Open: whoever connects is carried inside.
    open: BTreeSet<HostPort>,
    /// Not open, and why.
    failed: BTreeMap<HostPort, Failure>,
}

/// Why a port on the machine cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// The operating system says no.
    Bind(io::ErrorKind, String),
    /// It has no loopback address, or sockets of the protocol are not ours to splice.
    NotCarried,
}

/// The state of the host side of everything that has one.
pub(crate) type HostSides = BTreeMap<Owner, HostSide>;

/// A frontend inside and its port on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Wanted {
    outside: HostPort,
    inside: SocketAddr,
    /// A port of every node, at a node that is not the first: no loss where the system has no loopback address for it.
    is_alias: bool,
}

/// Opens ports on the machine as frontends come and go.
pub(crate) struct HostPorts {
    gateway: Host,
    frontends: watch::Receiver<ExternalFrontends>,
    first_node: Vec<IpAddr>,
    sides: watch::Sender<Arc<HostSides>>,
}

impl HostPorts {
    pub(crate) fn new(gateway: Host, frontends: watch::Receiver<ExternalFrontends>, addresses: &Addresses) -> Self {
        let first_node = addresses.node_addresses(1);
        HostPorts { gateway, frontends, first_node, sides: watch::Sender::default() }
    }

    /// What is reachable, and every change of it.
    pub(crate) fn sides(&self) -> watch::Receiver<Arc<HostSides>> {
        self.sides.subscribe()
    }

    /// Where on the machine an address inside is reached.
    fn loopback(&self, inside: IpAddr) -> Option<IpAddr> {
        let first = self.first_node.contains(&inside);
        match inside {
            IpAddr::V4(_) if first => Some(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V4(inside) => {
                let [_, b, c, d] = inside.octets();
                Some(Ipv4Addr::new(127, b, c, d).into())
            }
            IpAddr::V6(_) => first.then(|| Ipv6Addr::LOCALHOST.into()),
        }
    }

    fn wanted(&self, frontends: &ExternalFrontends) -> BTreeMap<Wanted, BTreeSet<Owner>> {
        let mut wanted: BTreeMap<Wanted, BTreeSet<Owner>> = BTreeMap::new();
        for ExternalFrontend { kind, address, protocol, port, service } in frontends {
            let Some(outside) = self.loopback(*address) else { continue };
            let outside = HostPort { protocol: *protocol, at: SocketAddr::new(outside, *port) };
            let owner = match kind {
                FrontendKind::HostPort => Owner::Pod(service.clone()),
                _ => Owner::Service(service.clone()),
            };
            let inside = SocketAddr::new(*address, *port);
            let of_every_node = matches!(kind, FrontendKind::NodePort | FrontendKind::HealthCheck);
            let is_alias = of_every_node && !self.first_node.contains(address);
            wanted.entry(Wanted { outside, inside, is_alias }).or_default().insert(owner);
        }
        wanted
    }

    /// Opens and closes ports until the proxy ends.
    pub(crate) async fn run(mut self) {
        let mut open: HashMap<Wanted, Splice> = HashMap::new();
        let mut failed: HashMap<Wanted, Failure> = HashMap::new();
        loop {
            let frontends = self.frontends.borrow_and_update().clone();
            let wanted = self.wanted(&frontends);
            let gone: Vec<Wanted> = open.keys().filter(|known| !wanted.contains_key(*known)).cloned().collect();
            for splice in gone.iter().filter_map(|known| open.remove(known)) {
                splice.close().await;
            }
            failed.retain(|known, _| wanted.contains_key(known));
            let mut again = false;
            for one in wanted.keys() {
                if open.contains_key(one) {
                    continue;
                }
                match Splice::open(&self.gateway, one).await {
                    Ok(Some(splice)) => {
                        info!(outside = %one.outside, inside = %one.inside, "reachable on the machine");
                        open.insert(one.clone(), splice);
                        failed.remove(one);
                    }
                    Ok(None) => {
                        failed.insert(one.clone(), Failure::NotCarried);
                    }
                    Err(error) if one.is_alias && error.kind() == io::ErrorKind::AddrNotAvailable => {}
                    Err(error) => {
                        again = true;
                        let failure = Failure::Bind(error.kind(), error.to_string());
                        if failed.insert(one.clone(), failure).is_none() {
                            warn!(outside = %one.outside, inside = %one.inside, %error, "not reachable on the machine");
                        }
                    }
                }
            }
            self.publish(&wanted, &open, &failed);
            tokio::select! {
                changed = self.frontends.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if again => {}
            }
        }
    }

    fn publish(
        &self,
        wanted: &BTreeMap<Wanted, BTreeSet<Owner>>,
        open: &HashMap<Wanted, Splice>,
        failed: &HashMap<Wanted, Failure>,
    ) {
        let mut sides = HostSides::new();
        for (one, owners) in wanted {
            for owner in owners {
                let side = sides.entry(owner.clone()).or_default();
                if let Some(failure) = failed.get(one) {
                    side.failed.insert(one.outside, failure.clone());
                } else if open.contains_key(one) {
                    side.open.insert(one.outside);
                }
            }
        }
        self.sides.send_if_modified(|known| {
            let modified = **known != sides;
            *known = Arc::new(sides);
            modified
        });
    }
}

/// An open port; dropping it closes it.
struct Splice(JoinHandle<()>);

impl Splice {
    /// Opens the port. `None` for protocols that are not carried.
    async fn open(gateway: &Host, wanted: &Wanted) -> io::Result<Option<Splice>> {
        let (gateway, inside, outside) = (gateway.clone(), wanted.inside, wanted.outside);
        let task = match outside.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(outside.at).await?;
                tokio::spawn(async move { gateway.publish_tcp(listener, inside).await })
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(outside.at).await?;
                tokio::spawn(async move { gateway.publish_udp(socket, inside).await })
            }
            _ => return Ok(None),
        };
        Ok(Some(Splice(task)))
    }

    /// Closes the port: when this returns, it is free, and its connections have ended.
    async fn close(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        self.0.abort();
    }
}
