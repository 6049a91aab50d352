//! Names of pods: `<dashed address>.<namespace>.pod.<zone>`.

use crate::cluster::{Cluster, cluster_with, pod};
use dns::{Config, PodRecords};
use expect_test::expect;
use hickory_proto::rr::RecordType;

async fn with(pods: PodRecords) -> Cluster {
    let mut config = Config::new("cluster.local");
    config.pods = pods;
    let cluster = cluster_with(config).await;
    cluster.sources.pods.apply(pod("default", "a", "10.244.1.5"));
    cluster.sources.pods.apply(pod("default", "b", "fd00::5"));
    cluster.activity.idle().await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn verified_only_a_pod_with_that_address_in_that_namespace_has_a_name() {
    let cluster = with(PodRecords::Verified).await;
    expect![[r#"
        NoError
        10-244-1-5.default.pod.cluster.local. 5 A 10.244.1.5
    "#]]
    .assert_eq(&cluster.dig("10-244-1-5.default.pod.cluster.local", RecordType::A).await);
    expect![[r#"
        NoError
        fd00--5.default.pod.cluster.local. 5 AAAA fd00::5
    "#]]
    .assert_eq(&cluster.dig("fd00--5.default.pod.cluster.local", RecordType::AAAA).await);
    cluster.no_data("10-244-1-5.default.pod.cluster.local", &[RecordType::AAAA, RecordType::TXT]).await;
    for missing in ["10-244-1-5.prod", "10-244-1-6.default", "a.default", "10-244-1.default", "x.10-244-1-5.default"] {
        cluster.no_such_name(&format!("{missing}.pod.cluster.local")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_ended_or_is_being_deleted_has_no_name() {
    let cluster = with(PodRecords::Verified).await;
    let mut ended = pod("default", "a", "10.244.1.5");
    ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
    let mut deleted = pod("default", "a", "10.244.1.5");
    deleted.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    for state in [ended, deleted] {
        cluster.sources.pods.apply(pod("default", "a", "10.244.1.5"));
        cluster.activity.idle().await;
        assert_eq!(cluster.ask("10-244-1-5.default.pod.cluster.local", RecordType::A).await.answers.len(), 1);
        cluster.sources.pods.apply(state);
        cluster.activity.idle().await;
        cluster.no_such_name("10-244-1-5.default.pod.cluster.local").await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_pods_may_share_an_address_one_after_the_other() {
    let cluster = with(PodRecords::Verified).await;
    cluster.sources.pods.apply(pod("default", "c", "10.244.1.5"));
    cluster.sources.pods.delete(pod("default", "a", "10.244.1.5"));
    cluster.activity.idle().await;
    assert_eq!(cluster.ask("10-244-1-5.default.pod.cluster.local", RecordType::A).await.answers.len(), 1);
    cluster.sources.pods.delete(pod("default", "c", "10.244.1.5"));
    cluster.activity.idle().await;
    cluster.no_such_name("10-244-1-5.default.pod.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn insecure_every_address_has_a_name_where_the_namespace_exists() {
    let cluster = with(PodRecords::Insecure).await;
    assert_eq!(cluster.ask("1-2-3-4.prod.pod.cluster.local", RecordType::A).await.answers.len(), 1);
    cluster.no_such_name("1-2-3-4.nowhere.pod.cluster.local").await;
    cluster.no_such_name("1-2-3-400.prod.pod.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn disabled_no_pod_has_a_name() {
    with(PodRecords::Disabled).await.no_such_name("10-244-1-5.default.pod.cluster.local").await;
}
