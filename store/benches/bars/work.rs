//! The work that both stores are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Length of every value.
pub(crate) const VALUE: usize = 2048;

/// Everything is written and read below it.
pub(crate) const PREFIX: &str = "/registry/pods/";

/// A store under measurement.
pub(crate) trait Subject: Send + Sync + 'static {
    /// Puts a value of [`VALUE`] bytes; durable when it returns.
    fn put(&self, key: String) -> impl Future<Output = ()> + Send;
    /// Lists everything below [`PREFIX`], values included; how many keys there are.
    fn list(&self) -> impl Future<Output = usize> + Send;
    /// Starts so many watchers, of a tenth of the keys each.
    fn watch(&self, watchers: usize) -> impl Future<Output = Watching> + Send;
}

/// Running watchers.
pub(crate) struct Watching {
    /// How many events they have seen together.
    pub(crate) seen: Arc<AtomicUsize>,
    /// What drives them.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Watching {
    /// Ends them; how much they have seen.
    pub(crate) async fn end(self) -> usize {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.seen.load(Ordering::Relaxed)
    }
}

/// What one round of puts was like.
pub(crate) struct Round {
    /// Puts per second.
    pub(crate) rate: f64,
    p50: f64,
    p99: f64,
}

/// Several rounds.
#[derive(Default)]
pub(crate) struct Puts {
    rates: Vec<f64>,
    p50s: Vec<f64>,
    p99s: Vec<f64>,
}

impl Puts {
    /// Adds a round.
    pub(crate) fn add(&mut self, round: Round) {
        self.rates.push(round.rate);
        self.p50s.push(round.p50);
        self.p99s.push(round.p99);
    }

    /// Puts per second.
    pub(crate) fn rate(&mut self) -> f64 {
        median(&mut self.rates)
    }

    /// Half of the puts take no longer, in milliseconds.
    pub(crate) fn p50(&mut self) -> f64 {
        median(&mut self.p50s)
    }

    /// All but one in a hundred take no longer, in milliseconds.
    pub(crate) fn p99(&mut self) -> f64 {
        median(&mut self.p99s)
    }
}

/// The middle one.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The keys written: of 1,000 per client, evenly below ten prefixes.
fn key(client: usize, number: usize) -> String {
    format!("{PREFIX}{}/{client}-{}", number % 10, number % 1000)
}

/// Lets `clients` put one value after the other for so long.
pub(crate) async fn puts<S: Subject>(subject: &Arc<S>, clients: usize, duration: Duration) -> Round {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let subject = subject.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < duration {
                    let begun = Instant::now();
                    subject.put(key(client, latencies.len())).await;
                    latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client does not panic"));
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let at = |share: usize| latencies[(latencies.len() * share / 100).min(latencies.len() - 1)];
    Round { rate, p50: at(50), p99: at(99) }
}

/// Puts `keys` different keys.
pub(crate) async fn fill<S: Subject>(subject: &Arc<S>, keys: usize) {
    const TOGETHER: usize = 500;
    for first in (0..keys).step_by(TOGETHER) {
        let puts = (first..(first + TOGETHER).min(keys)).map(|n| subject.put(format!("{PREFIX}{}/{n:06}", n % 10)));
        futures::future::join_all(puts).await;
    }
}
