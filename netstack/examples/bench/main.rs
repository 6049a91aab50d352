//! Measures the data plane beside the kernel's, in the same run on the same machine.
//!
//! In process: host → address that DNAT turns into another → host, over real TCP. Beside it two network namespaces joined by a veth
//! pair ([`veth`]), when root and `ip` are there. Bulk is Gbit/s per CPU core used by everybody involved, RR a 1-byte request and
//! response, CRR connect, one byte each way, close.
//!
//! ```text
//! cargo run --release -p netstack --example bench
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod veth;

use netstack::{
    Config, Filter, FiveTuple, Hooks, Host, Network, NewFlow, PortTag, TcpStream, Translate, Translation, Verdict,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use veth::{Bulk, CHUNK, Veth, cpu, percentiles};

const RUN: Duration = Duration::from_secs(2);

fn main() {
    if veth::is_one_side() {
        return;
    }
    if std::env::args().nth(1).as_deref() == Some("in-process") {
        println!("{HEADINGS}");
        println!("{}", in_process(one_thread()).row("netstack, DNAT, one thread"));
        one_thread().block_on(memory());
    } else {
        compare();
    }
}

const HEADINGS: &str =
    "                                    Gbit/s   cores Gbit/s/core    RR p50    RR p99       CRR/s  CRR/s/core";

fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What one set-up achieved.
#[derive(Debug, Default)]
struct Figures {
    bulk: Bulk,
    /// Round trips, in µs: median and 99th percentile.
    rr: [f64; 2],
    /// Connections a second, and a second and core (the kernel's share cannot be told).
    crr: [f64; 2],
}

impl Figures {
    fn row(&self, name: &str) -> String {
        let Figures { bulk, rr, crr } = self;
        format!(
            "{name:<34}{:>8.1}{:>8.2}{:>12.1}{:>10.1}{:>10.1}{:>12.0}{:>12.0}",
            bulk.rate,
            bulk.cores,
            bulk.per_core(),
            rr[0],
            rr[1],
            crr[0],
            crr[1]
        )
    }
}

fn compare() {
    println!("{HEADINGS}");
    let one = in_process(one_thread());
    println!("{}", one.row("netstack, DNAT, one thread"));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("{}", in_process(two).row("netstack, DNAT, two worker threads"));
    match kernel() {
        Ok(veth) => {
            println!("{}", veth.row("kernel, two namespaces over veth"));
            println!(
                "\nnetstack on one thread : veth = {:.1} in bulk per core, {:.2} in RR, {:.1} in CRR",
                one.bulk.per_core() / veth.bulk.per_core(),
                one.rr[0] / veth.rr[0],
                one.crr[0] / veth.crr[0]
            );
        }
        Err(missing) => println!("\nno comparison with the kernel: {missing}"),
    }
    one_thread().block_on(memory());
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

/// What hosts and connections cost that do nothing.
async fn memory() {
    const COUNT: usize = 10_000;
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    let before = resident();
    let hosts: Vec<Host> = (0..COUNT)
        .map(|index| {
            let address = IpAddr::from([10, 1, (index >> 8) as u8, index as u8]);
            network.attach_host(&[address], PortTag(index as u64)).expect("a free address")
        })
        .collect();
    println!("\nan idle host: {:.0} bytes", (resident() - before) / COUNT as f64);
    let listener = hosts[0].tcp_listen(80).expect("a free port");
    let to = SocketAddr::new(hosts[0].addresses()[0], 80);
    let before = resident();
    let mut held = Vec::new();
    for host in &hosts {
        let (client, server) = tokio::join!(host.tcp_connect(to), listener.accept());
        let (mut client, (mut server, _)) = (client.expect("a connection"), server.expect("a connection"));
        let mut buffer = [0; 100];
        client.write_all(&buffer).await.expect("open");
        server.read_exact(&mut buffer).await.expect("data");
        server.write_all(&buffer).await.expect("open");
        client.read_exact(&mut buffer).await.expect("data");
        held.push((client, server));
    }
    println!(
        "an idle connection, both ends and its flow, after 100 bytes each way: {:.0} bytes",
        (resident() - before) / COUNT as f64
    );
}

fn kernel() -> Result<Figures, String> {
    let veth = Veth::new()?;
    Ok(Figures { bulk: veth.bulk(RUN)?, rr: veth.round_trips(RUN)?, crr: [veth.connections(RUN)?, f64::NAN] })
}

struct Dnat;

impl Translate for Dnat {
    fn translate(&self, flow: &FiveTuple, _: PortTag, _: tokio::time::Instant) -> Translation {
        if flow.dst == at("10.96.0.1:80") {
            Translation::To { dst: at("10.244.1.2:8080"), snat: None }
        } else {
            Translation::Pass
        }
    }
}

impl Filter for Dnat {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn in_process(runtime: tokio::runtime::Runtime) -> Figures {
    // A task of its own: block_on's main task is not on a worker thread.
    runtime.block_on(async { tokio::spawn(in_process_figures()).await.expect("no panic") })
}

async fn in_process_figures() -> Figures {
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    network.install(Hooks { translate: Arc::new(Dnat), filter: Arc::new(Dnat) });
    let client = network.attach_host(&[ip("10.244.0.2")], PortTag(1)).expect("a free address");
    let server = network.attach_host(&[ip("10.244.1.2")], PortTag(2)).expect("a free address");
    let listener = server.tcp_listen(8080).expect("a free port");
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let mut figures = Figures::default();

    let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
    stream.write_all(b"s").await.expect("open");
    let chunk = vec![7; CHUNK];
    let mut sent = 0;
    let (start, busy) = (Instant::now(), cpu());
    while start.elapsed() < RUN {
        stream.write_all(&chunk).await.expect("open");
        sent += chunk.len();
    }
    stream.shutdown().await.expect("open");
    stream.read_u8().await.expect("the server's receipt");
    figures.bulk = Bulk::new(sent, start.elapsed(), cpu() - busy);

    figures.rr = percentiles(round_trips(&client).await);

    let (start, busy, mut count) = (Instant::now(), cpu(), 0);
    while start.elapsed() < RUN {
        let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
        stream.write_all(b"c").await.expect("open");
        stream.read_u8().await.expect("an answer");
        count += 1;
    }
    figures.crr = [start.elapsed(), cpu() - busy].map(|time| f64::from(count) / time.as_secs_f64());
    accepting.abort();
    figures
}

async fn round_trips(client: &Host) -> Vec<u64> {
    let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
    stream.write_all(b"r").await.expect("open");
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < RUN {
        let start = Instant::now();
        stream.write_u8(1).await.expect("open");
        stream.read_u8().await.expect("an answer");
        samples.push(start.elapsed().as_nanos() as u64);
    }
    samples
}

/// Serves one connection; its first byte says how: sink, round trips, or one byte and close.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    match stream.read_u8().await? {
        b's' => {
            let mut buffer = vec![0; CHUNK];
            while stream.read(&mut buffer).await? > 0 {}
            stream.write_u8(1).await
        }
        b'r' => loop {
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
        },
        _ => stream.write_u8(1).await,
    }
}
