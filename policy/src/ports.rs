//! The ports of rules, compiled: one look-up answers which rule of many is the first to match a port.

use netstack::Protocol;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A container port that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// One entry of a rule's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortMatch {
    /// Every port of the protocol, a number, or `port` to `endPort`.
    Range(Protocol, u16, u16),
    /// The destination pod's container port of this name and protocol.
    Named(Protocol, String),
}

impl PortMatch {
    /// Whether it matches, by itself: for explanations.
    pub(crate) fn matches(&self, protocol: Protocol, port: u16, destination: &[NamedPort]) -> bool {
        match self {
            PortMatch::Range(of, first, last) => *of == protocol && (*first..=*last).contains(&port),
            PortMatch::Named(of, name) => *of == protocol && number_of(destination, *of, name) == Some(port),
        }
    }
}

impl std::fmt::Display for PortMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortMatch::Range(protocol, 0, u16::MAX) => write!(f, "{}", name_of(*protocol)),
            PortMatch::Range(protocol, first, last) if first == last => write!(f, "{first}/{}", name_of(*protocol)),
            PortMatch::Range(protocol, first, last) => write!(f, "{first}-{last}/{}", name_of(*protocol)),
            PortMatch::Named(protocol, name) => write!(f, "{name}/{}", name_of(*protocol)),
        }
    }
}

/// The number of a named port: the first container port of that name and protocol.
fn number_of(ports: &[NamedPort], protocol: Protocol, name: &str) -> Option<u16> {
    ports.iter().find(|port| port.protocol == protocol && port.name == name).map(|port| port.number)
}

/// A protocol as the API writes it.
pub(crate) fn name_of(protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => "TCP".into(),
        Protocol::Udp => "UDP".into(),
        Protocol::Sctp => "SCTP".into(),
        Protocol::Icmp => "ICMP".into(),
        Protocol::Other(number) => format!("protocol {number}"),
    }
}

/// Rules that share peers, by port: the first of them that matches.
#[derive(Debug, Default)]
pub(crate) struct PortMap {
    /// The first rule without `ports`: it matches every protocol.
    anything: Option<u32>,
    tcp: Vec<Interval>,
    udp: Vec<Interval>,
    sctp: Vec<Interval>,
    named: HashMap<Protocol, HashMap<String, u32>>,
}

/// Sorted and disjoint within a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u16,
    last: u16,
    rule: u32,
}

impl PortMap {
    /// Compiles rules, each with its place in the order; empty ports match everything.
    pub(crate) fn compile<'a>(rules: impl Iterator<Item = (u32, &'a [PortMatch])>) -> PortMap {
        let mut map = PortMap::default();
        let (mut tcp, mut udp, mut sctp) = (Vec::new(), Vec::new(), Vec::new());
        for (rule, ports) in rules {
            if ports.is_empty() {
                map.anything = Some(map.anything.map_or(rule, |known| known.min(rule)));
            }
            for port in ports {
                match port {
                    PortMatch::Range(protocol, first, last) => {
                        let interval = Interval { first: *first, last: *last, rule };
                        match protocol {
                            Protocol::Tcp => tcp.push(interval),
                            Protocol::Udp => udp.push(interval),
                            Protocol::Sctp => sctp.push(interval),
                            Protocol::Icmp | Protocol::Other(_) => {}
                        }
                    }
                    PortMatch::Named(protocol, name) => {
                        let known = map.named.entry(*protocol).or_default().entry(name.clone()).or_insert(rule);
                        *known = rule.min(*known);
                    }
                }
            }
        }
        (map.tcp, map.udp, map.sctp) = (disjoint(tcp), disjoint(udp), disjoint(sctp));
        map
    }

    /// About how much memory it holds.
    pub(crate) fn bytes(&self) -> usize {
        let named: usize = self.named.values().flat_map(HashMap::keys).map(|name| name.len() + 64).sum();
        size_of::<Interval>() * (self.tcp.len() + self.udp.len() + self.sctp.len()) + named
    }

    /// The first rule that matches a port of a destination with these named ports.
    pub(crate) fn first(&self, protocol: Protocol, port: u16, destination: &[NamedPort]) -> Option<u32> {
        let intervals = match protocol {
            Protocol::Tcp => &self.tcp[..],
            Protocol::Udp => &self.udp[..],
            Protocol::Sctp => &self.sctp[..],
            // Only rules without ports speak of other protocols.
            Protocol::Icmp | Protocol::Other(_) => &[],
        };
        let after = intervals.partition_point(|interval| interval.first <= port);
        let ranged = intervals[..after].last().filter(|interval| port <= interval.last).map(|interval| interval.rule);
        let named = self.named.get(&protocol).and_then(|named| {
            let here = destination.iter().filter(|known| known.number == port && known.protocol == protocol);
            here.filter(|known| number_of(destination, protocol, &known.name) == Some(port))
                .filter_map(|known| named.get(&known.name).copied())
                .min()
        });
        [self.anything, ranged, named].into_iter().flatten().min()
    }
}

/// Cuts overlapping intervals so that each port belongs to the first rule that has it.
fn disjoint(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by_key(|interval| interval.first);
    let mut cuts: Vec<u32> =
        intervals.iter().flat_map(|interval| [u32::from(interval.first), u32::from(interval.last) + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut result: Vec<Interval> = Vec::new();
    let mut open: BinaryHeap<Reverse<(u32, u16)>> = BinaryHeap::new(); // (rule, last)
    let mut next = intervals.iter().peekable();
    for window in cuts.windows(2) {
        let (first, last) = (window[0] as u16, (window[1] - 1) as u16);
        while let Some(interval) = next.next_if(|interval| interval.first <= first) {
            open.push(Reverse((interval.rule, interval.last)));
        }
        while open.peek().is_some_and(|Reverse((_, until))| *until < first) {
            open.pop();
        }
        let Some(Reverse((rule, _))) = open.peek().copied() else { continue };
        match result.last_mut() {
            Some(previous) if previous.rule == rule && u32::from(previous.last) + 1 == u32::from(first) => {
                previous.last = last;
            }
            _ => result.push(Interval { first, last, rule }),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_belong_to_the_first_rule() {
        let rules = [
            vec![PortMatch::Range(Protocol::Tcp, 50, 60)],
            vec![PortMatch::Range(Protocol::Tcp, 1, 100), PortMatch::Range(Protocol::Udp, 0, u16::MAX)],
            vec![PortMatch::Range(Protocol::Tcp, 90, u16::MAX)],
        ];
        let map = PortMap::compile((0u32..).zip(rules.iter().map(Vec::as_slice)));
        let tcp = |port| map.first(Protocol::Tcp, port, &[]);
        assert_eq!(
            [0, 1, 49, 50, 60, 61, 100, 101, 65535].map(tcp),
            [None, Some(1), Some(1), Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]
        );
        assert_eq!([0, 65535].map(|port| map.first(Protocol::Udp, port, &[])), [Some(1), Some(1)]);
        assert_eq!(map.first(Protocol::Sctp, 50, &[]), None);
        assert_eq!(map.first(Protocol::Icmp, 0, &[]), None);
    }

    #[test]
    fn a_named_port_is_the_destinations_first_port_of_that_name_and_protocol() {
        let rules = [vec![PortMatch::Named(Protocol::Tcp, "http".into())]];
        let map = PortMap::compile((0u32..).zip(rules.iter().map(Vec::as_slice)));
        let port = |name: &str, protocol, number| NamedPort { name: name.into(), protocol, number };
        let pod = [
            port("http", Protocol::Udp, 80),
            port("http", Protocol::Tcp, 8080),
            port("http", Protocol::Tcp, 9090),
            port("admin", Protocol::Tcp, 7070),
        ];
        let tcp = |number| map.first(Protocol::Tcp, number, &pod);
        assert_eq!([80, 8080, 9090, 7070].map(tcp), [None, Some(0), None, None]);
        assert_eq!(map.first(Protocol::Tcp, 8080, &[]), None, "an external destination has no named ports");
    }
}
