//! The query log (rule 8.10): who asked what, what it was told, from where, and what the search list made in vain.

use crate::cluster::{Cluster, cluster, cluster_with, pod};
use crate::forwarding::knowing;
use dns::{Config, LoggedQuery, Queries};
use hickory_proto::rr::RecordType;
use serde_json::json;

const IP: &str = "10.244.1.7";

fn line(query: &LoggedQuery) -> String {
    let step = query
        .step
        .as_ref()
        .map(|step| format!("{} {} {}/{} {}", step.lookup, step.name, step.step, step.steps, step.in_vain));
    format!(
        "{} {} {} {} {} {:?} [{}]",
        query.pod.as_deref().unwrap_or("-"),
        query.name,
        query.record_type,
        query.rcode.as_deref().unwrap_or("-"),
        query.answers,
        query.source,
        step.unwrap_or_default()
    )
}

fn lines(queries: &mut Queries) -> Vec<String> {
    std::iter::from_fn(|| queries.take()).map(|query| line(&query)).collect()
}

async fn asked(cluster: &Cluster, names: &[&str]) {
    for name in names {
        cluster.ask_from(IP, name, RecordType::A).await;
    }
}

#[tokio::test]
async fn rule_8_10_the_query_log_says_who_asked_what_and_where_the_answer_is_from() {
    let outside = knowing(&[("www.example.org.", [192, 0, 2, 1])]).await;
    let corp = knowing(&[("db.corp.example.", [192, 0, 2, 2])]).await;
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![outside.address];
    config.stub_domains = vec![("corp.example".to_owned(), vec![corp.address]), ("void.example".to_owned(), vec![])];
    config.hosts = vec![("db.static".to_owned(), [192, 0, 2, 3].into())];
    let cluster = cluster_with(config).await;
    cluster.attach(&pod("default", "asker", IP), IP);
    let mut queries = cluster.dns.queries(false);
    let names = [
        "kube-dns.kube-system.svc.cluster.local",
        "www.example.org",
        "WWW.example.org",
        "db.corp.example",
        "db.static",
        "x.void.example",
    ];
    asked(&cluster, &names).await;
    cluster.ask_from("127.0.0.1", "kubernetes.default.svc.cluster.local", RecordType::SRV).await;
    // A tool's question is nobody's.
    cluster.ask("kube-dns.kube-system.svc.cluster.local", RecordType::A).await;
    assert_eq!(
        lines(&mut queries),
        [
            "default/asker kube-dns.kube-system.svc.cluster.local. A NOERROR 1 Zone [1 kube-dns.kube-system.svc.cluster.local 1/1 0]",
            "default/asker www.example.org. A NOERROR 1 Upstream [2 www.example.org 1/1 0]",
            "default/asker WWW.example.org. A NOERROR 1 Cache [3 WWW.example.org 1/1 0]",
            "default/asker db.corp.example. A NOERROR 1 StubDomain [4 db.corp.example 1/1 0]",
            "default/asker db.static. A NOERROR 1 Hosts [5 db.static 1/1 0]",
            "default/asker x.void.example. A NXDOMAIN 0 Nobody [6 x.void.example 1/1 0]",
            "- kubernetes.default.svc.cluster.local. SRV NXDOMAIN 0 Zone []",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_shows_which_queries_of_a_lookup_were_in_vain() {
    let cluster = cluster().await;
    cluster.service("prod", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.attach(&pod("default", "asker", IP), IP);
    let mut queries = cluster.dns.queries(false);
    asked(&cluster, &["web.prod.default.svc.cluster.local", "web.prod.svc.cluster.local"]).await;
    asked(&cluster, &["web.prod.default.svc.cluster.local"]).await;
    assert_eq!(
        lines(&mut queries),
        [
            "default/asker web.prod.default.svc.cluster.local. A NXDOMAIN 0 Zone [1 web.prod 1/5 0]",
            "default/asker web.prod.svc.cluster.local. A NOERROR 1 Zone [1 web.prod 2/5 1]",
            "default/asker web.prod.default.svc.cluster.local. A NXDOMAIN 0 Zone [2 web.prod 1/5 0]",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_is_on_while_it_is_read_or_when_it_is_to_be_kept() {
    let name = "kube-dns.kube-system.svc.cluster.local";
    let cluster = cluster().await;
    asked(&cluster, &[name]).await;
    let mut first = cluster.dns.queries(true);
    assert!(first.take().is_none(), "nobody was reading");
    asked(&cluster, &[name]).await;
    let mut second = cluster.dns.queries(true);
    assert!(second.take().is_some() && first.take().is_some());
    drop((first, second));
    assert!(cluster.dns.queries(true).take().is_none(), "what nobody keeps is forgotten");

    let mut config = Config::new("cluster.local");
    config.keep_queries = true;
    let keeping = cluster_with(config).await;
    asked(&keeping, &[name, name]).await;
    assert_eq!(lines(&mut keeping.dns.queries(true)).len(), 2);
    assert_eq!(lines(&mut keeping.dns.queries(true)).len(), 2);
    assert_eq!(lines(&mut keeping.dns.queries(false)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_is_bounded_and_a_slow_reader_learns_what_it_lost() {
    let cluster = cluster().await;
    let mut queries = cluster.dns.queries(false);
    for _ in 0..5000 {
        cluster.ask_from(IP, "kube-dns.kube-system.svc.cluster.local", RecordType::A).await;
    }
    assert_eq!((lines(&mut queries).len(), queries.lost()), (4096, 904));
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_a_reader_of_the_query_log_waits_for_the_next_query_and_ends_with_the_server() {
    let cluster = cluster().await;
    let mut queries = cluster.dns.queries(false);
    let (query, ()) = tokio::join!(queries.next(), async {
        tokio::task::yield_now().await;
        asked(&cluster, &["nobody.default.svc.cluster.local"]).await;
    });
    assert_eq!(query.expect("a query").rcode.as_deref(), Some("NXDOMAIN"));
    drop(cluster);
    assert!(queries.next().await.is_none());
}

#[tokio::test]
async fn rule_8_10_a_question_that_many_ask_is_written_down_for_each() {
    let server = knowing(&[("www.example.org.", [192, 0, 2, 1])]).await;
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![server.address];
    let cluster = cluster_with(config).await;
    let mut queries = cluster.dns.queries(false);
    let ask = |ip| cluster.ask_from(ip, "www.example.org", RecordType::A);
    tokio::join!(ask("10.244.1.7"), ask("10.244.1.8"));
    let mut from: Vec<String> = std::iter::from_fn(|| queries.take()).map(|query| query.from.to_string()).collect();
    from.sort();
    assert_eq!(from, ["10.244.1.7", "10.244.1.8"]);
}
