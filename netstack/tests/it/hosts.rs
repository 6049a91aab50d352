//! Attaching, pinging, loopback, leaving.

use crate::*;
use netstack::AttachError;
use std::io::ErrorKind;

#[tokio::test(start_paused = true)]
async fn two_hosts_talk_tcp() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let peer = echo(&a, "10.0.0.2:80").await.unwrap();
    assert!(peer.starts_with("10.0.0.1:"), "{peer}");
}

#[tokio::test(start_paused = true)]
async fn two_hosts_talk_tcp_over_ipv6() {
    let network = network();
    let (a, b) = (host(&network, "fd00::1"), host(&network, "fd00::2"));
    serve(&b, 80);
    let peer = echo(&a, "[fd00::2]:80").await.unwrap();
    assert!(peer.starts_with("[fd00::1]:"), "{peer}");
}

#[tokio::test(start_paused = true)]
async fn a_host_reaches_itself_by_loopback_and_by_its_own_address() {
    let network = network();
    let a = network.attach_host(&[ip("10.0.0.1"), ip("fd00::1")], PortTag(1)).unwrap();
    serve(&a, 80);
    for address in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "10.0.0.1:80", "[fd00::1]:80", "0.0.0.0:80"] {
        echo(&a, address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    assert!(network.flows().is_empty(), "loopback is nobody's business");
}

#[tokio::test(start_paused = true)]
async fn loopback_of_one_host_is_not_another_s() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let refused = a.tcp_connect(at("127.0.0.1:80")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn hosts_answer_pings() {
    let network = network();
    let a = network.attach_host(&[ip("10.0.0.1"), ip("fd00::1")], PortTag(1)).unwrap();
    let _b = network.attach_host(&[ip("10.0.0.2"), ip("fd00::2")], PortTag(2)).unwrap();
    for address in ["10.0.0.2", "fd00::2", "127.0.0.1", "10.0.0.1"] {
        a.ping(ip(address), 56, SOON).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    assert_eq!(a.ping(ip("10.0.0.3"), 56, SOON).await.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn an_address_belongs_to_one_port() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let error = network.attach_raw(&[ip("10.0.0.1")], PortTag(2)).unwrap_err();
    assert!(matches!(error, AttachError::AddressInUse(taken) if taken == ip("10.0.0.1")));
    drop(a);
    network.attach_raw(&[ip("10.0.0.1")], PortTag(2)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_lives_as_long_as_its_sockets() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    drop(b);
    let (client, server) = tokio::join!(a.tcp_connect(at("10.0.0.2:80")), listener.accept());
    drop((client.unwrap(), server.unwrap(), listener));
    host(&network, "10.0.0.2");
}

#[tokio::test(start_paused = true)]
async fn shutdown_fails_the_host_s_sockets_and_leaves_its_peers_without_answer() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let socket = b.udp_bind(53).unwrap();
    let (client, server) = tokio::join!(a.tcp_connect(at("10.0.0.2:80")), listener.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    b.shutdown();
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(socket.recv_from(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(b.tcp_connect(at("10.0.0.1:80")).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    client.write_all(b"anybody there?").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn an_address_can_be_taken_again_at_once_after_shutdown() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let old = host(&network, "10.0.0.2");
    serve(&old, 80);
    let mut stale = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stale).await;
    old.shutdown();
    let new = host(&network, "10.0.0.2");
    serve(&new, 80);
    echo(&a, "10.0.0.2:80").await.unwrap();
    // The old connection's segments reach the new host, which does not know them.
    stale.write_all(b"x").await.unwrap();
    assert_eq!(stale.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn stopping_the_network_ends_everything() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let mut tap = network.tap(None);
    let accept = tokio::spawn(async move { listener.accept().await.map(|_| ()) });
    tokio::task::yield_now().await;
    network.stop();
    assert_eq!(accept.await.unwrap().unwrap_err().kind(), ErrorKind::NetworkDown);
    assert!(tap.next().await.is_none());
    assert!(a.tcp_connect(at("10.0.0.2:80")).await.is_err());
    assert!(matches!(network.attach_host(&[ip("10.0.0.9")], PortTag(9)), Err(AttachError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_network_with_it() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let network = network();
    let a = host(&network, "10.0.0.1");
    drop(network);
    serve(&a, 80).abort();
    a.ping(ip("127.0.0.1"), 0, SOON).await.unwrap();
    drop(a);
    while metrics.num_alive_tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_refused_and_a_free_one_is_found() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let listener = a.tcp_listen(80).unwrap();
    assert_eq!(a.tcp_listen(80).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_ne!(a.tcp_listen(0).unwrap().local_port(), 0);
    drop(listener);
    a.tcp_listen(80).unwrap();
    let socket = a.udp_bind(80).unwrap();
    assert_eq!(a.udp_bind(80).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(socket);
    a.udp_bind(80).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_without_ipv6_cannot_dial_it() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let error = a.tcp_connect(at("[fd00::2]:80")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn it_works_across_the_threads_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let network = network();
        let b = host(&network, "10.0.0.100");
        serve(&b, 80);
        let clients = (1..9).map(|i| {
            let a = host(&network, &format!("10.0.0.{i}"));
            tokio::spawn(async move {
                for _ in 0..50 {
                    echo(&a, "10.0.0.100:80").await.unwrap();
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
}

#[test]
fn hosts_may_come_and_go_under_load_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let network = network();
        let server = host(&network, "10.0.0.100");
        serve(&server, 80);
        let clients = (1..9).map(|i| {
            let network = network.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let a = host(&network, &format!("10.0.0.{i}"));
                    let mut stream = a.tcp_connect(at("10.0.0.100:80")).await.unwrap();
                    stream.write_all(&vec![7; 300_000]).await.unwrap();
                    if round % 2 == 0 {
                        a.shutdown();
                    }
                    drop(stream);
                    while let Err(AttachError::AddressInUse(_)) =
                        network.attach_host(&a.addresses(), PortTag(0)).map(|host| host.shutdown())
                    {
                        a.shutdown();
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        network.stop();
    });
}

#[test]
fn every_handle_may_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Network>();
    check::<Host>();
    check::<TcpStream>();
    check::<netstack::TcpListener>();
    check::<netstack::UdpSocket>();
    check::<netstack::Gateway>();
    check::<netstack::RawPort>();
    check::<netstack::Tap>();
}
