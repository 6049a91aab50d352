//! Which names exist, and what all answers have in common.

use crate::cluster::{addresses, cluster, cluster_with, code, query};
use dns::{Config, Transport};
use hickory_proto::op::{OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;

#[tokio::test(start_paused = true)]
async fn names_on_the_way_to_others_exist_without_records() {
    let cluster = cluster().await;
    for name in ["svc.cluster.local", "pod.cluster.local", "default.svc.cluster.local", "default.pod.cluster.local"] {
        cluster.no_data(name, &[RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_labels_and_too_many_of_them_are_no_names() {
    let cluster = cluster().await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1"})).await;
    for name in [
        "foo.cluster.local",
        "default.foo.cluster.local",
        "nowhere.svc.cluster.local",
        "nowhere.pod.cluster.local",
        "web.nowhere.svc.cluster.local",
        "missing.default.svc.cluster.local",
        "a.web.default.svc.cluster.local",
        "a.b.web.default.svc.cluster.local",
        "a._http._tcp.web.default.svc.cluster.local",
        "api.example.com.default.svc.cluster.local",
        "*.default.svc.cluster.local",
    ] {
        cluster.no_such_name(name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_namespace_is_gone_is_gone() {
    let cluster = cluster().await;
    cluster.service("late", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.no_such_name("web.late.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn case_does_not_matter_and_the_answer_keeps_the_questions() {
    let cluster = cluster().await;
    let reply = cluster.ask("kUbe-DNS.Kube-System.SVC.Cluster.LOCAL", RecordType::A).await;
    assert_eq!(reply.queries[0].name.to_ascii(), "kUbe-DNS.Kube-System.SVC.Cluster.LOCAL.");
    assert_eq!(reply.answers[0].name.to_ascii(), "kUbe-DNS.Kube-System.SVC.Cluster.LOCAL.");
    assert_eq!(addresses(&reply), ["10.96.0.10".parse::<IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_has_the_requests_id_and_flags_and_is_authoritative() {
    let cluster = cluster().await;
    for desired in [true, false] {
        let mut request = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
        request.metadata.recursion_desired = desired;
        request.metadata.checking_disabled = desired;
        let reply = cluster.ask_message(&request, Transport::Udp).await.metadata;
        assert_eq!((reply.id, reply.recursion_desired, reply.checking_disabled), (4711, desired, desired));
        assert!(reply.authoritative && reply.recursion_available && !reply.truncation && !reply.authentic_data);
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_come_in_a_random_order_which_the_seed_decides() {
    let orders = async |seed| {
        let mut config = Config::new("cluster.local");
        config.seed = seed;
        let cluster = cluster_with(config).await;
        cluster.service("default", "db", json!({"clusterIP": "None"})).await;
        let endpoints = ["10.244.1.1", "10.244.1.2", "10.244.1.3"].map(|address| (address, "", json!(true)));
        cluster.slice(("default", "db"), "db-1", &endpoints, json!([])).await;
        let mut orders = Vec::new();
        for _ in 0..60 {
            orders.push(addresses(&cluster.ask("db.default.svc.cluster.local", RecordType::A).await));
        }
        orders
    };
    let (first, again, other) = (orders(1).await, orders(1).await, orders(2).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(first.into_iter().collect::<BTreeSet<_>>().len(), 6, "every order of three occurs");
}

#[tokio::test(start_paused = true)]
async fn transfers_other_classes_and_other_operations_are_refused() {
    let cluster = cluster().await;
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        for name in ["cluster.local", "example.com"] {
            assert_eq!(code(&cluster.ask(name, kind).await), ResponseCode::Refused);
        }
    }
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        let mut request = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
        request.queries[0].query_class = class;
        assert_eq!(code(&cluster.ask_message(&request, Transport::Udp).await), ResponseCode::Refused, "{class}");
    }
    let mut request = query("cluster.local", RecordType::SOA);
    request.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&cluster.ask_message(&request, Transport::Udp).await), ResponseCode::NotImp);
    let mut request = query("cluster.local", RecordType::SOA);
    request.queries.push(request.queries[0].clone());
    assert_eq!(code(&cluster.ask_message(&request, Transport::Udp).await), ResponseCode::FormErr);
}

#[tokio::test(start_paused = true)]
async fn without_upstreams_names_outside_do_not_exist() {
    let cluster = cluster().await;
    for name in ["example.com", "local", ".", "notcluster.local"] {
        let reply = cluster.ask(name, RecordType::A).await;
        assert_eq!((code(&reply), reply.metadata.authoritative), (ResponseCode::NXDomain, false), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn static_names_have_their_addresses_both_ways_and_win_over_the_zone() {
    let mut config = Config::new("cluster.local");
    let entry = |name: &str, ip: &str| (name.to_owned(), ip.parse::<IpAddr>().unwrap());
    config.hosts = vec![
        entry("host.coracle.internal", "10.0.2.2"),
        entry("host.coracle.internal", "fd00::2"),
        entry("kube-dns.kube-system.svc.cluster.local", "10.0.2.3"),
        entry("not..a.name", "10.0.2.4"),
    ];
    let cluster = cluster_with(config).await;
    for (name, kind, answer) in [
        ("Host.coracle.internal", RecordType::A, "10.0.2.2"),
        ("host.coracle.internal", RecordType::AAAA, "fd00::2"),
        ("kube-dns.kube-system.svc.cluster.local", RecordType::A, "10.0.2.3"),
        ("2.2.0.10.in-addr.arpa", RecordType::PTR, "host.coracle.internal."),
    ] {
        let reply = cluster.ask(name, kind).await;
        let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(data, [answer], "{name}");
    }
    let reply = cluster.ask("host.coracle.internal", RecordType::TXT).await;
    assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test(start_paused = true)]
async fn the_zone_may_have_any_name() {
    let cluster = cluster_with(Config::new("K8s.Example.org.")).await;
    let reply = cluster.ask("kube-dns.kube-system.svc.k8s.example.org", RecordType::A).await;
    assert_eq!(addresses(&reply), ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    let reply = cluster.ask("kube-dns.kube-system.svc.cluster.local", RecordType::A).await;
    assert_eq!((code(&reply), reply.metadata.authoritative), (ResponseCode::NXDomain, false));
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_may_be_remembered_for_five_seconds() {
    let cluster = cluster().await;
    for (name, kind) in [
        ("nobody.default.svc.cluster.local", RecordType::A),
        ("kube-dns.kube-system.svc.cluster.local", RecordType::AAAA),
        ("kube-dns.kube-system.svc.cluster.local", RecordType::MX),
        ("default.svc.cluster.local", RecordType::A),
    ] {
        let reply = cluster.ask(name, kind).await;
        let RData::SOA(soa) = &reply.authorities[0].data else { panic!("{:?}", reply.authorities) };
        assert_eq!((reply.authorities[0].ttl, soa.minimum), (5, 5), "{name} {kind}");
        assert_eq!(reply.authorities[0].name.to_ascii(), "cluster.local.", "{name} {kind}");
    }
}
