//! DNAT, SNAT, replies, hairpins, refusal by the translation.

use crate::*;
use netstack::Protocol;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const VIRTUAL: &str = "10.96.0.1:80";

#[tokio::test(start_paused = true)]
async fn dnat_is_reversed_on_replies() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat(VIRTUAL, "10.0.0.2:8080", None), accept);
    serve(&b, 8080);
    let peer = echo(&a, VIRTUAL).await.unwrap();
    assert!(peer.starts_with("10.0.0.1:"), "the client's address is preserved: {peer}");
    let flow = &network.flows()[0];
    assert_eq!((flow.original.dst, flow.translated.dst), (at(VIRTUAL), at("10.0.0.2:8080")));
    assert_eq!((flow.from, flow.to, flow.dropped), (PortTag(1), PortTag(2), None));
    assert!(flow.packets[0] > 3 && flow.packets[1] > 2, "{flow:?}");
}

#[tokio::test(start_paused = true)]
async fn dnat_is_reversed_on_replies_over_ipv6() {
    let network = network();
    let (a, b) = (host(&network, "fd00::1"), host(&network, "fd00::2"));
    install(&network, dnat("[fd00:96::1]:80", "[fd00::2]:8080", None), accept);
    serve(&b, 8080);
    echo(&a, "[fd00:96::1]:80").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_destination_sees_the_snat_address() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat(VIRTUAL, "10.0.0.2:8080", Some("172.18.0.2")), accept);
    serve(&b, 8080);
    let peer = echo(&a, VIRTUAL).await.unwrap();
    assert!(peer.starts_with("172.18.0.2:"), "{peer}");
}

#[tokio::test(start_paused = true)]
async fn a_hairpin_works_with_and_without_snat() {
    for (snat, seen) in [(Some("172.18.0.2"), "172.18.0.2:"), (None, "10.0.0.1:")] {
        let network = network();
        let a = host(&network, "10.0.0.1");
        install(&network, dnat(VIRTUAL, "10.0.0.1:8080", snat), accept);
        serve(&a, 8080);
        let peer = echo(&a, VIRTUAL).await.unwrap();
        assert!(peer.starts_with(seen), "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn udp_is_translated_both_ways() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:5353", None), accept);
    let (client, server) = (a.udp_bind(0).unwrap(), b.udp_bind(5353).unwrap());
    let mut buffer = [0; 16];
    client.send_to(b"question", at("10.96.0.10:53")).await.unwrap();
    let (_, peer) = server.recv_from(&mut buffer).await.unwrap();
    assert_eq!(peer, SocketAddr::new(ip("10.0.0.1"), client.local_port()));
    server.send_to(b"answer", peer).await.unwrap();
    assert_eq!(client.recv_from(&mut buffer).await.unwrap(), (6, at("10.96.0.10:53")));
}

#[tokio::test(start_paused = true)]
async fn reject_is_refused_at_once() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    install(&network, |_| Translation::Reject(Reason("NOBODY_BEHIND")), accept);
    let start = Instant::now();
    assert_eq!(a.tcp_connect(at(VIRTUAL)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let socket = a.udp_bind(0).unwrap();
    socket.send_to(b"?", at(VIRTUAL)).await.unwrap();
    assert_eq!(socket.recv_from(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(network.drops(), [(Reason("NOBODY_BEHIND"), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_dropping_translation_is_asked_again_for_every_packet() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 8080);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    install(
        &network,
        move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Translation::Drop(Reason("NOT_YET")),
            _ => to("10.0.0.2:8080", None),
        },
        accept,
    );
    // The third SYN, three seconds later, finds the destination.
    let start = Instant::now();
    echo(&a, VIRTUAL).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(asked.load(Ordering::Relaxed), 3, "and then the flow is known");
}

#[tokio::test(start_paused = true)]
async fn established_tcp_survives_a_changed_translation() {
    let network = network();
    let (a, b, c) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"), host(&network, "10.0.0.3"));
    for host in [&b, &c] {
        serve(host, 8080);
    }
    install(&network, dnat(VIRTUAL, "10.0.0.2:8080", None), accept);
    let mut old = a.tcp_connect(at(VIRTUAL)).await.unwrap();
    greeting(&mut old).await;
    install(&network, dnat(VIRTUAL, "10.0.0.3:8080", None), accept);
    old.write_all(b"x").await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), b'x');
    echo(&a, VIRTUAL).await.unwrap();
    let mut destinations: Vec<_> = network.flows().iter().map(|flow| flow.translated.dst).collect();
    destinations.sort();
    assert_eq!(destinations, [at("10.0.0.2:8080"), at("10.0.0.3:8080")]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_udp_flow_is_translated_anew() {
    let network = network();
    let (a, b, c) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"), host(&network, "10.0.0.3"));
    let (client, old, new) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap(), c.udp_bind(53).unwrap());
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:53", None), accept);
    client.send_to(b"1", at("10.96.0.10:53")).await.unwrap();
    install(&network, dnat("10.96.0.10:53", "10.0.0.3:53", None), accept);
    client.send_to(b"2", at("10.96.0.10:53")).await.unwrap();
    network.retain_udp_flows(|flow| flow.translated.dst != at("10.0.0.2:53"));
    client.send_to(b"3", at("10.96.0.10:53")).await.unwrap();
    let mut buffer = [0];
    for (socket, expected) in [(&old, b"1"), (&old, b"2"), (&new, b"3")] {
        socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_udp_flow_to_a_host_that_has_gone_is_translated_anew() {
    let network = network();
    let (a, b, c) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"), host(&network, "10.0.0.3"));
    let (client, _old, server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap(), c.udp_bind(53).unwrap());
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:53", None), accept);
    client.send_to(b"1", at("10.96.0.10:53")).await.unwrap();
    install(&network, dnat("10.96.0.10:53", "10.0.0.3:53", None), accept);
    b.shutdown();
    client.send_to(b"2", at("10.96.0.10:53")).await.unwrap();
    assert_eq!(server.recv_from(&mut [0]).await.unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn icmp_errors_are_translated_with_the_flow_they_speak_of() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:5353", Some("172.18.0.2")), accept);
    let client = a.udp_bind(0).unwrap();
    // Nobody listens at the destination: the client learns it of the address it knows.
    client.send_to(b"?", at("10.96.0.10:53")).await.unwrap();
    assert_eq!(client.recv_from(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    client.send_to(b"?", at("10.96.0.10:53")).await.unwrap();
    let again = client.send_to(b"?", at("10.96.0.10:53")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn echo_is_translated_by_address() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(
        &network,
        |flow| match flow.protocol {
            Protocol::Icmp if flow.dst == at("10.96.0.1:0") => to("10.0.0.2:0", Some("172.18.0.2")),
            _ => Translation::Pass,
        },
        accept,
    );
    a.ping(ip("10.96.0.1"), 56, SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_that_share_an_snat_address_and_a_port_are_told_apart() {
    let network = network();
    let b = host(&network, "10.0.1.1");
    install(&network, dnat("10.96.0.10:53", "10.0.1.1:53", Some("172.18.0.2")), accept);
    let server = b.udp_bind(53).unwrap();
    let mut clients = Vec::new();
    for i in 1..=50 {
        let socket = host(&network, &format!("10.0.0.{i}")).udp_bind(4000).unwrap();
        socket.send_to(&[i], at("10.96.0.10:53")).await.unwrap();
        clients.push(socket);
    }
    let mut ports = std::collections::HashSet::new();
    let mut buffer = [0];
    for _ in 1..=50 {
        let (_, peer) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(peer.ip(), ip("172.18.0.2"));
        assert!(ports.insert(peer.port()), "port {} twice", peer.port());
        server.send_to(&buffer, peer).await.unwrap();
    }
    for (index, socket) in clients.iter().enumerate() {
        assert_eq!(socket.recv_from(&mut buffer).await.unwrap(), (1, at("10.96.0.10:53")));
        assert_eq!(usize::from(buffer[0]), index + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_snat_ports_are_taken_new_flows_are_refused_at_once_and_old_ones_live() {
    let network = network();
    let server = host(&network, "10.1.0.1").udp_bind(53).unwrap();
    install(&network, dnat("10.96.0.10:53", "10.1.0.1:53", Some("172.18.0.2")), accept);
    let first = host(&network, "10.2.0.1").udp_bind(4000).unwrap();
    first.send_to(b"1", at("10.96.0.10:53")).await.unwrap();
    let (_, first_seen) = server.recv_from(&mut [0; 8]).await.unwrap();
    // Raw ports make many flows quickly: one datagram from each of 65,000 source ports.
    let raw = network.attach_raw(&[ip("10.2.0.2")], PortTag(7)).unwrap();
    for port in 1..=u16::MAX {
        raw.send(&crate::raw::udp("10.2.0.2", port, "10.96.0.10", 53, b"x"));
    }
    let exhausted = |network: &Network| {
        network.drops().iter().find(|(reason, _)| reason.0 == "SNAT_PORTS_EXHAUSTED").map_or(0, |(_, count)| *count)
    };
    let before = exhausted(&network);
    while tokio::time::timeout(Duration::from_millis(1), server.recv_from(&mut [0])).await.is_ok() {}
    first.send_to(b"2", at("10.96.0.10:53")).await.unwrap();
    let late = host(&network, "10.2.0.3").udp_bind(4000).unwrap();
    late.send_to(b"3", at("10.96.0.10:53")).await.unwrap();
    assert_eq!(exhausted(&network), before + 1);
    assert_eq!(late.recv_from(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut buffer = [0];
    while let Ok(Ok((_, peer))) = tokio::time::timeout(SOON, server.recv_from(&mut buffer)).await {
        if buffer == *b"2" {
            assert_eq!(peer, first_seen);
            return;
        }
    }
    panic!("the old flow was lost");
}

#[tokio::test(start_paused = true)]
async fn snat_ports_of_connections_that_are_over_are_used_again_and_of_others_are_not() {
    use crate::raw::{next, segment, tcp};
    use smoltcp::wire::TcpControl::{Rst, Syn};
    let network = network();
    let mut server = network.attach_raw(&[ip("10.1.0.1")], PortTag(1)).unwrap();
    install(&network, dnat("10.96.0.1:80", "10.1.0.1:80", Some("172.18.0.2")), accept);
    // So many connections as one address that no port is left: first all alive, then all reset.
    let raw = network.attach_raw(&[ip("10.2.0.2")], PortTag(7)).unwrap();
    let client = host(&network, "10.2.0.3");
    for port in 1..=u16::MAX {
        raw.send(&tcp("10.2.0.2", "10.96.0.1", segment(port, 80, Syn, 1, None)));
        next(&mut server).await;
    }
    let refused = client.tcp_connect(at("10.96.0.1:80")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::HostUnreachable);
    for port in 1..=u16::MAX {
        raw.send(&tcp("10.2.0.2", "10.96.0.1", segment(port, 80, Rst, 2, None)));
        next(&mut server).await;
    }
    tokio::spawn(async move { client.tcp_connect(at("10.96.0.1:80")).await });
    let syn = next(&mut server).await;
    assert_eq!(syn[12..16], [172, 18, 0, 2], "it is let in");
    let taken = u16::from_be_bytes([syn[20], syn[21]]);
    let sharing = network.flows().into_iter().filter(|flow| flow.translated.src.port() == taken).count();
    assert_eq!(sharing, 1, "the one that was over has been forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_direct_flow_and_a_translated_one_to_the_same_destination_do_not_mix() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:53", None), accept);
    let (client, server) = (a.udp_bind(4000).unwrap(), b.udp_bind(53).unwrap());
    let mut buffer = [0];
    for target in ["10.96.0.10:53", "10.0.0.2:53"] {
        client.send_to(b"?", at(target)).await.unwrap();
        let (_, peer) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(b"!", peer).await.unwrap();
        assert_eq!(client.recv_from(&mut buffer).await.unwrap().1, at(target));
    }
}

#[tokio::test(start_paused = true)]
async fn a_syn_that_nobody_answers_is_translated_anew_when_its_destination_goes() {
    let network = network();
    let (a, c) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.3"));
    let silent = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    serve(&c, 8080);
    let moved = Arc::new(AtomicBool::new(false));
    let is_moved = moved.clone();
    install(
        &network,
        move |_| to(if is_moved.load(Ordering::Relaxed) { "10.0.0.3:8080" } else { "10.0.0.2:8080" }, None),
        accept,
    );
    let client = tokio::spawn(async move { echo(&a, VIRTUAL).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    moved.store(true, Ordering::Relaxed);
    drop(silent);
    client.await.unwrap().unwrap();
}
