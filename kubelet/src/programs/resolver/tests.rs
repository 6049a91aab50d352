//! A resolver against a small DNS server on the same network.

use super::*;
use crate::programs::harness::{Machine, network};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A server that knows a few names and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    _machine: Machine,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// How the server treats a question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Says nothing over UDP.
    Silent,
    /// Truncates over UDP.
    Truncating,
    Failing,
}

pub(crate) fn serve(machine: Machine, zone: &'static [(&'static str, &'static str)], manner: Manner) -> Server {
    let asked: Arc<Mutex<Vec<(String, RecordType)>>> = Arc::default();
    let log = asked.clone();
    let reply = move |bytes: &[u8]| {
        let question = Message::from_vec(bytes).expect("a question");
        let query = question.queries[0].clone();
        log.lock().push((query.name().to_ascii(), query.query_type()));
        let mut answer = question.clone().into_response();
        let known: Vec<&str> =
            zone.iter().filter(|(name, _)| *name == query.name().to_ascii()).map(|(_, address)| *address).collect();
        if known.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        if manner == Manner::Failing {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        // A name without an address has no records.
        for address in known.into_iter().filter(|address| !address.is_empty()) {
            let data = match address.parse().expect("an address") {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            if data.record_type() == query.query_type() {
                answer.add_answer(Record::from_rdata(query.name().clone(), 30, data));
            }
        }
        answer
    };
    let udp = machine.host.udp_bind(53).expect("port 53");
    let tcp = machine.host.tcp_listen(53).expect("port 53");
    let over_udp = reply.clone();
    let tasks = vec![
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let mut answer = over_udp(&buffer[..length]);
                match manner {
                    Manner::Silent => continue,
                    Manner::Truncating => answer = answer.truncate(),
                    Manner::Plain | Manner::Failing => {}
                }
                let _ = udp.send_to(&answer.to_vec().expect("encodes"), from).await;
            }
        })),
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.expect("a length");
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await.expect("a question");
                let answer = reply(&bytes).to_vec().expect("encodes");
                stream.write_u16(answer.len() as u16).await.expect("written");
                stream.write_all(&answer).await.expect("written");
            }
        })),
    ];
    Server { asked, _machine: machine, _tasks: tasks }
}

/// A client whose resolv.conf is that of a pod in `default`.
pub(crate) fn client(network: &netstack::Network, more: &str) -> Machine {
    let machine = Machine::at(network, "10.0.0.1");
    let text = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.0.0.53\n{more}options ndots:5\n"
    );
    machine.files.mount("/etc/resolv.conf", text, 0o644);
    machine
}

const ZONE: &[(&str, &str)] = &[
    ("web.default.svc.cluster.local.", "10.96.0.7"),
    ("dual.default.svc.cluster.local.", "10.96.0.8"),
    ("dual.default.svc.cluster.local.", "fd00::8"),
    ("example.org.", "192.0.2.1"),
    ("bare.default.svc.cluster.local.", ""),
    ("bare.svc.cluster.local.", "10.96.0.9"),
    ("a.b.c.d.e.f.", "192.0.2.2"),
];

#[tokio::test(start_paused = true)]
async fn a_short_name_walks_the_search_list_and_stops_at_the_first_answer() {
    let network = network();
    let server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    let found = lookup(&client.host, &client.files, "web").await.expect("known");
    assert_eq!(found, ["10.96.0.7".parse::<IpAddr>().expect("an address")]);
    let mut asked = server.asked.lock().clone();
    asked.sort();
    let name = "web.default.svc.cluster.local.".to_owned();
    assert_eq!(asked, [(name.clone(), RecordType::A), (name, RecordType::AAAA)]);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_fewer_dots_than_ndots_is_asked_as_is_last_and_with_a_trailing_dot_only() {
    let network = network();
    let server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    lookup(&client.host, &client.files, "example.org").await.expect("known");
    let names = |log: &Mutex<Vec<(String, RecordType)>>| {
        let mut names: Vec<String> = log.lock().drain(..).map(|(name, _)| name).collect();
        names.dedup();
        names
    };
    assert_eq!(
        names(&server.asked),
        [
            "example.org.default.svc.cluster.local.",
            "example.org.svc.cluster.local.",
            "example.org.cluster.local.",
            "example.org."
        ]
    );
    lookup(&client.host, &client.files, "example.org.").await.expect("known");
    assert_eq!(names(&server.asked), ["example.org."]);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_does_not_end_the_search() {
    let network = network();
    let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    let found = lookup(&client.host, &client.files, "bare").await.expect("known further on");
    assert_eq!(found, ["10.96.0.9".parse::<IpAddr>().expect("an address")]);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_as_many_dots_as_ndots_is_asked_as_is_first_and_then_searched() {
    let network = network();
    let server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    lookup(&client.host, &client.files, "a.b.c.d.e.f").await.expect("known");
    let first: Vec<String> = server.asked.lock().drain(..).map(|(name, _)| name).collect();
    assert_eq!(first, ["a.b.c.d.e.f.", "a.b.c.d.e.f."], "A and AAAA, and nothing else");
    lookup(&client.host, &client.files, "u.n.k.n.o.w").await.expect_err("unknown");
    let names: Vec<String> = server.asked.lock().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!((names.len(), names[0].as_str()), (8, "u.n.k.n.o.w."));
    assert!(names[2..4].iter().all(|name| name == "u.n.k.n.o.w.default.svc.cluster.local."), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn addresses_of_the_hosts_own_family_come_first() {
    let network = network();
    let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    let found = lookup(&client.host, &client.files, "dual").await.expect("known");
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.8", "fd00::8"]);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let network = network();
    let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Truncating);
    let client = client(&network, "");
    assert_eq!(lookup(&client.host, &client.files, "web").await.expect("known").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_twice_for_five_seconds_each() {
    let network = network();
    let server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Silent);
    let client = client(&network, "");
    let begun = Instant::now();
    let error = lookup(&client.host, &client.files, "web").await.expect_err("silent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(server.asked.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn rule_9_3_both_types_of_address_are_asked_for_at_the_same_time() {
    let network = network();
    let server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Silent);
    let client = client(&network, "");
    let looking = lookup(&client.host, &client.files, "web");
    tokio::time::timeout(Duration::from_secs(1), looking).await.expect_err("the first answer is still waited for");
    let mut asked = server.asked.lock().clone();
    asked.sort_by_key(|(_, kind)| u16::from(*kind));
    let web = "web.default.svc.cluster.local.".to_owned();
    assert_eq!(asked, [(web.clone(), RecordType::A), (web, RecordType::AAAA)]);
}

#[tokio::test(start_paused = true)]
async fn the_next_nameserver_is_asked_when_one_fails() {
    let network = network();
    let _failing = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Failing);
    let _other = serve(Machine::at(&network, "10.0.0.54"), ZONE, Manner::Plain);
    let client = client(&network, "nameserver 10.0.0.54\n");
    assert_eq!(lookup(&client.host, &client.files, "web").await.expect("known").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_not_found() {
    let network = network();
    let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
    let client = client(&network, "");
    let error = lookup(&client.host, &client.files, "nobody").await.expect_err("unknown");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn etc_hosts_comes_before_dns() {
    let machine = Machine::new();
    let found = lookup(&machine.host, &machine.files, "WEB-0").await.expect("in /etc/hosts");
    assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().expect("an address")]);
    let literal = lookup(&machine.host, &machine.files, "[fd00::1]").await.expect("a literal");
    assert_eq!(literal, ["fd00::1".parse::<IpAddr>().expect("an address")]);
}

#[test]
fn resolv_conf_is_read_with_its_limits() {
    let config = Config::parse(
        "# comment\nnameserver 10.96.0.10\nnameserver x\nsearch a.b c.d.\noptions ndots:50 timeout:2 attempts:9 edns0 use-vc\n",
    );
    assert_eq!(config.nameservers, ["10.96.0.10".parse::<IpAddr>().expect("an address")]);
    assert_eq!(config.search, ["a.b", "c.d"]);
    assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts, config.tcp), (15, 2, 5, true));
    assert_eq!(Config::parse("").nameservers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
}
