//! The work queue of one controller and the loop which works it off.
//!
//! Keys are de-duplicated; one key is worked on by one reconcile at a time; failures come back after a growing delay.
//! A queued key holds the [`Working`] of the change that queued it, so the cluster does not count as settled before the
//! key has been reconciled. Keys that wait for a timer (a retry, a deadline) hold nothing.

use informer::Working;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What a queue can hold.
pub(crate) trait QueueKey: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static> QueueKey for K {}

/// When a reconciled key wants to come again, apart from the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Only when something changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

impl From<Option<Duration>> for Next {
    fn from(delay: Option<Duration>) -> Self {
        delay.map_or(Next::OnChange, Next::After)
    }
}

/// The keys that want to be reconciled. Cheap to clone.
pub(crate) struct Queue<K>(Arc<Shared<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue(self.0.clone())
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    /// In the order they came; each is a key of `wanted`.
    ready: VecDeque<K>,
    /// Queued, or to be queued again when its present reconcile is done; with what it holds.
    wanted: HashMap<K, Option<Working>>,
    in_work: HashSet<K>,
    timers: BTreeMap<(Instant, u64), K>,
    timer_of: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    serial: u64,
}

impl<K: QueueKey> Queue<K> {
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashMap::new(),
            in_work: HashSet::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Queue(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Queues `key` because of a change; `working` is held until it has been reconciled.
    pub(crate) fn add(&self, key: K, working: Option<Working>) {
        self.0.state.lock().want(key, working);
        self.0.changed.notify_one();
    }

    /// The next key to reconcile. The caller says [`Queue::finished`] afterwards.
    async fn next(&self) -> (K, Option<Working>) {
        loop {
            let due = {
                let mut state = self.0.state.lock();
                state.ring(Instant::now());
                if let Some(next) = state.take() {
                    return next;
                }
                state.timers.keys().next().map(|(due, _)| *due)
            };
            match due {
                None => self.0.changed.notified().await,
                Some(due) => tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    /// Gives `key` back after its reconcile.
    fn finished(&self, key: &K, outcome: Outcome) {
        let mut state = self.0.state.lock();
        state.in_work.remove(key);
        match outcome {
            Outcome::Done(next) => {
                state.failures.remove(key);
                if let Next::After(delay) = next {
                    state.set_timer(key.clone(), Instant::now() + delay);
                }
            }
            Outcome::Failed => {
                let failures = state.failures.entry(key.clone()).or_insert(0);
                let delay = FIRST_RETRY.saturating_mul(1 << (*failures).min(20)).min(LAST_RETRY);
                *failures += 1;
                state.set_timer(key.clone(), Instant::now() + delay);
            }
        }
        if state.wanted.contains_key(key) {
            state.clear_timer(key);
            state.ready.push_back(key.clone());
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Works the queue off for ever, up to `workers` keys at a time.
    pub(crate) async fn work<F, Fut, E>(self, controller: &'static str, workers: usize, reconcile: F)
    where
        F: Fn(K) -> Fut,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut tasks: JoinSet<Result<Next, E>> = JoinSet::new();
        let mut keys: HashMap<tokio::task::Id, (K, Option<Working>)> = HashMap::new();
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next_with_id() => {
                    let (id, outcome) = match ended {
                        Ok((id, Ok(next))) => (id, Ok(Outcome::Done(next))),
                        Ok((id, Err(error))) => (id, Err(error.to_string())),
                        Err(panicked) => (panicked.id(), Err(format!("panicked: {panicked}"))),
                    };
                    let Some((key, working)) = keys.remove(&id) else { continue };
                    let outcome = outcome.unwrap_or_else(|cause| {
                        if cause.starts_with("panicked") {
                            error!(controller, %key, cause, "reconcile panicked");
                        } else {
                            debug!(controller, %key, cause, "reconcile failed; will try again");
                        }
                        Outcome::Failed
                    });
                    self.finished(&key, outcome);
                    drop(working);
                }
                (key, working) = self.next(), if tasks.len() < workers => {
                    let task = tasks.spawn(reconcile(key.clone()));
                    keys.insert(task.id(), (key, working));
                }
            }
        }
    }
}

enum Outcome {
    Done(Next),
    Failed,
}

impl<K: QueueKey> State<K> {
    fn want(&mut self, key: K, working: Option<Working>) {
        if let Some(held) = self.wanted.get_mut(&key) {
            // One is enough; the others are done with once this key is.
            if held.is_none() {
                *held = working;
            }
            return;
        }
        self.clear_timer(&key);
        self.wanted.insert(key.clone(), working);
        if !self.in_work.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<(K, Option<Working>)> {
        let key = self.ready.pop_front()?;
        let working = self.wanted.remove(&key).flatten();
        self.in_work.insert(key.clone());
        Some((key, working))
    }

    fn set_timer(&mut self, key: K, due: Instant) {
        if self.wanted.contains_key(&key) {
            return;
        }
        if let Some(set) = self.timer_of.get(&key) {
            if set.0 <= due {
                return;
            }
            self.clear_timer(&key);
        }
        self.serial += 1;
        self.timers.insert((due, self.serial), key.clone());
        self.timer_of.insert(key, (due, self.serial));
    }

    fn clear_timer(&mut self, key: &K) {
        if let Some(timer) = self.timer_of.remove(key) {
            self.timers.remove(&timer);
        }
    }

    /// Queues the keys whose time has come.
    fn ring(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.timer_of.remove(&key);
            self.want(key, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use informer::Activity;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn taken(queue: &Queue<String>) -> (String, Option<Working>) {
        tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.expect("a key is ready")
    }

    async fn is_empty(queue: &Queue<String>) -> bool {
        tokio::time::timeout(Duration::ZERO, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_queued_twice_is_taken_once() {
        let queue = Queue::new();
        queue.add("a".to_owned(), None);
        queue.add("a".to_owned(), None);
        assert_eq!(taken(&queue).await.0, "a");
        assert!(is_empty(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_waits_until_it_is_finished() {
        let queue = Queue::new();
        queue.add("a".to_owned(), None);
        let (key, _) = taken(&queue).await;
        queue.add("a".to_owned(), None);
        assert!(is_empty(&queue).await);
        queue.finished(&key, Outcome::Done(Next::OnChange));
        assert_eq!(taken(&queue).await.0, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_back_later_and_later_and_success_forgives() {
        let queue = Queue::new();
        queue.add("a".to_owned(), None);
        let mut delays = vec![];
        for _ in 0..4 {
            let from = Instant::now();
            let (key, _) = taken(&queue).await;
            delays.push(from.elapsed().as_millis());
            queue.finished(&key, Outcome::Failed);
        }
        assert_eq!(delays, [0, 5, 10, 20]);
        let (key, _) = taken(&queue).await;
        queue.finished(&key, Outcome::Done(Next::OnChange));
        assert!(queue.0.state.lock().failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_overtakes_a_timer_and_the_earlier_timer_counts() {
        let queue = Queue::new();
        for seconds in [60, 30, 90] {
            queue.0.state.lock().set_timer("a".to_owned(), Instant::now() + Duration::from_secs(seconds));
        }
        let from = Instant::now();
        let (key, _) = taken(&queue).await;
        assert_eq!(from.elapsed().as_secs(), 30);
        queue.finished(&key, Outcome::Done(Next::After(Duration::from_secs(60))));
        queue.add("a".to_owned(), None);
        assert_eq!(taken(&queue).await.0, "a");
        assert_eq!(from.elapsed().as_secs(), 30);
        assert!(queue.0.state.lock().timers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn queued_work_keeps_the_cluster_unsettled_and_a_retry_does_not() {
        let (queue, activity) = (Queue::new(), Activity::default());
        queue.add("a".to_owned(), Some(activity.begin()));
        assert_eq!(activity.working(), 1);
        let (key, working) = taken(&queue).await;
        queue.add("a".to_owned(), Some(activity.begin()));
        queue.add("a".to_owned(), Some(activity.begin()));
        assert_eq!(activity.working(), 2);
        queue.finished(&key, Outcome::Done(Next::OnChange));
        drop(working);
        let (key, working) = taken(&queue).await;
        queue.finished(&key, Outcome::Failed);
        drop(working);
        assert_eq!(activity.working(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_reconcile_is_tried_again_and_the_others_go_on() {
        let queue = Queue::new();
        queue.add("bad".to_owned(), None);
        queue.add("good".to_owned(), None);
        let (bad, good) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = queue.clone().work("test", 2, |key: String| {
            let (bad, good) = (bad.clone(), good.clone());
            async move {
                if key == "good" {
                    good.fetch_add(1, Ordering::SeqCst);
                    return Ok::<_, String>(Next::OnChange);
                }
                assert!(bad.fetch_add(1, Ordering::SeqCst) > 0, "the first time fails");
                Ok(Next::OnChange)
            }
        });
        let _ = tokio::time::timeout(Duration::from_secs(1), work).await;
        assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (2, 1));
    }
}
