//! What load balancer addresses do with packets, numbered as in the reference of semantics, chapter 7. Who gets which address is
//! the controller's, the machine's loopback the wiring's.

use crate::network::{at, greeting, net};
use crate::support::{CLIENT, NODE_1, NODE_2, OUTSIDE, cluster, external_cluster, external_web, slice};
use netstack::Translation;
use std::collections::BTreeSet;

const ON_BOTH: [&str; 2] = ["10.244.1.2@node-1", "10.244.2.2@node-2"];
const BALANCER: &str = "192.0.2.2:80";

#[test]
fn rule_7_3_with_policy_cluster_any_node_takes_the_connection_and_stands_for_the_client() {
    let net = external_cluster("", &["10.244.1.2@node-1"]);
    let entered: BTreeSet<_> = (0..64).filter_map(|_| net.snat(OUTSIDE, BALANCER)).collect();
    assert_eq!(entered.into_iter().collect::<Vec<_>>(), [NODE_1, NODE_2], "nodes without an endpoint too");
}

#[test]
fn rule_7_3_with_policy_local_only_healthy_nodes_take_it_and_the_client_keeps_its_address() {
    let local = ", externalTrafficPolicy: Local";
    let net = external_cluster(local, &["10.244.1.2@node-1 terminating", "10.244.2.2@node-2", "10.244.2.3@node-2"]);
    assert_eq!(net.spread(OUTSIDE, BALANCER), ["10.244.2.2", "10.244.2.3"], "node-1 says 503");
    assert_eq!(net.snat(OUTSIDE, BALANCER), None);
    // While all are going, the last ones still serve.
    let draining = external_cluster(local, &["10.244.1.2@node-1 terminating"]);
    assert_eq!(draining.spread(OUTSIDE, BALANCER), ["10.244.1.2"]);
}

#[test]
fn rule_3_5_without_node_ports_the_load_balancer_s_address_works_all_the_same() {
    let mut service = external_web(", allocateLoadBalancerNodePorts: false");
    service.spec.as_mut().expect("a spec").ports.as_mut().expect("ports")[0].node_port = None;
    let net = cluster(&[service], &[slice("web", "web-1", &ON_BOTH)]);
    assert_eq!(net.spread(OUTSIDE, BALANCER), ["10.244.1.2", "10.244.2.2"]);
    assert_eq!(net.send(OUTSIDE, "172.18.0.2:30080"), Translation::Pass);
}

#[tokio::test(start_paused = true)]
async fn rule_7_2_a_released_address_is_nobody_s_at_once() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let (outside, pod) = (net.host(OUTSIDE), net.host(CLIENT));
    net.apply(external_web(", externalTrafficPolicy: Local"), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    assert_eq!(greeting(&outside, BALANCER).await.expect("connected"), format!("10.244.1.2 saw {OUTSIDE}"));
    assert_eq!(greeting(&pod, BALANCER).await.expect("connected"), format!("10.244.1.2 saw {CLIENT}"));
    let mut released = external_web("");
    released.status = None;
    net.apply(released, &[]).await;
    assert!(outside.tcp_connect(at(BALANCER)).await.is_err());
}
