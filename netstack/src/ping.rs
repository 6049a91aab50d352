//! Echo, as programs ask for it (RFC 792, RFC 4443). Hosts answer others' requests in [`host`](crate::host).

use crate::answer;
use crate::core::Core;
use crate::flow_key::{Address, FlowKey, address, protocol};
use crate::host::{Host, concrete, is_down};
use crate::packet::{Header, Packet};
use crate::port::PortId;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// The largest payload.
const LARGEST: usize = 65_000;

/// An echo that waits for its reply, by its identifier.
pub(crate) struct PingState {
    to: Address,
    outcome: Option<io::Result<Instant>>,
    pub(crate) waker: Option<Waker>,
}

impl PingState {
    /// An ICMP error about an echo to `to`; whom to wake.
    pub(crate) fn failed(&mut self, to: Address, kind: io::ErrorKind) -> Option<Waker> {
        if self.to != to || self.outcome.is_some() {
            return None;
        }
        self.outcome = Some(Err(kind.into()));
        self.waker.take()
    }
}

impl Core {
    pub(crate) fn echo_reply(&mut self, port: PortId, packet: Packet, header: &Header) {
        let now = self.now;
        if let Ok(host) = self.host_mut(port)
            && let Some(ping) = host.pings.get_mut(&header.key.src_port)
            && ping.outcome.is_none()
        {
            ping.outcome = Some(Ok(now));
            let waker = ping.waker.take();
            self.wakes.wake(waker);
        }
        self.pool.put(packet);
    }
}

impl Host {
    /// One ICMP echo: the round-trip time.
    ///
    /// # Errors
    /// `TimedOut` when nobody answers; `HostUnreachable`, `ConnectionRefused` when an ICMP error does.
    pub async fn ping(&self, to: IpAddr, payload: usize, timeout: Duration) -> io::Result<Duration> {
        let to = concrete(SocketAddr::new(to, 0)).ip();
        if payload > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{payload} bytes: at most {LARGEST} fit")));
        }
        let (ping, sent) = self.shared().with(|core| {
            let source = core.source(self.port(), to)?;
            let host = core.host_mut(self.port())?;
            let ident = host.free_port(|host, ident| !host.pings.contains_key(&ident))?;
            host.pings.insert(ident, PingState { to: address(to), outcome: None, waker: None });
            let number = if to.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
            let key = FlowKey::new(number, SocketAddr::new(source, ident), SocketAddr::new(to, ident));
            let request = answer::echo_request(&mut core.pool, &key, 1, payload);
            core.send(request, self.port());
            io::Result::Ok((Ping { host: self, ident }, core.now))
        })?;
        match tokio::time::timeout(timeout, poll_fn(|cx| ping.poll(cx))).await {
            Ok(answered) => Ok(answered?.saturating_duration_since(sent)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no echo reply from {to}"))),
        }
    }
}

/// An echo under way; forgotten when dropped.
struct Ping<'a> {
    host: &'a Host,
    ident: u16,
}

impl Ping<'_> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<Instant>> {
        self.host.shared().with(|core| {
            let Core { ports, wakes, .. } = core;
            let ping = ports
                .get_mut(self.host.port())
                .and_then(|port| port.host_mut())
                .and_then(|host| host.pings.get_mut(&self.ident));
            let Some(ping) = ping else { return Poll::Ready(Err(is_down())) };
            match ping.outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    wakes.register(&mut ping.waker, cx.waker());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Ping<'_> {
    fn drop(&mut self) {
        self.host.shared().with(|core| {
            if let Ok(host) = core.host_mut(self.host.port())
                && let Some(ping) = host.pings.remove(&self.ident)
            {
                core.wakes.retire(ping.waker);
            }
        });
    }
}
