//! Upstream servers that lie, loop, overdo it or are old: 8.7, and RFC 5452.

use crate::cluster::{addresses, cluster_with, code, query};
use crate::forwarding::{cluster_over, found, reply, upstream};
use dns::Config;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

const TRUE: [u8; 4] = [192, 0, 2, 1];
const FORGED: [u8; 4] = [6, 6, 6, 6];

async fn socket(ip: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).await.unwrap()
}

#[tokio::test]
async fn an_answer_from_another_address_or_port_is_not_believed() {
    let (server, other_port) = (socket(Ipv4Addr::LOCALHOST).await, socket(Ipv4Addr::LOCALHOST).await);
    let other_address = socket(Ipv4Addr::new(127, 0, 0, 2)).await;
    let cluster = cluster_over(&[server.local_addr().unwrap()]).await;
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let forged = found(&request, &FORGED).to_vec().unwrap();
        other_port.send_to(&forged, from).await.unwrap();
        other_address.send_to(&forged, from).await.unwrap();
        server.send_to(&found(&request, &TRUE).to_vec().unwrap(), from).await.unwrap();
    }));
    let reply = cluster.ask("www.example.com", RecordType::A).await;
    assert_eq!(addresses(&reply), [std::net::IpAddr::from(TRUE)]);
}

#[tokio::test]
async fn garbage_is_no_answer_and_the_answer_may_still_come() {
    let server = socket(Ipv4Addr::LOCALHOST).await;
    let cluster = cluster_over(&[server.local_addr().unwrap()]).await;
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let answer = found(&request, &TRUE).to_vec().unwrap();
        for garbage in [&[][..], &[0; 5], &[0xFF; 400], &answer[..answer.len() - 1], &answer[..12], &buffer[..length]] {
            server.send_to(garbage, from).await.unwrap();
        }
        server.send_to(&answer, from).await.unwrap();
    }));
    let reply = cluster.ask("www.example.com", RecordType::A).await;
    assert_eq!(addresses(&reply), [std::net::IpAddr::from(TRUE)]);
}

#[tokio::test]
async fn every_try_has_an_id_and_a_port_of_its_own() {
    let seen: Arc<Mutex<Vec<(u16, u16)>>> = Arc::default();
    let server = socket(Ipv4Addr::LOCALHOST).await;
    let cluster = cluster_over(&[server.local_addr().unwrap()]).await;
    let log = seen.clone();
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            log.lock().push((request.metadata.id, from.port()));
            server.send_to(&reply(&request, ResponseCode::ServFail).to_vec().unwrap(), from).await.unwrap();
        }
    }));
    for _ in 0..4 {
        cluster.ask("www.example.com", RecordType::A).await;
    }
    let seen = seen.lock().clone();
    assert_eq!(seen.len(), 12);
    let ids: BTreeSet<u16> = seen.iter().map(|(id, _)| *id).collect();
    let ports: BTreeSet<u16> = seen.iter().map(|(_, port)| *port).collect();
    // Two of twelve may be the same by chance: of ids once in a thousand runs, with another seed.
    assert!(ids.len() >= 11 && ports.len() >= 6, "{seen:?}");
}

#[tokio::test]
async fn a_chain_of_more_aliases_than_anybody_follows_is_a_failure() {
    let chain = |length: u16| {
        upstream(move |request| {
            let mut bomb = reply(request, ResponseCode::NoError);
            let mut owner = request.queries[0].name.clone();
            for n in 0..length {
                let target = Name::from_ascii(format!("a{n}.example.com.")).unwrap();
                bomb.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(target.clone()))));
                owner = target;
            }
            bomb.add_answer(Record::from_rdata(owner, 60, RData::A(A(TRUE.into()))));
            vec![bomb]
        })
    };
    let (honest, bomb) = (chain(16).await, chain(17).await);
    let reply = cluster_over(&[honest.address]).await.ask("www.example.com", RecordType::A).await;
    assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::NoError, 17));
    let reply = cluster_over(&[bomb.address]).await.ask("www.example.com", RecordType::A).await;
    assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::ServFail, 0));
    // Another server is asked, though.
    let reply = cluster_over(&[bomb.address, honest.address]).await.ask("www.example.com", RecordType::A).await;
    assert_eq!(reply.answers.len(), 17);
}

#[tokio::test]
async fn a_server_that_knows_no_edns_is_asked_without() {
    let server = upstream(|request| {
        let known = if request.edns.is_some() { reply(request, ResponseCode::FormErr) } else { found(request, &TRUE) };
        vec![known]
    })
    .await;
    let cluster = cluster_over(&[server.address]).await;
    assert_eq!(addresses(&cluster.ask("www.example.com", RecordType::A).await).len(), 1);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn what_many_ask_at_once_is_asked_upstream_once() {
    let server = socket(Ipv4Addr::LOCALHOST).await;
    let cluster = Arc::new(cluster_over(&[server.local_addr().unwrap()]).await);
    let askers: Vec<_> = (0..20)
        .map(|n| {
            let cluster = cluster.clone();
            let name = if n % 2 == 0 { "www.example.com" } else { "WWW.EXAMPLE.com" };
            AbortOnDropHandle::new(tokio::spawn(async move { (name, cluster.ask(name, RecordType::A).await) }))
        })
        .collect();
    let mut buffer = [0; 512];
    let (length, from) = server.recv_from(&mut buffer).await.unwrap();
    // On this thread all that could run has run when this task runs again: everybody has asked.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let request = Message::from_vec(&buffer[..length]).unwrap();
    server.send_to(&found(&request, &TRUE).to_vec().unwrap(), from).await.unwrap();
    for asker in askers {
        let (name, reply) = asker.await.unwrap();
        assert_eq!(addresses(&reply).len(), 1);
        assert_eq!(reply.answers[0].name.to_ascii(), format!("{name}."), "in the asker's case");
    }
    assert!(server.try_recv_from(&mut buffer).is_err(), "asked once more");
}

#[tokio::test]
async fn who_goes_while_others_wait_for_the_same_answer_leaves_them_theirs() {
    let server = socket(Ipv4Addr::LOCALHOST).await;
    let cluster = Arc::new(cluster_over(&[server.local_addr().unwrap()]).await);
    let ask = || {
        let cluster = cluster.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { cluster.ask("www.example.com", RecordType::A).await }))
    };
    let first = ask();
    let mut buffer = [0; 512];
    server.recv_from(&mut buffer).await.unwrap();
    let second = ask();
    tokio::task::yield_now().await;
    drop(first);
    let (length, from) = server.recv_from(&mut buffer).await.unwrap();
    let request = Message::from_vec(&buffer[..length]).unwrap();
    server.send_to(&found(&request, &TRUE).to_vec().unwrap(), from).await.unwrap();
    assert_eq!(addresses(&second.await.unwrap()).len(), 1);
}

// The upstream has no other answer than ours, and ours is its answer: nothing but the paused clock ends it.
#[tokio::test(start_paused = true)]
async fn a_question_that_comes_back_by_way_of_an_upstream_ends_with_servfail_and_is_not_multiplied() {
    let server = socket(Ipv4Addr::LOCALHOST).await;
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![server.local_addr().unwrap()];
    let cluster = Arc::new(cluster_with(config).await);
    let asked = Arc::new(Mutex::new(0));
    let (log, asks_again) = (asked.clone(), cluster.clone());
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 512];
        let mut waiting = tokio::task::JoinSet::new();
        while let Ok((_, _)) = server.recv_from(&mut buffer).await {
            *log.lock() += 1;
            let cluster = asks_again.clone();
            waiting.spawn(async move { cluster.ask("www.example.com", RecordType::A).await });
        }
    }));
    let reply = cluster.ask_message(&query("www.example.com", RecordType::A), dns::Transport::Udp).await;
    assert_eq!(code(&reply), ResponseCode::ServFail);
    assert!(*asked.lock() <= 3, "{} questions", asked.lock());
}
