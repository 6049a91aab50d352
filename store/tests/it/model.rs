//! Random transactions, ranges and watches against a model so simple that it must be right: every state there ever was.

use crate::support::{OPTIONS, RETENTION, caught_up};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use store::{
    Compare, EmbeddedStore, Event, EventKind, Key, KeyValue, MemoryStore, Operation, Options, Range, RangeError,
    Retention, Revision, Store, Txn, TxnError, Watch,
};
use tempfile::TempDir;

const KEYS: [&str; 7] = ["/", "/a", "/a/", "/a/1", "/a/2", "/b/1", "/é"];
const PREFIXES: [&str; 6] = ["", "/", "/a", "/a/", "/b/1", "/x"];

#[derive(Clone, Debug)]
enum Expected {
    Present,
    Absent,
    Revision(u64),
}

#[derive(Clone, Debug)]
enum Step {
    /// Compares by key; operations by key, with a value or a delete.
    Txn(Vec<(usize, Expected)>, BTreeMap<usize, Option<Vec<u8>>>),
    /// Prefix, after, limit, how far back.
    Range(usize, Option<usize>, usize, Option<u64>),
    /// Prefix, how far back.
    Watch(usize, u64),
    /// How far back.
    Compact(u64),
    Progress,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let expected = prop_oneof![
        6 => Just(Expected::Present),
        1 => Just(Expected::Absent),
        1 => (0u64..20).prop_map(Expected::Revision)
    ];
    let compares = prop_oneof![Just(vec![]), vec((key.clone(), expected), 1..3)];
    let value = prop_oneof![3 => vec(any::<u8>(), 0..20).prop_map(Some), 1 => Just(None)];
    let operations = proptest::collection::btree_map(key.clone(), value, 0..4);
    prop_oneof![
        20 => (compares, operations).prop_map(|(compares, operations)| Step::Txn(compares, operations)),
        6 => (0..PREFIXES.len(), proptest::option::of(key), 0usize..4, proptest::option::of(0u64..12))
            .prop_map(|(prefix, after, limit, back)| Step::Range(prefix, after, limit, back)),
        3 => (0..PREFIXES.len(), 0u64..12).prop_map(|(prefix, back)| Step::Watch(prefix, back)),
        1 => (0u64..12).prop_map(Step::Compact),
        1 => Just(Step::Progress),
        1 => Just(Step::Reopen),
    ]
}

/// Every state and every event there ever was.
#[derive(Default)]
struct Model {
    states: Vec<BTreeMap<String, KeyValue>>,
    events: Vec<(u64, Event)>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn txn(&mut self, compares: &[Compare], operations: &[Operation]) -> Result<u64, Key> {
        let mut state = self.states.last().unwrap().clone();
        for compare in compares {
            if state.get(&*compare.key).map_or(Revision(0), |kv| kv.mod_revision) != compare.mod_revision {
                return Err(compare.key.clone());
            }
        }
        let revision = self.revision() + 1;
        let before = self.events.len();
        for operation in operations {
            match operation {
                Operation::Put { key, value } => {
                    let previous = state.get(&**key).cloned();
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: previous.as_ref().map_or(Revision(revision), |kv| kv.create_revision),
                        mod_revision: Revision(revision),
                        version: previous.as_ref().map_or(1, |kv| kv.version + 1),
                    };
                    state.insert(key.to_string(), kv.clone());
                    self.events.push((revision, Event { kv, previous, kind: EventKind::Put }));
                }
                Operation::Delete { key } => {
                    if let Some(previous) = state.remove(&**key) {
                        let kv = KeyValue { mod_revision: Revision(revision), ..previous.clone() };
                        self.events.push((revision, Event { kv, previous: Some(previous), kind: EventKind::Delete }));
                    }
                }
            }
        }
        if self.events.len() > before {
            self.states.push(state);
        }
        Ok(self.revision())
    }
}

/// A running watch and what it should see, after what it has seen.
struct Watched {
    watch: Watch,
    prefix: &'static str,
    seen: u64,
    polled: bool,
}

impl Watched {
    /// Takes everything that is ready: exactly the model's events.
    async fn catch_up(&mut self, model: &Model) {
        use futures::StreamExt;
        let concerned = model.events.iter().any(|(revision, event)| self.concerns(*revision, event));
        if self.seen < model.compacted && (concerned || !self.polled) {
            // What it has not read yet is gone, or may be.
            return;
        }
        self.polled = true;
        let mut seen = Vec::new();
        // The clock is paused: it moves on once nothing is left to be read, from the log either.
        while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(1), self.watch.next()).await {
            let batch = batch.expect("nothing it wants is compacted");
            assert!(batch.events.iter().all(|event| event.kv.mod_revision == batch.revision));
            seen.extend(batch.events.into_iter().map(|event| (batch.revision.0, Event::clone(&event))));
        }
        let expected: Vec<_> =
            model.events.iter().filter(|(revision, event)| self.concerns(*revision, event)).cloned().collect();
        assert_eq!(seen, expected);
        self.seen = model.revision();
    }

    fn concerns(&self, revision: u64, event: &Event) -> bool {
        revision > self.seen && event.kv.key.starts_with(self.prefix)
    }
}

/// A store under test: in memory, or in a directory which can be opened again.
enum Subject {
    Memory(MemoryStore),
    Disk(EmbeddedStore, TempDir, Options),
}

impl Subject {
    fn store(&self) -> &dyn Store {
        match self {
            Self::Memory(store) => store,
            Self::Disk(store, ..) => store,
        }
    }
}

/// The values are small, so that nothing is evicted but by a step.
const HISTORY: Retention = Retention { bytes: 1 << 20, events: 10_000, ..RETENTION };
const DISK: Options = Options { retention: HISTORY, ring_bytes: HISTORY.bytes, segment_bytes: 1 << 10, ..OPTIONS };
/// Nothing but the newest commit is in memory.
const LOG: Options = Options { ring_bytes: 0, ..DISK };

async fn check(mut subject: Subject, steps: Vec<Step>) {
    let mut model = Model { states: vec![BTreeMap::new()], ..Model::default() };
    let mut watches: Vec<Watched> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Txn(compares, operations) => {
                let compares: Vec<_> = compares
                    .into_iter()
                    .map(|(key, expected)| {
                        let present = model.states.last().unwrap().get(KEYS[key]);
                        let mod_revision = match expected {
                            Expected::Present => present.map_or(Revision(0), |kv| kv.mod_revision),
                            Expected::Absent => Revision(0),
                            Expected::Revision(revision) => Revision(revision),
                        };
                        Compare { key: KEYS[key].into(), mod_revision }
                    })
                    .collect();
                let operations: Vec<_> = operations
                    .into_iter()
                    .map(|(key, value)| match value {
                        Some(value) => Operation::Put { key: KEYS[key].into(), value: Bytes::from(value) },
                        None => Operation::Delete { key: KEYS[key].into() },
                    })
                    .collect();
                let expected = model.txn(&compares, &operations);
                match (subject.store().txn(Txn { compares, operations }).await, expected) {
                    (Ok(committed), Ok(revision)) => assert_eq!(committed.revision, Revision(revision)),
                    (Err(TxnError::Conflict { key, current }), Err(expected)) => {
                        assert_eq!(key, expected);
                        assert_eq!(current.as_ref(), model.states.last().unwrap().get(&*key));
                    }
                    (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
                }
            }
            Step::Range(prefix, after, limit, back) => {
                let (prefix, after) = (PREFIXES[prefix], after.map(|after| KEYS[after]));
                let at = back.map(|back| Revision(model.revision().saturating_sub(back)));
                let range = Range { prefix: prefix.into(), after: after.map(Into::into), limit, at };
                let at = at.map_or(model.revision(), |at| at.0);
                match subject.store().range(range).await {
                    Ok(page) => {
                        assert!(at >= model.compacted);
                        let found: Vec<_> = model.states[at as usize]
                            .values()
                            .filter(|kv| kv.key.starts_with(prefix) && after.is_none_or(|after| &*kv.key > after))
                            .cloned()
                            .collect();
                        let limit = if limit == 0 { found.len() } else { limit.min(found.len()) };
                        assert_eq!((page.revision.0, page.remaining), (at, found.len() - limit));
                        assert_eq!(page.items, found[..limit]);
                    }
                    Err(RangeError::Compacted { asked, oldest }) => {
                        assert!(asked.0 == at && asked < oldest);
                        // What is in the log only can be watched, but not listed.
                        let in_memory = !matches!(subject, Subject::Disk(_, _, Options { ring_bytes: 0, .. }));
                        assert!(oldest.0 == model.compacted || oldest.0 > model.compacted && !in_memory);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Watch(prefix, back) => {
                let seen = model.revision().saturating_sub(back).max(model.compacted);
                let prefix = PREFIXES[prefix];
                watches.push(Watched {
                    watch: subject.store().watch(prefix, Revision(seen)),
                    prefix,
                    seen,
                    polled: false,
                });
            }
            Step::Compact(back) => {
                let revision = model.revision().saturating_sub(back);
                subject.store().compact(Revision(revision)).await.unwrap();
                model.compacted = model.compacted.max(revision);
            }
            Step::Progress => subject.store().request_progress(),
            Step::Reopen => {
                if let Subject::Disk(store, dir, options) = subject {
                    store.close().await;
                    for mut watched in watches.drain(..) {
                        watched.catch_up(&model).await;
                    }
                    subject = Subject::Disk(EmbeddedStore::open(dir.path(), options).unwrap(), dir, options);
                    // The log still has it all.
                    model.compacted = 0;
                }
            }
        }
        assert_eq!(subject.store().revision(), Revision(model.revision()));
        // Every other watcher reads at once, the others in the end.
        for watched in watches.iter_mut().skip(number % 2).step_by(2) {
            watched.catch_up(&model).await;
        }
    }
    for watched in &mut watches {
        watched.catch_up(&model).await;
    }
    let mut everything = subject.store().watch("", Revision(model.compacted));
    let revisions = model.events.iter().map(|(revision, _)| *revision).filter(|revision| *revision > model.compacted);
    let mut revisions: Vec<_> = revisions.collect();
    revisions.dedup();
    let batches = caught_up(&mut everything).await.into_iter().filter(|batch| !batch.ends_with(" progress"));
    assert_eq!(batches.count(), revisions.len());
}

fn run(subject: Subject, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(check(subject, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_store_does_what_the_model_does(steps in vec(step(), 0..60)) {
        run(Subject::Memory(MemoryStore::with_retention(HISTORY)), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_does_what_the_model_does_also_when_opened_again(steps in vec(step(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(Subject::Disk(EmbeddedStore::open(dir.path(), DISK).unwrap(), dir, DISK), steps);
    }

    #[test]
    fn watchers_of_the_log_see_what_the_model_says(steps in vec(step(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(Subject::Disk(EmbeddedStore::open(dir.path(), LOG).unwrap(), dir, LOG), steps);
    }
}
