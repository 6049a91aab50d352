//! Denied packets as Events: who looks at a pod (`kubectl describe pod`) sees what its policies keep away, in the words of an explanation.
//!
//! The Event is on the pod whose policies deny, and names the other end as related. One per pod, peer and port: repetitions are
//! counted, and the count is written every [`EVERY`] at most. A pod may cause [`BURST`] new Events and one more per [`REFILL`]
//! after that, and a bounded number is remembered, so that a port scan fills neither the store nor the memory. Reads the log of
//! drops, which does not wait for it.

use super::hubble::flow_of;
use super::place::protocol_name;
use super::{Sources, alive};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use netstack::{FlowChange, FlowEvent, FlowEvents};
use policy::{Explanation, Ruling};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

/// The reason of the Events.
pub(crate) const REASON: &str = "PolicyDenied";
/// Between two writes of the same Event.
const EVERY: Duration = Duration::from_secs(10);
/// New Events that a pod may cause at once; client-go's spam filter has the same figures.
const BURST: u32 = 25;
/// Time after which it may cause one more.
const REFILL: Duration = Duration::from_secs(300);
/// Pairs that are remembered.
const REMEMBERED: usize = 1024;
/// Longest message, in bytes; the API takes no longer ones.
const LONGEST: usize = 1024;

/// What is told of as one: pod, peer, port.
type Pair = (String, String, String);

/// An Event that was written.
struct Told {
    namespace: String,
    name: String,
    count: u64,
    /// Not written yet.
    pending: u64,
    last: Instant,
    written: Instant,
}

/// How many new Events a pod may still cause.
struct Allowance {
    left: u32,
    since: Instant,
}

/// Writes the Events.
pub(crate) struct Denials {
    sources: Weak<Sources>,
    client: kube::Client,
    told: HashMap<Pair, Told>,
    /// In the order of their first denial.
    order: VecDeque<Pair>,
    allowances: HashMap<String, Allowance>,
    suppressed: Arc<AtomicU64>,
    clock: (Timestamp, Instant),
    number: u64,
}

impl Denials {
    pub(super) fn new(
        sources: &Arc<Sources>,
        client: kube::Client,
        now: Timestamp,
        suppressed: Arc<AtomicU64>,
    ) -> Self {
        Denials {
            sources: Arc::downgrade(sources),
            client,
            told: HashMap::new(),
            order: VecDeque::new(),
            allowances: HashMap::new(),
            suppressed,
            clock: (now, Instant::now()),
            number: 0,
        }
    }

    /// Until the network stops.
    pub(super) async fn run(mut self, mut drops: FlowEvents) {
        loop {
            let due = self.told.values().filter(|told| told.pending > 0).map(|told| told.written + EVERY).min();
            let flush = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = drops.next() => match event {
                    Some(event) => self.denied(&event).await,
                    None => return,
                },
                () = flush => self.flush().await,
            }
        }
    }

    async fn denied(&mut self, event: &FlowEvent) {
        let FlowChange::Dropped(reason) = event.change else { return };
        let code = policy::reason::code(reason);
        if !["POLICY_DENIED_EGRESS", "POLICY_DENIED_INGRESS", "CNP_DENY"].contains(&code) {
            return;
        }
        let Some(sources) = self.sources.upgrade() else { return };
        let Ok(policy) = alive(&sources.policy) else { return };
        let explanation = policy.explain(&flow_of(event));
        if explanation.reason != Some(code) {
            // Policies have changed since: whoever asks now is told something else.
            return;
        }
        let source = sources.residents.at(event.original.src.ip(), event.at);
        let destination = sources.residents.at(event.translated.dst.ip(), event.at);
        let (subject, peer) = match explanation.egress.ruling {
            Ruling::Denied => (source, destination),
            _ => (destination, source),
        };
        let Some(subject) = subject else { return };
        let port = format!("{}/{}", event.translated.dst.port(), protocol_name(event.translated.protocol));
        let other = match (&peer, explanation.egress.ruling) {
            (Some(peer), _) => format!("{}/{}", peer.namespace, peer.name),
            (None, Ruling::Denied) => event.translated.dst.ip().to_string(),
            (None, _) => event.original.src.ip().to_string(),
        };
        let pair = (subject.uid.clone(), other, format!("{code} {port}"));
        if let Some(told) = self.told.get_mut(&pair) {
            told.pending += 1;
            told.last = event.at;
            return;
        }
        if !self.may_tell(&subject.uid, event.at) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.number += 1;
        let at = self.time(event.at);
        let name = format!("{}.{:x}{:04x}", subject.name, at.as_nanosecond(), self.number);
        let pod = |who: &crate::residents::Resident| json!({"apiVersion": "v1", "kind": "Pod", "namespace": who.namespace, "name": who.name, "uid": who.uid});
        let object = json!({
            "metadata": {"name": name, "namespace": subject.namespace},
            "involvedObject": pod(&subject), "related": peer.as_ref().map(|peer| pod(peer)),
            "type": "Warning", "reason": REASON, "message": message(&explanation), "action": "Deny", "count": 1,
            "firstTimestamp": at, "lastTimestamp": at, "source": {"component": "coracle-policy", "host": subject.node},
            "reportingComponent": "coracle-policy", "reportingInstance": subject.node,
        });
        let Ok(object) = serde_json::from_value::<Event>(object) else { return };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &subject.namespace);
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            debug!(%error, "event not written");
        }
        let told = Told {
            namespace: subject.namespace.clone(),
            name,
            count: 1,
            pending: 0,
            last: event.at,
            written: Instant::now(),
        };
        self.remember(pair, told);
    }

    fn remember(&mut self, pair: Pair, told: Told) {
        self.told.insert(pair.clone(), told);
        self.order.push_back(pair);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    fn may_tell(&mut self, uid: &str, now: Instant) -> bool {
        if self.allowances.len() >= REMEMBERED && !self.allowances.contains_key(uid) {
            self.allowances.retain(|_, allowance| now.saturating_duration_since(allowance.since) < REFILL);
            if self.allowances.len() >= REMEMBERED {
                return false;
            }
        }
        let allowance = self.allowances.entry(uid.to_owned()).or_insert(Allowance { left: BURST, since: now });
        while allowance.left < BURST && now.saturating_duration_since(allowance.since) >= REFILL {
            allowance.left += 1;
            allowance.since += REFILL;
        }
        if allowance.left == BURST {
            allowance.since = now;
        }
        let may = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        may
    }

    /// Writes the counts that are due.
    async fn flush(&mut self) {
        let now = Instant::now();
        let (wall, began) = self.clock;
        for told in self.told.values_mut().filter(|told| told.pending > 0 && told.written + EVERY <= now) {
            told.count += std::mem::take(&mut told.pending);
            told.written = now;
            let api: Api<Event> = Api::namespaced(self.client.clone(), &told.namespace);
            let patch = json!({"count": told.count, "lastTimestamp": shifted(wall, began, told.last)});
            if let Err(error) = api.patch(&told.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                debug!(%error, "event not counted");
            }
        }
    }

    fn time(&self, at: Instant) -> Timestamp {
        shifted(self.clock.0, self.clock.1, at)
    }
}

fn shifted(wall: Timestamp, began: Instant, at: Instant) -> Timestamp {
    let since = k8s_openapi::jiff::SignedDuration::try_from(at.saturating_duration_since(began)).unwrap_or_default();
    let time = wall.checked_add(since).unwrap_or(wall);
    // Events count seconds.
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The explanation as one sentence and what nearly matched.
fn message(explanation: &Explanation) -> String {
    let name = |party: &policy::PartyReport| party.pod.clone().unwrap_or_else(|| party.address.ip().to_string());
    let denying = match explanation.egress.ruling {
        Ruling::Denied => &explanation.egress,
        _ => &explanation.ingress,
    };
    let (source, destination) = (name(&explanation.source), name(&explanation.destination));
    let port = explanation.destination.address.port();
    let mut text = format!("{source} → {destination}:{port}/{}: {}", explanation.protocol, denying.why);
    for miss in &denying.near_misses {
        let more = format!("; rule {} of {} nearly matched: {}", miss.rule.rule, miss.rule.policy, miss.problem);
        if text.len() + more.len() > LONGEST {
            break;
        }
        text.push_str(&more);
    }
    while text.len() > LONGEST {
        text.pop();
    }
    text
}
