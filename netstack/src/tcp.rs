//! TCP connections: smoltcp's state machine, each in a socket set of its own, fed by our demultiplexer.
//!
//! One set per connection because smoltcp walks the whole set for every packet. Here are segments in
//! ([`Core::segment_arrives`]), segments out ([`Core::transmit`]), what follows from the state afterwards, and the
//! end of connections. Their deadlines are in [`tcp_timers`](crate::tcp_timers). The handles that programs hold are in [`stream`](crate::stream); who a segment belongs to
//! is found in [`host`](crate::host).
//!
//! Follows RFC 9293. Of smoltcp's options, Nagle is off, delayed ACK is off since we know better when a program has nothing
//! to answer, and so is the user timeout, which would end idle connections.

use crate::arena::Id;
use crate::core::{Core, Queued};
use crate::flow_key::FlowKey;
use crate::link::Link;
use crate::packet::{Header, Packet, be32, flag};
use crate::port::PortId;
use crate::sockets::{BUFFER, PooledSocket};
use smoltcp::iface::PollResult;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};
use std::collections::VecDeque;
use std::io;
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// The key of a connection.
pub(crate) type ConnectionId = Id<Connection>;

/// A receiver announces its window again when it has read so much.
const WINDOW_STEP: usize = BUFFER / 4;
/// Segments up to this size may be acknowledged with the answer to them.
const SHORT: usize = 16 * 1024;
/// How long a program may think before they are acknowledged without one (RFC 1122, 4.2.3.2, allows half a second).
const ACK_DELAY: Duration = Duration::from_millis(40);
/// From the first SYN to giving up: five transmissions, 1 s + 2 s + 4 s + 8 s + 16 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(31);
/// How long a connection that nobody holds is kept without getting anything more delivered.
pub(crate) const LINGER: Duration = Duration::from_secs(180);
/// How long such a connection waits for the peer's FIN when everything is delivered (Linux' tcp_fin_timeout).
const FIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// This side, by connecting; or the peer, with somebody waiting for this very connection.
    Direct,
    /// The peer; not yet handed to the listener on that port.
    Pending(u16),
    /// The peer; handed over.
    Accepted,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) port: PortId,
    /// The key of its peer's segments.
    pub(crate) key: FlowKey,
    pub(crate) role: Role,
    socket: PooledSocket,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) error: Option<io::ErrorKind>,
    /// The raw port its segments last left by, for back-pressure.
    pub(crate) exit: Option<PortId>,
    /// Nobody holds it any more.
    pub(crate) is_orphan: bool,
    is_dirty: bool,
    /// Whether the demultiplexer knows it.
    is_known: bool,
    /// An acknowledgement is due, and waits for the program's next move.
    pub(crate) owes_ack: bool,
    /// What the program has read since the window was last announced.
    unannounced: usize,
    /// When the socket wants to be polled.
    pub(crate) poll_at: Option<Instant>,
    /// When we lose patience.
    pub(crate) limit: Option<Instant>,
    /// The entry in the timer heap.
    pub(crate) armed: Option<Instant>,
    /// The last sign of life that matters for the user timeout.
    pub(crate) progress: Instant,
    /// What an orphan had still to deliver when it was last asked.
    pub(crate) undelivered: usize,
    /// The last acknowledgement numbers heard and said, for [`Core::revive`].
    pub(crate) heard: u32,
    pub(crate) said: u32,
    /// How often it was revived without an effect; `None` while its socket minds its own timers.
    pub(crate) revivals: Option<u32>,
}

impl Connection {
    pub(crate) fn socket(&self) -> &Socket<'static> {
        self.socket.get()
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.socket.get_mut()
    }

    /// Notes what the segment just queued acknowledges.
    fn has_said(&mut self, inbox: &VecDeque<Queued>) {
        self.owes_ack = false;
        if let Some(sent) = inbox.back() {
            let transport = if self.key.is_v4() { 20 } else { 40 };
            self.said = be32(sent.packet.bytes(), transport + 8);
        }
    }

    /// Notes that the program writes into an empty buffer: the peer's silence counts from now.
    pub(crate) fn has_written(&mut self, now: Instant) {
        self.progress = now;
    }

    /// Notes that the program has read; whether the peer should hear of the larger window.
    pub(crate) fn has_read(&mut self, bytes: usize) -> bool {
        self.unannounced += bytes;
        if self.unannounced < WINDOW_STEP {
            return false;
        }
        self.unannounced = 0;
        true
    }
}

impl Core {
    /// The time as smoltcp counts it.
    pub(crate) fn stack_time(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.now.saturating_duration_since(self.start).as_micros() as i64)
    }

    fn new_connection(&mut self, port: PortId, key: FlowKey, role: Role) -> ConnectionId {
        let id = self.connections.insert(Connection {
            port,
            key,
            role,
            socket: PooledSocket::new(),
            reader: None,
            writer: None,
            error: None,
            exit: None,
            is_orphan: false,
            is_dirty: false,
            is_known: true,
            owes_ack: false,
            unannounced: 0,
            poll_at: None,
            limit: Some(self.now + HANDSHAKE_TIMEOUT),
            armed: None,
            progress: self.now,
            undelivered: 0,
            heard: 0,
            said: 0,
            revivals: None,
        });
        if let Some(host) = self.ports.get_mut(port).and_then(|port| port.host_mut()) {
            host.connections.insert(key, id);
        }
        id
    }

    /// Sends the SYN of a new connection. `key` is that of its peer's segments.
    pub(crate) fn open(&mut self, port: PortId, key: FlowKey) -> io::Result<ConnectionId> {
        let id = self.new_connection(port, key, Role::Direct);
        let Core { connections, ports, .. } = self;
        let host = ports.get_mut(port).and_then(|port| port.host_mut());
        let result = match (connections.get_mut(id), host) {
            (Some(connection), Some(host)) => {
                let (remote, local) = (IpEndpoint::from(key.source()), IpEndpoint::from(key.destination()));
                connection.socket_mut().connect(host.interface.context(), remote, local).is_ok()
            }
            _ => false,
        };
        if !result {
            self.forget(id);
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.touch(id);
        Ok(id)
    }

    /// Makes the connection that a SYN asks for and answers it.
    pub(crate) fn open_passively(&mut self, port: PortId, role: Role, packet: Packet, header: &Header) -> ConnectionId {
        let id = self.new_connection(port, header.key, role);
        if let Some(connection) = self.connections.get_mut(id) {
            let local = header.key.destination();
            let at = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
            // The socket is closed and the port is not 0, which are listen's only conditions.
            let _ = connection.socket_mut().listen(at);
        }
        self.segment_arrives(id, packet, header);
        id
    }

    /// Gives a segment to the connection it belongs to.
    pub(crate) fn segment_arrives(&mut self, id: ConnectionId, packet: Packet, header: &Header) {
        let time = self.stack_time();
        let Core { connections, ports, pool, inbox, now, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return self.pool.put(packet) };
        let Some(host) = ports.get_mut(connection.port).and_then(|port| port.host_mut()) else {
            return self.pool.put(packet);
        };
        let before = connection.socket().state();
        let mut link = Link { received: Some(packet.bytes()), pool, inbox, from: connection.port, sender: id };
        let queued = link.inbox.len();
        host.interface.poll_ingress_single(time, &mut link, connection.socket.set_mut());
        let has_answered = inbox.len() > queued;
        if has_answered {
            connection.has_said(inbox);
        }
        connection.progress = *now;
        connection.revivals = None;
        if header.flags & flag::ACK != 0 {
            connection.heard = be32(header.segment(packet.bytes()), 8);
        }
        let after = connection.socket().state();
        if header.is_reset() && before != after && matches!(after, State::Closed | State::Listen) {
            let refused = before == State::SynSent;
            connection.error =
                Some(if refused { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::ConnectionReset });
        }
        if connection.is_orphan {
            let is_delivered = after == State::FinWait2;
            if connection.discard() && is_delivered {
                // RFC 1122, 4.2.2.13: data for a program that has closed cannot be delivered; the peer is told.
                connection.socket_mut().abort();
            }
        }
        let data = header.end - header.transport - usize::from(packet.bytes()[header.transport + 12] >> 4) * 4;
        let may_wait = after == State::Established
            && (1..=SHORT).contains(&data)
            && header.flags & flag::FIN == 0
            && !has_answered
            && !connection.is_dirty
            && connection.reader.is_some()
            && connection.socket().send_queue() == 0;
        self.pool.put(packet);
        if may_wait {
            // A program waits for this. What it answers will carry the acknowledgement, and if it waits again without
            // an answer, it is sent then.
            if let Some(connection) = self.connections.get_mut(id) {
                connection.owes_ack = true;
            }
            return self.settle(id);
        }
        self.touch(id);
    }

    /// Has the connection look whether it has something to send.
    pub(crate) fn touch(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// Sends one segment if there is one to send. Comes again at once if so: one buffer, still in the cache, carries them all.
    pub(crate) fn transmit(&mut self, id: ConnectionId) {
        let time = self.stack_time();
        let Core { connections, ports, pool, inbox, dirty, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        connection.is_dirty = false;
        if connection.error.is_some() && connection.socket().state() == State::SynSent {
            // Abandoned.
            return;
        }
        // What the peer has ended has nothing to send, and is not to wait for a peer that does not read.
        let has_ended = matches!(connection.socket().state(), State::Closed | State::Listen);
        if let Some(exit) = connection.exit.filter(|_| !has_ended) {
            match ports.get_mut(exit).and_then(|port| port.raw_mut()) {
                Some(raw) if raw.is_full() => {
                    raw.held.insert(id.rank(), id);
                    connection.poll_at = None;
                    return self.arm_timer(id);
                }
                Some(_) => {}
                None => connection.exit = None,
            }
        }
        let Some(host) = ports.get_mut(connection.port).and_then(|port| port.host_mut()) else { return };
        let mut link = Link { received: None, pool, inbox, from: connection.port, sender: id };
        if host.interface.poll_egress(time, &mut link, connection.socket.set_mut()) == PollResult::SocketStateChanged {
            connection.has_said(inbox);
            connection.is_dirty = true;
            dirty.push_front(id);
            return;
        }
        self.settle(id);
    }

    /// Draws the conclusions from a connection's state when it has nothing more to send.
    fn settle(&mut self, id: ConnectionId) {
        let time = self.stack_time();
        let Core { connections, ports, wakes, time_wait, now, start, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        let Some(host) = ports.get_mut(connection.port).and_then(|port| port.host_mut()) else { return };
        let socket = connection.socket.get();
        let state = socket.state();
        if connection.reader.is_some() && (socket.can_recv() || !socket.may_recv()) && state != State::SynSent {
            wakes.wake(connection.reader.take());
        }
        if connection.writer.is_some() {
            let is_open = socket.may_send() && connection.error.is_none();
            let has_room = socket.send_queue() <= socket.send_capacity() / 2;
            let is_opening = matches!(state, State::SynSent | State::SynReceived);
            if !is_opening && (!is_open || has_room) {
                wakes.wake(connection.writer.take());
            }
        }
        let is_over = matches!(state, State::Closed | State::TimeWait | State::Listen);
        if !is_over && !matches!(state, State::SynSent | State::SynReceived) && !connection.is_orphan {
            connection.limit = None;
        }
        match connection.role {
            Role::Pending(_) if state == State::SynReceived => {}
            Role::Pending(_) if matches!(state, State::Closed | State::Listen) => {
                return self.forget(id);
            }
            Role::Pending(local) => {
                if !host.is_established(local, id, wakes) {
                    connection.role = Role::Accepted;
                    connection.socket_mut().abort();
                    connection.is_orphan = true;
                    return self.touch(id);
                }
                connection.role = Role::Accepted;
            }
            Role::Direct | Role::Accepted => {}
        }
        if connection.is_orphan && state == State::FinWait2 {
            connection.limit = connection.limit.map(|limit| limit.min(*now + FIN_TIMEOUT));
        }
        if is_over {
            if connection.is_known {
                connection.is_known = false;
                if host.connections.get(&connection.key) == Some(&id) {
                    host.connections.remove(&connection.key);
                }
                if state == State::TimeWait {
                    time_wait.insert(connection.port, connection.key, *now);
                }
            }
            connection.poll_at = None;
            connection.limit = None;
            if connection.is_orphan {
                self.forget(id);
            }
            return;
        }
        let socket = connection.socket.get();
        connection.poll_at = host.interface.poll_at(time, connection.socket.set()).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            (*start + Duration::from_micros(micros)).max(*now)
        });
        if connection.owes_ack {
            connection.poll_at = Some(*now + ACK_DELAY);
        }
        let is_owing = socket.send_queue() > 0 || matches!(state, State::FinWait1 | State::Closing | State::LastAck);
        if connection.poll_at.is_some() || !is_owing {
            connection.revivals = None;
        } else {
            let revivals = connection.revivals.get_or_insert(0);
            connection.poll_at = Some(*now + Duration::from_secs(1 << (*revivals).min(6)));
        }
        self.arm_timer(id);
    }

    /// An ICMP error about a segment of this connection. Once established, only the peer's own RST ends it (RFC 5461, 4.1).
    pub(crate) fn unreachable(&mut self, id: ConnectionId, error: io::ErrorKind) {
        if self.connections.get(id).is_some_and(|connection| connection.socket().state() == State::SynSent) {
            self.abandon(id, error);
        }
    }

    /// A connection attempt has failed: nothing more is sent, and whoever waits for it learns why.
    pub(crate) fn abandon(&mut self, id: ConnectionId, error: io::ErrorKind) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.error = Some(error);
        connection.limit = None;
        connection.poll_at = None;
        connection.is_known = false;
        self.wakes.wake(connection.writer.take());
        self.wakes.wake(connection.reader.take());
        if let Some(host) = self.ports.get_mut(connection.port).and_then(|port| port.host_mut()) {
            host.connections.remove(&connection.key);
        }
    }

    /// The program has let go of a connection: what it wrote is still delivered, then FIN.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        let deadline = self.now + LINGER;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_orphan = true;
        self.wakes.retire(connection.reader.take());
        self.wakes.retire(connection.writer.take());
        connection.discard();
        if connection.socket().state() == State::SynSent {
            return self.forget(id);
        }
        connection.socket_mut().close();
        connection.undelivered = connection.socket().send_queue();
        connection.limit = Some(deadline);
        self.touch(id);
    }

    /// Frees a connection without a word to its peer.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.wakes.wake(connection.reader.take());
        self.wakes.wake(connection.writer.take());
        if let Some(raw) = connection.exit.and_then(|exit| self.ports.get_mut(exit)).and_then(|port| port.raw_mut()) {
            raw.held.remove(&id.rank());
        }
        if let Some(host) = self.ports.get_mut(connection.port).and_then(|port| port.host_mut()) {
            if host.connections.get(&connection.key) == Some(&id) {
                host.connections.remove(&connection.key);
            }
            if let Role::Pending(local) = connection.role {
                host.is_gone(local);
            }
            if host.is_released && host.connections.is_empty() {
                let port = connection.port;
                self.detach(port);
            }
        }
    }
}

impl Connection {
    /// Throws away what has been received; whether there was something.
    fn discard(&mut self) -> bool {
        let mut any = false;
        while let Ok(length) = self.socket_mut().recv(|data| (data.len(), data.len())) {
            if length == 0 {
                break;
            }
            any = true;
        }
        any
    }
}
