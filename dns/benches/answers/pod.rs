//! An in-process pod that asks over its own network.

use crate::world::{self, SERVICES, World};
use netstack::{Host, Network, PortTag, UdpSocket};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Questions that are on their way at a time.
const WINDOW: usize = 64;
const ASKED: usize = 300_000;

fn host(network: &Network, ip: &str, tag: u64) -> Host {
    network.attach_host(&[ip.parse::<IpAddr>().expect("an address")], PortTag(tag)).expect("attached")
}

/// Sends questions and waits for their answers, [`WINDOW`] at a time; how long all took.
async fn exchange(client: &Host, server: SocketAddr, questions: &[Vec<u8>]) -> Duration {
    let socket = client.udp_bind(0).expect("a port");
    let mut buffer = vec![0; 4096];
    let mut questions = questions.iter().cycle();
    let begun = Instant::now();
    for _ in 0..ASKED / WINDOW {
        for question in questions.by_ref().take(WINDOW) {
            socket.send_to(question, server).await.expect("sent");
        }
        for _ in 0..WINDOW {
            socket.recv_from(&mut buffer).await.expect("an answer");
        }
    }
    begun.elapsed()
}

async fn echo(socket: UdpSocket) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

/// Everything is on this thread, so its time is all the time there is.
pub(crate) fn figures() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let network = Network::new(netstack::Config { mtu: 1500, seed: 1 });
        let client = host(&network, "10.244.0.2", 1);
        let mut rates = Vec::new();
        for (services, ip, tag) in [(1, "10.244.0.3", 2), (SERVICES, "10.244.0.4", 3)] {
            let world = World::of(services);
            let dns = Arc::new(world.dns().await);
            let (serving, server) = (dns.clone(), host(&network, ip, tag));
            let task = tokio::spawn(async move { serving.serve(server).await });
            tokio::task::yield_now().await;
            let to = SocketAddr::new(ip.parse().expect("an address"), 53);
            let questions = world::questions(services);
            exchange(&client, to, &questions).await;
            rates.push(crate::rate(ASKED, exchange(&client, to, &questions).await));
            task.abort();
        }
        let server = host(&network, "10.244.0.5", 4);
        let task = tokio::spawn(echo(server.udp_bind(7).expect("a port")));
        let to = SocketAddr::new("10.244.0.5".parse().expect("an address"), 7);
        let questions = world::questions(SERVICES);
        exchange(&client, to, &questions).await;
        let echoed = crate::rate(ASKED, exchange(&client, to, &questions).await);
        task.abort();
        println!("{:<44}{:>12.0} /s", "a pod asks, 10,000 Services", rates[1]);
        println!("{:<44}{:>12.0} /s   {:.2} ×", "the same, 1 Service", rates[0], rates[1] / rates[0]);
        println!("{:<44}{:>12.0} /s   {:.2} ×", "the same datagrams echoed", echoed, rates[1] / echoed);
    });
}
