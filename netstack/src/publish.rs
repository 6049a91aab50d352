//! The gateway's other direction: sockets of the operating system whose clients are carried into the network.
//!
//! Whoever binds the sockets decides where and under which conditions; [`Host::publish_tcp`] and [`Host::publish_udp`]
//! carry what arrives to an address inside, as the host that they are called on. Refusal inside is a reset outside,
//! half-close goes through, and so does a reset, both ways.

use crate::host::Host;
use crate::udp::UdpSocket;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Bytes of each of the two copy buffers of a connection.
const COPY: usize = 64 * 1024;
/// UDP clients of one socket at a time; the one that has been silent for longest gives way.
const CLIENTS: usize = 1024;
/// A UDP client that has been silent for so long is forgotten, before and after the first answer: as conntrack counts.
const UNREPLIED: Duration = Duration::from_secs(30);
const STREAM: Duration = Duration::from_secs(120);
/// How long to wait when the operating system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(50);

impl Host {
    /// Carries every connection that `listener` accepts to `inside`, until it is dropped: then they end too.
    pub async fn publish_tcp(&self, listener: net::TcpListener, inside: SocketAddr) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => {
                        connections.spawn(carry(self.clone(), client, inside));
                    }
                    // Out of descriptors, or the client has gone before it was accepted.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Carries the datagrams of every client of `socket` to `inside`, and the answers back, until it is dropped.
    pub async fn publish_udp(&self, socket: net::UdpSocket, inside: SocketAddr) {
        let socket = Arc::new(socket);
        let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
        let mut silent: JoinSet<SocketAddr> = JoinSet::new();
        let mut buffer = vec![0; 65_536];
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    // An error is one about a datagram that was sent: it says nothing about the socket.
                    let Ok((length, from)) = received else { continue };
                    let now = Instant::now();
                    if let Some(client) = clients.get_mut(&from) {
                        client.last = now;
                    } else {
                        if clients.len() >= CLIENTS {
                            evict(&mut clients);
                        }
                        let Ok(inner) = self.udp_bind(0) else { continue };
                        let inner = Arc::new(inner);
                        let task = silent.spawn(answer(inner.clone(), socket.clone(), from));
                        clients.insert(from, Client { inner, last: now, task });
                    }
                    let _ = clients[&from].inner.send_to(&buffer[..length], inside).await;
                }
                Some(ended) = silent.join_next() => {
                    let Ok(from) = ended else { continue }; // evicted
                    match clients.get_mut(&from) {
                        // Evicted, and back with another task.
                        Some(client) if !client.task.is_finished() => {}
                        // It speaks, though nobody answers: it keeps its port.
                        Some(client) if client.last.elapsed() < UNREPLIED => {
                            client.task = silent.spawn(answer(client.inner.clone(), socket.clone(), from));
                        }
                        _ => drop(clients.remove(&from)),
                    }
                }
            }
        }
    }
}

struct Client {
    inner: Arc<UdpSocket>,
    last: Instant,
    task: AbortHandle,
}

fn evict(clients: &mut HashMap<SocketAddr, Client>) {
    let oldest = clients.iter().min_by_key(|(_, client)| client.last).map(|(from, _)| *from);
    if let Some(client) = oldest.and_then(|from| clients.remove(&from)) {
        client.task.abort();
    }
}

async fn carry(host: Host, mut client: net::TcpStream, inside: SocketAddr) {
    let _ = client.set_nodelay(true);
    match host.tcp_connect(inside).await {
        Ok(mut server) => {
            if copy_bidirectional_with_sizes(&mut client, &mut server, COPY, COPY).await.is_err() {
                // One side has been reset: so is the other.
                server.abort();
                let _ = client.set_zero_linger();
            }
        }
        // The client sees a reset, not an empty answer.
        Err(_) => {
            let _ = client.set_zero_linger();
        }
    }
}

/// Passes answers back until there have been none for a while.
async fn answer(inner: Arc<UdpSocket>, outer: Arc<net::UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; 65_536];
    let mut deadline = Instant::now() + UNREPLIED;
    while let Ok(received) = timeout_at(deadline, inner.recv_from(&mut buffer)).await {
        match received {
            Ok((length, _)) => {
                let _ = outer.send_to(&buffer[..length], client).await;
                deadline = Instant::now() + STREAM;
            }
            // Off the network: the rest of the wait keeps this from being tried all the time.
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => tokio::time::sleep_until(deadline).await,
            // Refused inside, of which an unconnected socket outside cannot tell.
            Err(_) => {}
        }
    }
    client
}
