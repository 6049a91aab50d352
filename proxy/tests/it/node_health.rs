//! The health of a node's proxy, on port 10256, as kube-proxy answers it.

use crate::network::{Net, at, net};
use crate::support::{NODE_1, NODE_2, two_nodes, yaml};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use netstack::Host;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NOW: &str = "2026-01-01 00:00:00 +0000 UTC";

/// A network with hosts at the nodes' addresses, and a client outside.
async fn nodes() -> (Net, Vec<Host>, Host) {
    let net = net().await;
    let nodes: Vec<Host> = [NODE_1, NODE_2].map(|address| net.host(address)).into();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    tokio::spawn(net.proxy.serve_node_health(nodes.clone(), move || now));
    let outside = net.host("203.0.113.7");
    (net, nodes, outside)
}

/// Status and body.
async fn get(client: &Host, node: &str, path: &str) -> (u16, String) {
    // The listeners open with the first turn of a task.
    tokio::task::yield_now().await;
    let mut stream = client.tcp_connect(at(&format!("{node}:10256"))).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    assert!(head.to_ascii_lowercase().contains("x-content-type-options: nosniff"), "{head}");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn read(body: &str) -> Value {
    serde_json::from_str(body).expect("JSON")
}

/// The first node, with that in its metadata and spec.
fn node_1(metadata: &str, spec: &str) -> Node {
    let mut node = (*two_nodes()[0]).clone();
    let (more, spec): (Node, Node) =
        (yaml(&format!("{{ metadata: {metadata} }}")), yaml(&format!("{{ metadata: {{}}, spec: {spec} }}")));
    node.metadata.deletion_timestamp = more.metadata.deletion_timestamp;
    node.spec.get_or_insert_default().taints = spec.spec.and_then(|spec| spec.taints);
    node
}

#[tokio::test(start_paused = true)]
async fn every_node_says_on_port_10256_that_its_services_are_up_to_date() {
    let (_net, _nodes, outside) = nodes().await;
    for node in [NODE_1, NODE_2] {
        let (status, body) = get(&outside, node, "/healthz").await;
        assert_eq!(status, 200);
        assert_eq!(read(&body), json!({"lastUpdated": NOW, "currentTime": NOW, "nodeEligible": true}));
        let (status, body) = get(&outside, node, "/livez?verbose").await;
        assert_eq!(status, 200);
        assert_eq!(read(&body), json!({"lastUpdated": NOW, "currentTime": NOW}));
    }
    assert_eq!(get(&outside, NODE_1, "/metrics").await, (404, "404 page not found\n".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_about_to_go_is_not_healthy_though_its_proxy_lives() {
    let (net, _nodes, outside) = nodes().await;
    let cases = [
        node_1("{}", "{ taints: [{ key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule }] }"),
        node_1("{ deletionTimestamp: '2026-01-01T00:00:00Z' }", "{}"),
    ];
    for going in cases {
        net.nodes.apply(going);
        let (status, body) = get(&outside, NODE_1, "/healthz").await;
        assert_eq!((status, &read(&body)["nodeEligible"]), (503, &json!(false)));
        assert_eq!(get(&outside, NODE_1, "/livez").await.0, 200);
        assert_eq!(get(&outside, NODE_2, "/healthz").await.0, 200, "the other stays");
        net.nodes.apply(node_1("{}", "{}"));
        assert_eq!(get(&outside, NODE_1, "/healthz").await.0, 200, "and it may think better of it");
    }
    net.nodes.apply(node_1("{}", "{ taints: [{ key: node.kubernetes.io/unschedulable, effect: NoSchedule }] }"));
    assert_eq!(get(&outside, NODE_1, "/healthz").await.0, 200, "a cordoned node serves on");
}

#[tokio::test(start_paused = true)]
async fn a_port_10256_that_a_program_of_the_node_has_is_served_when_it_is_free() {
    let net = net().await;
    let node = net.host(NODE_1);
    let taken = node.tcp_listen(10256).expect("free");
    tokio::spawn(net.proxy.serve_node_health(vec![node], Timestamp::default));
    tokio::task::yield_now().await;
    drop(taken);
    let outside = net.host("203.0.113.7");
    while outside.tcp_connect(at(&format!("{NODE_1}:10256"))).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(get(&outside, NODE_1, "/livez").await.0, 200);
}
