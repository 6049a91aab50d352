//! Autopath: the server walks the asking pod's search list itself (rule 8.10).

use crate::cluster::{Cluster, addresses, cluster, cluster_with, code, pod, pod_with_faults, show};
use crate::forwarding::{Upstream, knowing};
use dns::{Config, Source};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::json;

const IP: &str = "10.244.1.7";

/// A cluster with autopath, whose upstream knows `www.example.org` and `intra.corp.example`, and a pod in `default`.
async fn with_autopath() -> (Cluster, Upstream) {
    let upstream = knowing(&[("www.example.org.", [192, 0, 2, 1]), ("intra.corp.example.", [192, 0, 2, 2])]).await;
    let mut config = Config::new("cluster.local");
    config.autopath = true;
    config.upstreams = vec![upstream.address];
    let cluster = cluster_with(config).await;
    cluster.service("prod", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.2"})).await;
    cluster.attach(&pod("default", "asker", IP), IP);
    (cluster, upstream)
}

async fn told(cluster: &Cluster, name: &str, kind: RecordType) -> String {
    show(&cluster.ask_from(IP, name, kind).await.expect("an answer"))
}

#[tokio::test]
async fn rule_8_10_with_autopath_the_first_question_is_answered_with_what_the_search_list_leads_to() {
    let (cluster, upstream) = with_autopath().await;
    for (asked, expected) in [
        // At once in the pod's own namespace: nothing to walk.
        ("web", "NoError\nweb.default.svc.cluster.local. 5 A 10.96.1.2\n"),
        (
            "web.prod",
            "NoError\nweb.prod.default.svc.cluster.local. 5 CNAME web.prod.svc.cluster.local.\nweb.prod.svc.cluster.local. 5 A 10.96.1.1\n",
        ),
        (
            "web.prod.svc",
            "NoError\nweb.prod.svc.default.svc.cluster.local. 5 CNAME web.prod.svc.cluster.local.\nweb.prod.svc.cluster.local. 5 A 10.96.1.1\n",
        ),
        (
            "intra",
            "NoError\nintra.default.svc.cluster.local. 300 CNAME intra.corp.example.\nintra.corp.example. 300 A 192.0.2.2\n",
        ),
        (
            "www.example.org",
            "NoError\nwww.example.org.default.svc.cluster.local. 300 CNAME www.example.org.\nwww.example.org. 300 A 192.0.2.1\n",
        ),
    ] {
        assert_eq!(
            told(&cluster, &format!("{asked}.default.svc.cluster.local"), RecordType::A).await,
            expected,
            "{asked}"
        );
    }
    drop(upstream);
}

#[tokio::test]
async fn rule_8_10_with_autopath_a_name_that_is_nowhere_is_denied_as_it_was_asked() {
    let (cluster, _upstream) = with_autopath().await;
    assert_eq!(told(&cluster, "nobody.default.svc.cluster.local", RecordType::A).await, "NXDomain\n");
}

#[tokio::test]
async fn rule_8_10_with_autopath_a_name_without_such_records_ends_the_walk() {
    let (cluster, _upstream) = with_autopath().await;
    let reply = cluster.ask_from(IP, "web.prod.default.svc.cluster.local", RecordType::AAAA).await.expect("an answer");
    assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(reply.queries[0].name.to_ascii(), "web.prod.default.svc.cluster.local.");
}

#[tokio::test]
async fn rule_8_10_autopath_is_for_the_first_name_of_the_asking_pods_own_list_only() {
    let (cluster, _upstream) = with_autopath().await;
    // The second name of its list; and the first of another namespace's.
    for name in
        ["web.prod.cluster.local", "www.example.org.svc.cluster.local", "www.example.org.prod.svc.cluster.local"]
    {
        assert_eq!(told(&cluster, name, RecordType::A).await, "NXDomain\n", "{name}");
    }
    // Somebody of whom nothing is known.
    let reply = cluster.ask_from("10.244.9.9", "web.prod.default.svc.cluster.local", RecordType::A).await;
    assert_eq!(code(&reply.expect("an answer")), ResponseCode::NXDomain);
}

#[tokio::test]
async fn rule_8_10_autopath_is_off_unless_it_is_wanted() {
    let cluster = cluster().await;
    cluster.service("prod", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.attach(&pod("default", "asker", IP), IP);
    assert_eq!(told(&cluster, "web.prod.default.svc.cluster.local", RecordType::A).await, "NXDomain\n");
}

#[tokio::test]
async fn rule_8_10_when_a_server_fails_on_the_walk_the_pod_is_left_to_ask_it_itself() {
    let (cluster, upstream) = with_autopath().await;
    drop(upstream);
    assert_eq!(told(&cluster, "www.example.org.default.svc.cluster.local", RecordType::A).await, "NXDomain\n");
    assert_eq!(told(&cluster, "www.example.org", RecordType::A).await, "ServFail\n");
}

#[tokio::test]
async fn rule_8_10_autopath_leaves_names_with_faults_to_the_pod() {
    let (cluster, _upstream) = with_autopath().await;
    let faulty = pod_with_faults("faulty", "10.244.1.8", "servfail names=www.example.org");
    cluster.attach(&faulty, "10.244.1.8");
    for (name, expected) in [
        ("www.example.org.default.svc.cluster.local", ResponseCode::NXDomain),
        ("www.example.org", ResponseCode::ServFail),
        ("web.prod.default.svc.cluster.local", ResponseCode::NoError),
    ] {
        let reply = cluster.ask_from("10.244.1.8", name, RecordType::A).await.expect("an answer");
        assert_eq!(code(&reply), expected, "{name}");
    }
}

#[tokio::test]
async fn rule_8_10_the_query_log_and_the_metrics_say_what_autopath_has_found() {
    let (cluster, _upstream) = with_autopath().await;
    let mut queries = cluster.dns.queries(false);
    let reply =
        cluster.ask_from(IP, "www.example.org.default.svc.cluster.local", RecordType::A).await.expect("an answer");
    assert_eq!(addresses(&reply), ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    let query = queries.take().expect("a query");
    assert_eq!((query.autopath.as_deref(), query.source), (Some("www.example.org."), Source::Upstream));
    assert!(queries.take().is_none(), "one question, one line");
    assert!(cluster.dns.metrics().contains("coredns_autopath_success_total{server=\"dns://:53\"} 1\n"));
}
