//! A Deployment of a hundred virtual pods behind a Service: from the apply to all of them Ready and in the EndpointSlices, and
//! from the scale to zero until nothing is left of them.

use crate::median;
use crate::table::{Table, Target};
use crate::veth::cpu;
use anyhow::{Context, Result};
use coracle::Cluster;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, WatchEvent, WatchParams};
use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

const REPLICAS: usize = 100;
const ROUNDS: usize = 5;

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: replicas}
spec:
  selector: {app: replicas}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: replicas}
spec:
  replicas: 100
  selector: {matchLabels: {app: replicas}}
  template:
    metadata: {labels: {app: replicas}}
    spec:
      containers:
      - name: agnhost
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec]
        ports: [{containerPort: 8080}]
";

pub(crate) fn measure(table: &Table) -> Result<()> {
    let (mut up, mut down, mut busy, mut stages) = (Vec::new(), Vec::new(), Vec::new(), vec![Vec::new(); STAGES.len()]);
    for _ in 0..ROUNDS {
        let runtime = crate::runtime()?;
        let round = runtime.block_on(async { tokio::spawn(round()).await? })?;
        up.push(round.up.as_secs_f64());
        down.push(round.down.as_secs_f64());
        busy.push(round.busy.as_secs_f64());
        for (stage, at) in stages.iter_mut().zip(round.stages) {
            stage.push(at.as_secs_f64());
        }
    }
    let target = Target { at_least: 3.0, aim: 1.0 };
    let stages: Vec<String> = STAGES.iter().zip(stages).map(|(name, at)| format!("{name} {:.2}", median(at))).collect();
    let beside = format!("{} s; {:.2} s of CPU", stages.join(", "), median(busy));
    table.row("100 replicas, apply to Ready and in the slice", median(up), "s", target, &beside);
    table.note("the same scaled to 0, to gone and out of it", median(down), "s", "");
    Ok(())
}

/// How far all pods have come.
const STAGES: [&str; 3] = ["created", "bound", "Ready"];

struct Round {
    up: Duration,
    down: Duration,
    busy: Duration,
    stages: [Duration; STAGES.len()],
}

async fn round() -> Result<Round> {
    let cluster = Cluster::builder().start().await?;
    let mut watched = Watched::new(&cluster).await?;
    let (began, busy) = (Instant::now(), cpu());
    cluster.apply(MANIFESTS).await?;
    let mut stages = [None; STAGES.len()];
    watched
        .until(|pods, ready_endpoints| {
            let counts = [pods.len(), of(pods, |pod| pod.bound), of(pods, |pod| pod.ready)];
            for (stage, count) in stages.iter_mut().zip(counts) {
                if count == REPLICAS && stage.is_none() {
                    *stage = Some(began.elapsed());
                }
            }
            counts == [REPLICAS; 3] && ready_endpoints == REPLICAS
        })
        .await?;
    let (up, busy) = (began.elapsed(), cpu() - busy);
    cluster.settled().await;

    let began = Instant::now();
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let none = serde_json::json!({"spec": {"replicas": 0}});
    deployments.patch_scale("replicas", &PatchParams::default(), &Patch::Merge(none)).await?;
    watched.until(|pods, ready_endpoints| pods.is_empty() && ready_endpoints == 0).await?;
    let down = began.elapsed();
    cluster.stop().await;
    Ok(Round { up, down, busy, stages: stages.map(Option::unwrap_or_default) })
}

#[derive(Clone, Copy, Debug)]
struct PodState {
    bound: bool,
    ready: bool,
}

fn of(pods: &HashMap<String, PodState>, what: impl Fn(&PodState) -> bool) -> usize {
    pods.values().filter(|pod| what(pod)).count()
}

#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Change {
    Pod(WatchEvent<Pod>),
    Slice(WatchEvent<EndpointSlice>),
}

/// What two watches have told.
struct Watched {
    changes: futures::stream::BoxStream<'static, Result<Change>>,
    pods: HashMap<String, PodState>,
    slices: HashMap<String, usize>,
}

impl Watched {
    async fn new(cluster: &Cluster) -> Result<Watched> {
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
        let pods = pods.watch(&WatchParams::default().labels("app=replicas"), "0").await?.boxed();
        let of_service = WatchParams::default().labels("kubernetes.io/service-name=replicas");
        let slices = slices.watch(&of_service, "0").await?.boxed();
        let pods = pods.map(|event| Ok(Change::Pod(event?)));
        let slices = slices.map(|event| Ok(Change::Slice(event?)));
        let changes = futures::stream::select(pods, slices).boxed();
        Ok(Watched { changes, pods: HashMap::new(), slices: HashMap::new() })
    }

    /// Follows the watches until pods and the number of ready endpoints are as wanted.
    async fn until(&mut self, mut done: impl FnMut(&HashMap<String, PodState>, usize) -> bool) -> Result<()> {
        while !done(&self.pods, self.slices.values().sum()) {
            let change = tokio::time::timeout(Duration::from_secs(60), self.changes.next()).await;
            let change =
                change.with_context(|| format!("no more changes; pods: {:?}, slices: {:?}", self.pods, self.slices));
            match change?.context("a watch has ended")?? {
                Change::Pod(event) => follow(&mut self.pods, event, pod_state),
                Change::Slice(event) => follow(&mut self.slices, event, ready_endpoints),
            }
        }
        Ok(())
    }
}

fn follow<K: ResourceExt + Clone + Debug, T>(known: &mut HashMap<String, T>, event: WatchEvent<K>, state: fn(&K) -> T) {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            known.insert(object.name_any(), state(&object));
        }
        WatchEvent::Deleted(object) => {
            known.remove(&object.name_any());
        }
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
    }
}

fn pod_state(pod: &Pod) -> PodState {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    PodState {
        bound: pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()),
        ready: conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    }
}

fn ready_endpoints(slice: &EndpointSlice) -> usize {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|is| is.ready == Some(true))).count()
}
