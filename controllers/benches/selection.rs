//! What one changed pod costs in finding whom it concerns: the Services that select it, and the pods of one of them; by looking at
//! everything in the namespace, and by the index.
//!
//! `cargo bench -p controllers`. Every figure is the median of several rounds.

#[expect(dead_code, reason = "what is measured deletes nothing")]
#[path = "../src/selection/index.rs"]
mod index;

use index::{Index, selects};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERVICES: u32 = 10_000;
const PODS_EACH: u32 = 10;
const ROUNDS: usize = 101;

fn service(number: u32) -> Arc<Service> {
    let value = json!({"metadata": {"namespace": "default", "name": format!("s{number}")},
        "spec": {"selector": {"app": format!("s{number}"), "team": "all"}, "ports": [{"port": 80}]}});
    Arc::new(serde_json::from_value(value).expect("a Service"))
}

fn pod(number: u32) -> Arc<Pod> {
    let app = number / PODS_EACH;
    let value = json!({"metadata": {"namespace": "default", "name": format!("s{app}-{number}"),
            "labels": {"app": format!("s{app}"), "team": "all", "pod-template-hash": format!("{app:x}")}},
        "status": {"podIP": "10.244.0.7"}});
    Arc::new(serde_json::from_value(value).expect("a Pod"))
}

fn median(rounds: usize, mut round: impl FnMut(u32)) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|number| {
            let begin = Instant::now();
            // A stride that visits the pods in no order.
            round((number as u32).wrapping_mul(7919) % (SERVICES * PODS_EACH));
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

fn main() -> io::Result<()> {
    let services: Vec<_> = (0..SERVICES).map(service).collect();
    let pods: Vec<_> = (0..SERVICES * PODS_EACH).map(pod).collect();
    let began = Instant::now();
    let mut index = Index::default();
    services.iter().for_each(|service| index.apply_service(service.clone()));
    pods.iter().for_each(|pod| drop(index.apply_pod(pod.clone())));
    let built = began.elapsed();

    let by_looking = median(11, |number| {
        let pod = &pods[number as usize];
        let concerned: Vec<_> = services.iter().filter(|service| selects(service, pod)).cloned().collect();
        let behind: Vec<_> = pods.iter().filter(|pod| selects(&concerned[0], pod)).cloned().collect();
        assert_eq!((concerned.len(), black_box(behind).len()), (1, PODS_EACH as usize));
    });
    let by_index = median(ROUNDS, |number| {
        let concerned = index.apply_pod(pods[number as usize].clone());
        let behind = index.pods_of(&concerned[0]);
        assert_eq!((concerned.len(), black_box(behind).len()), (1, PODS_EACH as usize));
    });
    let mut out = io::stdout().lock();
    writeln!(out, "one changed pod, {SERVICES} Services × {PODS_EACH} pods in one namespace")?;
    writeln!(out, "  by looking at every Service and every pod   {by_looking:?}")?;
    writeln!(out, "  by the index                                {by_index:?}")?;
    writeln!(out, "the index of all of them, built               {built:?}")
}
