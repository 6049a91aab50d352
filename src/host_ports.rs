//! NodePorts and load balancers on the machine's loopback: listeners of the operating system, spliced to the cluster's network.
//!
//! The first node is 127.0.0.1; every other address inside (a further node, a load balancer) has its own one in 127.0.0.0/8: the
//! same with 127 in front, so 172.18.255.1 is reached at 127.18.255.1. Nothing listens beyond loopback.

use crate::cluster::Addresses;
use netstack::{Host, Protocol};
use proxy::ExternalFrontend;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

/// A UDP client that has been silent for so long is forgotten.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// UDP clients of one port at a time.
const MOST_UDP_CLIENTS: usize = 1024;
/// A port that somebody else has is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

type Frontend = (Protocol, SocketAddr);

pub(crate) struct HostPorts {
    gateway: Host,
    frontends: watch::Receiver<Arc<BTreeSet<ExternalFrontend>>>,
    addresses: Addresses,
}

impl HostPorts {
    pub(crate) fn new(
        gateway: Host,
        frontends: watch::Receiver<Arc<BTreeSet<ExternalFrontend>>>,
        addresses: Addresses,
    ) -> Self {
        HostPorts { gateway, frontends, addresses }
    }

    /// Where on the machine an address inside is reached.
    fn loopback(&self, inside: IpAddr) -> Option<IpAddr> {
        let IpAddr::V4(inside) = inside else { return None };
        if inside == self.addresses.node(1) {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        let [_, b, c, d] = inside.octets();
        Some(Ipv4Addr::new(127, b, c, d).into())
    }

    /// Opens and closes listeners as frontends come and go.
    pub(crate) async fn run(mut self) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut open: BTreeMap<Frontend, AbortHandle> = BTreeMap::new();
        loop {
            let wanted: BTreeSet<Frontend> = self
                .frontends
                .borrow_and_update()
                .iter()
                .filter(|frontend| matches!(frontend.protocol, Protocol::Tcp | Protocol::Udp))
                .map(|frontend| (frontend.protocol, SocketAddr::new(frontend.address, frontend.port)))
                .collect();
            open.retain(|frontend, task| {
                let keep = wanted.contains(frontend);
                if !keep {
                    task.abort();
                }
                keep
            });
            for frontend in wanted {
                if open.contains_key(&frontend) {
                    continue;
                }
                let (protocol, inside) = frontend;
                let Some(outside) = self.loopback(inside.ip()) else { continue };
                let outside = SocketAddr::new(outside, inside.port());
                let gateway = self.gateway.clone();
                let task = match protocol {
                    Protocol::Udp => tasks.spawn(udp(gateway, inside, outside)),
                    _ => tasks.spawn(tcp(gateway, inside, outside)),
                };
                open.insert(frontend, task);
            }
            tokio::select! {
                changed = self.frontends.changed() => if changed.is_err() { return },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// Binds, however long somebody else has the port. The Service works inside all the while.
async fn bound<T>(what: &str, outside: SocketAddr, bind: impl AsyncFn(SocketAddr) -> std::io::Result<T>) -> T {
    let mut told = false;
    loop {
        match bind(outside).await {
            Ok(socket) => {
                info!(%outside, what, "reachable on the machine");
                return socket;
            }
            Err(error) => {
                if !told {
                    warn!(%outside, what, %error, "not reachable on the machine: the port cannot be opened");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn tcp(gateway: Host, inside: SocketAddr, outside: SocketAddr) {
    let listener = bound("tcp", outside, TcpListener::bind).await;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut client, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let _ = client.set_nodelay(true);
                let gateway = gateway.clone();
                connections.spawn(async move {
                    match gateway.tcp_connect(inside).await {
                        Ok(mut server) => {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        }
                        // A refusal inside is a refusal outside: the client sees a reset, not an empty answer.
                        Err(_) => {
                            let _ = client.set_zero_linger();
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn udp(gateway: Host, inside: SocketAddr, outside: SocketAddr) {
    let socket = Arc::new(bound("udp", outside, UdpSocket::bind).await);
    let mut clients: HashMap<SocketAddr, (Arc<netstack::UdpSocket>, AbortHandle)> = HashMap::new();
    let mut replies: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                if !clients.contains_key(&client) {
                    if clients.len() >= MOST_UDP_CLIENTS {
                        continue;
                    }
                    let Ok(inner) = gateway.udp_bind(0) else { continue };
                    let inner = Arc::new(inner);
                    let task = replies.spawn(answer(inner.clone(), socket.clone(), client));
                    clients.insert(client, (inner, task));
                }
                let _ = clients[&client].0.send_to(&buffer[..length], inside).await;
            }
            Some(ended) = replies.join_next() => {
                if let Ok(client) = ended {
                    clients.remove(&client);
                }
            }
        }
    }
}

/// Passes replies back until there have been none for a while.
async fn answer(inner: Arc<netstack::UdpSocket>, outer: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; 65_536];
    while let Ok(Ok((length, _))) = tokio::time::timeout(UDP_IDLE, inner.recv_from(&mut buffer)).await {
        let _ = outer.send_to(&buffer[..length], client).await;
    }
    client
}
