//! Ports without a stack, and garbage.

use crate::*;
use bytes::Bytes;
use netstack::RawPort;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};

fn v4(text: &str) -> std::net::Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn ipv4(
    from: &str,
    to: &str,
    protocol: IpProtocol,
    payload: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = IpRepr::Ipv4(Ipv4Repr {
        src_addr: v4(from),
        dst_addr: v4(to),
        next_header: protocol,
        payload_len: payload,
        hop_limit: 64,
    });
    let mut packet = vec![0; 20 + payload];
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    fill(&mut packet[20..]);
    packet
}

/// A datagram with correct checksums.
pub(crate) fn udp(from: &str, from_port: u16, to: &str, to_port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from_port, dst_port: to_port };
    ipv4(from, to, IpProtocol::Udp, 8 + payload.len(), |bytes| {
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &IpAddress::Ipv4(v4(from)),
            &IpAddress::Ipv4(v4(to)),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// A TCP segment with correct checksums.
pub(crate) fn tcp(from: &str, to: &str, repr: TcpRepr<'_>) -> Vec<u8> {
    ipv4(from, to, IpProtocol::Tcp, repr.buffer_len(), |bytes| {
        repr.emit(
            &mut TcpPacket::new_unchecked(bytes),
            &IpAddress::Ipv4(v4(from)),
            &IpAddress::Ipv4(v4(to)),
            &ChecksumCapabilities::default(),
        );
    })
}

pub(crate) fn segment(
    from_port: u16,
    to_port: u16,
    control: TcpControl,
    seq: i32,
    ack: Option<i32>,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from_port,
        dst_port: to_port,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 65_535,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// Parses a packet as a kernel would, checksums included.
pub(crate) fn parse_tcp(packet: &[u8]) -> TcpRepr<'_> {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum(), "IPv4 header checksum");
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    let tcp = TcpPacket::new_checked(&packet[20..usize::from(ip.total_len())]).unwrap();
    TcpRepr::parse(&tcp, &src, &dst, &ChecksumCapabilities::default()).unwrap()
}

pub(crate) async fn next(port: &mut RawPort) -> Bytes {
    tokio::time::timeout(SOON, port.recv()).await.expect("a packet").unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_leaves_by_a_raw_port_has_complete_checksums_and_fits_the_mtu() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let mut raw = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", None), accept);
    let client = tokio::spawn(async move {
        let mut stream = a.tcp_connect(at("10.96.0.1:80")).await.unwrap();
        stream.write_all(&[7; 30_000]).await.unwrap();
        stream
    });
    let syn = next(&mut raw).await;
    let syn = parse_tcp(&syn);
    assert_eq!((syn.control, syn.dst_port, syn.max_seg_size), (TcpControl::Syn, 8080, Some(1460)));
    let mut answer = segment(8080, syn.src_port, TcpControl::Syn, 1000, Some(syn.seq_number.0.wrapping_add(1)));
    answer.max_seg_size = Some(1460);
    raw.send(&tcp("10.0.0.2", "10.0.0.1", answer));
    let mut expected = syn.seq_number + 1;
    let mut received = 0;
    while received < 30_000 {
        let packet = next(&mut raw).await;
        assert!(packet.len() <= 1500, "{}", packet.len());
        let data = parse_tcp(&packet);
        assert_eq!(data.seq_number, expected);
        assert!(data.payload.iter().all(|byte| *byte == 7));
        received += data.payload.len();
        expected += data.payload.len();
    }
    drop(client.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_full_raw_port_holds_connections_back_without_loss() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let mut raw = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    let mut streams = Vec::new();
    for port in 1..=40u16 {
        let a = a.clone();
        let client = tokio::spawn(async move { a.tcp_connect(SocketAddr::new(ip("10.0.0.2"), port)).await.unwrap() });
        let syn = next(&mut raw).await;
        let syn = parse_tcp(&syn);
        let mut answer = segment(port, syn.src_port, TcpControl::Syn, 1000, Some(syn.seq_number.0.wrapping_add(1)));
        answer.max_seg_size = Some(1460);
        raw.send(&tcp("10.0.0.2", "10.0.0.1", answer));
        streams.push(client.await.unwrap());
        assert_eq!(parse_tcp(&next(&mut raw).await).control, TcpControl::None);
    }
    // Each has a window full of data to send, and together more than the port's queue takes.
    for stream in &mut streams {
        stream.write_all(&[7; 65_000]).await.unwrap();
    }
    let start = Instant::now();
    let mut bytes = 0;
    while bytes < streams.len() * 65_000 {
        bytes += parse_tcp(&next(&mut raw).await).payload.len();
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nothing was lost, so nothing was sent again");
    assert_eq!(network.drops(), []);
}

#[tokio::test(start_paused = true)]
async fn a_raw_port_reaches_hosts_and_is_answered() {
    let network = network();
    let b = host(&network, "10.0.0.2");
    let mut raw = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let server = b.udp_bind(53).unwrap();
    raw.send(&udp("10.0.0.1", 4000, "10.0.0.2", 53, b"question"));
    let mut buffer = [0; 16];
    assert_eq!(server.recv_from(&mut buffer).await.unwrap(), (8, at("10.0.0.1:4000")));
    server.send_to(b"answer", at("10.0.0.1:4000")).await.unwrap();
    assert_eq!(next(&mut raw).await, udp("10.0.0.2", 53, "10.0.0.1", 4000, b"answer").as_slice()[..28 + 6].to_vec());
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_answers_a_foreign_syn_with_an_acceptable_rst() {
    let network = network();
    let _b = host(&network, "10.0.0.2");
    let mut raw = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    raw.send(&tcp("10.0.0.1", "10.0.0.2", segment(4000, 80, TcpControl::Syn, 77, None)));
    let packet = next(&mut raw).await;
    let reset = parse_tcp(&packet);
    assert_eq!((reset.control, reset.ack_number), (TcpControl::Rst, Some(TcpSeqNumber(78))));
}

#[tokio::test(start_paused = true)]
async fn bad_checksums_foreign_sources_fragments_and_noise_are_dropped_and_counted() {
    let network = network();
    let b = host(&network, "10.0.0.2");
    let _server = b.udp_bind(53).unwrap();
    let raw = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let good = udp("10.0.0.1", 4000, "10.0.0.2", 53, b"question");
    let mut corrupt = good.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut fragment = good.clone();
    fragment[6] |= 0x20;
    for packet in [
        &corrupt,
        &udp("10.0.0.9", 4000, "10.0.0.2", 53, b"spoofed"),
        &fragment,
        &good[..27].to_vec(),
        &b"noise".to_vec(),
        &vec![],
        &vec![0x45; 70_000],
        &udp("10.0.0.1", 4000, "224.0.0.1", 53, b"multicast"),
        &udp("10.0.0.1", 4000, "10.0.0.77", 53, b"nobody"),
    ] {
        raw.send(packet);
    }
    let drops: Vec<_> = network.drops().into_iter().map(|(reason, count)| (reason.0, count)).collect();
    assert_eq!(
        drops,
        [
            ("BAD_CHECKSUM", 1),
            ("FRAGMENT", 1),
            ("MALFORMED", 4),
            ("MARTIAN", 1),
            ("NO_ROUTE", 1),
            ("SPOOFED_SOURCE", 1)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_fin_that_comes_again_is_acknowledged_again() {
    let network = network();
    let b = host(&network, "10.0.0.2");
    let listener = b.tcp_listen(80).unwrap();
    let mut raw = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    raw.send(&tcp("10.0.0.1", "10.0.0.2", segment(4000, 80, TcpControl::Syn, 77, None)));
    let packet = next(&mut raw).await;
    let isn = parse_tcp(&packet).seq_number.0;
    raw.send(&tcp("10.0.0.1", "10.0.0.2", segment(4000, 80, TcpControl::None, 78, Some(isn.wrapping_add(1)))));
    // The server closes first and so ends in TIME-WAIT.
    drop(listener.accept().await.unwrap());
    assert_eq!(parse_tcp(&next(&mut raw).await).control, TcpControl::Fin);
    let fin = tcp("10.0.0.1", "10.0.0.2", segment(4000, 80, TcpControl::Fin, 78, Some(isn.wrapping_add(2))));
    for _ in 0..3 {
        raw.send(&fin);
        let packet = next(&mut raw).await;
        let ack = parse_tcp(&packet);
        assert_eq!((ack.control, ack.ack_number), (TcpControl::None, Some(TcpSeqNumber(79))));
    }
}

/// Hands a packet to a network of its own that verifies checksums as any receiver does.
fn assert_true_checksums(packet: &[u8]) {
    let network = network();
    let raw = network.attach_raw(&[], PortTag(1)).unwrap();
    raw.send(packet);
    // Nobody is there; but the checksums are looked at first.
    let drops = network.drops();
    assert!(matches!(drops[..], [(Reason("NO_ROUTE" | "INVALID"), 1)]), "{drops:?} {packet:02x?}");
}

#[tokio::test(start_paused = true)]
async fn translation_between_raw_ports_keeps_checksums_true() {
    let network = network();
    let mut a = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let mut b = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    install(
        &network,
        |flow| match flow.dst.ip() == ip("10.96.0.1") {
            true => to("10.0.0.2:8080", Some("172.18.0.2")),
            false => Translation::Pass,
        },
        accept,
    );
    let mut sctp = ipv4("10.0.0.1", "10.96.0.1", IpProtocol::Unknown(132), 12 + 4, |bytes| {
        bytes[..4].copy_from_slice(&[15, 160, 0, 80]);
        bytes[12..].copy_from_slice(b"init");
    });
    // CRC-32C of the segment with a zero checksum, least significant byte first (RFC 9260, 6.8).
    let sum = !sctp[20..].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    });
    sctp[28..32].copy_from_slice(&sum.to_le_bytes());
    let mut unchecked = udp("10.0.0.1", 4001, "10.96.0.1", 80, b"no checksum");
    unchecked[26..28].fill(0);
    let echo = ipv4("10.0.0.1", "10.96.0.1", IpProtocol::Icmp, 8 + 3, |bytes| {
        smoltcp::wire::Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"abc" }
            .emit(&mut smoltcp::wire::Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    });
    for packet in [
        udp("10.0.0.1", 4000, "10.96.0.1", 80, b"odd length!"),
        unchecked,
        tcp("10.0.0.1", "10.96.0.1", segment(4000, 80, TcpControl::Syn, 77, None)),
        sctp,
        echo,
    ] {
        a.send(&packet);
        let there = next(&mut b).await;
        assert_eq!(there[12..20], [172, 18, 0, 2, 10, 0, 0, 2]);
        assert_true_checksums(&there);
        // Back again: swap addresses and ports, and make a reply of an echo request.
        let mut back = there.to_vec();
        back[12..16].copy_from_slice(&there[16..20]);
        back[16..20].copy_from_slice(&there[12..16]);
        if back[9] == 1 {
            back[20] = 0;
            // RFC 1624: the type went from 8 to 0.
            let sum = u32::from(u16::from_be_bytes([back[22], back[23]])) + 0x0800;
            back[22..24].copy_from_slice(&((sum + (sum >> 16)) as u16).to_be_bytes());
        } else {
            back[20..22].copy_from_slice(&there[22..24]);
            back[22..24].copy_from_slice(&there[20..22]);
            if back[9] == 132 {
                // A CRC minds the order; only this network's own rewriting is under test.
                continue;
            }
        }
        b.send(&back);
        let back = next(&mut a).await;
        assert_eq!(back[12..20], [10, 96, 0, 1, 10, 0, 0, 1]);
        assert_true_checksums(&back);
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_icmp_error_is_translated_inside_and_outside() {
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr};
    let network = network();
    let mut a = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let mut b = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", Some("172.18.0.2")), accept);
    a.send(&udp("10.0.0.1", 4000, "10.96.0.1", 80, b"question"));
    let question = next(&mut b).await;
    let error = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::PortUnreachable,
        header: Ipv4Repr::parse(&Ipv4Packet::new_checked(&question[..]).unwrap(), &ChecksumCapabilities::default())
            .unwrap(),
        data: &question[20..],
    };
    b.send(&ipv4("10.0.0.2", "172.18.0.2", IpProtocol::Icmp, error.buffer_len(), |bytes| {
        error.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    }));
    let error = next(&mut a).await;
    assert_true_checksums(&error);
    let outer = Ipv4Packet::new_checked(&error[..]).unwrap();
    assert_eq!((outer.src_addr(), outer.dst_addr()), (v4("10.96.0.1"), v4("10.0.0.1")));
    let message = Icmpv4Packet::new_checked(outer.payload()).unwrap();
    let Icmpv4Repr::DstUnreachable { header, data, .. } =
        Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap()
    else {
        panic!("{message}");
    };
    assert_eq!((header.src_addr, header.dst_addr), (v4("10.0.0.1"), v4("10.96.0.1")));
    assert_eq!(data[..4], [15, 160, 0, 80], "ports 4000 and 80");
}

#[tokio::test(start_paused = true)]
async fn a_client_s_own_icmp_error_reaches_the_server_as_one_about_what_it_sent() {
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr};
    let network = network();
    let mut a = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let mut b = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", Some("172.18.0.2")), accept);
    a.send(&udp("10.0.0.1", 4000, "10.96.0.1", 80, b"question"));
    next(&mut b).await;
    b.send(&udp("10.0.0.2", 8080, "172.18.0.2", 4000, b"an answer that nobody waits for any more"));
    let answer = next(&mut a).await;
    // The client has gone: its stack says so to the address that it knows.
    let error = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::PortUnreachable,
        header: Ipv4Repr::parse(&Ipv4Packet::new_checked(&answer[..]).unwrap(), &ChecksumCapabilities::default())
            .unwrap(),
        data: &answer[20..],
    };
    a.send(&ipv4("10.0.0.1", "10.96.0.1", IpProtocol::Icmp, error.buffer_len(), |bytes| {
        error.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    }));
    let error = next(&mut b).await;
    assert_true_checksums(&error);
    let outer = Ipv4Packet::new_checked(&error[..]).unwrap();
    assert_eq!((outer.src_addr(), outer.dst_addr()), (v4("172.18.0.2"), v4("10.0.0.2")));
    let message = Icmpv4Packet::new_checked(outer.payload()).unwrap();
    let Icmpv4Repr::DstUnreachable { header, data, .. } =
        Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap()
    else {
        panic!("{message}");
    };
    assert_eq!((header.src_addr, header.dst_addr), (v4("10.0.0.2"), v4("172.18.0.2")));
    assert_eq!(data[..4], [31, 144, 15, 160], "ports 8080 and 4000");
}

/// A valid packet of some kind, to be damaged.
fn seedling() -> impl Strategy<Value = Vec<u8>> {
    let ports = (1u16..4, 1u16..4);
    let control = prop_oneof![
        Just(TcpControl::None),
        Just(TcpControl::Syn),
        Just(TcpControl::Fin),
        Just(TcpControl::Rst),
        Just(TcpControl::Psh)
    ];
    let to = prop_oneof![Just("10.0.0.2"), Just("10.96.0.1"), Just("10.0.0.1"), Just("10.0.0.3")];
    prop_oneof![
        (ports.clone(), to.clone(), proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|((from, port), to, payload)| udp("10.0.0.1", from, to, port, &payload)),
        (ports, to, control, any::<i32>(), proptest::option::of(any::<i32>())).prop_map(
            |((from, port), to, control, seq, ack)| tcp("10.0.0.1", to, segment(from, port, control, seq, ack))
        ),
    ]
}

/// Makes the checksums of a packet right, if it can be read that far.
pub(crate) fn repair(packet: &mut [u8]) {
    let Ok(mut ip) = Ipv4Packet::new_checked(packet) else { return };
    ip.fill_checksum();
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    match ip.next_header() {
        IpProtocol::Tcp if ip.payload_mut().len() >= 20 => {
            TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&src, &dst);
        }
        IpProtocol::Udp => {
            if let Ok(mut udp) = UdpPacket::new_checked(ip.payload_mut()) {
                udp.fill_checksum(&src, &dst);
            }
        }
        _ => {}
    }
}

/// Damages single bytes and, mostly, repairs the checksums, so that the damage gets past the door.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (seedling(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), any::<bool>()).prop_map(
        |(mut packet, damage, is_repaired)| {
            for (at, byte) in damage {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            if is_repaired {
                repair(&mut packet);
            }
            packet
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_makes_the_network_panic_or_hang(
        packets in proptest::collection::vec(
            prop_oneof![4 => damaged(), 1 => proptest::collection::vec(any::<u8>(), 0..200)],
            1..60,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let network = network();
            let b = host(&network, "10.0.0.2");
            let listeners: Vec<_> = (1..3).map(|port| serve(&b, port)).collect();
            let _server = b.udp_bind(1).unwrap();
            install(&network, dnat("10.96.0.1:1", "10.0.0.2:2", Some("172.18.0.2")), accept);
            let raw = network.attach_raw(&[], PortTag(1)).unwrap();
            let mut tap = network.tap(None);
            for packet in &packets {
                raw.send(packet);
                tokio::task::yield_now().await;
            }
            // Retransmissions and the ends of half-open connections.
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop((raw, listeners));
            let a = host(&network, "10.0.0.9");
            a.ping(ip("10.0.0.2"), 8, SOON).await.unwrap();
            assert!(tokio::time::timeout(SOON, tap.next()).await.unwrap().is_some());
        });
    }
}
