//! Section 2.2: the version record; and the zone's own records.

use crate::cluster::{cluster, kinds};
use expect_test::expect;
use hickory_proto::rr::RecordType;

#[tokio::test(start_paused = true)]
async fn the_zone_says_which_version_of_the_specification_it_follows() {
    let cluster = cluster().await;
    expect![[r#"
        NoError
        dns-version.cluster.local. 28800 TXT 1.1.0
    "#]]
    .assert_eq(&cluster.dig("dns-version.cluster.local", RecordType::TXT).await);
    cluster.no_data("dns-version.cluster.local", &[RecordType::A, RecordType::SRV]).await;
    cluster.no_such_name("a.dns-version.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn the_apex_has_soa_and_ns_and_nothing_else() {
    let cluster = cluster().await;
    let soa = cluster.ask("cluster.local", RecordType::SOA).await;
    assert_eq!(kinds(&soa.answers), [RecordType::SOA]);
    let data = soa.answers[0].data.to_string();
    assert!(data.starts_with("ns.dns.cluster.local. hostmaster.cluster.local. "), "{data}");
    assert!(data.ends_with(" 7200 1800 86400 5"), "{data}");
    let ns = cluster.ask("cluster.local", RecordType::NS).await;
    assert_eq!(ns.answers[0].data.to_string(), "kube-dns.kube-system.svc.cluster.local.");
    assert_eq!(ns.additionals[0].data.to_string(), "10.96.0.10");
    cluster.no_data("cluster.local", &[RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::TXT]).await;
    expect![[r#"
        NoError
        ns.dns.cluster.local. 5 A 10.96.0.10
    "#]]
    .assert_eq(&cluster.dig("ns.dns.cluster.local", RecordType::A).await);
}
