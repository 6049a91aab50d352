//! The health check ports of nodes, as a load balancer asks them: chapter 5.12 of the reference of semantics.

use crate::network::{Net, net};
use crate::support::{NODE_1, NODE_2, cluster, external_web, slice, slice_with_ports};
use k8s_openapi::api::core::v1::Service;
use netstack::Host;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn checked() -> Service {
    external_web(", externalTrafficPolicy: Local, healthCheckNodePort: 30999")
}

fn name() -> proxy::ServiceName {
    proxy::ServiceName { namespace: "default".into(), name: "web".into() }
}

fn at(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// A network with hosts at the nodes' addresses that answer health checks, and a client outside.
async fn nodes() -> (Net, Vec<Host>, Host) {
    let net = net().await;
    let nodes: Vec<Host> = [NODE_1, NODE_2].map(|address| net.host(address)).into();
    tokio::spawn(net.proxy.serve_health_checks(nodes.clone()));
    let outside = net.host("203.0.113.7");
    (net, nodes, outside)
}

/// Status, weight and body of the answer; waits for the port to open.
async fn get(client: &Host, node: &str, path: &str) -> (u16, String, String) {
    let answer = loop {
        match ask(client, node, &format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")).await {
            Ok(answer) => break answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    let header = |wanted: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned()).next()
    };
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, header("x-load-balancing-endpoint-weight").unwrap_or_default(), body.to_owned())
}

async fn ask(client: &Host, node: &str, request: &str) -> std::io::Result<String> {
    let mut stream = client.tcp_connect(format!("{node}:30999").parse().expect("an address")).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(start_paused = true)]
async fn rule_5_12_a_node_with_ready_endpoints_is_healthy_and_says_how_many_it_has() {
    let (net, _nodes, outside) = nodes().await;
    let endpoints = ["10.244.1.2@node-1", "10.244.1.3@node-1", "10.244.1.4@node-1 notready", "10.244.2.2@node-2"];
    net.apply(checked(), &[slice("web", "web-1", &endpoints)]).await;
    let (status, weight, body) = get(&outside, NODE_1, "/").await;
    assert_eq!((status, weight.as_str()), (200, "2"));
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        body,
        serde_json::json!({
            "service": { "namespace": "default", "name": "web" }, "localEndpoints": 2, "serviceProxyHealthy": true,
        })
    );
    assert_eq!(get(&outside, NODE_2, "/any/path?at=all").await.1, "1");
}

#[tokio::test(start_paused = true)]
async fn rule_5_12_a_node_without_a_ready_endpoint_answers_503_even_if_one_still_serves() {
    let (net, _nodes, outside) = nodes().await;
    net.apply(checked(), &[slice("web", "web-1", &["10.244.1.2@node-1 terminating"])]).await;
    for node in [NODE_1, NODE_2] {
        let (status, weight, body) = get(&outside, node, "/").await;
        assert_eq!((status, weight.as_str()), (503, "0"));
        assert!(body.contains("\"localEndpoints\": 0"), "{body}");
    }
    net.apply_slice(slice("web", "web-1", &["10.244.2.2@node-2"])).await;
    assert_eq!((get(&outside, NODE_1, "/").await.0, get(&outside, NODE_2, "/").await.0), (503, 200));
}

#[tokio::test(start_paused = true)]
async fn rule_5_12_the_port_opens_and_closes_with_the_service_that_has_it() {
    let (net, nodes, outside) = nodes().await;
    net.apply(checked(), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    assert_eq!(get(&outside, NODE_1, "/").await.0, 200);
    net.apply(external_web(""), &[]).await;
    while ask(&outside, NODE_1, "GET / HTTP/1.0\r\n\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = nodes[0].tcp_listen(30_999).expect("the port is free again");
    net.apply(checked(), &[]).await;
    assert_eq!(get(&outside, NODE_2, "/").await.0, 503);
    drop(taken);
    // A pod of the host's network had the port: it is tried again.
    assert_eq!(get(&outside, NODE_1, "/").await.0, 200);
}

#[test]
fn rule_5_12_an_endpoint_with_several_ports_counts_once_and_each_family_for_itself() {
    let mut service = checked();
    let spec = service.spec.as_mut().expect("a spec");
    spec.cluster_ips = Some(vec!["10.96.0.20".into(), "fd00::20".into()]);
    let ports = "[{ name: '', port: 8080 }, { name: other, port: 9090 }]";
    spec.ports.as_mut().expect("ports")[0].name = None;
    let slices = [
        slice_with_ports("web", "web-1", ports, &["10.244.1.2@node-1", "10.244.1.3@node-1"]),
        slice("web", "web-2", &["10.244.1.2@node-1", "10.244.2.2@node-2 terminating"]),
        slice("web", "web-6", &["fd00:244::2@node-1"]),
    ];
    let table = cluster(std::slice::from_ref(&service), &slices).translator.table();
    assert_eq!([NODE_1, NODE_2].map(|node| table.local_endpoints(&name(), at(node))), [Some(2), Some(0)]);
    assert_eq!(table.local_endpoints(&name(), at("10.244.1.2")), None, "no node's address");
    service.spec.as_mut().expect("a spec").health_check_node_port = None;
    assert_eq!(cluster(&[service], &slices).translator.table().local_endpoints(&name(), at(NODE_1)), None);
}
