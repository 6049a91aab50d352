//! A priority level: its seats, and the fair queues before them.
//!
//! A free seat is taken with one atomic while nobody waits. Otherwise the request goes into the shortest of the few queues that its
//! flow is dealt (shuffle sharding: another flow hardly ever has the same hand), and seats go to the queue that has used the least
//! service time so far (start-time fair queuing).

use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// Nobody waits longer: a quarter of the time a request may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a request is taken to cost its queue until its real time is known, in seconds.
const ESTIMATE: f64 = 0.01;

/// Why a request got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many of its flow wait already.
    QueueFull,
    /// The level does not let anybody wait.
    ConcurrencyLimit,
    /// It has waited too long.
    TimeOut,
}

/// A running level; configured anew when its object changes.
#[derive(Debug)]
pub(crate) struct Level {
    name: String,
    exempt: AtomicBool,
    seats: AtomicUsize,
    executing: AtomicUsize,
    waiting: AtomicUsize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    queues: Vec<Queue>,
    hand: usize,
    longest: usize,
    /// Service time that the queue served last had used when it was served.
    virtual_time: f64,
    /// Of the next waiter.
    ticket: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    executing: usize,
    /// Service time used so far.
    used: f64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    seat: oneshot::Sender<Seat>,
}

/// A place among those served; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// `None` once it has been given back.
    level: Option<Arc<Level>>,
    /// The queue it came through, and when.
    queue: Option<(usize, Instant)>,
}

/// `nominalConcurrencyShares` of a level.
pub(super) fn shares(level: &Value) -> u64 {
    let (part, default) = if level["spec"]["type"] == "Exempt" { ("exempt", 0) } else { ("limited", 30) };
    level["spec"][part]["nominalConcurrencyShares"].as_u64().unwrap_or(default)
}

impl Level {
    pub(super) fn new(name: &str) -> Level {
        Level {
            name: name.to_owned(),
            exempt: AtomicBool::new(false),
            seats: AtomicUsize::new(0),
            executing: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lines: Mutex::default(),
        }
    }

    /// Takes its share of `total` seats and the queues that its object says. Who waits already stays in line.
    pub(super) fn configure(self: &Arc<Self>, object: &Value, total: u64, all_shares: u64) {
        let seats = (total * shares(object)).div_ceil(all_shares);
        self.exempt.store(object["spec"]["type"] == "Exempt", SeqCst);
        self.seats.store(usize::try_from(seats).unwrap_or(usize::MAX), SeqCst);
        let response = &object["spec"]["limited"]["limitResponse"];
        let queuing = &response["queuing"];
        let number = |field: &str, default: u64| queuing[field].as_u64().unwrap_or(default) as usize;
        let queued = response["type"] == "Queue";
        let queues = if queued { number("queues", 64).max(1) } else { 0 };
        let mut lines = self.lines.lock();
        lines.hand = number("handSize", 8).clamp(1, queues.max(1));
        lines.longest = number("queueLengthLimit", 50);
        // Queues are only ever added while some of them are in use: a seat remembers the number of its queue.
        if queues > lines.queues.len() || self.executing() + self.waiting() == 0 {
            lines.queues.resize_with(queues, Queue::default);
        } else if !queued {
            lines.longest = 0;
        }
        self.dispatch(&mut lines);
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn executing(&self) -> usize {
        self.executing.load(SeqCst)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    pub(super) fn seats(&self) -> usize {
        self.seats.load(SeqCst)
    }

    /// A seat, if one is free and nobody waits for it.
    pub(super) fn try_sit(self: &Arc<Self>) -> Option<Seat> {
        let seat = || Seat { level: Some(self.clone()), queue: None };
        if self.exempt.load(SeqCst) {
            self.executing.fetch_add(1, SeqCst);
            return Some(seat());
        }
        (self.waiting() == 0 && self.take()).then(seat)
    }

    /// Counts one more as being served, if there is a seat for it.
    fn take(&self) -> bool {
        let seats = self.seats();
        self.executing.fetch_update(SeqCst, SeqCst, |executing| (executing < seats).then_some(executing + 1)).is_ok()
    }

    /// A seat, in the turn of `flow`.
    pub(super) async fn sit(self: &Arc<Self>, flow: u64) -> Result<Seat, Refused> {
        let (ticket, queue, mut granted) = {
            let mut lines = self.lines.lock();
            if lines.queues.is_empty() || lines.longest == 0 {
                return if self.waiting() == 0 && self.take() {
                    Ok(Seat { level: Some(self.clone()), queue: None })
                } else {
                    Err(Refused::ConcurrencyLimit)
                };
            }
            let hand = deal(flow, lines.queues.len(), lines.hand);
            let load = |queue: &usize| lines.queues[*queue].waiters.len() + lines.queues[*queue].executing;
            let queue = hand.into_iter().min_by_key(load).expect("a hand has at least one queue");
            if lines.queues[queue].waiters.len() >= lines.longest {
                return Err(Refused::QueueFull);
            }
            let (seat, granted) = oneshot::channel();
            let (ticket, now) = (lines.ticket, lines.virtual_time);
            lines.ticket += 1;
            let line = &mut lines.queues[queue];
            if line.waiters.is_empty() && line.executing == 0 {
                // Who has not been there has nothing to make up for.
                line.used = line.used.max(now);
            }
            line.waiters.push_back(Waiter { ticket, seat });
            self.waiting.fetch_add(1, SeqCst);
            // A seat may have become free since it was looked for; whoever frees one from now on sees the waiter.
            self.dispatch(&mut lines);
            (ticket, queue, granted)
        };
        let _leave = Leave { level: self, queue, ticket };
        match timeout(PATIENCE, &mut granted).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(Refused::TimeOut),
        }
    }

    /// Gives free seats to those who wait.
    fn dispatch(self: &Arc<Self>, lines: &mut Lines) {
        loop {
            let waiting = lines.queues.iter().enumerate().filter(|(_, queue)| !queue.waiters.is_empty());
            let next = waiting.min_by(|(_, one), (_, other)| one.used.total_cmp(&other.used)).map(|(index, _)| index);
            let Some(index) = next else { return };
            if !self.exempt.load(SeqCst) && !self.take() {
                return;
            }
            if self.exempt.load(SeqCst) {
                self.executing.fetch_add(1, SeqCst);
            }
            let queue = &mut lines.queues[index];
            let waiter = queue.waiters.pop_front().expect("only queues with waiters are looked at");
            self.waiting.fetch_sub(1, SeqCst);
            lines.virtual_time = lines.virtual_time.max(queue.used);
            let seat = Seat { level: Some(self.clone()), queue: Some((index, Instant::now())) };
            match waiter.seat.send(seat) {
                Ok(()) => {
                    queue.used += ESTIMATE;
                    queue.executing += 1;
                }
                // It has given up meanwhile. Not by dropping the seat: that would want the lock we hold.
                Err(mut seat) => {
                    seat.level = None;
                    self.executing.fetch_sub(1, SeqCst);
                }
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(level) = self.level.take() else { return };
        if let Some((index, since)) = self.queue {
            let mut lines = level.lines.lock();
            if let Some(queue) = lines.queues.get_mut(index) {
                queue.executing = queue.executing.saturating_sub(1);
                queue.used += since.elapsed().as_secs_f64() - ESTIMATE;
            }
            level.executing.fetch_sub(1, SeqCst);
            level.dispatch(&mut lines);
            return;
        }
        level.executing.fetch_sub(1, SeqCst);
        if level.waiting() > 0 {
            level.dispatch(&mut level.lines.lock());
        }
    }
}

/// Takes a waiter out of its queue, if it is still there when its request ends.
struct Leave<'a> {
    level: &'a Arc<Level>,
    queue: usize,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut lines = self.level.lines.lock();
        let Some(queue) = lines.queues.get_mut(self.queue) else { return };
        let before = queue.waiters.len();
        queue.waiters.retain(|waiter| waiter.ticket != self.ticket);
        self.level.waiting.fetch_sub(before - queue.waiters.len(), SeqCst);
    }
}

/// The `hand` queues, of `queues`, that a flow is dealt.
fn deal(mut flow: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for count in 0..hand {
        let left = (queues - count) as u64;
        let mut card = (flow % left) as usize;
        flow /= left;
        // The card is counted among those that are left.
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        for taken in sorted {
            card += usize::from(card >= taken);
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_no_queue_twice() {
        for flow in [0, 1, 17, u64::MAX, 0x9E37_79B9_7F4A_7C15] {
            let mut hand = deal(flow, 8, 8);
            hand.sort_unstable();
            assert_eq!(hand, [0, 1, 2, 3, 4, 5, 6, 7], "{flow}");
            assert_eq!(deal(flow, 128, 6), deal(flow, 128, 6));
        }
        assert_ne!(deal(1 << 40, 128, 6), deal(1 << 41, 128, 6));
    }
}
