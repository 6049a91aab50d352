//! From a pod's readiness to the packets that follow it, in a cluster with ten thousand Services: a readiness gate of the pod is
//! opened or closed, and the clock runs until the first connection through its Service is answered, or refused.
//!
//! In between are the API server, the pod's kubelet, which writes that it is Ready, the EndpointSlice controller and the proxy. Two
//! watches beside say how far it has come; a third figure is the way from the kubelet's write on.

use crate::median;
use crate::table::{Table, Target};
use anyhow::{Context, Result, ensure};
use coracle::{Cluster, FunctionPod};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use netstack::Host;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
/// Flips in each direction.
const FLIPS: usize = 100;
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: target}
spec:
  selector: {app: target}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: target, labels: {app: target}}
spec:
  nodeName: node-1
  readinessGates: [{conditionType: bench/gate}]
  containers:
  - name: agnhost
    image: registry.k8s.io/e2e-test-images/agnhost:2.53
    args: [netexec, --http-port=8080]
    ports: [{containerPort: 8080}]
";

pub(crate) fn measure(table: &Table) -> Result<()> {
    let runtime = crate::runtime()?;
    let followed = runtime.block_on(async { tokio::spawn(run()).await? })?;
    let target = Target { at_least: 50.0, aim: 5.0 };
    for (name, samples) in [("ready", &followed[0]), ("not ready", &followed[1])] {
        let stage = |of: fn(&Followed) -> Duration| median(samples.iter().map(|one| milliseconds(of(one))).collect());
        let whole: Vec<f64> = samples.iter().map(|one| milliseconds(one.packet)).collect();
        let since_write: Vec<f64> = samples.iter().map(|one| milliseconds(one.packet - one.status)).collect();
        let beside = format!(
            "p99 {:.2} ms; status written {:.2}, slice written {:.2}",
            percentile(&whole, 99),
            stage(|one| one.status),
            stage(|one| one.slice)
        );
        let figure = format!("gate {name} to packet, {SERVICES} Services");
        table.row(&figure, median(whole), "ms", target, &beside);
        let beside = format!("p99 {:.2} ms", percentile(&since_write, 99));
        table.row("  of it since the kubelet's write", median(since_write), "ms", target, &beside);
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}

/// When things were seen, since the gate was written.
struct Followed {
    status: Duration,
    slice: Duration,
    packet: Duration,
}

async fn run() -> Result<[Vec<Followed>; 2]> {
    let cluster = Cluster::builder().start().await?;
    fill(&cluster).await?;
    cluster.apply(MANIFESTS).await?;
    let (hosts, mut host) = mpsc::unbounded_channel();
    let program = move |container: kubelet::program::Container| {
        let hosts = hosts.clone();
        async move {
            let _ = hosts.send(container.host.clone());
            std::future::pending().await
        }
    };
    cluster.run_pod(FunctionPod::new("client").node("node-2"), program).await?;
    let client = host.recv().await.context("the client's pod has not started")?;
    cluster.settled().await;
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let address = services.get("target").await?.spec.and_then(|spec| spec.cluster_ip).context("no ClusterIP")?;
    let service = SocketAddr::new(address.parse()?, 80);
    let mut seen = watch(&cluster).await?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let mut followed = [Vec::new(), Vec::new()];
    // The first is to warm up.
    for flip in 0..=2 * FLIPS {
        let ready = flip.is_multiple_of(2);
        cluster.settled().await;
        while seen.try_recv().is_ok() {}
        let condition = json!({"type": "bench/gate", "status": if ready { "True" } else { "False" }});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let began = Instant::now();
        let polled = tokio::spawn(until(client.clone(), service, ready));
        pods.patch_status("target", &PatchParams::default(), &patch).await?;
        let packet = polled.await?? - began;
        let (mut status, mut slice) = (None, None);
        while status.is_none() || slice.is_none() {
            let told = tokio::time::timeout(PATIENCE, seen.recv()).await?;
            let (kind, is_ready, at) = told.context("a watch has ended")?;
            let slot = if kind == Kind::Pod { &mut status } else { &mut slice };
            if is_ready == ready && slot.is_none() {
                *slot = Some(at.saturating_duration_since(began));
            }
        }
        if flip > 0 {
            let (status, slice) = (status.unwrap_or_default(), slice.unwrap_or_default());
            // What the watch tells may come after the packet.
            followed[usize::from(!ready)].push(Followed { status: status.min(packet), slice, packet });
        }
    }
    cluster.stop().await;
    Ok(followed)
}

/// Ten thousand Services in one namespace that select no pod, each with a slice of ten endpoints that somebody else has written.
async fn fill(cluster: &Cluster) -> Result<()> {
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
    stream::iter((0..SERVICES).map(|number| (number, services.clone(), slices.clone())))
        .map(|(number, services, slices)| async move {
            let service = json!({"metadata": {"name": format!("s{number}")},
                "spec": {"selector": {"app": format!("s{number}")}, "ports": [{"port": 80, "targetPort": 8080}]}});
            let endpoint = |index| {
                json!({"addresses": [Ipv4Addr::from(0x0a80_0000 + number * ENDPOINTS + index)], "conditions": {"ready": true}})
            };
            let slice = json!({"metadata": {"name": format!("s{number}-own"), "labels": {"kubernetes.io/service-name": format!("s{number}")}},
                "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>()});
            services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
            slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    cluster.settled().await;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Slice,
}

/// What two watches tell of the pod and of its endpoint: whether it is ready, and when that came.
async fn watch(cluster: &Cluster) -> Result<mpsc::UnboundedReceiver<(Kind, bool, Instant)>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
    let of_service = WatchParams::default().labels("kubernetes.io/service-name=target").timeout(290);
    let mut pods = pods.watch(&WatchParams::default().labels("app=target").timeout(290), "0").await?.boxed();
    let mut slices = slices.watch(&of_service, "0").await?.boxed();
    tokio::spawn(async move {
        loop {
            let (kind, ready) = tokio::select! {
                Some(Ok(event)) = pods.next() => match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (Kind::Pod, is_ready(&pod)),
                    _ => continue,
                },
                Some(Ok(event)) = slices.next() => match event {
                    WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                        let mut endpoints = slice.endpoints.iter().flatten().filter_map(|known| known.conditions.as_ref());
                        (Kind::Slice, endpoints.any(|conditions| conditions.ready == Some(true)))
                    }
                    _ => continue,
                },
                else => return,
            };
            if sender.send((kind, ready, Instant::now())).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// When the first connection is answered, or refused.
async fn until(client: Host, service: SocketAddr, answered: bool) -> Result<Instant> {
    let began = Instant::now();
    loop {
        if client.tcp_connect(service).await.is_ok() == answered {
            return Ok(Instant::now());
        }
        ensure!(began.elapsed() < PATIENCE, "connections do not follow");
        tokio::task::yield_now().await;
    }
}
