//! Section 2.4: headless Services.

use crate::cluster::{Cluster, cluster, slice};
use expect_test::expect;
use hickory_proto::rr::RecordType;
use serde_json::json;

async fn headless() -> Cluster {
    let cluster = cluster().await;
    cluster.service("default", "db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn every_ready_endpoint_is_listed_and_null_is_ready() {
    let cluster = headless().await;
    let endpoints =
        [("10.244.1.5", "", json!(true)), ("10.244.1.6", "", json!(false)), ("10.244.1.7", "", json!(null))];
    cluster.slice(("default", "db"), "db-1", &endpoints, json!([])).await;
    cluster.slice(("prod", "db"), "db-2", &[("10.244.1.8", "", json!(true))], json!([])).await;
    expect![[r#"
        NoError
        db.default.svc.cluster.local. 5 A 10.244.1.5
        db.default.svc.cluster.local. 5 A 10.244.1.7
    "#]]
    .assert_eq(&cluster.dig("db.default.svc.cluster.local", RecordType::A).await);
    cluster.no_data("db.default.svc.cluster.local", &[RecordType::AAAA, RecordType::TXT, RecordType::SRV]).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_endpoint_there_is_no_such_name() {
    let cluster = headless().await;
    cluster.no_such_name("db.default.svc.cluster.local").await;
    cluster.slice(("default", "db"), "db-1", &[("10.244.1.6", "", json!(false))], json!([])).await;
    cluster.no_such_name("db.default.svc.cluster.local").await;
    cluster.no_such_name("_sql._tcp.db.default.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn an_address_in_several_slices_is_listed_once() {
    let cluster = headless().await;
    let endpoints = [("10.244.1.5", "", json!(true))];
    cluster.slice(("default", "db"), "db-1", &endpoints, json!([{"name": "sql", "port": 5432}])).await;
    cluster.slice(("default", "db"), "db-2", &endpoints, json!([{"name": "stats", "port": 9187}])).await;
    expect![[r#"
        NoError
        db.default.svc.cluster.local. 5 A 10.244.1.5
    "#]]
    .assert_eq(&cluster.dig("db.default.svc.cluster.local", RecordType::A).await);
    expect![[r#"
        NoError
        _stats._tcp.db.default.svc.cluster.local. 5 SRV 0 100 9187 10-244-1-5.db.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("_stats._tcp.db.default.svc.cluster.local", RecordType::SRV).await);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_named_by_its_hostname_else_by_its_dashed_address() {
    let cluster = headless().await;
    let endpoints = [("10.244.1.5", "db-0", json!(true)), ("10.244.1.6", "", json!(true))];
    cluster.slice(("default", "db"), "v4", &endpoints, json!([])).await;
    let endpoints = [("fd00::5", "db-0", json!(true)), ("fd00::", "", json!(true))];
    cluster.slice(("default", "db"), "v6", &endpoints, json!([])).await;
    for (label, kind, answer) in [
        ("db-0", RecordType::A, "10.244.1.5"),
        ("db-0", RecordType::AAAA, "fd00::5"),
        ("10-244-1-6", RecordType::A, "10.244.1.6"),
        ("fd00--0", RecordType::AAAA, "fd00::"),
    ] {
        let reply = cluster.ask(&format!("{label}.db.default.svc.cluster.local"), kind).await;
        let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(data, [answer], "{label}");
    }
    cluster.no_data("10-244-1-6.db.default.svc.cluster.local", &[RecordType::AAAA]).await;
    cluster.no_such_name("10-244-1-5.db.default.svc.cluster.local").await;
    cluster.no_such_name("db-1.db.default.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn srv_has_a_record_per_endpoint_with_the_target_port_and_equal_weights() {
    let cluster = headless().await;
    let endpoints =
        [("10.244.1.5", "db-0", json!(true)), ("10.244.1.6", "db-1", json!(true)), ("10.244.1.7", "db-2", json!(true))];
    cluster.slice(("default", "db"), "db-1", &endpoints, json!([{"name": "sql", "port": 15432}])).await;
    expect![[r#"
        NoError
        _sql._tcp.db.default.svc.cluster.local. 5 SRV 0 33 15432 db-0.db.default.svc.cluster.local.
        _sql._tcp.db.default.svc.cluster.local. 5 SRV 0 33 15432 db-1.db.default.svc.cluster.local.
        _sql._tcp.db.default.svc.cluster.local. 5 SRV 0 33 15432 db-2.db.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("_sql._tcp.db.default.svc.cluster.local", RecordType::SRV).await);
    // What StatefulSets' peer finders ask.
    let reply = cluster.ask("db.default.svc.cluster.local", RecordType::SRV).await;
    assert_eq!((reply.answers.len(), reply.additionals.len()), (3, 3));
    assert_eq!(reply.additionals[0].to_string(), "db-0.db.default.svc.cluster.local. 5 IN A 10.244.1.5");
}

#[tokio::test(start_paused = true)]
async fn more_endpoints_than_a_hundred_have_weight_one() {
    let cluster = headless().await;
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.244.1.{n}")).collect();
    let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), "", json!(true))).collect();
    cluster.slice(("default", "db"), "db-1", &endpoints, json!([{"name": "sql", "port": 1}])).await;
    let reply = cluster.ask("_sql._tcp.db.default.svc.cluster.local", RecordType::SRV).await;
    assert_eq!(reply.answers.len(), 150);
    assert!(reply.answers.iter().all(|record| record.data.to_string().starts_with("0 1 1 ")));
}

#[tokio::test(start_paused = true)]
async fn a_terminating_endpoint_is_not_listed_even_if_it_still_serves() {
    let cluster = headless().await;
    let mut slice = slice(("default", "db"), "db-1", &[("10.244.1.5", "db-0", json!(false))], json!([]));
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    slice.endpoints.as_mut().unwrap()[0].conditions = Some(serde_json::from_value(conditions).unwrap());
    cluster.sources.endpoint_slices.apply(slice);
    cluster.activity.idle().await;
    // A ClusterIP would fall back to it.
    cluster.no_such_name("db.default.svc.cluster.local").await;
    cluster.no_such_name("db-0.db.default.svc.cluster.local").await;
}
