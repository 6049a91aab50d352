//! Names outside the zone: asked of servers on loopback sockets of the operating system.

use crate::cluster::{Cluster, addresses, cluster_with, code, name, query, show, with_edns};
use dns::{Config, Transport};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record, RecordType};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// An upstream server: `answer` makes the datagrams that follow a request.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

pub(crate) async fn upstream(answer: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static) -> Upstream {
    // TCP first: a free TCP port is rarer than a free UDP port of the same number, which somebody may have nevertheless.
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let address = tcp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let count = asked.clone();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            for message in answer(&Message::from_vec(&buffer[..length]).unwrap()) {
                udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let reply = found(&Message::from_vec(&bytes).unwrap(), &[9, 9, 9, 9]).to_vec().unwrap();
            stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    Upstream { address, asked, _tasks: tasks }
}

pub(crate) fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.response_code = code;
    reply.queries.clone_from(&request.queries);
    reply
}

pub(crate) fn found(request: &Message, ip: &[u8; 4]) -> Message {
    let mut reply = reply(request, ResponseCode::NoError);
    let owner = request.queries[0].name.clone();
    reply.add_answer(Record::from_rdata(owner, 300, RData::A(A((*ip).into()))));
    reply
}

/// A server that knows the addresses of these names, and that no others exist.
pub(crate) async fn knowing(names: &'static [(&'static str, [u8; 4])]) -> Upstream {
    upstream(move |request| {
        let query = &request.queries[0];
        let known = names.iter().find(|(known, _)| name(known).eq(&query.name));
        vec![match known {
            Some((_, ip)) if query.query_type == RecordType::A => found(request, ip),
            Some(_) => reply(request, ResponseCode::NoError),
            None => reply(request, ResponseCode::NXDomain),
        }]
    })
    .await
}

pub(crate) async fn cluster_over(upstreams: &[SocketAddr]) -> Cluster {
    let mut config = Config::new("cluster.local");
    config.upstreams = upstreams.to_vec();
    cluster_with(config).await
}

/// An address where nobody listens.
async fn closed() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

fn ips(message: &Message) -> Vec<String> {
    addresses(message).iter().map(IpAddr::to_string).collect()
}

#[tokio::test]
async fn a_name_outside_the_zone_is_asked_upstream_once_and_remembered() {
    let server = upstream(|request| vec![found(request, &[192, 0, 2, 1])]).await;
    let cluster = cluster_over(&[server.address]).await;
    for name in ["www.example.com", "WWW.example.com"] {
        let reply = cluster.ask(name, RecordType::A).await;
        assert_eq!((code(&reply), ips(&reply)), (ResponseCode::NoError, vec!["192.0.2.1".to_owned()]));
        assert_eq!(reply.queries[0].name.to_ascii(), format!("{name}."));
        assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.metadata.id, 4711);
    }
    assert_eq!(server.asked(), 1);
    cluster.no_such_name("www.example.com.default.svc.cluster.local").await;
    assert_eq!(server.asked(), 1, "names in the zone are never forwarded");
}

#[tokio::test]
async fn an_unknown_reverse_name_falls_through_to_the_upstream() {
    let server = upstream(|request| vec![reply(request, ResponseCode::NXDomain)]).await;
    let cluster = cluster_over(&[server.address]).await;
    assert_eq!(cluster.dig("9.9.9.9.in-addr.arpa", RecordType::PTR).await, "NXDomain\n");
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn that_a_name_does_not_exist_is_passed_on_and_remembered_as_long_as_its_soa_says() {
    let server = upstream(|request| {
        let mut reply = reply(request, ResponseCode::NXDomain);
        let soa = RData::SOA(SOA::new(name("ns.example."), name("me.example."), 1, 1, 1, 1, 20));
        reply.add_authority(Record::from_rdata(name("example."), 60, soa));
        vec![reply]
    })
    .await;
    let cluster = cluster_over(&[server.address]).await;
    for _ in 0..2 {
        let reply = cluster.ask("nowhere.example", RecordType::A).await;
        assert_eq!((code(&reply), reply.authorities.len()), (ResponseCode::NXDomain, 1));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn an_external_name_is_completed_by_the_upstream() {
    let server = upstream(|request| vec![found(request, &[192, 0, 2, 1])]).await;
    let cluster = cluster_over(&[server.address]).await;
    cluster.service("default", "db", json!({"type": "ExternalName", "externalName": "db.example.com"})).await;
    let both = "NoError\ndb.default.svc.cluster.local. 5 CNAME db.example.com.\ndb.example.com. 300 A 192.0.2.1\n";
    for _ in 0..2 {
        let reply = cluster.ask("db.default.svc.cluster.local", RecordType::A).await;
        assert_eq!((show(&reply).as_str(), reply.metadata.authoritative), (both, true));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn an_external_name_is_shown_even_if_the_upstream_fails() {
    for refusal in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain] {
        let server = upstream(move |request| vec![reply(request, refusal)]).await;
        let cluster = cluster_over(&[server.address]).await;
        cluster.service("default", "db", json!({"type": "ExternalName", "externalName": "db.example.com"})).await;
        let alias = "NoError\ndb.default.svc.cluster.local. 5 CNAME db.example.com.\n";
        assert_eq!(cluster.dig("db.default.svc.cluster.local", RecordType::A).await, alias, "{refusal}");
    }
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let failing = upstream(|request| vec![reply(request, ResponseCode::ServFail)]).await;
    let working = upstream(|request| vec![found(request, &[192, 0, 2, 1])]).await;
    let cluster = cluster_over(&[closed().await, failing.address, working.address]).await;
    assert_eq!(ips(&cluster.ask("www.example.com", RecordType::A).await), ["192.0.2.1"]);
    assert_eq!((failing.asked(), working.asked()), (1, 1));
}

#[tokio::test]
async fn after_three_tries_the_answer_is_servfail_and_that_is_not_remembered() {
    let failing = upstream(|request| vec![reply(request, ResponseCode::ServFail)]).await;
    let cluster = cluster_over(&[failing.address]).await;
    for round in 1..=2 {
        assert_eq!(cluster.dig("www.example.com", RecordType::A).await, "ServFail\n");
        assert_eq!(failing.asked(), 3 * round);
    }
}

// The server never answers, so nothing but the paused clock can move.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_two_seconds_and_three_tries() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let cluster = cluster_over(&[silent.local_addr().unwrap()]).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(cluster.dig("www.example.com", RecordType::A).await, "ServFail\n");
    assert_eq!(begun.elapsed().as_secs(), 6);
}

#[tokio::test]
async fn an_answer_with_another_id_or_to_another_question_is_not_believed() {
    let server = upstream(|request| {
        let mut other_id = found(request, &[6, 6, 6, 1]);
        other_id.metadata.id = other_id.metadata.id.wrapping_add(1);
        let mut other_name = found(request, &[6, 6, 6, 2]);
        other_name.queries[0].name = name("evil.example.");
        let mut other_type = found(request, &[6, 6, 6, 3]);
        other_type.queries[0].query_type = RecordType::TXT;
        vec![other_id, other_name, other_type, request.clone(), found(request, &[192, 0, 2, 1])]
    })
    .await;
    let cluster = cluster_over(&[server.address]).await;
    assert_eq!(ips(&cluster.ask("www.example.com", RecordType::A).await), ["192.0.2.1"]);
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_asked_again_over_tcp() {
    let server = upstream(|request| {
        let mut cut = found(request, &[192, 0, 2, 1]);
        cut.metadata.truncation = true;
        vec![cut]
    })
    .await;
    let cluster = cluster_over(&[server.address]).await;
    assert_eq!(ips(&cluster.ask("www.example.com", RecordType::A).await), ["9.9.9.9"]);
}

#[tokio::test]
async fn an_upstreams_answer_is_cut_to_what_the_asker_takes() {
    let server = upstream(|request| {
        let mut reply = found(request, &[192, 0, 2, 0]);
        for n in 1..60 {
            reply.answers.push(found(request, &[192, 0, 2, n]).answers.remove(0));
        }
        vec![reply]
    })
    .await;
    let cluster = cluster_over(&[server.address]).await;
    let reply = cluster.ask_message(&query("www.example.com", RecordType::A), Transport::Udp).await;
    assert!(reply.metadata.truncation && reply.answers.len() < 60);
    let request = with_edns(query("www.example.com", RecordType::A), 1232);
    let reply = cluster.ask_message(&request, Transport::Udp).await;
    assert_eq!((reply.metadata.truncation, reply.answers.len()), (false, 60));
}

#[tokio::test]
async fn a_server_that_would_ask_itself_answers_servfail() {
    let mut config = Config::new("cluster.local");
    // The kube-dns Service's own address, as a node whose resolv.conf points into the cluster has it.
    config.upstreams = vec!["10.96.0.10:53".parse().unwrap()];
    let cluster = cluster_with(config).await;
    assert_eq!(cluster.dig("www.example.com", RecordType::A).await, "ServFail\n");
}

#[tokio::test]
async fn a_stub_domain_has_its_own_servers() {
    let corp = upstream(|request| vec![found(request, &[192, 0, 2, 2])]).await;
    let mut config = Config::new("cluster.local");
    config.stub_domains = vec![("corp.example".into(), vec![corp.address])];
    let cluster = cluster_with(config).await;
    assert_eq!(ips(&cluster.ask("db.corp.example", RecordType::A).await), ["192.0.2.2"]);
    assert_eq!(cluster.dig("db.example", RecordType::A).await, "NXDomain\n");
}
