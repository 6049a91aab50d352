//! Pods without a node: those to be placed now, in order, and those to be tried again later.

use super::uid;
use informer::Working;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::time::Instant;

/// A pod that wants a node.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) pod: Arc<Pod>,
    /// How often its binding has failed.
    pub(super) failures: u32,
    /// Held until the pod is bound, or known to fit nowhere.
    pub(super) working: Option<Working>,
}

/// Why a pod is tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// It fits nowhere: any change of a node is an occasion.
    Unschedulable,
    /// Its binding has failed: only time helps.
    Failed,
}

/// By priority, age, arrival.
type Rank = (Reverse<i32>, Option<Timestamp>, u64);
type Due = (Instant, u64);

enum Place {
    Pending(Rank),
    Delayed(Due),
}

/// Each pod is in it once.
#[derive(Default)]
pub(super) struct Backlog {
    pending: BTreeMap<Rank, Candidate>,
    delayed: BTreeMap<Due, (Candidate, Delay)>,
    places: HashMap<String, Place>,
    serial: u64,
}

impl Backlog {
    /// To be placed now.
    pub(super) fn add(&mut self, candidate: Candidate) {
        let uid = uid(&candidate.pod);
        self.remove(&uid);
        self.serial += 1;
        let priority = candidate.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let created = candidate.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let rank = (Reverse(priority), created, self.serial);
        self.pending.insert(rank, candidate);
        self.places.insert(uid, Place::Pending(rank));
    }

    /// To be placed at `due`, or earlier if there is an occasion.
    pub(super) fn delay(&mut self, candidate: Candidate, due: Instant, why: Delay) {
        let uid = uid(&candidate.pod);
        self.remove(&uid);
        self.serial += 1;
        let due = (due, self.serial);
        self.delayed.insert(due, (candidate, why));
        self.places.insert(uid, Place::Delayed(due));
    }

    /// The next pod to be placed.
    pub(super) fn next(&mut self) -> Option<Candidate> {
        let (_, candidate) = self.pending.pop_first()?;
        self.places.remove(&uid(&candidate.pod));
        Some(candidate)
    }

    /// The pod is gone, or has a node.
    pub(super) fn remove(&mut self, uid: &str) {
        match self.places.remove(uid) {
            Some(Place::Pending(rank)) => drop(self.pending.remove(&rank)),
            Some(Place::Delayed(due)) => drop(self.delayed.remove(&due)),
            None => {}
        }
    }

    /// The pod, if it is known to fit nowhere.
    pub(super) fn unschedulable(&mut self, uid: &str) -> Option<&mut Candidate> {
        let Some(Place::Delayed(due)) = self.places.get(uid) else { return None };
        self.delayed.get_mut(due).filter(|(_, why)| *why == Delay::Unschedulable).map(|(candidate, _)| candidate)
    }

    /// A node has changed: what fitted nowhere may fit now.
    pub(super) fn release_unschedulable(&mut self, working: &Working) {
        let due: Vec<Due> =
            self.delayed.iter().filter(|(_, (_, why))| *why == Delay::Unschedulable).map(|(due, _)| *due).collect();
        for due in due {
            if let Some((candidate, _)) = self.delayed.remove(&due) {
                self.add(Candidate { working: Some(working.clone()), ..candidate });
            }
        }
    }

    /// Releases whose time has come.
    pub(super) fn release_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let (candidate, _) = entry.remove();
            self.add(candidate);
        }
    }

    /// When the next time comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.keys().next().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn candidate(name: &str, priority: i32, created: i64) -> Candidate {
        let created = Timestamp::from_second(created).expect("in range").to_string();
        let pod = json!({"metadata": {"uid": name, "creationTimestamp": created}, "spec": {"priority": priority, "containers": []}});
        Candidate { pod: Arc::new(serde_json::from_value(pod).expect("a Pod")), failures: 0, working: None }
    }

    fn all(backlog: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.next()).map(|candidate| uid(&candidate.pod)).collect()
    }

    #[test]
    fn the_important_and_the_old_come_first() {
        let mut backlog = Backlog::default();
        for (name, priority, created) in [("young", 0, 9), ("old", 0, 1), ("important", 5, 9), ("older", 0, 1)] {
            backlog.add(candidate(name, priority, created));
        }
        backlog.add(candidate("old", 0, 1));
        assert_eq!(all(&mut backlog), ["important", "older", "old", "young"]);
    }

    #[tokio::test(start_paused = true)]
    async fn unschedulable_pods_wait_for_nodes_and_failed_ones_for_time() {
        let mut backlog = Backlog::default();
        let now = Instant::now();
        backlog.delay(candidate("nowhere", 0, 1), now + Duration::from_secs(300), Delay::Unschedulable);
        backlog.delay(candidate("refused", 0, 1), now + Duration::from_secs(1), Delay::Failed);
        assert!(backlog.unschedulable("nowhere").is_some() && backlog.unschedulable("refused").is_none());
        backlog.release_unschedulable(&informer::Activity::default().begin());
        assert_eq!(all(&mut backlog), ["nowhere"]);
        assert_eq!(backlog.next_due(), Some(now + Duration::from_secs(1)));
        backlog.release_due(now + Duration::from_secs(1));
        assert_eq!(all(&mut backlog), ["refused"]);
        assert_eq!(backlog.next_due(), None);
    }

    #[test]
    fn a_removed_pod_is_not_placed() {
        let mut backlog = Backlog::default();
        backlog.add(candidate("a", 0, 1));
        backlog.remove("a");
        assert_eq!(all(&mut backlog), [""; 0]);
    }
}
