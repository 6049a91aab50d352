//! Section 2.5: ExternalName.

use crate::cluster::{cluster, cluster_with, show};
use dns::Config;
use expect_test::expect;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

fn external(target: &str) -> Value {
    json!({"type": "ExternalName", "externalName": target})
}

#[tokio::test(start_paused = true)]
async fn a_target_outside_is_shown_as_an_alias_even_if_nobody_can_resolve_it() {
    let cluster = cluster().await;
    cluster.service("default", "db", external("db.example.com")).await;
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME] {
        let reply = cluster.ask("db.default.svc.cluster.local", kind).await;
        assert_eq!(show(&reply), "NoError\ndb.default.svc.cluster.local. 5 CNAME db.example.com.\n", "{kind}");
        assert!(reply.metadata.authoritative);
    }
    cluster.no_data("db.default.svc.cluster.local", &[RecordType::MX, RecordType::TXT, RecordType::SRV]).await;
    cluster.no_such_name("_sql._tcp.db.default.svc.cluster.local").await;
    cluster.no_such_name("a.db.default.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_in_the_zone_is_completed() {
    let cluster = cluster().await;
    cluster.service("default", "a", external("b.prod.svc.cluster.local")).await;
    cluster.service("prod", "b", external("C.default.svc.Cluster.local.")).await;
    cluster.service("default", "c", json!({"clusterIP": "10.96.1.1"})).await;
    expect![[r#"
        NoError
        a.default.svc.cluster.local. 5 CNAME b.prod.svc.cluster.local.
        b.prod.svc.cluster.local. 5 CNAME C.default.svc.Cluster.local.
        C.default.svc.Cluster.local. 5 A 10.96.1.1
    "#]]
    .assert_eq(&cluster.dig("a.default.svc.cluster.local", RecordType::A).await);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_ends_nowhere_in_the_zone_is_no_data_without_the_alias() {
    let cluster = cluster().await;
    cluster.service("default", "a", external("c.default.svc.cluster.local")).await;
    cluster.no_data("a.default.svc.cluster.local", &[RecordType::A, RecordType::AAAA]).await;
    cluster.service("default", "c", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.no_data("a.default.svc.cluster.local", &[RecordType::AAAA]).await;
    assert_eq!(cluster.ask("a.default.svc.cluster.local", RecordType::A).await.answers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_circle_and_a_chain_of_more_than_ten_end() {
    let cluster = cluster().await;
    cluster.service("default", "a", external("b.default.svc.cluster.local")).await;
    cluster.service("default", "b", external("a.default.svc.cluster.local")).await;
    cluster.no_data("a.default.svc.cluster.local", &[RecordType::A]).await;
    for n in 0..11 {
        cluster.service("prod", &format!("s{n}"), external(&format!("s{}.prod.svc.cluster.local", n + 1))).await;
    }
    cluster.service("prod", "s11", json!({"clusterIP": "10.96.1.1"})).await;
    assert_eq!(cluster.ask("s1.prod.svc.cluster.local", RecordType::A).await.answers.len(), 11);
    cluster.no_data("s0.prod.svc.cluster.local", &[RecordType::A]).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_may_lead_to_a_static_name() {
    let mut config = Config::new("cluster.local");
    config.hosts = vec![("db.example.com".into(), "192.0.2.7".parse().unwrap())];
    let cluster = cluster_with(config).await;
    cluster.service("default", "db", external("db.example.com")).await;
    expect![[r#"
        NoError
        db.default.svc.cluster.local. 5 CNAME db.example.com.
        db.example.com. 5 A 192.0.2.7
    "#]]
    .assert_eq(&cluster.dig("db.default.svc.cluster.local", RecordType::A).await);
}
