//! UDP and TCP on in-process hosts; sizes, truncation, EDNS0.

use crate::cluster::{Cluster, cluster, code, query, with_edns};
use dns::Transport;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use netstack::{Host, Network, PortTag, TcpStream};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

const SERVER: &str = "10.244.0.2:53";

/// Bytes of an A record whose name is a pointer to the question's.
const RECORD: usize = 16;

/// A server on one host, and another host to ask from.
pub(crate) struct Wire {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) client: Host,
    server: JoinHandle<std::io::Result<()>>,
    /// Kept, so that it answers "port unreachable" when nobody serves it.
    _host: Host,
    _network: Network,
}

async fn wire() -> Wire {
    wire_of(cluster().await).await
}

pub(crate) async fn wire_of(cluster: Cluster) -> Wire {
    let cluster = Arc::new(cluster);
    let network = Network::new(netstack::Config { mtu: 1500, seed: 1 });
    let host = |ip: &str, tag| network.attach_host(&[ip.parse::<IpAddr>().unwrap()], PortTag(tag)).unwrap();
    let (server, client) = (host("10.244.0.2", 1), host("10.244.0.3", 2));
    let (serving, served) = (cluster.clone(), server.clone());
    let task = tokio::spawn(async move { serving.dns.serve(served).await });
    tokio::task::yield_now().await;
    Wire { cluster, client, server: task, _host: server, _network: network }
}

impl Wire {
    pub(crate) async fn udp(&self, request: &Message) -> (Message, usize) {
        let socket = self.client.udp_bind(0).unwrap();
        socket.send_to(&request.to_vec().unwrap(), server()).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, server());
        (Message::from_vec(&buffer[..length]).unwrap(), length)
    }

    async fn endpoints(&self, count: u32) {
        self.cluster.service("default", "db", json!({"clusterIP": "None"})).await;
        let addresses: Vec<String> = (0..count).map(|n| format!("10.244.{}.{}", n / 250, n % 250 + 1)).collect();
        let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), "", json!(true))).collect();
        let ports = json!([{"name": "sql", "port": 5432}]);
        self.cluster.slice(("default", "db"), "db-1", &endpoints, ports).await;
    }
}

pub(crate) fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

pub(crate) async fn write(stream: &mut TcpStream, request: &Message) {
    let bytes = request.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, bytes.as_slice()].concat()).await.unwrap();
}

pub(crate) async fn read(stream: &mut TcpStream) -> (Message, usize) {
    let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut bytes).await.unwrap();
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_over_udp_and_over_tcp() {
    let wire = wire().await;
    let request = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
    let (over_udp, _) = wire.udp(&request).await;
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    write(&mut stream, &request).await;
    assert_eq!(over_udp.answers[0].data.to_string(), "10.96.0.10");
    assert_eq!(read(&mut stream).await.0, over_udp);
}

#[tokio::test(start_paused = true)]
async fn a_udp_reply_has_512_bytes_or_what_was_advertised_and_4096_at_most() {
    let wire = wire().await;
    wire.endpoints(1000).await;
    let name = "db.default.svc.cluster.local";
    let (reply, length) = wire.udp(&query(name, RecordType::A)).await;
    assert!(reply.metadata.truncation && (512 - RECORD..=512).contains(&length), "{length}");
    assert!(reply.edns.is_none() && !reply.answers.is_empty());
    for (advertised, taken) in [(0, 512), (512, 512), (1232, 1232), (4096, 4096), (65_535, 4096)] {
        let (reply, length) = wire.udp(&with_edns(query(name, RecordType::A), advertised)).await;
        assert!(reply.metadata.truncation && (taken - RECORD..=taken).contains(&length), "{advertised}: {length}");
        assert!(reply.edns.is_some(), "the OPT record stays");
    }
}

#[tokio::test(start_paused = true)]
async fn over_tcp_nothing_is_cut() {
    let wire = wire().await;
    wire.endpoints(4000).await;
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    write(&mut stream, &query("db.default.svc.cluster.local", RecordType::A)).await;
    let (reply, length) = read(&mut stream).await;
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (4000, false));
    assert!((64_000..65_535).contains(&length), "{length}");
}

#[tokio::test(start_paused = true)]
async fn records_that_nobody_asked_for_are_left_out_before_answers_are_cut() {
    let wire = wire().await;
    wire.endpoints(8).await;
    let name = "_sql._tcp.db.default.svc.cluster.local";
    let (all, length) = wire.udp(&with_edns(query(name, RecordType::SRV), 4096)).await;
    assert_eq!((all.answers.len(), all.additionals.len(), all.metadata.truncation), (8, 8, false));
    let payload = u16::try_from(length - 1).unwrap();
    let (cut, _) = wire.udp(&with_edns(query(name, RecordType::SRV), payload)).await;
    assert_eq!((cut.answers.len(), cut.additionals.len(), cut.metadata.truncation), (8, 7, false));
    let (cut, _) = wire.udp(&query(name, RecordType::SRV)).await;
    assert_eq!((cut.additionals.len(), cut.metadata.truncation), (0, true));
    assert!(!cut.answers.is_empty() && cut.answers.len() < 8);
}

#[tokio::test(start_paused = true)]
async fn names_are_compressed() {
    let wire = wire().await;
    wire.endpoints(100).await;
    let (_, length) = wire.udp(&with_edns(query("db.default.svc.cluster.local", RecordType::A), 4096)).await;
    let (header, question, opt) = (12, 30 + 4, 11);
    assert_eq!(length, header + question + 100 * 16 + opt);
}

#[tokio::test(start_paused = true)]
async fn edns_is_answered_with_edns_and_an_unknown_version_with_badvers() {
    let wire = wire().await;
    let mut request = with_edns(query("kube-dns.kube-system.svc.cluster.local", RecordType::A), 1232);
    request.edns.as_mut().unwrap().set_dnssec_ok(true);
    let (reply, _) = wire.udp(&request).await;
    let edns = reply.edns.as_ref().unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 4096, true));
    request.edns.as_mut().unwrap().set_version(1);
    let (reply, _) = wire.udp(&request).await;
    // The code's upper bits are in the OPT record.
    let edns = reply.edns.as_ref().unwrap();
    let number = u16::from(edns.rcode_high()) << 4 | u16::from(code(&reply).low());
    assert_eq!((number, edns.version(), reply.answers.len()), (16, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_queries_on_one_connection_are_all_answered() {
    let wire = wire().await;
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    for id in 0..200 {
        let mut request = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
        request.metadata.id = id;
        write(&mut stream, &request).await;
    }
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(read(&mut stream).await.0.metadata.id);
    }
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_may_come_in_pieces() {
    let wire = wire().await;
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    let bytes = query("kube-dns.kube-system.svc.cluster.local", RecordType::A).to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    for byte in [&length, bytes.as_slice()].concat() {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut stream).await.0.answers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_ten_seconds() {
    let wire = wire().await;
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let end = stream.read(&mut [0]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let silent = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&silent), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_before_the_answer_comes_disturbs_nobody() {
    let wire = wire().await;
    let request = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
    for _ in 0..3 {
        let socket = wire.client.udp_bind(5353).unwrap();
        socket.send_to(&request.to_vec().unwrap(), server()).await.unwrap();
        drop(socket);
        assert_eq!(wire.udp(&request).await.0.answers.len(), 1);
    }
    // The same port again, whose earlier owner's "port unreachable" the server has got.
    let socket = wire.client.udp_bind(5353).unwrap();
    socket.send_to(&request.to_vec().unwrap(), server()).await.unwrap();
    socket.recv_from(&mut [0; 512]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn serving_ends_when_its_future_is_dropped_and_the_port_is_free_again() {
    let wire = wire().await;
    wire.server.abort();
    assert!(wire.server.await.unwrap_err().is_cancelled());
    let socket = wire.client.udp_bind(0).unwrap();
    socket.send_to(&query("cluster.local", RecordType::SOA).to_vec().unwrap(), server()).await.unwrap();
    assert!(socket.recv_from(&mut [0; 512]).await.is_err());
    assert!(wire.client.tcp_connect(server()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_second_server_on_the_same_host_is_told_that_the_port_is_taken() {
    let cluster = cluster().await;
    let network = Network::new(netstack::Config { mtu: 1500, seed: 1 });
    let host = network.attach_host(&["10.244.0.2".parse().unwrap()], PortTag(1)).unwrap();
    let _taken = host.udp_bind(53).unwrap();
    assert_eq!(cluster.dns.serve(host).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn a_question_of_the_greatest_length_is_answered_in_512_bytes() {
    let cluster = cluster().await;
    let label = "a".repeat(61);
    let long = format!("{label}.{label}.{label}.{}.svc.cluster.local", "b".repeat(45));
    let reply = cluster.ask_bytes(&query(&long, RecordType::A).to_vec().unwrap(), Transport::Udp).await.unwrap();
    let message = Message::from_vec(&reply).unwrap();
    assert_eq!((code(&message), message.queries.len()), (ResponseCode::NXDomain, 1));
    assert!(reply.len() <= 512);
}

#[tokio::test(start_paused = true)]
async fn names_that_repeat_are_compressed() {
    let wire = wire().await;
    wire.endpoints(8).await;
    let request = with_edns(query("db.default.svc.cluster.local", RecordType::A), 4096);
    let (reply, length) = wire.udp(&request).await;
    // Header, question, eight records and the OPT record.
    assert_eq!((reply.answers.len(), length), (8, 12 + 34 + 8 * RECORD + 11));
}
