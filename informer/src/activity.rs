//! Who is still at work: the count behind `settled`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts the work in hand of all components of one cluster. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    working: AtomicUsize,
    idle: Notify,
}

/// One piece of work in hand; it is done when this is dropped.
#[derive(Debug)]
pub struct Working(Arc<Inner>);

impl Activity {
    /// Takes a piece of work in hand.
    pub fn begin(&self) -> Working {
        self.0.working.fetch_add(1, Ordering::AcqRel);
        Working(self.0.clone())
    }

    /// How many pieces are in hand.
    pub fn working(&self) -> usize {
        self.0.working.load(Ordering::Acquire)
    }

    /// Waits until nothing is in hand.
    pub async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.working() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Clone for Working {
    fn clone(&self) -> Self {
        self.0.working.fetch_add(1, Ordering::AcqRel);
        Working(self.0.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_piece_of_work_and_its_clones() {
        let activity = Activity::default();
        let work = activity.begin();
        let more = work.clone();
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle().await }
        });
        tokio::task::yield_now().await;
        drop(work);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(more);
        waiting.await.expect("the waiter returns");
    }
}
