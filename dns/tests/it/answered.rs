//! Who goes by names is told of every address before the asker is.

use crate::cluster::{cluster_with, query};
use crate::forwarding::{found, upstream};
use crate::transport::{read, server, wire_of, write};
use dns::{AnswerListener, Config, MachineSockets, NameAddress};
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::task::AbortOnDropHandle;

#[derive(Debug, Default)]
struct Told {
    wants_zone: AtomicBool,
    lines: Mutex<Vec<String>>,
}

impl AnswerListener for Told {
    fn wants_zone(&self) -> bool {
        self.wants_zone.load(Ordering::Relaxed)
    }

    fn answered(&self, answers: &[NameAddress]) {
        let show = |told: &NameAddress| format!("{} {} {}", told.name, told.address, told.ttl.as_secs());
        self.lines.lock().extend(answers.iter().map(show));
    }
}

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }
}

fn told_by(config: &mut Config) -> Arc<Told> {
    let told = Arc::new(Told::default());
    config.listener = Some(told.clone());
    told
}

#[tokio::test]
async fn what_is_forwarded_remembered_or_configured_is_told_before_its_reply_comes_over_udp_and_tcp() {
    let upstream = upstream(|request| {
        let mut reply = found(request, &[192, 0, 2, 1]);
        let target = Name::from_ascii("edge.example.net.").unwrap();
        let alias = RData::CNAME(CNAME(target.clone()));
        reply.answers.insert(0, Record::from_rdata(request.queries[0].name.clone(), 20, alias));
        reply.answers[1].name = target;
        vec![reply]
    })
    .await;
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![upstream.address];
    config.hosts = vec![("db.corp".into(), "192.0.2.7".parse().unwrap())];
    let told = told_by(&mut config);
    let wire = wire_of(cluster_with(config).await).await;
    let asked = query("WWW.example.com", RecordType::A);
    let lines = |ttl: u32, rest: u32| {
        vec![format!("www.example.com 192.0.2.1 {ttl}"), format!("edge.example.net 192.0.2.1 {rest}")]
    };
    wire.udp(&asked).await; // forwarded
    assert_eq!(told.take(), lines(20, 300));
    wire.udp(&asked).await; // remembered
    assert_eq!(told.take().len(), 2);
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    write(&mut stream, &asked).await;
    read(&mut stream).await;
    assert_eq!(told.take().len(), 2);
    write(&mut stream, &query("other.example.com", RecordType::A)).await; // forwarded
    read(&mut stream).await;
    assert_eq!(told.take(), ["other.example.com 192.0.2.1 20", "edge.example.net 192.0.2.1 300"]);
    wire.udp(&query("db.corp", RecordType::A)).await;
    assert_eq!(told.take(), ["db.corp 192.0.2.7 5"]);
}

#[tokio::test]
async fn the_zones_own_names_are_told_if_that_is_wanted() {
    let mut config = Config::new("cluster.local");
    let told = told_by(&mut config);
    let wire = wire_of(cluster_with(config).await).await;
    let asked = query("kube-dns.kube-system.svc.cluster.local", RecordType::A);
    let reply = wire.udp(&asked).await.0;
    assert!(told.take().is_empty());
    told.wants_zone.store(true, Ordering::Relaxed);
    assert_eq!(wire.udp(&asked).await.0, reply);
    assert_eq!(told.take(), ["kube-dns.kube-system.svc.cluster.local 10.96.0.10 5"]);
    let mut stream = wire.client.tcp_connect(server()).await.unwrap();
    write(&mut stream, &asked).await;
    assert_eq!(read(&mut stream).await.0, reply);
    assert_eq!(told.take().len(), 1);
}

#[tokio::test]
async fn questions_of_the_machine_and_of_tools_are_told_to_nobody() {
    let mut config = Config::new("cluster.local");
    config.hosts = vec![("db.corp".into(), "192.0.2.7".parse().unwrap())];
    let told = told_by(&mut config);
    told.wants_zone.store(true, Ordering::Relaxed);
    let cluster = Arc::new(cluster_with(config).await);
    let sockets = MachineSockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = sockets.local_addr().unwrap();
    let serving = cluster.clone();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move { serving.dns.serve_machine(sockets).await }));
    let asked = query("db.corp", RecordType::A);
    let answered = |message: Message| assert_eq!(message.answers.len(), 1);
    answered(crate::machine::over_udp(address, &asked).await);
    answered(crate::machine::over_tcp(address, &asked).await);
    answered(cluster.ask("db.corp", RecordType::A).await);
    assert_eq!(cluster.dns.query("db.corp", "A").await.unwrap().answers.len(), 1);
    assert!(told.take().is_empty());
}
