//! The whole state at one revision, as an immutable map, and how a transaction makes the next one.
//!
//! A [`Snapshot`] is cheap to clone (`imbl::OrdMap` shares its nodes), so readers keep theirs while writers go on. Both
//! stores commit through [`Snapshot::apply`]; what makes a commit durable or visible is not here.

use crate::{Compare, Event, EventKind, Key, KeyValue, Operation, Page, Range, Revision, Txn, TxnError};
use imbl::OrdMap;
use std::ops::Bound;
use std::sync::Arc;
use tokio::time::Instant;

/// Every key at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) keys: OrdMap<Key, Arc<KeyValue>>,
}

/// What one transaction changed.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    /// When it was committed: history is kept by age.
    pub(crate) at: Instant,
    pub(crate) events: Vec<Arc<Event>>,
}

impl Commit {
    /// The memory which history needs for it, roughly. The previous values belong to the commits before.
    pub(crate) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        self.events.iter().map(|event| event.kv.key.len() + event.kv.value.len() + OVERHEAD).sum()
    }
}

impl Snapshot {
    /// Applies `txn` in place; `None` if it changed nothing and so took no revision.
    ///
    /// # Errors
    /// [`TxnError::Conflict`] with the first compare which does not hold; the snapshot is unchanged.
    pub(crate) fn apply(&mut self, txn: Txn, at: Instant) -> Result<Option<Commit>, TxnError> {
        for Compare { key, mod_revision } in txn.compares {
            let current = self.keys.get(&*key);
            if current.map_or(Revision(0), |kv| kv.mod_revision) != mod_revision {
                return Err(TxnError::Conflict { current: current.map(|kv| KeyValue::clone(kv)), key });
            }
        }
        let revision = Revision(self.revision.0 + 1);
        let events: Vec<_> = txn
            .operations
            .into_iter()
            .filter_map(|operation| self.operate(operation, revision))
            .map(Arc::new)
            .collect();
        if events.is_empty() {
            return Ok(None);
        }
        self.revision = revision;
        Ok(Some(Commit { revision, at, events }))
    }

    fn operate(&mut self, operation: Operation, revision: Revision) -> Option<Event> {
        match operation {
            Operation::Put { key, value } => {
                let previous = self.keys.get(&*key).map(|kv| KeyValue::clone(kv));
                let (create_revision, version) =
                    previous.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
                let kv = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, version };
                self.keys.insert(key, Arc::new(kv.clone()));
                Some(Event { kv, previous, kind: EventKind::Put })
            }
            Operation::Delete { key } => {
                let previous = KeyValue::clone(&*self.keys.remove(&*key)?);
                let kv = KeyValue { mod_revision: revision, ..previous.clone() };
                Some(Event { kv, previous: Some(previous), kind: EventKind::Delete })
            }
        }
    }

    /// Takes `event` back: the state before it.
    pub(crate) fn undo(&mut self, event: &Event) {
        match &event.previous {
            Some(previous) => self.keys.insert(previous.key.clone(), Arc::new(previous.clone())),
            None => self.keys.remove(&*event.kv.key),
        };
    }

    /// Answers `range` from this snapshot, whatever its `at`.
    pub(crate) fn page(&self, range: &Range) -> Page {
        let prefix = range.prefix.as_str();
        let start = match range.after.as_deref() {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let end = prefix_end(prefix);
        if matches!((&start, &end), (Bound::Excluded(after), Some(end)) if *after >= end.as_str()) {
            return Page { revision: self.revision, items: Vec::new(), remaining: 0 };
        }
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = self.keys.range::<_, str>((start, end));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let items = found.by_ref().take(limit).map(|(_, kv)| KeyValue::clone(kv)).collect();
        Page { revision: self.revision, items, remaining: found.count() }
    }
}

/// The smallest string behind all which begin with `prefix`; `None` if there is no such string.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The next scalar value; the surrogates between U+D7FF and U+E000 are none.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix_is_the_smallest_string_behind_all_that_begin_with_it() {
        let cases = [
            ("", None),
            ("/a/", Some("/a0")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ];
        for (prefix, end) in cases {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
