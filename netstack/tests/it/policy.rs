//! Verdicts, epochs.

use crate::*;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A filter that a test can switch: what it answers when closed, and the switch.
fn gate(verdict: Verdict) -> (impl Fn(&NewFlow) -> Verdict + Send + Sync + 'static, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(true));
    let state = is_open.clone();
    (move |_: &NewFlow| if state.load(Ordering::Relaxed) { Verdict::Accept } else { verdict }, is_open)
}

#[tokio::test(start_paused = true)]
async fn the_filter_sees_the_translated_flow_and_both_ports() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 8080);
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = seen.clone();
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:8080", Some("172.18.0.2")), move |flow| {
        log.lock().push(*flow);
        Verdict::Accept
    });
    echo(&a, "10.96.0.1:80").await.unwrap();
    let seen = seen.lock();
    assert_eq!(seen.len(), 1, "asked once for the whole connection");
    assert_eq!((seen[0].from, seen[0].to), (PortTag(1), PortTag(2)));
    assert_eq!((seen[0].original.src.ip(), seen[0].original.dst), (ip("10.0.0.1"), at("10.96.0.1:80")));
    assert_eq!((seen[0].translated.src.ip(), seen[0].translated.dst), (ip("172.18.0.2"), at("10.0.0.2:8080")));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_flow_times_out_and_is_shown_with_its_reason() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    install(&network, pass, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Verdict::Drop(FORBIDDEN)
    });
    let connect = tokio::spawn(async move { a.tcp_connect(at("10.0.0.2:80")).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(network.flows()[0].dropped, Some(FORBIDDEN));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "remembered for the retransmissions");
    assert_eq!(connect.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(network.drops(), [(FORBIDDEN, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_flow_is_refused_at_once() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    install(&network, pass, |_| Verdict::Reject(FORBIDDEN));
    assert_eq!(a.tcp_connect(at("10.0.0.2:80")).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let socket = a.udp_bind(0).unwrap();
    socket.send_to(b"?", at("10.0.0.2:53")).await.unwrap();
    assert_eq!(socket.recv_from(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_judges_established_flows_again() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let (filter, is_open) = gate(Verdict::Drop(FORBIDDEN));
    install(&network, pass, filter);
    let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stream).await;

    is_open.store(false, Ordering::Relaxed);
    stream.write_all(b"1").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'1', "the old verdict holds for its epoch");
    network.reevaluate();
    stream.write_all(b"2").await.unwrap();
    tokio::time::timeout(SOON, stream.read_u8()).await.unwrap_err();
    assert_eq!(network.flows()[0].dropped, Some(FORBIDDEN));

    is_open.store(true, Ordering::Relaxed);
    network.reevaluate();
    assert_eq!(stream.read_u8().await.unwrap(), b'2', "the retransmission passes");
    assert_eq!(network.flows()[0].dropped, None);
}

#[tokio::test(start_paused = true)]
async fn a_denied_flow_keeps_its_translation_for_the_day_it_may_pass_again() {
    let network = network();
    let (a, b, c) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"), host(&network, "10.0.0.3"));
    serve(&b, 80);
    serve(&c, 80);
    install(&network, dnat("10.96.0.1:80", "10.0.0.2:80", None), accept);
    let mut stream = a.tcp_connect(at("10.96.0.1:80")).await.unwrap();
    greeting(&mut stream).await;
    install(&network, dnat("10.96.0.1:80", "10.0.0.3:80", None), |_| Verdict::Drop(FORBIDDEN));
    stream.write_all(b"x").await.unwrap();
    tokio::time::timeout(SOON, stream.read_u8()).await.unwrap_err();
    install(&network, dnat("10.96.0.1:80", "10.0.0.3:80", None), accept);
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn an_established_flow_that_is_rejected_is_reset() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    greeting(&mut stream).await;
    install(&network, pass, |_| Verdict::Reject(FORBIDDEN));
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_denied_connection_attempt_is_not_poisoned_for_the_next_epoch() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let (filter, is_open) = gate(Verdict::Drop(FORBIDDEN));
    is_open.store(false, Ordering::Relaxed);
    install(&network, pass, filter);
    let start = Instant::now();
    let connect = tokio::spawn(async move { echo(&a, "10.0.0.2:80").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_open.store(true, Ordering::Relaxed);
    network.reevaluate();
    connect.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 1, "the second SYN passes");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_echo_counts_too() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    install(&network, pass, |_| Verdict::Drop(FORBIDDEN));
    assert_eq!(a.ping(ip("10.0.0.2"), 0, SOON).await.unwrap_err().kind(), ErrorKind::TimedOut);
    install(&network, pass, |_| Verdict::Reject(FORBIDDEN));
    assert_eq!(a.ping(ip("10.0.0.2"), 0, SOON).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn hooks_are_dropped_when_they_are_replaced() {
    let network = network();
    let held = Arc::new(());
    let (one, two) = (held.clone(), held.clone());
    install(
        &network,
        move |_| {
            let _ = &one;
            Translation::Pass
        },
        move |_| {
            let _ = &two;
            Verdict::Accept
        },
    );
    assert_eq!(Arc::strong_count(&held), 3);
    install(&network, pass, accept);
    assert_eq!(Arc::strong_count(&held), 1);
}
