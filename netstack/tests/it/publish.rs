//! Sockets of the operating system whose clients are carried inside. Loopback only; no paused clock, since the kernel does not
//! follow it.

use crate::*;
use std::io::ErrorKind;
use tokio::net;

/// A host that carries clients of a TCP port of the machine to `inside`; where to connect.
async fn published(from: &Host, inside: &str) -> SocketAddr {
    let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outside = listener.local_addr().unwrap();
    let (from, inside) = (from.clone(), at(inside));
    tokio::spawn(async move { from.publish_tcp(listener, inside).await });
    outside
}

async fn published_udp(from: &Host, inside: &str) -> SocketAddr {
    let socket = net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outside = socket.local_addr().unwrap();
    let (from, inside) = (from.clone(), at(inside));
    tokio::spawn(async move { from.publish_udp(socket, inside).await });
    outside
}

#[tokio::test]
async fn a_client_of_the_machine_is_carried_inside_half_close_included() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let outside = published(&a, "10.0.0.2:80").await;
    for _ in 0..3 {
        let mut client = net::TcpStream::connect(outside).await.unwrap();
        client.write_all(&vec![7; 1 << 20]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let line = answer.iter().position(|byte| *byte == b'\n').unwrap();
        assert!(answer.starts_with(b"10.0.0.1:"), "the server sees the host that carries");
        assert!(answer[line + 1..] == vec![7; 1 << 20]);
    }
}

#[tokio::test]
async fn a_refusal_inside_is_a_reset_outside() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let outside = published(&a, "10.0.0.2:80").await;
    let mut client = net::TcpStream::connect(outside).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_that_is_reset_on_one_side_is_reset_on_the_other() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let outside = published(&a, "10.0.0.2:80").await;
    let client = net::TcpStream::connect(outside).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_end_with_the_port_that_carries_them() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outside = listener.local_addr().unwrap();
    let carrying = tokio::spawn(async move { a.publish_tcp(listener, at("10.0.0.2:80")).await });
    let mut client = net::TcpStream::connect(outside).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'1', "the greeting begins");
    carrying.abort();
    let _ = carrying.await;
    let mut rest = Vec::new();
    // FIN or RST: it is over.
    let _ = client.read_to_end(&mut rest).await;
    assert!(net::TcpListener::bind(outside).await.is_ok(), "the port is free");
}

#[tokio::test]
async fn datagrams_of_many_clients_are_carried_and_each_gets_its_own_answer() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let server = b.udp_bind(53).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        loop {
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    let outside = published_udp(&a, "10.0.0.2:53").await;
    // More than are remembered at one time: the oldest give way, and come back when they speak again.
    let mut clients = Vec::new();
    for number in 0..1100_u32 {
        let client = net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(outside).await.unwrap();
        ask(&client, number).await;
        if number.is_multiple_of(100) {
            clients.push(client);
        }
    }
    for (number, client) in (0..).zip(&clients) {
        ask(client, number).await;
    }
}

/// Asks until the answer is there: the machine's own UDP may lose what it likes.
async fn ask(client: &net::UdpSocket, number: u32) {
    let mut buffer = [0; 16];
    for _ in 0..50 {
        client.send(&number.to_be_bytes()).await.unwrap();
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await {
            assert_eq!(buffer[..received.unwrap()], number.to_be_bytes());
            return;
        }
    }
    panic!("client {number} was never answered");
}
