//! One change as its watchers are told it: encoded when the first of them asks, for all of them.

use crate::encode;
use crate::registry::ResourceKind;
use crate::status::Status;
use crate::storage;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use store::{Event, EventKind, KeyValue, Revision};

/// What a change is to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    /// It is gone.
    Deleted,
    /// It is no longer selected: gone for this watcher, who is told its last state that was.
    Deselected,
}

impl What {
    /// What `event` is to somebody who selects by what the object was and is; `None` if it does not concern them.
    pub(crate) fn of(event: &Event, was_selected: bool, is_selected: bool) -> Option<What> {
        let exists = event.kind == EventKind::Put;
        match (was_selected && event.previous.is_some(), is_selected && exists) {
            (false, false) => None,
            (false, true) => Some(What::Added),
            (true, true) => Some(What::Modified),
            (true, false) if exists => Some(What::Deselected),
            (true, false) => Some(What::Deleted),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Added => "ADDED",
            What::Modified => "MODIFIED",
            What::Deleted | What::Deselected => "DELETED",
        }
    }

    /// The object to be told, with the revision of the change.
    pub(crate) fn object(self, event: &Event) -> Cow<'_, KeyValue> {
        match (self, &event.previous) {
            (What::Deselected, Some(before)) => {
                Cow::Owned(KeyValue { mod_revision: event.kv.mod_revision, ..before.clone() })
            }
            _ => Cow::Borrowed(&event.kv),
        }
    }
}

/// A change that is on its way to any number of watchers.
pub(crate) struct Change {
    event: Arc<Event>,
    /// By [`What`].
    lines: [OnceLock<Bytes>; 4],
}

impl Change {
    pub(crate) fn new(event: Arc<Event>) -> Self {
        Change { event, lines: Default::default() }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.event.kv.mod_revision
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    /// What a full mailbox would hold on to.
    pub(super) fn bytes(&self) -> usize {
        self.event.kv.value.len()
    }

    /// The line that tells it with the whole object.
    ///
    /// # Errors
    /// 500 if what is stored cannot be shown in the form of the kind's row.
    pub(crate) fn line(&self, kind: &ResourceKind, what: What) -> Result<Bytes, Status> {
        let slot = &self.lines[what as usize];
        if let Some(line) = slot.get() {
            return Ok(line.clone());
        }
        let line = object_line(kind, what.name(), &what.object(&self.event))?;
        Ok(slot.get_or_init(|| line.into()).clone())
    }
}

/// A line of a watch with a whole object.
pub(crate) fn object_line(kind: &ResourceKind, what: &str, kv: &KeyValue) -> Result<Vec<u8>, Status> {
    let mut out = Vec::with_capacity(kv.value.len() + 96);
    encode::begin_line(&mut out, what);
    storage::append(kind, &mut out, kv)?;
    encode::end_line(&mut out);
    Ok(out)
}
