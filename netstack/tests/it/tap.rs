//! Captures.

use crate::*;
use netstack::{Captured, Tap};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket, TcpRepr, UdpPacket, UdpRepr};

async fn everything(tap: &mut Tap) -> Vec<Captured> {
    let mut packets = Vec::new();
    while let Ok(Some(packet)) = tokio::time::timeout(Duration::from_millis(1), tap.next()).await {
        packets.push(packet);
    }
    packets
}

/// One line per packet; the checksums are verified on the way.
fn line(captured: &Captured) -> String {
    let ip = Ipv4Packet::new_checked(&captured.packet[..]).unwrap();
    assert!(ip.verify_checksum());
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    let capabilities = ChecksumCapabilities::default();
    let what = match ip.next_header() {
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(packet.verify_checksum(&src, &dst));
            let udp = UdpRepr::parse(&packet, &src, &dst, &capabilities).unwrap();
            format!("{src}:{} > {dst}:{} UDP {}", udp.src_port, udp.dst_port, packet.payload().len())
        }
        IpProtocol::Tcp => {
            let packet = TcpPacket::new_checked(ip.payload()).unwrap();
            let tcp = TcpRepr::parse(&packet, &src, &dst, &capabilities).unwrap();
            format!("{src} > {dst} {:?} {}", tcp.control, tcp.payload.len())
        }
        other => format!("{src} > {dst} {other}"),
    };
    match (captured.to, captured.dropped) {
        (Some(to), _) => format!("{} {} -> {}", what, captured.from.0, to.0),
        (None, Some(reason)) => format!("{} {} dropped: {}", what, captured.from.0, reason.0),
        (None, None) => what,
    }
}

fn lines(packets: &[Captured]) -> String {
    packets.iter().map(|packet| line(packet) + "\n").collect()
}

#[tokio::test(start_paused = true)]
async fn each_side_of_a_translation_sees_its_own_addresses() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat("10.96.0.10:53", "10.0.0.2:5353", Some("172.18.0.2")), accept);
    let mut taps = [network.tap(Some(PortTag(1))), network.tap(Some(PortTag(2))), network.tap(None)];
    let (client, server) = (a.udp_bind(4000).unwrap(), b.udp_bind(5353).unwrap());
    client.send_to(b"question", at("10.96.0.10:53")).await.unwrap();
    let (_, peer) = server.recv_from(&mut [0; 16]).await.unwrap();
    server.send_to(b"answer", peer).await.unwrap();
    let mut seen = Vec::new();
    for tap in &mut taps {
        seen.push(lines(&everything(tap).await));
    }
    expect_test::expect![[r#"
        10.0.0.1:4000 > 10.96.0.10:53 UDP 8 1 -> 2
        10.96.0.10:53 > 10.0.0.1:4000 UDP 6 2 -> 1
    "#]]
    .assert_eq(&seen[0]);
    expect_test::expect![[r#"
        172.18.0.2:4000 > 10.0.0.2:5353 UDP 8 1 -> 2
        10.0.0.2:5353 > 172.18.0.2:4000 UDP 6 2 -> 1
    "#]]
    .assert_eq(&seen[1]);
    expect_test::expect![[r#"
        172.18.0.2:4000 > 10.0.0.2:5353 UDP 8 1 -> 2
        10.96.0.10:53 > 10.0.0.1:4000 UDP 6 2 -> 1
    "#]]
    .assert_eq(&seen[2]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_captured_from_syn_to_fin() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let mut tap = network.tap(Some(PortTag(1)));
    serve(&b, 80);
    echo(&a, "10.0.0.2:80").await.unwrap();
    let lines = lines(&everything(&mut tap).await);
    assert!(lines.starts_with("10.0.0.1 > 10.0.0.2 Syn 0 1 -> 2\n10.0.0.2 > 10.0.0.1 Syn 0 2 -> 1\n"), "{lines}");
    assert!(lines.contains("10.0.0.1 > 10.0.0.2 Psh 5 1 -> 2\n"), "{lines}");
    assert_eq!(lines.matches(" Fin ").count(), 2, "{lines}");
}

#[tokio::test(start_paused = true)]
async fn dropped_packets_are_captured_with_the_reason() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, pass, |_| Verdict::Drop(FORBIDDEN));
    let mut tap = network.tap(None);
    let client = a.udp_bind(4000).unwrap();
    client.send_to(b"x", at("10.0.0.2:53")).await.unwrap();
    client.send_to(b"x", at("10.0.0.3:53")).await.unwrap();
    expect_test::expect![[r#"
        10.0.0.1:4000 > 10.0.0.2:53 UDP 1 1 dropped: FORBIDDEN
        10.0.0.1:4000 > 10.0.0.3:53 UDP 1 1 dropped: NO_ROUTE
    "#]]
    .assert_eq(&lines(&everything(&mut tap).await));
}

#[tokio::test(start_paused = true)]
async fn a_capture_that_nobody_reads_is_bounded_and_counts_what_it_lost() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let (client, _server) = (a.udp_bind(0).unwrap(), b.udp_bind(53).unwrap());
    let mut tap = network.tap(None);
    for _ in 0..500 {
        client.send_to(&[0; 60_000], at("10.0.0.2:53")).await.unwrap();
    }
    assert!(tap.lost() > 200, "{}", tap.lost());
    assert_eq!(everything(&mut tap).await.len() as u64 + tap.lost(), 500);
}
