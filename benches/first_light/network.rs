//! TCP from a pod over a ClusterIP to a pod on the other node, both async functions in this process, through the cluster's own
//! Service table and policies; beside the kernel's veth.

use crate::median;
use crate::table::{Table, Target};
use crate::veth::{Bulk, CHUNK, Veth, cpu, percentiles};
use anyhow::{Context, Result};
use coracle::{Cluster, FunctionPod};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use netstack::{Host, TcpStream};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_millis(1000);

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
";

/// What one set-up achieved in the rounds.
#[derive(Default)]
struct Rounds {
    bulk: Vec<f64>,
    rate: Vec<f64>,
    round_trip: Vec<f64>,
    connections: Vec<f64>,
}

impl Rounds {
    fn push(&mut self, bulk: Bulk, round_trip: f64, connections: f64) {
        self.bulk.push(bulk.per_core());
        self.rate.push(bulk.rate);
        self.round_trip.push(round_trip);
        self.connections.push(connections);
    }
}

/// The median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
}

pub(crate) fn measure(table: &Table) -> Result<()> {
    let one = Pair::start(Builder::new_current_thread().enable_all().build()?)?;
    let many = Pair::start(crate::runtime()?)?;
    let veth = Veth::new();
    let (mut ours, mut threads, mut kernel) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        one.round(&mut ours)?;
        many.round(&mut threads)?;
        if let Ok(veth) = &veth {
            let measured = (|| Ok((veth.bulk(RUN)?, veth.round_trips(RUN)?[0], veth.connections(RUN)?)))();
            let (bulk, round_trip, connections) = measured.map_err(|error: String| anyhow::anyhow!(error))?;
            kernel.push(bulk, round_trip, connections);
        }
    }
    one.stop();
    many.stop();
    if let Err(missing) = &veth {
        table.remark(&format!("no comparison with the kernel: {missing}"));
    }
    let at_veth = median(kernel.bulk.clone());
    for (name, rounds) in [("one thread", &ours), ("many threads", &threads)] {
        let (bulk, rate) = (median(rounds.bulk.clone()), median(rounds.rate.clone()));
        let beside = format!("{bulk:.1} Gbit/s/core ({rate:.1} Gbit/s) : veth {at_veth:.1}");
        let figure = format!("pod to ClusterIP to pod, bulk, {name}");
        table.row(&figure, ratio(&rounds.bulk, &kernel.bulk), "×", Target { at_least: 1.0, aim: 3.0 }, &beside);
    }
    let at_veth = median(kernel.round_trip.clone());
    for (name, rounds) in [("one thread", &ours), ("many threads", &threads)] {
        let beside = format!("{:.2} of veth's {at_veth:.1} µs", ratio(&rounds.round_trip, &kernel.round_trip));
        let figure = format!("the same, round trip p50, {name}");
        table.row(&figure, median(rounds.round_trip.clone()), "µs", Target { at_least: at_veth, aim: 3.0 }, &beside);
    }
    for (name, rounds) in [("one thread", &ours), ("many threads", &threads)] {
        let beside = format!(
            "{:.1} × veth's {:.0}",
            ratio(&rounds.connections, &kernel.connections),
            median(kernel.connections.clone())
        );
        let figure = format!("the same, connect and close, {name}");
        table.note(&figure, median(rounds.connections.clone()), "/s", &beside);
    }
    Ok(())
}

/// A cluster with a client on one node and a server behind a Service on the other.
struct Pair {
    runtime: Runtime,
    cluster: Cluster,
    client: Host,
    service: SocketAddr,
}

impl Pair {
    fn start(runtime: Runtime) -> Result<Pair> {
        let (cluster, client, service) = runtime.block_on(async { tokio::spawn(pods()).await? })?;
        Ok(Pair { runtime, cluster, client, service })
    }

    /// On a worker of the runtime, as pods are, not on this thread.
    fn on_worker<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.runtime.block_on(async { tokio::spawn(work).await? })
    }

    fn round(&self, rounds: &mut Rounds) -> Result<()> {
        let (client, service) = (&self.client, self.service);
        let bulk = self.on_worker(bulk(client.clone(), service))?;
        let round_trip = self.on_worker(round_trip(client.clone(), service))?;
        rounds.push(bulk, round_trip, self.on_worker(connections(client.clone(), service))?);
        Ok(())
    }

    fn stop(self) {
        let Pair { runtime, cluster, .. } = self;
        runtime.block_on(cluster.stop());
    }
}

async fn pods() -> Result<(Cluster, Host, SocketAddr)> {
    let cluster = Cluster::builder().start().await?;
    cluster.apply(SERVICE).await?;
    let server = FunctionPod::new("server").label("app", "server").port(8080).node("node-2");
    cluster.run_pod(server, |container| async move { serve(&container.host).await.map_or(1, |()| 0) }).await?;
    // The pod hands out its network and stays: whoever measures is a task beside it.
    let (hosts, mut host) = mpsc::unbounded_channel();
    let client = FunctionPod::new("client").node("node-1");
    cluster
        .run_pod(client, move |container| {
            let hosts = hosts.clone();
            async move {
                let _ = hosts.send(container.host.clone());
                std::future::pending().await
            }
        })
        .await?;
    cluster.settled().await;
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let address = services.get("server").await?.spec.and_then(|spec| spec.cluster_ip).context("no ClusterIP")?;
    let service = SocketAddr::new(address.parse()?, 80);
    let client = host.recv().await.context("the client's pod has not started")?;
    Ok((cluster, client, service))
}

async fn serve(host: &Host) -> std::io::Result<()> {
    let listener = host.tcp_listen(8080)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_connection(stream));
    }
}

/// The first byte says how: sink, round trips, or one byte and close.
async fn serve_connection(mut stream: TcpStream) -> std::io::Result<()> {
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

async fn bulk(client: Host, service: SocketAddr) -> Result<Bulk> {
    let mut stream = client.tcp_connect(service).await?;
    stream.write_all(b"s").await?;
    let chunk = vec![7; CHUNK];
    let (start, busy, mut sent) = (Instant::now(), cpu(), 0);
    while start.elapsed() < RUN {
        stream.write_all(&chunk).await?;
        sent += chunk.len();
    }
    stream.shutdown().await?;
    stream.read_u8().await?;
    Ok(Bulk::new(sent, start.elapsed(), cpu() - busy))
}

async fn round_trip(client: Host, service: SocketAddr) -> Result<f64> {
    let mut stream = client.tcp_connect(service).await?;
    stream.write_all(b"r").await?;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < RUN {
        let start = Instant::now();
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        samples.push(start.elapsed().as_nanos() as u64);
    }
    Ok(percentiles(samples)[0])
}

/// Connections a second.
async fn connections(client: Host, service: SocketAddr) -> Result<f64> {
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < RUN {
        let mut stream = client.tcp_connect(service).await?;
        stream.write_all(b"c").await?;
        stream.read_u8().await?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}
