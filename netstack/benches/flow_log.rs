//! What the flow log and the counters cost: the same traffic with the log kept and followed, and with it turned off, in turns.
//!
//! `cargo bench -p netstack --bench flow_log`. The figures are ratios within one run: how fast a thing is with the log, over how
//! fast it is without. `packets` is an established connection that exchanges small messages, the switch's fast path;
//! `connections` opens and closes, which is where events are written. The spread is that of the same measurement against itself.

#![allow(clippy::print_stdout)]

use netstack::{Config, Host, Network, PortTag, TcpStream};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUNDS: usize = 40;
const MESSAGES: usize = 4_000;
const CONNECTIONS: usize = 1_000;
const KEPT: usize = 4096;

fn address(last: u8, port: u16) -> SocketAddr {
    ([10, 0, 0, last], port).into()
}

/// Everybody who connects gets back each byte.
async fn serve(host: Host) {
    let listener = host.tcp_listen(80).expect("a free port");
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

/// Seconds for some round trips on an open connection.
async fn packets(stream: &mut TcpStream) -> f64 {
    let began = Instant::now();
    for _ in 0..MESSAGES {
        stream.write_all(b"x").await.expect("written");
        stream.read_u8().await.expect("an echo");
    }
    began.elapsed().as_secs_f64()
}

/// Seconds for some connections, each with one byte there and back.
async fn connections(client: &Host) -> f64 {
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = client.tcp_connect(address(2, 80)).await.expect("a connection");
        stream.write_all(b"x").await.expect("written");
        stream.read_u8().await.expect("an echo");
        stream.shutdown().await.expect("closed");
        let _ = stream.read(&mut [0]).await;
    }
    began.elapsed().as_secs_f64()
}

/// Median of the ratios of neighbours: off over on, and off over off.
fn report(what: &str, rounds: &[[f64; 3]]) {
    let median = |ratio: &dyn Fn(&[f64; 3]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(ratio).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let with = median(&|round| (round[0] + round[2]) / 2.0 / round[1]);
    let itself = median(&|round| round[0] / round[2]);
    let percent = (with - 1.0) * 100.0;
    println!("{what:<26} {with:.3} of the speed without ({percent:+.1} %); without against itself {itself:.3}");
}

/// Both measurements, in turns without the log and with it.
async fn rounds(network: &Network, client: &Host, stream: &mut TcpStream, what: &str) {
    let (mut established, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut round, mut fresh) = ([0.0; 3], [0.0; 3]);
        for (index, kept) in [0, KEPT, 0].into_iter().enumerate() {
            network.keep_flow_log(kept);
            round[index] = packets(stream).await;
            fresh[index] = connections(client).await;
        }
        established.push(round);
        opened.push(fresh);
    }
    report(&format!("packets, {what}"), &established);
    report(&format!("connections, {what}"), &opened);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    let host = |last: u8| network.attach_host(&[address(last, 0).ip()], PortTag(last.into())).expect("attached");
    let (client, server) = (host(1), host(2));
    tokio::spawn(serve(server));
    tokio::task::yield_now().await;
    // What a cluster always does: somebody waits for drops.
    let mut drops = network.flow_events(true, 0);
    tokio::spawn(async move { while drops.next().await.is_some() {} });
    let mut stream = client.tcp_connect(address(2, 80)).await.expect("a connection");
    rounds(&network, &client, &mut stream, "log kept").await;
    let mut events = network.flow_events(false, 0);
    let told = tokio::spawn(async move {
        let mut told = 0u64;
        while events.next().await.is_some() {
            told += 1;
        }
        (told, events.lost())
    });
    rounds(&network, &client, &mut stream, "log followed").await;
    network.stop();
    let (told, lost) = told.await.expect("the reader");
    println!("{told} events read, {lost} lost");
}
