//! How long conntrack remembers a silent flow, by the state it is in.

use std::time::Duration;

/// How long a flow may be silent before it is forgotten: Linux' defaults, or [`Timeouts::fast`] for tests.
///
/// Set with [`Network::set_timeouts`](crate::Network::set_timeouts). A forgotten flow's next packet makes a new one, which
/// is translated and judged anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A SYN that nobody has answered: 120 s.
    pub tcp_syn_sent: Duration,
    /// An answered SYN whose opener has not spoken again: 60 s.
    pub tcp_handshake: Duration,
    /// An established connection: 24 h (Linux has five days).
    pub tcp_established: Duration,
    /// One side has sent FIN: 1 h.
    pub tcp_half_closed: Duration,
    /// Both sides have sent FIN, or one RST; an SCTP association has been aborted or shut down: 10 s.
    pub closed: Duration,
    /// A datagram without an answer: 30 s.
    pub udp_unreplied: Duration,
    /// Datagrams both ways: 120 s.
    pub udp_stream: Duration,
    /// SCTP both ways: 210 s.
    pub sctp: Duration,
    /// ICMP echo: 30 s.
    pub echo: Duration,
    /// A flow that the filter has refused: 30 s.
    pub denied: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            tcp_syn_sent: Duration::from_secs(120),
            tcp_handshake: Duration::from_secs(60),
            tcp_established: Duration::from_secs(24 * 3600),
            tcp_half_closed: Duration::from_secs(3600),
            closed: Duration::from_secs(10),
            udp_unreplied: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
            sctp: Duration::from_secs(210),
            echo: Duration::from_secs(30),
            denied: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// Short ones, for tests on a real clock that want to see flows end: a second for what is unanswered or over, a few for
    /// what is alive, a minute for established connections.
    pub fn fast() -> Timeouts {
        let second = Duration::from_secs(1);
        Timeouts {
            tcp_syn_sent: 3 * second,
            tcp_handshake: 3 * second,
            tcp_established: 60 * second,
            tcp_half_closed: 5 * second,
            closed: second,
            udp_unreplied: second,
            udp_stream: 3 * second,
            sctp: 3 * second,
            echo: second,
            denied: second,
        }
    }

    pub(crate) fn of(&self, class: Class) -> Duration {
        match class {
            Class::Closing => self.closed,
            Class::Denied => self.denied,
            Class::Unreplied => self.udp_unreplied,
            Class::Echo => self.echo,
            Class::Handshake => self.tcp_handshake,
            Class::SynSent => self.tcp_syn_sent,
            Class::Stream => self.udp_stream,
            Class::Sctp => self.sctp,
            Class::HalfClosed => self.tcp_half_closed,
            Class::Established => self.tcp_established,
        }
    }
}

/// The state of a flow, as far as forgetting it is concerned; when the table is full, the first ones give way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Closing,
    Denied,
    Unreplied,
    Echo,
    Handshake,
    SynSent,
    Stream,
    Sctp,
    HalfClosed,
    Established,
}

/// All of them, each at its own index.
pub(crate) const CLASSES: [Class; 10] = [
    Class::Closing,
    Class::Denied,
    Class::Unreplied,
    Class::Echo,
    Class::Handshake,
    Class::SynSent,
    Class::Stream,
    Class::Sctp,
    Class::HalfClosed,
    Class::Established,
];

/// The classes that give way to a new flow when the table is full, first the least regretted.
pub(crate) const EVICTABLE: usize = 6;
