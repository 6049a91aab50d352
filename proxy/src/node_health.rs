//! `/healthz` and `/livez` on port 10256 of every node: whether Services are kept up to date, and whether load balancers should still
//! send to the node.
//!
//! Requests, answers and headers are kube-proxy's. Load balancers of cloud providers ask here when `externalTrafficPolicy` is `Cluster`
//! (KEP-3836); the ports of Services with the policy `Local` are [`health_check`](crate::health_check)'s.

use crate::http::{self, Answer, Answers, Listening};
use hyper::StatusCode;
use informer::Informer;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use netstack::Host;
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// kube-proxy's `--healthz-bind-address`.
const PORT: u16 = 10256;
/// The cluster autoscaler's mark of a node that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// A change that has not come into force for so long makes the proxy unhealthy: twice kube-proxy's `--iptables-sync-period`.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far the table follows what is told.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When the oldest change was taken in that is not in force.
    pending: Option<Instant>,
    updated: Instant,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress(Mutex::new(State { pending: None, updated: Instant::now() }))
    }

    /// A change has been taken in.
    pub(crate) fn queued(&self) {
        self.0.lock().pending.get_or_insert_with(Instant::now);
    }

    /// Everything that was taken in is in force.
    pub(crate) fn updated(&self) {
        *self.0.lock() = State { pending: None, updated: Instant::now() };
    }

    /// `None` if all is well, else since when nothing comes into force.
    fn stuck(&self, now: Instant) -> Option<Instant> {
        let state = self.0.lock();
        let is_late = |pending: Instant| now.saturating_duration_since(pending) >= PATIENCE;
        state.pending.is_some_and(is_late).then_some(state.updated)
    }
}

/// Serves the port at all nodes, for ever. `now` is the wall clock.
pub(crate) async fn serve(
    progress: Arc<Progress>,
    nodes: Informer<Node>,
    hosts: Vec<Host>,
    now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
) {
    let health = NodeHealth { progress, nodes, now };
    let mut open: Vec<Option<Listening>> = hosts.iter().map(|_| None).collect();
    loop {
        for (host, listening) in hosts.iter().zip(&mut open).filter(|(_, listening)| listening.is_none()) {
            match host.tcp_listen(PORT) {
                Ok(listener) => *listening = Some(Listening::start(listener, health.clone())),
                Err(error) => warn!(port = PORT, node = ?host.addresses(), %error, "node health not served"),
            }
        }
        if open.iter().all(Option::is_some) {
            return std::future::pending().await;
        }
        tokio::time::sleep(http::RETRY).await;
    }
}

#[derive(Clone)]
struct NodeHealth<F> {
    progress: Arc<Progress>,
    nodes: Informer<Node>,
    now: F,
}

impl<F: Fn() -> Timestamp + Clone + Send + Sync + 'static> Answers for NodeHealth<F> {
    fn answer(&self, asked: SocketAddr, path: &str) -> Answer {
        // Only `/healthz` is about the node too: `/livez` is for whoever would restart the proxy.
        let eligible = match path {
            "/healthz" => Some(self.is_eligible(asked.ip())),
            "/livez" => None,
            _ => return http::not_found(),
        };
        let (now, wall) = (Instant::now(), (self.now)());
        let stuck = self.progress.stuck(now);
        let is_healthy = stuck.is_none() && eligible != Some(false);
        let last = match stuck {
            Some(updated) => {
                let ago = SignedDuration::try_from(now.saturating_duration_since(updated)).unwrap_or_default();
                wall.checked_sub(ago).unwrap_or(wall)
            }
            // Whoever is up to date has, as far as anybody outside can tell, been updated just now.
            None => wall,
        };
        let eligible = eligible.map(|eligible| format!(", \"nodeEligible\": {eligible}")).unwrap_or_default();
        let body =
            format!("{{\"lastUpdated\": \"{}\",\"currentTime\": \"{}\"{eligible}}}", go_time(last), go_time(wall));
        http::json(if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }
}

impl<F> NodeHealth<F> {
    /// Whether the node of that address stays. One that nobody has told of yet does, until somebody says otherwise.
    fn is_eligible(&self, address: IpAddr) -> bool {
        let is_own = |node: &Arc<Node>| {
            let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            addresses.filter_map(|own| own.address.parse::<IpAddr>().ok()).any(|own| own == address)
        };
        self.nodes.list().iter().find(|node| is_own(node)).is_none_or(|node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            node.metadata.deletion_timestamp.is_none() && !taints.into_iter().any(|taint| taint.key == TO_BE_DELETED)
        })
    }
}

/// As Go prints a time.
fn go_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_that_does_not_come_into_force_for_a_minute_makes_the_proxy_unhealthy() {
        let begin = Instant::now();
        let progress = Progress::new();
        assert_eq!(progress.stuck(begin + 10 * PATIENCE), None, "nothing to do, however long");
        tokio::time::advance(PATIENCE).await;
        progress.queued();
        progress.queued();
        let queued = Instant::now();
        assert_eq!(progress.stuck(queued + PATIENCE - Duration::from_nanos(1)), None, "not late yet");
        assert_eq!(progress.stuck(queued + PATIENCE), Some(begin));
        tokio::time::advance(PATIENCE).await;
        progress.updated();
        assert_eq!(progress.stuck(Instant::now() + PATIENCE), None);
    }

    #[test]
    fn times_are_printed_as_go_prints_them() {
        let time = |text: &str| go_time(text.parse().expect("a time"));
        assert_eq!(time("2026-01-02T03:04:05.06Z"), "2026-01-02 03:04:05.06 +0000 UTC");
        assert_eq!(time("2026-01-02T03:04:05Z"), "2026-01-02 03:04:05 +0000 UTC");
    }
}
