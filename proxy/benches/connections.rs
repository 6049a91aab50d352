//! What connections through Services cost, each beside its yardstick in the same run.
//!
//! `cargo bench -p proxy --bench connections`:
//! - connect, one byte each way, close (CRR) through a ClusterIP with 1 Service and with ten thousand, rounds interleaved; the
//!   ratio is the median of the rounds' own;
//! - from the change of an EndpointSlice to the first connection that follows it, with ten thousand Services;
//! - from the machine through a NodePort, beside a plain proxy of tokio's that joins operating system sockets: connections a second
//!   and bulk.

mod world;

use informer::{Activity, Informer};
use netstack::{Config, Filter, GatewayConfig, Hooks, Host, Network, NewFlow, PortTag, Verdict};
use proxy::{Proxy, Sources};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use world::{ENDPOINTS, ROUNDS, SERVICES, World, addressing, cluster_ip, pod_ip, slice, world};

const CONNECTIONS: u32 = 2_000;
const FROM_HOST: u32 = 2_000;
const AT_ONCE: u32 = 8;
const BULK: usize = 256 << 20;

struct AcceptAll;

impl Filter for AcceptAll {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

/// A network with these Services, whose endpoints 0 to 19 are servers.
struct Net {
    network: Network,
    slices: Informer<k8s_openapi::api::discovery::v1::EndpointSlice>,
    activity: Activity,
    _proxy: Proxy,
    client: Host,
    _servers: Vec<Host>,
}

async fn net(world: &World) -> Net {
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    let activity = Activity::default();
    let sources = Sources {
        services: Informer::detached(activity.clone()),
        slices: Informer::detached(activity.clone()),
        nodes: Informer::detached(activity.clone()),
        pods: Informer::detached(activity.clone()),
    };
    world.services.iter().for_each(|service| sources.services.apply((**service).clone()));
    world.slices.iter().for_each(|slice| sources.slices.apply((**slice).clone()));
    world.nodes.iter().for_each(|node| sources.nodes.apply((**node).clone()));
    let slices = sources.slices.clone();
    let ranges = addressing();
    let config = proxy::Config {
        service_cidrs: ranges.service_cidrs,
        cluster_cidrs: ranges.cluster_cidrs,
        gateway_addresses: ranges.gateway_addresses,
        seed: 3,
    };
    let proxy = proxy::start_with(sources, network.clone(), config);
    network.install(Hooks { translate: proxy.translator(), filter: Arc::new(AcceptAll) });
    proxy.synced().await;
    activity.idle().await;
    let servers = (0..2 * ENDPOINTS).map(|number| serve(&network, number)).collect();
    let client = network.attach_host(&[IpAddr::from([10, 200, 0, 1])], PortTag(9)).expect("a free address");
    Net { network, slices, activity, _proxy: proxy, client, _servers: servers }
}

/// An endpoint that answers each byte with its own number until the client has no more, or with as much as has come in bulk.
fn serve(network: &Network, number: u32) -> Host {
    let host = network.attach_host(&[pod_ip(number).into()], PortTag(1)).expect("a free address");
    let listener = host.tcp_listen(8080).expect("a free port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, number as u8));
        }
    });
    host
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, number: u8) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let length = stream.read(&mut buffer).await?;
    if length == 1 {
        stream.write_all(&[number]).await?;
    }
    while stream.read(&mut buffer).await? > 0 {}
    stream.write_all(&[number]).await
}

/// Connect, one byte each way, close; who answered.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<u8> {
    stream.write_all(b"?").await?;
    stream.read_u8().await
}

async fn rate(net: &Net) -> f64 {
    let to = SocketAddr::new(cluster_ip(0).into(), 80);
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        ask(net.client.tcp_connect(to).await.expect("connected")).await.expect("answered");
    }
    f64::from(CONNECTIONS) / start.elapsed().as_secs_f64()
}

fn middle<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}

/// From a slice's change to the first connection that goes where it says.
async fn readiness(net: &Net) -> Duration {
    let mut rounds = Vec::new();
    for round in 0..50_u32 {
        // Service 0 has the endpoints 0–9 in one round and 10–19 in the next.
        let mut changed = slice(round % 2, ENDPOINTS);
        changed.metadata = slice(0, ENDPOINTS).metadata;
        let expected = |number: u8| u32::from(number) / ENDPOINTS == round % 2;
        let to = SocketAddr::new(cluster_ip(0).into(), 80);
        let start = Instant::now();
        net.slices.apply(changed);
        while !expected(ask(net.client.tcp_connect(to).await.expect("connected")).await.expect("answered")) {}
        rounds.push(start.elapsed());
        net.activity.idle().await;
    }
    middle(rounds)
}

/// Connections a second and Gbit/s to an address of the machine.
async fn from_host(to: SocketAddr) -> (f64, f64) {
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        workers.spawn(async move {
            for _ in 0..FROM_HOST / AT_ONCE {
                ask(TcpStream::connect(to).await.expect("connected")).await.expect("answered");
            }
        });
    }
    while workers.join_next().await.is_some_and(|ended| ended.is_ok()) {}
    let connections = f64::from(FROM_HOST) / start.elapsed().as_secs_f64();
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let chunk = vec![7; 256 * 1024];
    let start = Instant::now();
    for _ in 0..BULK / chunk.len() {
        stream.write_all(&chunk).await.expect("written");
    }
    stream.shutdown().await.expect("closed");
    stream.read_u8().await.expect("all has arrived");
    (connections, BULK as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9)
}

/// A NodePort of the machine, and what a user would write without it: a proxy to a server of the machine's.
async fn host_side(net: &Net) -> [SocketAddr; 2] {
    let gateway = net
        .network
        .attach_gateway(GatewayConfig {
            addresses: vec![IpAddr::from([172, 18, 0, 1])],
            aliases: vec![],
            inside: vec![],
            forward: false,
        })
        .expect("one gateway");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let node_port = listener.local_addr().expect("an address");
    let inside = SocketAddr::from(([172, 18, 1, 0], 20_000));
    tokio::spawn(async move { gateway.host().publish_tcp(listener, inside).await });

    let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let backend = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer(stream, 0));
        }
    });
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxied = plain.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = plain.accept().await {
            tokio::spawn(async move {
                let _ = client.set_nodelay(true);
                let mut server = TcpStream::connect(backend).await?;
                let _ = server.set_nodelay(true);
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    [node_port, proxied]
}

/// Connections/s and Gbit/s through the NodePort, and through the plain proxy.
type Round = ((f64, f64), (f64, f64));

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = |name: &str, figure: &dyn Display| writeln!(out, "{name:<78} {figure}");
    let (one, many) = (net(&world(1)).await, net(&world(SERVICES)).await);
    let mut rounds = Vec::new();
    rate(&one).await;
    rate(&many).await;
    for _ in 0..ROUNDS {
        rounds.push((rate(&one).await, rate(&many).await));
    }
    let ratio = middle(rounds.iter().map(|(one, many)| many / one).collect());
    line(
        "connections/s through a ClusterIP, 1 Service",
        &format!("{:.0}", middle(rounds.iter().map(|r| r.0).collect())),
    )?;
    line(
        &format!("connections/s through a ClusterIP, {SERVICES} Services × {ENDPOINTS} endpoints"),
        &format!("{:.0}", middle(rounds.iter().map(|r| r.1).collect())),
    )?;
    line("  relative (aim 0.98, at least 0.9)", &format!("{ratio:.3}"))?;
    line(
        &format!("change of a slice → first connection that follows it, {SERVICES} Services (aim 5 ms)"),
        &format!("{:?}", readiness(&many).await),
    )?;
    let [node_port, plain] = host_side(&many).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((from_host(node_port).await, from_host(plain).await));
    }
    let column = |of: fn(&Round) -> f64| middle(rounds.iter().map(of).collect::<Vec<_>>());
    line("from the machine, NodePort: connections/s", &format!("{:.0}", column(|r| r.0.0)))?;
    line("from the machine, tokio proxy: connections/s", &format!("{:.0}", column(|r| r.1.0)))?;
    line("  relative (aim 1, at least 0.7)", &format!("{:.2}", column(|r| r.0.0 / r.1.0)))?;
    line("from the machine, NodePort: Gbit/s", &format!("{:.1}", column(|r| r.0.1)))?;
    line("from the machine, tokio proxy: Gbit/s", &format!("{:.1}", column(|r| r.1.1)))?;
    line("  relative (aim 1, at least 0.7)", &format!("{:.2}", column(|r| r.0.1 / r.1.1)))
}
