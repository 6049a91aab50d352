//! Doors for fuzzers: what strangers ask, and what upstream servers answer.
//!
//! Each takes anything, and panics when a rule is broken.

use crate::cache::Cache;
use crate::config::Config;
use crate::front::{Asker, Begun, Next};
use crate::resolver::{Forwarded, Resolver, answered};
use crate::service::{Key, ServiceRecords};
use crate::upstream::{believed, matching};
use crate::wire::{MAX_PAYLOAD, Transport};
use crate::zone::Zone;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;

/// The id and name that [`answer`] has asked for; the type is A.
pub const ASKED: (u16, &str) = (0x4711, "www.example.com.");

static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| {
    let mut config = Config::new("cluster.local");
    config.hosts = vec![("host.coracle.internal".to_owned(), [172, 18, 0, 254].into())];
    config.upstreams = vec![SocketAddr::from(([192, 0, 2, 1], 53))];
    let resolver = Resolver::new(&config);
    let mut zone = Zone::empty(&config);
    zone.complete = true;
    zone.set_namespace("default", true);
    for (name, spec) in services() {
        let slice = slice();
        let records = ServiceRecords::of(&Service { spec: Some(spec), ..Service::default() }, std::iter::once(&slice));
        zone.set_service(&Key::new("default", name), records);
    }
    zone.set_pod(&Key::new("default", "pod"), vec![[10, 244, 1, 5].into()]);
    resolver.zone.store(Arc::new(zone));
    resolver
});

fn services() -> [(&'static str, ServiceSpec); 3] {
    let port = ServicePort { name: Some("http".to_owned()), port: 80, ..ServicePort::default() };
    let spec = |ip: &str| ServiceSpec {
        cluster_ip: Some(ip.to_owned()),
        ports: Some(vec![port.clone()]),
        ..ServiceSpec::default()
    };
    let external = ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some("web.default.svc.cluster.local".to_owned()),
        ..ServiceSpec::default()
    };
    [("web", spec("10.96.1.1")), ("db", spec("None")), ("alias", external)]
}

/// Forty ready endpoints: their records do not all fit into 512 bytes.
fn slice() -> EndpointSlice {
    let endpoint = |n: u8| Endpoint { addresses: vec![format!("10.244.1.{n}")], ..Endpoint::default() };
    let port = EndpointPort { name: Some("http".to_owned()), port: Some(8080), ..EndpointPort::default() };
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some((1..=40).map(endpoint).collect()),
        ports: Some(vec![port]),
        ..EndpointSlice::default()
    }
}

/// A request: what is answered carries its id, says that it is an answer, is a message, and is no longer than allowed. What
/// the kept answers say, the resolver says too.
pub fn request(bytes: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let asker = Asker { from: None, transport, is_inside: false };
        let whole = match RESOLVER.begin(bytes, asker) {
            Begun::Noise | Begun::Lost => None,
            Begun::Done(reply) => Some(reply.encode()),
            Begun::Waiting(waiting) => match waiting.next {
                Next::Reply(reply) | Next::Ask(Forwarded { reply, .. }) | Next::Walk(Forwarded { reply, .. }, _) => {
                    Some(reply.encode())
                }
            },
        };
        let read = whole.as_ref().map(|reply| sound(bytes, reply, transport));
        let mut quick = Vec::new();
        if RESOLVER.answer_at_once(bytes, asker, &mut quick) {
            let (quick, whole) = (sound(bytes, &quick, transport), read.expect("both answer"));
            assert_eq!(quick.metadata, whole.metadata);
            assert_eq!(quick.queries, whole.queries);
            assert_eq!(quick.edns, whole.edns);
            if !quick.metadata.truncation {
                assert_eq!(quick.answers.len(), whole.answers.len());
                assert_eq!(quick.authorities.len(), whole.authorities.len());
            }
        }
    }
}

fn sound(request: &[u8], reply: &[u8], transport: Transport) -> Message {
    assert_eq!(reply[..2], request[..2], "the id");
    assert!(reply[2] & 0x80 != 0, "it says that it is an answer");
    assert!(transport == Transport::Tcp || reply.len() <= usize::from(MAX_PAYLOAD), "{} bytes", reply.len());
    Message::from_vec(reply).expect("the reply is a message")
}

/// An upstream's answer to [`ASKED`]: if it is believed, it is passed on within 512 bytes, and from the cache too.
pub fn answer(bytes: &[u8]) {
    let (id, name) = ASKED;
    let question = Query::query(Name::from_ascii(name).expect("a name"), RecordType::A);
    let Some(message) = matching(bytes, &question, id) else { return };
    assert_eq!(message.metadata.id, id);
    let Ok(answer) = believed(message) else { return };
    let mut asked = Message::new(1, MessageType::Query, OpCode::Query);
    asked.add_query(question.clone());
    let asked = asked.to_vec().expect("a request");
    let mut cache = Cache::new(Duration::from_secs(30));
    let now = Instant::now();
    cache.insert(&question.name, question.query_type, answer.clone(), now);
    let kept = cache.get(&question.name, question.query_type, now + Duration::from_secs(1));
    for answer in std::iter::once(answer).chain(kept) {
        for transport in [Transport::Udp, Transport::Tcp] {
            let begun = RESOLVER.begin(&asked, Asker { from: None, transport, is_inside: false });
            let Begun::Waiting(waiting) = begun else { panic!("it is forwarded") };
            let Next::Ask(forwarded) = waiting.next else { panic!("it is forwarded") };
            let reply = answered(forwarded, answer.clone()).encode();
            sound(&asked, &reply, transport);
            assert!(transport == Transport::Tcp || reply.len() <= 512, "{} bytes", reply.len());
        }
    }
}
