//! Events: what happened to an object, for `kubectl describe` and `kubectl get events`.
//!
//! Recording never waits. A task of its own writes, and as in client-go it joins what repeats: the same event again counts
//! up, more than ten similar ones within ten minutes become one "combined" event, and one object may have a burst of 25.

use crate::clock::Clock;
use crate::session::{FIELD_MANAGER, Object};
use informer::{Activity, Working};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::collections::{HashMap, HashSet};
use tokio::sync::mpsc;
use tracing::debug;

/// Events waiting to be written; more are lost, as they would be upstream.
const PENDING: usize = 4096;
/// Kinds of events remembered for counting; forgotten all at once when there are more.
const REMEMBERED: usize = 4096;
/// More similar events than this within [`SIMILAR_FOR`] are combined.
const SIMILAR: usize = 10;
const SIMILAR_FOR: SignedDuration = SignedDuration::from_secs(600);
/// Events one object may have at once, and the time in which it earns another.
const BURST: f64 = 25.0;
const EARNED_EVERY: f64 = 300.0;

/// Whether an event is news or a sign of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Takes events in the name of one component. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    component: &'static str,
    queue: mpsc::Sender<Recorded>,
    activity: Activity,
}

#[derive(Debug)]
struct Recorded {
    component: &'static str,
    object: ObjectReference,
    kind: EventType,
    reason: &'static str,
    message: String,
    /// Held until the event is written, so that a settled cluster shows it.
    _working: Working,
}

impl Recorder {
    /// A recorder and the task which writes for it.
    pub(crate) fn new(
        client: kube::Client,
        clock: Clock,
        activity: Activity,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, recorded) = mpsc::channel(PENDING);
        (Recorder { component: FIELD_MANAGER, queue, activity }, write(client, clock, recorded))
    }

    /// The same events in the name of another component.
    pub(crate) fn named(&self, component: &'static str) -> Self {
        Recorder { component, ..self.clone() }
    }

    /// Tells an event.
    pub(crate) fn record(&self, object: ObjectReference, kind: EventType, reason: &'static str, message: String) {
        let working = self.activity.begin();
        let recorded = Recorded { component: self.component, object, kind, reason, message, _working: working };
        if self.queue.try_send(recorded).is_err() {
            debug!(reason, "event lost: too many are waiting");
        }
    }
}

/// A reference to `object`, as an Event carries it.
pub(crate) fn reference<K: Object>(object: &K) -> ObjectReference {
    let metadata = object.metadata();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

async fn write(client: kube::Client, clock: Clock, mut recorded: mpsc::Receiver<Recorded>) {
    let mut memory = Memory::default();
    while let Some(recorded) = recorded.recv().await {
        let namespace = recorded.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let now = clock.now();
        let written = match memory.take(recorded, now) {
            Write::Nothing => continue,
            Write::Create(event) => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                api.create(&params, &event).await
            }
            Write::Count { name, count, message, at } => {
                let patch = serde_json::json!({ "count": count, "lastTimestamp": at, "message": message });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        if let Err(error) = written {
            debug!(%error, "event not written");
        }
    }
}

/// What has been told lately.
#[derive(Default)]
struct Memory {
    similar: HashMap<Similar, Messages>,
    told: HashMap<(Similar, String), Told>,
    bursts: HashMap<(&'static str, String), (f64, Timestamp)>,
    serial: u64,
}

/// Who said it about what: everything but the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Similar {
    component: &'static str,
    object: String,
    kind: EventType,
    reason: &'static str,
}

struct Messages {
    since: Timestamp,
    distinct: HashSet<String>,
}

struct Told {
    name: String,
    count: i32,
}

#[derive(Debug)]
enum Write {
    Nothing,
    Create(Box<Event>),
    Count { name: String, count: i32, message: String, at: Time },
}

impl Memory {
    fn take(&mut self, recorded: Recorded, now: Timestamp) -> Write {
        if self.told.len() > REMEMBERED || self.bursts.len() > REMEMBERED {
            *self = Memory { serial: self.serial, ..Memory::default() };
        }
        let Recorded { component, object, kind, reason, mut message, .. } = recorded;
        let uid = object.uid.clone().or_else(|| object.name.clone()).unwrap_or_default();
        let similar = Similar { component, object: uid.clone(), kind, reason };

        let messages = self
            .similar
            .entry(similar.clone())
            .and_modify(|messages| {
                if now.duration_since(messages.since) > SIMILAR_FOR {
                    *messages = Messages { since: now, distinct: HashSet::new() };
                }
            })
            .or_insert_with(|| Messages { since: now, distinct: HashSet::new() });
        messages.distinct.insert(message.clone());
        let mut key = (similar, message.clone());
        if messages.distinct.len() > SIMILAR {
            messages.distinct.remove(&message);
            message = format!("(combined from similar events): {message}");
            key.1 = String::new();
        }

        let (tokens, earned_at) = self.bursts.entry((component, uid)).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*earned_at).as_secs_f64() / EARNED_EVERY).min(BURST);
        *earned_at = now;
        if *tokens < 1.0 {
            return Write::Nothing;
        }
        *tokens -= 1.0;

        let at = crate::clock::whole_seconds(now);
        if let Some(told) = self.told.get_mut(&key) {
            told.count += 1;
            return Write::Count { name: told.name.clone(), count: told.count, message, at };
        }
        self.serial += 1;
        let unique = now.as_nanosecond().unsigned_abs() + u128::from(self.serial);
        let name = format!("{}.{unique:x}", object.name.as_deref().unwrap_or("unknown"));
        self.told.insert(key, Told { name: name.clone(), count: 1 });
        Write::Create(Box::new(Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: object,
            type_: Some(kind.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(at.clone()),
            last_timestamp: Some(at),
            source: Some(EventSource { component: Some(component.to_owned()), host: None }),
            reporting_component: Some(component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(memory: &mut Memory, message: &str, second: i64) -> Write {
        let object = ObjectReference { name: Some("web".into()), uid: Some("u1".into()), ..ObjectReference::default() };
        let recorded = Recorded {
            component: FIELD_MANAGER,
            object,
            kind: EventType::Normal,
            reason: "SuccessfulCreate",
            message: message.to_owned(),
            _working: Activity::default().begin(),
        };
        memory.take(recorded, Timestamp::from_second(second).expect("in range"))
    }

    #[test]
    fn the_same_event_again_counts_up() {
        let mut memory = Memory::default();
        let Write::Create(event) = say(&mut memory, "Created pod: a", 1) else { panic!("the first is created") };
        let Write::Count { name, count, .. } = say(&mut memory, "Created pod: a", 2) else { panic!("counts up") };
        assert_eq!((Some(name), count), (event.metadata.name, 2));
    }

    #[test]
    fn many_similar_events_become_one() {
        let mut memory = Memory::default();
        let writes: Vec<Write> = (0..13).map(|n| say(&mut memory, &format!("Created pod: {n}"), 1)).collect();
        assert!(writes[..10].iter().all(|write| matches!(write, Write::Create(_))));
        let Write::Create(combined) = &writes[10] else { panic!("the combined event is new") };
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): Created pod: 10"));
        assert!(matches!(&writes[12], Write::Count { count: 3, message, .. } if message.ends_with("pod: 12")));
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut memory = Memory::default();
        let written = (0..100).filter(|_| !matches!(say(&mut memory, "again", 1), Write::Nothing)).count();
        assert_eq!(written, 25);
        assert!(matches!(say(&mut memory, "again", 302), Write::Count { .. }), "one is earned after five minutes");
    }
}
