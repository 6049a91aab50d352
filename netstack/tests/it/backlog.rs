//! What listeners do when many knock at once: half-open connections, those that give up, and a queue that is full.

use crate::raw::{next, parse_tcp, segment, tcp};
use crate::*;
use netstack::RawPort;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use smoltcp::wire::TcpControl::{self, Rst, Syn};

/// Connections waiting to be accepted, and as many on their way there: more than a listener's queues take.
const MANY: u16 = 5_000;
const SERVER: &str = "10.0.0.2";
const STRANGER: &str = "10.0.0.9";

fn say(raw: &RawPort, port: u16, control: TcpControl, seq: i32, ack: Option<i32>) {
    raw.send(&tcp(STRANGER, SERVER, segment(port, 80, control, seq, ack)));
}

/// The sequence number after that of the next SYN with ACK.
async fn answered(raw: &mut RawPort) -> i32 {
    loop {
        let packet = next(raw).await;
        let answer = parse_tcp(&packet);
        if answer.control == Syn {
            return answer.seq_number.0.wrapping_add(1);
        }
    }
}

async fn reaches(client: &Host) -> bool {
    let connected = tokio::time::timeout(Duration::from_millis(500), client.tcp_connect(at("10.0.0.2:80"))).await;
    connected.is_ok_and(|connected| connected.is_ok())
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_that_are_reset_leave_the_listener_free_for_others() {
    let seed = 20_260_101;
    let mut random = SmallRng::seed_from_u64(seed);
    let network = network();
    let (client, server) = (host(&network, "10.0.0.1"), host(&network, SERVER));
    let listener = server.tcp_listen(80).unwrap();
    let mut raw = network.attach_raw(&[ip(STRANGER)], PortTag(9)).unwrap();
    let mut waiting = 0;
    for number in 0..4 * u32::from(MANY) {
        let (port, seq) = (random.random_range(1..=u16::MAX), random.random::<i32>());
        say(&raw, port, Syn, seq, None);
        let theirs = answered(&mut raw).await;
        let after = seq.wrapping_add(1);
        match random.random_range(0..8) {
            // Completed, and broken off before or after it is accepted.
            0 => {
                say(&raw, port, TcpControl::None, after, Some(theirs));
                waiting += 1;
                if random.random() {
                    say(&raw, port, Rst, after, None);
                    drop(listener.accept().await.unwrap());
                } else {
                    let accepted = listener.accept().await.unwrap();
                    say(&raw, port, Rst, after, None);
                    drop(accepted);
                }
                waiting -= 1;
            }
            // Asked twice.
            1 => {
                say(&raw, port, Syn, seq, None);
                say(&raw, port, Rst, after, None);
            }
            // A reset that acknowledges.
            2 => say(&raw, port, Rst, after, Some(theirs)),
            _ => say(&raw, port, Rst, after, None),
        }
        if number % 1000 == 0 {
            assert!(reaches(&client).await, "seed {seed}, after {number}");
            drop(listener.accept().await.unwrap());
        }
    }
    assert_eq!(waiting, 0);
    for _ in 0..MANY / 2 {
        let connected = client.tcp_connect(at("10.0.0.2:80")).await;
        drop((connected.unwrap(), listener.accept().await.unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_never_reads_its_answers_keeps_no_one_else_out_once_it_has_reset() {
    let network = network();
    let (client, server) = (host(&network, "10.0.0.1"), host(&network, SERVER));
    let listener = server.tcp_listen(80).unwrap();
    let raw = network.attach_raw(&[ip(STRANGER)], PortTag(9)).unwrap();
    // More answers than its queue takes: they stop when it is full.
    for port in 1..=35_000 {
        say(&raw, port, Syn, 1, None);
        say(&raw, port, Rst, 2, None);
    }
    assert!(reaches(&client).await);
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_queue_is_full_is_silent_and_says_so_until_half_open_ones_time_out() {
    let network = network();
    let (client, server) = (host(&network, "10.0.0.1"), host(&network, SERVER));
    let listener = server.tcp_listen(80).unwrap();
    let raw = network.attach_raw(&[ip(STRANGER)], PortTag(9)).unwrap();
    for port in 1..=MANY {
        say(&raw, port, Syn, 1, None);
    }
    let full = || network.drops().iter().find(|(reason, _)| reason.0 == "LISTEN_QUEUE_FULL").map_or(0, |(_, n)| *n);
    let turned_away = full();
    assert_eq!(turned_away, u64::from(MANY) - 4096);
    let mut drops = network.flow_events(true, 0);
    assert!(!reaches(&client).await);
    assert_eq!(full(), turned_away + 1);
    let told = drops.take().expect("the flow log tells of it");
    assert_eq!(told.change, netstack::FlowChange::Dropped(Reason("LISTEN_QUEUE_FULL")));
    assert_eq!((told.original.dst, told.is_reply), (at("10.0.0.2:80"), false));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(reaches(&client).await, "who has not come back for so long is given up");
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn a_new_listener_on_the_port_does_not_count_the_half_open_connections_of_the_old_one() {
    let network = network();
    let (client, server) = (host(&network, "10.0.0.1"), host(&network, SERVER));
    let raw = network.attach_raw(&[ip(STRANGER)], PortTag(9)).unwrap();
    for round in 0..3u16 {
        let listener = server.tcp_listen(80).unwrap();
        for port in 1..=3_000 {
            say(&raw, round * 3_000 + port, Syn, 1, None);
        }
        assert!(reaches(&client).await, "round {round}");
        drop(listener);
    }
}
