//! Deadlines of connections, and the one task that waits for the earliest.
//!
//! A connection arms a timer with nearly every segment it sends and disarms it with the next acknowledgement. So the
//! heap is lazy: an entry stays until it falls due, and only then is looked whether the connection's deadline has moved.

use crate::core::{Core, Shared};
use crate::tcp::ConnectionId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// An entry of the heap; ordered by time.
struct Entry {
    at: Instant,
    id: ConnectionId,
}

impl Entry {
    fn order(&self) -> (Instant, (u32, u32)) {
        (self.at, self.id.rank())
    }
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The deadlines of a network.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    /// When the task will come by itself.
    expected: Option<Instant>,
    task: Option<AbortHandle>,
}

impl Timers {
    pub(crate) fn push(&mut self, at: Instant, id: ConnectionId) {
        self.heap.push(Reverse(Entry { at, id }));
    }

    fn pop(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.heap.peek()?.0.at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.id)
    }

    fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// When the task has to come again.
    pub(crate) fn expected(&self) -> Option<Instant> {
        self.expected
    }

    /// Notes when the task has to come at the latest; whether that is sooner than it would.
    pub(crate) fn arm(&mut self, other: Option<Instant>) -> bool {
        let due = self.next().into_iter().chain(other).min();
        match (due, self.expected) {
            (Some(due), Some(expected)) if due >= expected => false,
            (Some(due), _) => {
                self.expected = Some(due);
                true
            }
            (None, _) => false,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.heap.clear();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the task of a network. It holds the network weakly and ends with it.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let (weak, alarm) = (Arc::downgrade(shared), shared.alarm.clone());
    let task = shared.runtime.spawn(async move {
        loop {
            let expected = match weak.upgrade().and_then(|shared| shared.fire()) {
                Some(expected) => expected,
                None => return,
            };
            match expected {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = alarm.notified() => {}
                },
                None => alarm.notified().await,
            }
        }
    });
    shared.with(|core| core.timers.task = Some(task.abort_handle()));
}

impl Core {
    /// Does what has fallen due.
    pub(crate) fn fire(&mut self) {
        self.timers.expected = None;
        while let Some(id) = self.timers.pop(self.now) {
            self.timer_fired(id);
        }
        self.switch.flows.expire(self.now);
        self.time_wait.expire(self.now);
    }
}
