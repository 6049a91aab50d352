//! Requests at a time: more than so many wait in line, and when the line is too long or too slow they are told to come again.
//!
//! Watches and streams do not count, and neither do in-process clients and members of `system:masters`: the cluster's own
//! components must not starve because of a user's script. A much simpler relative of API Priority and Fairness (KEP-1040).

use crate::authn::UserInfo;
use crate::status::Status;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Nobody waits longer in line.
const PATIENCE: Duration = Duration::from_secs(15);

/// Marks requests of [`crate::ApiServer::router_as`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

/// The limit and the line before it.
pub(crate) struct InFlight {
    most: usize,
    permits: Semaphore,
    waiting: AtomicUsize,
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        InFlight { most, permits: Semaphore::new(most), waiting: AtomicUsize::new(0) }
    }

    /// How many are being served.
    pub(crate) fn count(&self) -> usize {
        self.most - self.permits.available_permits()
    }

    /// A place among those served, as long as what is returned lives; `None` for those who need none.
    ///
    /// # Errors
    /// 429 when as many wait as would fill all places ten times, or after [`PATIENCE`].
    pub(crate) async fn enter(&self, user: &UserInfo, in_process: bool) -> Result<Option<SemaphorePermit<'_>>, Status> {
        if in_process || user.groups.iter().any(|group| group == "system:masters") {
            return Ok(None);
        }
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(Some(permit));
        }
        let line = Waiting::new(&self.waiting);
        if line.before >= self.most * 10 {
            return Err(too_many_requests());
        }
        match timeout(PATIENCE, self.permits.acquire()).await {
            Ok(permit) => permit.map(Some).map_err(Status::internal),
            Err(_) => Err(too_many_requests()),
        }
    }
}

/// A place in line.
struct Waiting<'a> {
    line: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(line: &'a AtomicUsize) -> Self {
        Waiting { before: line.fetch_add(1, Ordering::Relaxed), line }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_many_requests() -> Status {
    let mut status = Status::failure(429, "TooManyRequests", "too many requests at a time, please try again later");
    status.details = Some(json!({"retryAfterSeconds": 1}));
    status
}
