//! The table's own bookkeeping: what gives way, what is given back.

use super::*;
use crate::packet::Icmp;
use crate::port::{Kind, Port};

fn port() -> (PortId, PortTag) {
    let mut ports = Arena::new();
    (ports.insert(Port { tag: PortTag(1), addresses: vec![], kind: Kind::Raw(Box::default()) }), PortTag(1))
}

fn flow(number: u16, now: Instant) -> Flow {
    let key = FlowKey::new(protocol::TCP, ([10, 0, 0, 1], number).into(), ([10, 0, 0, 2], 80).into());
    let mut flow = Flow::new(key, key, port(), port(), now);
    flow.was_accepted = true;
    flow
}

fn header(flow: &Flow) -> Header {
    Header { key: flow.original, transport: 20, end: 40, flags: 0, icmp: Icmp::Other }
}

/// A flow in which these control bits have been seen, there and back.
fn after(number: u16, now: Instant, segments: &[(Direction, u8)]) -> Flow {
    let mut flow = flow(number, now);
    for (direction, flags) in segments {
        let header = Header { flags: *flags, ..header(&flow) };
        let _ = flow.see(*direction, &header, 40, now);
    }
    flow
}

const ESTABLISHED: [(Direction, u8); 3] =
    [(Direction::Original, flag::SYN), (Direction::Reply, flag::SYN | flag::ACK), (Direction::Original, flag::ACK)];

#[test]
fn a_full_table_forgets_what_is_closing_and_then_what_is_unanswered() {
    let now = Instant::now();
    let mut table = FlowTable::new(3, 1);
    let established = table.insert(after(1, now, &ESTABLISHED), now).unwrap();
    let unanswered = table.insert(after(2, now, &ESTABLISHED[..1]), now).unwrap();
    let closing = table.insert(after(3, now, &[ESTABLISHED[0], (Direction::Reply, flag::RST)]), now).unwrap();
    for victim in [closing, unanswered] {
        assert!(table.get_mut(victim).is_some());
        let number = if victim == closing { 4 } else { 5 };
        table.insert(after(number, now, &ESTABLISHED), now).unwrap();
        assert!(table.get_mut(victim).is_none());
    }
    assert!(table.insert(flow(6, now), now).is_none(), "established connections do not give way");
    assert!(table.get_mut(established).is_some());
}

#[test]
fn denied_flows_take_an_eighth_of_the_table_at_most() {
    let now = Instant::now();
    let mut table = FlowTable::new(16, 1);
    let denied = |number| Flow { was_accepted: false, ..flow(number, now) };
    assert!(table.insert(denied(1), now).is_some());
    assert!(table.insert(denied(2), now).is_some());
    assert!(table.insert(denied(3), now).is_none());
    table.expire(now + Duration::from_secs(31));
    assert!(table.insert(denied(3), now + Duration::from_secs(31)).is_some());
}

#[test]
fn connections_that_come_and_go_behind_an_idle_one_leave_no_memory_behind() {
    let now = Instant::now();
    let mut table = FlowTable::new(1000, 1);
    let idle = table.insert(after(1, now, &ESTABLISHED), now).unwrap();
    for round in 0..20_000_u64 {
        let at = now + Duration::from_millis(round);
        let id = table.insert(after(2, at, &ESTABLISHED), at).unwrap();
        let reset = Header { flags: flag::RST, ..header(&flow(2, at)) };
        let _ = table.get_mut(id).unwrap().see(Direction::Original, &reset, 40, at);
        table.reclassify(id);
        table.remove(id);
        table.expire(at);
    }
    let entries: usize = table.queues.iter().map(VecDeque::len).sum();
    assert!(entries <= 2 * STALE + 10, "{entries} entries for one flow");
    assert_eq!((table.flows.len(), table.live.iter().sum::<usize>()), (1, 1));
    let day = now + Duration::from_secs(24 * 3600);
    table.expire(day);
    assert!(table.get_mut(idle).is_none());
}

#[test]
fn memory_is_given_back_when_flows_expire() {
    let now = Instant::now();
    let mut table = FlowTable::new(1000, 1);
    for number in 1..=100 {
        table.insert(after(number, now, &ESTABLISHED[..1]), now).unwrap();
    }
    assert_eq!(table.due(), Some(now + Duration::from_secs(121)));
    table.expire(now + Duration::from_secs(121));
    assert_eq!((table.flows.len(), table.keys.len(), table.due()), (0, 0, None));
}
