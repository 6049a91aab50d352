//! Datagrams.

use crate::*;
use std::io::ErrorKind;

#[tokio::test(start_paused = true)]
async fn datagrams_arrive_whole_whatever_their_size() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    let mut buffer = vec![0; 70_000];
    for length in [0, 1, 512, 1472, 1473, 9000, 65_507] {
        let payload = vec![7; length];
        client.send_to(&payload, at("10.0.0.2:53")).await.unwrap();
        let (received, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((received, from.port()), (length, client.local_port()));
        assert_eq!(buffer[..received], payload);
    }
    let error = client.send_to(&[0; 65_508], at("10.0.0.2:53")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_closed_udp_port_is_reported_to_the_sender() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let client = a.udp_bind(0).unwrap();
    client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    assert_eq!(client.recv_from(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    assert_eq!(client.send_to(b"?", at("10.0.0.2:53")).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_two_addresses_answers_from_the_one_it_was_asked_at() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let b = network.attach_host(&[ip("10.0.0.2"), ip("10.0.0.3")], PortTag(2)).unwrap();
    let (client, server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    let mut buffer = [0; 9];
    for address in ["10.0.0.3:53", "10.0.0.2:53"] {
        client.send_to(b"?", at(address)).await.unwrap();
        let (_, from) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(b"!", from).await.unwrap();
        assert_eq!(client.recv_from(&mut buffer).await.unwrap().1, at(address));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_receive_buffer_drops_and_counts() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    for _ in 0..10_000 {
        client.send_to(&[0; 100], at("10.0.0.2:53")).await.unwrap();
    }
    let mut received = 0u64;
    while tokio::time::timeout(SOON, server.recv_from(&mut [0; 100])).await.is_ok() {
        received += 1;
    }
    let dropped = network.drops().iter().find(|(reason, _)| reason.0 == "UDP_BUFFER_FULL").unwrap().1;
    assert!(received >= 256, "{received}");
    assert_eq!(received + dropped, 10_000);
}
