//! PTR records of ClusterIPs and endpoints.

use crate::cluster::{cluster, code, kinds};
use expect_test::expect;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_cluster_ip_belongs_to_its_service() {
    let cluster = cluster().await;
    let ips = json!(["10.96.1.1", "fd00::5"]);
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1", "clusterIPs": ips})).await;
    expect![[r#"
        NoError
        1.1.96.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("1.1.96.10.in-addr.arpa", RecordType::PTR).await);
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa";
    let reply = cluster.ask(v6, RecordType::PTR).await;
    assert_eq!(reply.answers[0].data.to_string(), "web.default.svc.cluster.local.");
    assert!(reply.metadata.authoritative);
    let reply = cluster.ask("1.1.96.10.in-addr.arpa", RecordType::A).await;
    assert_eq!((code(&reply), kinds(&reply.authorities)), (ResponseCode::NoError, vec![RecordType::SOA]));
    assert_eq!(reply.authorities[0].name.to_ascii(), "in-addr.arpa.");
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_address_has_a_name_in_every_service_that_it_is_ready_in() {
    let cluster = cluster().await;
    cluster.service("default", "db", json!({"clusterIP": "None"})).await;
    cluster.service("prod", "web", json!({"clusterIP": "10.96.1.1"})).await;
    let ready = [("10.244.1.5", "db-0", json!(true)), ("10.244.1.6", "db-1", json!(false))];
    cluster.slice(("default", "db"), "db-1", &ready, json!([])).await;
    cluster.slice(("prod", "web"), "web-1", &[("10.244.1.5", "", json!(true))], json!([])).await;
    expect![[r#"
        NoError
        5.1.244.10.in-addr.arpa. 5 PTR 10-244-1-5.web.prod.svc.cluster.local.
        5.1.244.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("5.1.244.10.in-addr.arpa", RecordType::PTR).await);
    assert_eq!(cluster.dig("6.1.244.10.in-addr.arpa", RecordType::PTR).await, "NXDomain\n");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_has_is_not_this_servers_to_deny() {
    let cluster = cluster().await;
    for name in ["9.9.9.9.in-addr.arpa", "96.10.in-addr.arpa", "in-addr.arpa", "x.1.1.96.10.in-addr.arpa"] {
        let reply = cluster.ask(name, RecordType::PTR).await;
        assert_eq!((code(&reply), reply.metadata.authoritative), (ResponseCode::NXDomain, false), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_a_cluster_ip_belongs_to_that_service_only() {
    let cluster = cluster().await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.service("default", "db", json!({"clusterIP": "None"})).await;
    cluster.slice(("default", "db"), "db-1", &[("10.96.1.1", "db-0", json!(true))], json!([])).await;
    expect![[r#"
        NoError
        1.1.96.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("1.1.96.10.in-addr.arpa", RecordType::PTR).await);
}
