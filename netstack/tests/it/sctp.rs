//! SCTP: carried by port between ports without a stack, refused by hosts, which speak none.

use crate::raw::ipv4;
use crate::*;
use bytes::Bytes;
use netstack::{RawPort, Timeouts};
use smoltcp::wire::IpProtocol;

const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN_ACK: u8 = 8;
const DATA: u8 = 0;

/// A packet with one chunk. Checksums: the network that does not check SCTP's is right to (it is the endpoints' business), so 0.
fn packet(from: &str, to: &str, ports: (u16, u16), tag: u32, chunk: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(from, to, IpProtocol::Unknown(132), 12 + chunk.len(), |bytes| {
        bytes[..2].copy_from_slice(&ports.0.to_be_bytes());
        bytes[2..4].copy_from_slice(&ports.1.to_be_bytes());
        bytes[4..8].copy_from_slice(&tag.to_be_bytes());
        bytes[12..].copy_from_slice(chunk);
    });
    let sum = crc32c(&packet[20..]);
    packet[28..32].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

fn init(tag: u32) -> Vec<u8> {
    let mut chunk = vec![INIT, 0, 0, 20];
    chunk.extend(tag.to_be_bytes());
    chunk.extend([0; 12]);
    chunk
}

async fn next(port: &mut RawPort) -> Option<Bytes> {
    tokio::time::timeout(SOON, port.recv()).await.ok().flatten()
}

/// Ports, verification tag, chunk type and flags of an answer whose checksum is right.
fn read(answer: &[u8]) -> ((u16, u16), u32, (u8, u8)) {
    let segment = &answer[20..];
    let mut unsigned = segment.to_vec();
    unsigned[8..12].fill(0);
    assert_eq!(segment[8..12], crc32c(&unsigned).to_le_bytes(), "the checksum");
    let number = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let tag = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    ((number(0), number(2)), tag, (segment[12], segment[13]))
}

#[tokio::test(start_paused = true)]
async fn a_host_aborts_an_association_that_somebody_opens_with_it() {
    let network = network();
    let _host = host(&network, "10.0.0.2");
    let mut peer = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    peer.send(&packet("10.0.0.1", "10.0.0.2", (4000, 9), 0, &init(0xcafe)));
    let answer = next(&mut peer).await.expect("an answer");
    assert_eq!(read(&answer), ((9, 4000), 0xcafe, (ABORT, 0)), "with the tag that the peer has chosen");
    // RFC 9260, 8.4: what belongs to no association is aborted with its own tag, a farewell is returned.
    peer.send(&packet("10.0.0.1", "10.0.0.2", (4001, 9), 7, &[DATA, 3, 0, 4]));
    assert_eq!(read(&next(&mut peer).await.expect("an answer")), ((9, 4001), 7, (ABORT, 1)));
    peer.send(&packet("10.0.0.1", "10.0.0.2", (4002, 9), 8, &[SHUTDOWN_ACK, 0, 0, 4]));
    assert_eq!(read(&next(&mut peer).await.expect("an answer")), ((9, 4002), 8, (14, 1)));
}

#[tokio::test(start_paused = true)]
async fn an_abort_is_not_answered() {
    let network = network();
    let _host = host(&network, "10.0.0.2");
    let mut peer = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    for chunks in [&[ABORT, 0, 0, 4][..], &[DATA, 3, 0, 4, ABORT, 0, 0, 4], &[DATA, 3, 0, 0], &[]] {
        peer.send(&packet("10.0.0.1", "10.0.0.2", (4000, 9), 7, chunks));
    }
    // The third ends in a chunk shorter than its header: aborted like any other stray packet, and nothing hangs.
    assert_eq!(read(&next(&mut peer).await.expect("an answer")).2, (ABORT, 1));
    assert!(next(&mut peer).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_association_is_translated_by_port_both_ways_and_ends_with_its_abort() {
    let network = network();
    let mut a = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let mut b = network.attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    install(&network, dnat("10.96.0.1:90", "10.0.0.2:9", Some("172.18.0.2")), accept);
    a.send(&packet("10.0.0.1", "10.96.0.1", (4000, 90), 0, &init(1)));
    let there = next(&mut b).await.expect("carried");
    assert_eq!((&there[12..16], read(&there).0), (&[172, 18, 0, 2][..], (4000, 9)));
    b.send(&packet("10.0.0.2", "172.18.0.2", (9, 4000), 1, &[2, 0, 0, 4]));
    let back = next(&mut a).await.expect("carried back");
    assert_eq!((&back[12..16], read(&back).0), (&[10, 96, 0, 1][..], (90, 4000)));
    assert_eq!(network.flows().len(), 1);
    a.send(&packet("10.0.0.1", "10.96.0.1", (4000, 90), 1, &[ABORT, 0, 0, 4]));
    tokio::time::sleep(Timeouts::default().closed).await;
    assert!(network.flows().is_empty(), "{:?}", network.flows());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_association_is_told_port_unreachable() {
    let network = network();
    let mut a = network.attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    install(&network, |_| Translation::Reject(Reason("NOBODY_BEHIND")), accept);
    a.send(&packet("10.0.0.1", "10.96.0.1", (4000, 90), 0, &init(1)));
    let answer = next(&mut a).await.expect("an answer");
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 3), "ICMP, destination unreachable, port");
}
