//! How long conntrack remembers.

use crate::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn expects_expiry(network: &Network, after: u64) {
    // What is still under way, such as a last ACK, may arrive.
    tokio::time::sleep(seconds(1)).await;
    let flows = network.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    tokio::time::sleep(seconds(after) - flows[0].idle - seconds(1)).await;
    assert_eq!(network.flows().len(), 1, "too early");
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(network.flows().len(), 0, "too late");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_datagram_is_remembered_for_30_seconds() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, _server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    expects_expiry(&network, 30).await;
}

#[tokio::test(start_paused = true)]
async fn an_answered_udp_flow_is_remembered_for_120_seconds() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    for _ in 0..3 {
        client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
        let (_, peer) = server.recv_from(&mut [0]).await.unwrap();
        server.send_to(b"!", peer).await.unwrap();
        tokio::time::sleep(seconds(100)).await;
    }
    expects_expiry(&network, 120).await;
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_syn_is_remembered_for_120_seconds() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let _silent = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    tokio::time::timeout(seconds(1), a.tcp_connect(at("10.0.0.2:80"))).await.unwrap_err();
    expects_expiry(&network, 120).await;
}

#[tokio::test(start_paused = true)]
async fn an_established_connection_is_remembered_for_a_day() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stream).await;
    expects_expiry(&network, 24 * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_remembered_for_10_seconds() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    echo(&a, "10.0.0.2:80").await.unwrap();
    tokio::task::yield_now().await;
    expects_expiry(&network, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_remembered_for_10_seconds() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    a.tcp_connect(at("10.0.0.2:80")).await.unwrap_err();
    expects_expiry(&network, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_flow_is_remembered_for_30_seconds() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, pass, |_| Verdict::Drop(FORBIDDEN));
    a.udp_bind(0).unwrap().send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    expects_expiry(&network, 30).await;
}

#[tokio::test(start_paused = true)]
async fn the_fast_profile_forgets_in_seconds_also_what_is_there_already() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, _server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    network.set_timeouts(netstack::Timeouts::fast());
    assert_eq!(network.flows().len(), 1);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(network.flows().len(), 0);
    serve(&b, 80);
    let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stream).await;
    expects_expiry(&network, 60).await;
}
