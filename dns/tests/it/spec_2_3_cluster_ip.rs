//! Section 2.3: Services with a ClusterIP.

use crate::cluster::cluster;
use expect_test::expect;
use hickory_proto::rr::RecordType;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_service_has_its_cluster_ip_even_without_endpoints() {
    let cluster = cluster().await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"]})).await;
    expect![[r#"
        NoError
        web.default.svc.cluster.local. 5 A 10.96.1.1
    "#]]
    .assert_eq(&cluster.dig("web.default.svc.cluster.local", RecordType::A).await);
    let other =
        [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::CNAME, RecordType::SRV, RecordType::ANY];
    cluster.no_data("web.default.svc.cluster.local", &other).await;
    cluster.no_such_name("web.prod.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn a_dual_stack_service_has_an_address_per_family() {
    let cluster = cluster().await;
    let ips = json!(["10.96.1.1", "fd00:10:96::1"]);
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1", "clusterIPs": ips})).await;
    expect![[r#"
        NoError
        web.default.svc.cluster.local. 5 A 10.96.1.1
    "#]]
    .assert_eq(&cluster.dig("web.default.svc.cluster.local", RecordType::A).await);
    expect![[r#"
        NoError
        web.default.svc.cluster.local. 5 AAAA fd00:10:96::1
    "#]]
    .assert_eq(&cluster.dig("web.default.svc.cluster.local", RecordType::AAAA).await);
}

#[tokio::test(start_paused = true)]
async fn a_named_port_has_an_srv_record() {
    let cluster = cluster().await;
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1", "ports": ports})).await;
    expect![[r#"
        NoError
        _http._tcp.web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("_http._tcp.web.default.svc.cluster.local", RecordType::SRV).await);
    let reply = cluster.ask("_http._tcp.web.default.svc.cluster.local", RecordType::SRV).await;
    assert_eq!(reply.additionals[0].to_string(), "web.default.svc.cluster.local. 5 IN A 10.96.1.1");
    cluster.no_data("_http._tcp.web.default.svc.cluster.local", &[RecordType::A, RecordType::TXT]).await;
    for missing in ["_http._udp", "_dns._tcp", "_https._tcp", "http.tcp", "_._tcp", "_http.tcp"] {
        cluster.no_such_name(&format!("{missing}.web.default.svc.cluster.local")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_srv_question_for_the_service_itself_is_answered_with_all_ports() {
    let cluster = cluster().await;
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1", "ports": ports})).await;
    expect![[r#"
        NoError
        web.default.svc.cluster.local. 5 SRV 0 50 80 web.default.svc.cluster.local.
        web.default.svc.cluster.local. 5 SRV 0 50 81 web.default.svc.cluster.local.
    "#]]
    .assert_eq(&cluster.dig("web.default.svc.cluster.local", RecordType::SRV).await);
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_names_below_a_service_with_a_cluster_ip_too() {
    let cluster = cluster().await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1"})).await;
    let endpoints = [("10.244.1.5", "", json!(true)), ("10.244.1.6", "", json!(false))];
    cluster.slice(("default", "web"), "web-1", &endpoints, json!([])).await;
    expect![[r#"
        NoError
        10-244-1-5.web.default.svc.cluster.local. 5 A 10.244.1.5
    "#]]
    .assert_eq(&cluster.dig("10-244-1-5.web.default.svc.cluster.local", RecordType::A).await);
    cluster.no_such_name("10-244-1-6.web.default.svc.cluster.local").await;
}
