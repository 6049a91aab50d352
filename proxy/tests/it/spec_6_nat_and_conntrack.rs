//! Masquerading, numbered as in the reference of semantics, chapter 6. What conntrack keeps is in `network.rs`.

use crate::support::{CLIENT, NODE_1, NODE_2, OUTSIDE, VIP, external_cluster, web_cluster};

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
