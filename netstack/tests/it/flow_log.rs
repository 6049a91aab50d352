//! The flow log: what happened to flows, told to whoever follows, at nobody's expense.

use crate::*;
use netstack::{FlowChange, FlowEnd, FlowEvent, FlowEvents};

/// The flags of the packets that open, close and break off.
const SYN: u8 = 2;

fn taken(events: &mut FlowEvents) -> Vec<FlowEvent> {
    std::iter::from_fn(|| events.take()).collect()
}

fn changes(events: &mut FlowEvents) -> Vec<FlowChange> {
    taken(events).iter().map(|event| event.change).collect()
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_told_of_when_it_opens_is_answered_and_ends_with_its_bytes() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 8080);
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", None), accept);
    let mut events = network.flow_events(false, 0);
    echo(&a, "10.96.0.1:80").await.unwrap();
    let told = taken(&mut events);
    let changes: Vec<_> = told.iter().map(|event| event.change).collect();
    assert_eq!(changes, [FlowChange::Opened, FlowChange::Answered, FlowChange::Ended(FlowEnd::Closed)]);
    let [opened, answered, ended] = &told[..] else { panic!("{told:?}") };
    assert_eq!((opened.from, opened.to, opened.flags, opened.is_reply), (PortTag(1), Some(PortTag(2)), SYN, false));
    assert_eq!((opened.original.dst, opened.translated.dst), (at("10.96.0.1:80"), at("10.0.0.2:8080")));
    assert!(answered.is_reply && answered.number > opened.number);
    let flow = &network.flows()[0];
    // All but the last acknowledgement.
    assert_eq!(ended.packets.iter().sum::<u64>() + 1, flow.packets.iter().sum::<u64>());
    assert!(ended.bytes[0] > 5 && ended.bytes[1] > 5 && ended.at >= opened.at, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_ends_with_its_reset_and_a_silent_one_when_it_is_forgotten() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let mut events = network.flow_events(false, 0);
    a.tcp_connect(at("10.0.0.2:81")).await.unwrap_err();
    assert_eq!(changes(&mut events), [FlowChange::Opened, FlowChange::Ended(FlowEnd::Reset)]);
    let (client, server) = (a.udp_bind(0).unwrap(), _b.udp_bind(53).unwrap());
    client.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    server.recv_from(&mut [0; 8]).await.unwrap();
    assert_eq!(changes(&mut events), [FlowChange::Opened]);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(changes(&mut events), [FlowChange::Ended(FlowEnd::Forgotten)]);
}

#[tokio::test(start_paused = true)]
async fn every_packet_that_is_not_delivered_is_told_of_with_the_reason_and_how_far_it_came() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", None), |_| Verdict::Drop(FORBIDDEN));
    let (mut all, mut drops) = (network.flow_events(false, 0), network.flow_events(true, 0));
    let attempt = tokio::time::timeout(Duration::from_secs(2), a.tcp_connect(at("10.96.0.1:80")));
    assert!(attempt.await.is_err(), "it times out");
    let told = taken(&mut drops);
    assert!(told.len() >= 2, "the retransmission too: {told:?}");
    for event in &told {
        assert_eq!((event.change, event.to), (FlowChange::Dropped(FORBIDDEN), Some(PortTag(2))));
        assert_eq!((event.original.dst, event.translated.dst), (at("10.96.0.1:80"), at("10.0.0.2:8080")));
    }
    assert_eq!(taken(&mut all).len(), told.len());
    let socket = a.udp_bind(0).unwrap();
    let _ = socket.send_to(b"?", at("10.9.9.9:53")).await;
    let nowhere = taken(&mut drops);
    assert_eq!((nowhere[0].change, nowhere[0].to), (FlowChange::Dropped(Reason("NO_ROUTE")), None));
    assert_eq!((network.counters().flows_opened, network.counters().flows_refused), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_new_flow_that_finds_the_table_full_of_live_ones_is_dropped_counted_and_told_of() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 8080);
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", None), accept);
    network.limit_flows(3);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = a.tcp_connect(at("10.96.0.1:80")).await.unwrap();
        greeting(&mut stream).await;
        streams.push(stream);
    }
    let mut drops = network.flow_events(true, 0);
    assert_eq!(network.drops(), []);
    let attempt = tokio::time::timeout(Duration::from_millis(500), a.tcp_connect(at("10.96.0.1:80")));
    assert!(attempt.await.is_err(), "it is not answered");
    let full = Reason("CONNTRACK_FULL");
    let told = taken(&mut drops);
    assert_eq!((told.len(), told[0].change), (1, FlowChange::Dropped(full)));
    assert_eq!((told[0].original.dst, told[0].translated.dst), (at("10.96.0.1:80"), at("10.0.0.2:8080")));
    assert_eq!(network.drops(), [(full, 1)]);
    let counters = network.counters();
    assert_eq!((counters.flows, counters.flow_limit, counters.flows_refused), (3, 3, 1));

    streams[0].write_all(b"!").await.unwrap();
    assert_eq!(streams[0].read_u8().await.unwrap(), b'!', "who is in stays in");
    let mut leaving = streams.pop().unwrap();
    leaving.shutdown().await.unwrap();
    leaving.read_to_end(&mut Vec::new()).await.unwrap();
    echo(&a, "10.96.0.1:80").await.expect("one that is over gives way");
}

#[tokio::test(start_paused = true)]
async fn an_open_connection_that_is_forbidden_later_is_told_of_at_its_next_packet() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stream).await;
    let mut drops = network.flow_events(true, 0);
    install(&network, pass, |_| Verdict::Drop(FORBIDDEN));
    stream.write_all(b"late").await.unwrap();
    let told = taken(&mut drops);
    assert_eq!((told[0].change, told[0].is_reply), (FlowChange::Dropped(FORBIDDEN), false));
    assert!(told[0].packets[0] > 0, "with what had passed before: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_the_oldest_events_and_knows_how_many() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    network.keep_flow_log(8);
    let (mut slow, mut late) = (network.flow_events(false, 0), network.flow_events(false, 0));
    for port in 1..=20 {
        a.udp_bind(0).unwrap().send_to(b"?", (ip("10.0.0.2"), port).into()).await.unwrap();
    }
    let told = taken(&mut slow);
    // One event for each question; that nobody listens is an ICMP error of the same flow.
    assert_eq!((told.len(), slow.lost()), (8, network.counters().events - 8));
    assert!(told.windows(2).all(|pair| pair[1].number == pair[0].number + 1));
    network.keep_flow_log(0);
    a.udp_bind(0).unwrap().send_to(b"?", at("10.0.0.2:99")).await.unwrap();
    assert_eq!((taken(&mut slow).len(), taken(&mut late).len()), (0, 0), "turned off, it tells nothing");
}

#[tokio::test(start_paused = true)]
async fn a_follower_begins_with_as_many_of_the_last_events_as_it_wants_and_is_woken_by_new_ones() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    for port in 1..=5 {
        a.udp_bind(0).unwrap().send_to(b"?", (ip("10.0.0.2"), port).into()).await.unwrap();
    }
    let ports = |events: &[FlowEvent]| events.iter().map(|event| event.original.dst.port()).collect::<Vec<_>>();
    assert_eq!(ports(&taken(&mut network.flow_events(false, 2))), [4, 5]);
    let mut events = network.flow_events(false, 0);
    let follower = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            told.push(event);
        }
        told
    });
    tokio::task::yield_now().await;
    a.udp_bind(0).unwrap().send_to(b"?", at("10.0.0.2:6")).await.unwrap();
    network.stop();
    // What is left when the network stops is told first.
    assert_eq!(ports(&follower.await.unwrap()), [6]);
}
