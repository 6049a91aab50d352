//! The deadlines of [`tcp`](crate::tcp) connections: what each waits for, what happens when it falls due, and when patience ends.

use crate::core::{Core, Queued};
use crate::packet::{build, flag, parse, set16, set32};
use crate::tcp::{ConnectionId, LINGER, Role};
use smoltcp::socket::tcp::State;
use std::io;
use std::time::Duration;

/// How long unacknowledged data is retransmitted; about what 15 retransmissions take on Linux.
const USER_TIMEOUT: Duration = Duration::from_secs(924);

impl Core {
    /// Wakes a socket that owes its peer something but has no timer running.
    ///
    /// smoltcp 0.14 stops the retransmission timer in two cases and waits for the peer, which may wait for us: when the third
    /// duplicate ACK arrives and nothing but the FIN is outstanding, and when the timer expires while the window is closed.
    fn revive(&mut self, id: ConnectionId, revivals: u32) {
        let Core { connections, pool, inbox, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        connection.revivals = Some(revivals + 1);
        let key = connection.key;
        let is_fin = connection.socket().send_queue() == 0;
        // Either the FIN itself once more, or for the socket the peer's last word once more, with the window closed: it starts
        // the zero-window probe.
        let (from, sequence, acknowledgement, flags, window) = if is_fin {
            (key.reversed(), connection.heard, connection.said, flag::FIN | flag::ACK, u16::MAX)
        } else {
            (key, connection.said, connection.heard, flag::ACK, 0)
        };
        let (mut packet, at) = build(pool, &from, 20);
        let tcp = &mut packet.bytes_mut()[at..];
        tcp.fill(0);
        set16(tcp, 0, from.src_port);
        set16(tcp, 2, from.dst_port);
        set32(tcp, 4, sequence);
        set32(tcp, 8, acknowledgement);
        tcp[12] = 5 << 4;
        tcp[13] = flags;
        set16(tcp, 14, window);
        if is_fin {
            inbox.push_back(Queued { packet, from: connection.port, sender: Some(id) });
            return self.touch(id);
        }
        let progress = connection.progress;
        if let Ok(header) = parse(packet.bytes()) {
            self.segment_arrives(id, packet, &header);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            // The peer has not really spoken.
            connection.progress = progress;
            connection.revivals = Some(revivals + 1);
        }
    }

    /// Sees to it that the connection's earliest deadline is in the heap.
    pub(crate) fn arm_timer(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let deadline = connection.poll_at.into_iter().chain(connection.limit).min();
        if let Some(deadline) = deadline
            && connection.armed.is_none_or(|armed| deadline < armed)
        {
            connection.armed = Some(deadline);
            self.timers.push(deadline, id);
        }
    }

    /// An entry of the timer heap has fallen due.
    pub(crate) fn timer_fired(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        // An older entry, superseded by an earlier one.
        if connection.armed.is_none_or(|armed| armed > now) {
            return;
        }
        connection.armed = None;
        if connection.limit.is_some_and(|limit| limit <= now) {
            return self.give_up(id);
        }
        if connection.poll_at.is_some_and(|at| at <= now) {
            let has_data = connection.socket().send_queue() > 0;
            if has_data && now.saturating_duration_since(connection.progress) >= USER_TIMEOUT {
                return self.give_up(id);
            }
            return match connection.revivals {
                Some(revivals) => self.revive(id, revivals),
                None => self.touch(id),
            };
        }
        self.arm_timer(id);
    }

    fn give_up(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_orphan && connection.socket().send_queue() < connection.undelivered {
            // The peer is slow but not dead.
            connection.undelivered = connection.socket().send_queue();
            connection.limit = Some(now + LINGER);
            return self.arm_timer(id);
        }
        match connection.socket().state() {
            State::SynSent => return self.abandon(id, io::ErrorKind::TimedOut),
            State::SynReceived if connection.role != Role::Direct => return self.forget(id),
            _ => {}
        }
        connection.error = Some(io::ErrorKind::TimedOut);
        connection.limit = None;
        // Tells the peer, in case that it is there after all.
        connection.socket_mut().abort();
        self.touch(id);
    }
}
