//! Masquerading, numbered as in the reference of semantics, chapter 6. What conntrack keeps is in `network.rs`.

use crate::network::{at, greeting, net};
use crate::support::{
    CLIENT, NODE_1, NODE_2, OUTSIDE, VIP, cluster, external_cluster, external_web, service, slice, slice_with_ports,
    web, web_cluster,
};
use netstack::{Filter, Hooks, NewFlow, Protocol, Translation, Verdict};
use parking_lot::Mutex;
use proxy::reason;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ON_BOTH: [&str; 2] = ["10.244.1.2@node-1", "10.244.2.2@node-2"];

#[test]
fn rule_6_1a_external_frontends_with_policy_cluster_always_masquerade() {
    let net = external_cluster("", &ON_BOTH);
    for from in [OUTSIDE, CLIENT, NODE_1, NODE_2] {
        assert_eq!(net.snat(from, "172.18.0.3:30080").as_deref(), Some(NODE_2), "{from}");
    }
    for frontend in ["192.0.2.1:80", "192.0.2.2:80"] {
        assert_eq!(net.snat(CLIENT, frontend).as_deref(), Some(NODE_1), "the client's node, {frontend}");
        let entered = net.snat(OUTSIDE, frontend).expect("masqueraded");
        assert!([NODE_1, NODE_2].contains(&entered.as_str()));
    }
}

#[test]
fn rule_6_1b_external_frontends_with_policy_local_masquerade_only_the_node_itself() {
    let net = external_cluster(", externalTrafficPolicy: Local", &ON_BOTH);
    assert_eq!(net.snat(OUTSIDE, "172.18.0.2:30080"), None);
    assert_eq!(net.snat(CLIENT, "172.18.0.2:30080"), None);
    assert_eq!(net.snat(NODE_2, "172.18.0.2:30080"), None);
    assert_eq!(net.snat(NODE_1, "172.18.0.2:30080").as_deref(), Some(NODE_1));
    assert_eq!(net.snat(OUTSIDE, "192.0.2.2:80"), None);
}

#[test]
fn rule_6_1c_a_cluster_ip_masquerades_who_is_not_a_pod() {
    let net = web_cluster("", &ON_BOTH);
    assert_eq!(net.snat(CLIENT, VIP), None);
    assert_eq!(net.snat(NODE_1, VIP).as_deref(), Some(NODE_1));
    assert!(net.snat(OUTSIDE, VIP).is_some());
    assert!(net.snat("172.18.0.1", VIP).is_some(), "the gateway is outside");
}

#[test]
fn rule_6_1d_a_pod_that_reaches_itself_through_its_service_is_masqueraded() {
    let net = web_cluster("", &["10.244.1.50@node-1"]);
    assert_eq!(net.snat(CLIENT, VIP).as_deref(), Some(NODE_1));
    let local = external_cluster(", externalTrafficPolicy: Local", &["10.244.1.50@node-1"]);
    assert_eq!(local.snat(CLIENT, "192.0.2.2:80").as_deref(), Some(NODE_1));
    assert_eq!(net.explain(CLIENT, VIP).snat.map(|ip| ip.to_string()).as_deref(), Some(NODE_1));
}

#[test]
fn rule_1_3_what_leaves_the_cluster_from_a_pod_has_its_nodes_address_and_what_stays_its_own() {
    let net = web_cluster("", &ON_BOTH);
    for outside in ["203.0.113.7:443", "172.18.0.254:80", "192.0.2.99:53"] {
        assert_eq!(net.snat(CLIENT, outside).as_deref(), Some(NODE_1), "{outside}");
        let told = net.explain(CLIENT, outside);
        assert_eq!((told.outcome, told.snat.map(|ip| ip.to_string()).as_deref()), ("pass", Some(NODE_1)));
        assert_eq!(
            told.steps[1],
            format!("{outside} is outside of the cluster: as addressed, with {NODE_1} as the source")
        );
    }
    // Pods anywhere, nodes, and the gateway at which the API listens, see the pod itself.
    for inside in ["10.244.2.2:8080", "10.244.1.2:8080", "172.18.0.2:10250", "172.18.0.3:10250", "172.18.0.1:6443"] {
        assert_eq!(net.send(CLIENT, inside), Translation::Pass, "{inside}");
    }
    for other in [NODE_1, OUTSIDE, "172.18.0.1"] {
        assert_eq!(net.send(other, "203.0.113.8:443"), Translation::Pass, "{other} is no pod");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_6_3_answers_are_translated_back_whatever_has_become_of_the_service() {
    let net = net().await;
    let server = net.host("10.244.1.2").udp_bind(8080).expect("a free port");
    let client = net.host(CLIENT).udp_bind(5000).expect("a free port");
    let dns = || service("dns", "{ clusterIPs: [10.96.0.10], ports: [{ port: 53, protocol: UDP }] }");
    let ports = "[{ name: '', port: 8080, protocol: UDP }]";
    let slices = |endpoints: &[&str]| slice_with_ports("dns", "dns-1", ports, endpoints);
    net.apply(dns(), &[slices(&["10.244.1.2@node-1"])]).await;
    client.send_to(b"?", at("10.96.0.10:53")).await.expect("sent");
    let mut buffer = [0; 8];
    let (_, asked_by) = server.recv_from(&mut buffer).await.expect("asked");
    // Other endpoints, another policy: the answer still comes from where the question went.
    net.apply_slice(slices(&["10.244.1.2@node-1 terminating", "10.244.2.2@node-2"])).await;
    server.send_to(b"!", asked_by).await.expect("answered");
    assert_eq!(client.recv_from(&mut buffer).await.expect("an answer"), (1, at("10.96.0.10:53")));
}

/// What the filter was asked.
#[derive(Default)]
struct Asked(Mutex<Vec<NewFlow>>);

impl Filter for Asked {
    fn verdict(&self, flow: &NewFlow) -> Verdict {
        self.0.lock().push(*flow);
        Verdict::Accept
    }
}

#[tokio::test(start_paused = true)]
async fn rule_5_10_policy_is_asked_after_the_translation_and_once_a_connection() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let outside = net.host(OUTSIDE);
    let asked = Arc::new(Asked::default());
    net.network.install(Hooks { translate: net.proxy.translator(), filter: asked.clone() });
    net.apply(external_web(""), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    greeting(&outside, "172.18.0.3:30080").await.expect("connected");
    let asked = asked.0.lock();
    let [flow] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((flow.original.src.ip(), flow.original.dst), (OUTSIDE.parse().expect("an IP"), at("172.18.0.3:30080")));
    assert_eq!(
        (flow.translated.src.ip(), flow.translated.dst),
        (NODE_2.parse().expect("an IP"), at("10.244.1.2:8080"))
    );
}

#[test]
fn rule_6_7_sctp_is_balanced_by_port_like_any_other_and_rejected_where_nobody_is() {
    let sctp = service("web", "{ clusterIPs: [10.96.0.20], ports: [{ port: 80, protocol: SCTP }] }");
    let endpoints = slice_with_ports("web", "web-1", "[{ name: '', port: 9, protocol: SCTP }]", &ON_BOTH);
    let net = cluster(std::slice::from_ref(&sctp), &[endpoints]);
    let Translation::To { dst, snat: None } = net.send_at(Protocol::Sctp, CLIENT, VIP, Instant::now()) else {
        panic!("translated");
    };
    assert!(
        ON_BOTH.iter().any(|endpoint| dst == at(&endpoint.replace("@node-1", ":9").replace("@node-2", ":9"))),
        "{dst}"
    );
    assert_eq!(net.send(CLIENT, VIP), Translation::Reject(reason::UNKNOWN_CLUSTERIP_PORT), "TCP is another port");
    let none = cluster(&[sctp], &[]).send_at(Protocol::Sctp, CLIENT, VIP, Instant::now());
    assert_eq!(none, Translation::Reject(reason::NO_ENDPOINTS_REJECT));
}

#[tokio::test(start_paused = true)]
async fn rule_6_8_echo_reaches_pods_and_no_cluster_ip_answers_it() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let client = net.host(CLIENT);
    net.apply(web(""), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    let ping = async |ip: &str| client.ping(ip.parse::<IpAddr>().expect("an IP"), 56, Duration::from_secs(1)).await;
    ping("10.244.1.2").await.expect("a pod answers");
    // As with kube-proxy's nftables mode: what is no port of a ClusterIP is rejected, and a free address is silent.
    assert_eq!(ping("10.96.0.20").await.expect_err("no answer").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ping("10.96.0.21").await.expect_err("no answer").kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn rule_6_8_an_icmp_error_about_a_translated_datagram_reaches_its_sender_as_the_service_s() {
    let net = net().await;
    let _nobody_listens = net.host("10.244.1.2");
    let socket = net.host(CLIENT).udp_bind(0).expect("a free port");
    let dns = service("dns", "{ clusterIPs: [10.96.0.10], ports: [{ port: 53, protocol: UDP }] }");
    let ports = "[{ name: '', port: 5353, protocol: UDP }]";
    net.apply(dns, &[slice_with_ports("dns", "dns-1", ports, &["10.244.1.2@node-1"])]).await;
    socket.send_to(b"?", at("10.96.0.10:53")).await.expect("sent");
    assert_eq!(socket.recv_from(&mut [0]).await.expect_err("refused").kind(), ErrorKind::ConnectionRefused);
}
