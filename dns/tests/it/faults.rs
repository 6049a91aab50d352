//! Faults injected into the answers to single pods, by their annotation (rule 8.10).

use crate::cluster::{Cluster, addresses, cluster, cluster_with, code, kinds, pod, pod_with_faults};
use dns::{Config, Source};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::time::Duration;
use tokio::time::Instant;

const KNOWN: &str = "kube-dns.kube-system.svc.cluster.local";

/// A cluster and the code that `10.244.1.7`, a pod with these faults, is answered with.
async fn with_faults(faults: &str) -> Cluster {
    let cluster = cluster().await;
    cluster.attach(&pod_with_faults("victim", "10.244.1.7", faults), "10.244.1.7");
    cluster
}

async fn told(cluster: &Cluster, ip: &str, name: &str, kind: RecordType) -> Option<ResponseCode> {
    cluster.ask_from(ip, name, kind).await.as_ref().map(code)
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_faults_strike_only_the_pod_the_names_and_the_types_that_they_are_about() {
    let cluster = with_faults("servfail names=kube-dns.* types=A; nxdomain names=*.example.com").await;
    cluster.attach(&pod("default", "other", "10.244.1.8"), "10.244.1.8");
    for (ip, name, kind, expected) in [
        ("10.244.1.7", KNOWN, RecordType::A, ResponseCode::ServFail),
        ("10.244.1.7", KNOWN, RecordType::AAAA, ResponseCode::NoError),
        ("10.244.1.7", "api.example.com", RecordType::AAAA, ResponseCode::NXDomain),
        ("10.244.1.8", KNOWN, RecordType::A, ResponseCode::NoError),
        // Nobody's address, such as the machine's.
        ("127.0.0.1", KNOWN, RecordType::A, ResponseCode::NoError),
    ] {
        assert_eq!(told(&cluster, ip, name, kind).await, Some(expected), "{ip} {name} {kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_an_injected_denial_may_be_remembered_as_a_real_one() {
    let cluster = with_faults("nxdomain").await;
    let reply = cluster.ask_from("10.244.1.7", KNOWN, RecordType::A).await.expect("an answer");
    assert!(reply.metadata.authoritative);
    assert_eq!((code(&reply), kinds(&reply.authorities)), (ResponseCode::NXDomain, vec![RecordType::SOA]));
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_a_delayed_answer_comes_late_and_is_the_same() {
    let cluster = with_faults("delay=300ms; delay=200ms types=A").await;
    let begun = Instant::now();
    let reply = cluster.ask_from("10.244.1.7", KNOWN, RecordType::A).await.expect("an answer");
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
    assert_eq!(addresses(&reply), ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_a_dropped_query_is_not_answered() {
    let cluster = with_faults("drop").await;
    assert_eq!(told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await, None);
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_seed_decides_which_queries_a_share_strikes() {
    let run = async |seed| {
        let mut config = Config::new("cluster.local");
        config.seed = seed;
        let cluster = cluster_with(config).await;
        cluster.attach(&pod_with_faults("victim", "10.244.1.7", "drop share=0.5"), "10.244.1.7");
        let mut lost = Vec::new();
        for _ in 0..200 {
            lost.push(told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await.is_none());
        }
        lost
    };
    let lost = run(1).await;
    assert!((60..140).contains(&lost.iter().filter(|lost| **lost).count()), "{lost:?}");
    assert_eq!(run(1).await, lost);
    assert_ne!(run(2).await, lost);
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_a_change_of_the_annotation_is_in_force_without_a_restart() {
    let cluster = cluster().await;
    let mut pod = pod_with_faults("victim", "10.244.1.7", "servfail");
    pod.metadata.annotations = None;
    cluster.attach(&pod, "10.244.1.7");
    assert_eq!(told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await, Some(ResponseCode::NoError));
    let mut change = async |faults: Option<&str>| {
        pod.metadata.annotations = faults.map(|faults| [(dns::FAULTS.to_owned(), faults.to_owned())].into());
        cluster.sources.pods.apply(pod.clone());
        cluster.activity.idle().await;
        told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await
    };
    assert_eq!(change(Some("servfail")).await, Some(ResponseCode::ServFail));
    assert_eq!(change(Some("refused")).await, Some(ResponseCode::Refused));
    assert_eq!(change(None).await, Some(ResponseCode::NoError));
    // One that cannot be read has no effect.
    assert_eq!(change(Some("sevfail")).await, Some(ResponseCode::NoError));
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_faults_go_with_the_pod_and_do_not_strike_who_has_its_address_next() {
    let cluster = with_faults("servfail").await;
    let ip = "10.244.1.7".parse().unwrap();
    cluster.dns.detach(&[ip]);
    assert_eq!(told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await, Some(ResponseCode::NoError));
    cluster.attach(&pod("default", "next", "10.244.1.7"), "10.244.1.7");
    // News of the old pod, under the same address.
    cluster.sources.pods.apply(pod_with_faults("victim", "10.244.1.7", "servfail"));
    cluster.activity.idle().await;
    assert_eq!(told(&cluster, "10.244.1.7", KNOWN, RecordType::A).await, Some(ResponseCode::NoError));
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_says_which_fault_struck() {
    let cluster = with_faults("delay=1s types=AAAA; drop names=gone.*; servfail").await;
    let mut queries = cluster.dns.queries(false);
    for (name, kind) in [("gone.org", RecordType::A), (KNOWN, RecordType::AAAA)] {
        cluster.ask_from("10.244.1.7", name, kind).await;
    }
    let mut next = || queries.take().expect("a query");
    let dropped = next();
    assert_eq!(
        (dropped.rcode.as_deref(), dropped.source, &*dropped.faults),
        (None, Source::Fault, &["drop names=gone.*".to_owned()][..])
    );
    let failed = next();
    assert_eq!((failed.rcode.as_deref(), failed.source), (Some("SERVFAIL"), Source::Fault));
    assert_eq!(failed.faults, ["delay=1s types=AAAA", "servfail"]);
    assert_eq!(failed.took, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_of_answers_that_are_delayed_only_so_many_wait_at_a_time() {
    let cluster = with_faults("delay=5s").await;
    let ask = || cluster.ask_from("10.244.1.7", KNOWN, RecordType::A);
    let answers = futures::future::join_all((0..1100).map(|_| ask())).await;
    assert_eq!(answers.iter().flatten().count(), 1024);
    assert!(ask().await.is_some(), "there is room again");
}
