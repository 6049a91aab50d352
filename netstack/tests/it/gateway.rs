//! The gateway to the operating system's sockets. Loopback only; no paused clock, since the kernel does not follow it.

use crate::*;
use netstack::{Gateway, GatewayConfig};
use std::io::ErrorKind;

const LOOPBACK: &str = "172.18.0.254";

fn gateway(network: &Network) -> Gateway {
    network
        .attach_gateway(GatewayConfig {
            addresses: vec![ip("172.18.0.1")],
            aliases: vec![(ip(LOOPBACK), ip("127.0.0.1"))],
            inside: vec![(ip("10.0.0.0"), 8), (ip("172.18.0.0"), 16)],
            forward: false,
        })
        .unwrap()
}

fn outside(port: u16) -> SocketAddr {
    SocketAddr::new(ip(LOOPBACK), port)
}

#[tokio::test]
async fn a_host_reaches_a_server_of_the_operating_system_by_an_alias() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = String::new();
        stream.read_to_string(&mut question).await.unwrap();
        stream.write_all(&vec![7; 1 << 20]).await.unwrap();
        question
    });
    let mut stream = a.tcp_connect(outside(port)).await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(server.await.unwrap(), "question", "half-close goes through");
    assert!(answer == vec![7; 1 << 20]);
    assert_eq!(network.flows()[0].to, PortTag(0));
}

#[tokio::test]
async fn a_closed_port_outside_refuses() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    assert_eq!(a.tcp_connect(outside(port)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_reset_outside_is_a_reset_inside() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = a.tcp_connect(outside(port)).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    accepted.set_zero_linger().unwrap();
    drop(accepted);
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn datagrams_go_out_and_their_answers_come_back() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let client = a.udp_bind(0).unwrap();
    let mut buffer = [0; 16];
    for _ in 0..3 {
        client.send_to(b"question", outside(port)).await.unwrap();
        let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"answer", peer).await.unwrap();
        assert_eq!(client.recv_from(&mut buffer).await.unwrap(), (6, outside(port)));
    }
}

#[tokio::test]
async fn a_closed_udp_port_outside_is_reported_inside() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    let port = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let client = a.udp_bind(0).unwrap();
    client.send_to(b"?", outside(port)).await.unwrap();
    assert_eq!(client.recv_from(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn the_gateway_s_host_dials_in_and_listens() {
    let network = network();
    let (a, gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    serve(&a, 80);
    serve(&gateway.host(), 6443);
    assert!(echo(&gateway.host(), "10.0.0.1:80").await.unwrap().starts_with("172.18.0.1:"));
    assert!(echo(&a, "172.18.0.1:6443").await.unwrap().starts_with("10.0.0.1:"));
    a.ping(ip("172.18.0.1"), 0, SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_virtual_address_may_lead_outside_and_the_filter_sees_the_gateway_s_tag() {
    let network = network();
    let (a, _gateway) = (host(&network, "10.0.0.1"), gateway(&network));
    install(&network, dnat("10.96.0.1:443", "172.18.0.254:6443", None), |flow| {
        assert_eq!(flow.to, PortTag(0));
        Verdict::Reject(FORBIDDEN)
    });
    assert_eq!(a.tcp_connect(at("10.96.0.1:443")).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn what_is_inside_is_never_forwarded() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let _gateway = network
        .attach_gateway(GatewayConfig {
            addresses: vec![ip("172.18.0.1")],
            aliases: vec![],
            inside: vec![(ip("10.0.0.0"), 8)],
            forward: true,
        })
        .unwrap();
    assert_eq!(a.tcp_connect(at("10.9.9.9:80")).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(network.drops().iter().all(|(reason, _)| reason.0 == "NO_ROUTE"), "{:?}", network.drops());
}

#[tokio::test(start_paused = true)]
async fn there_is_one_gateway_and_its_place_is_free_when_it_has_gone() {
    let network = network();
    let first = gateway(&network);
    assert!(
        network
            .attach_gateway(GatewayConfig { addresses: vec![], aliases: vec![], inside: vec![], forward: false })
            .is_err()
    );
    drop(first);
    gateway(&network);
}
