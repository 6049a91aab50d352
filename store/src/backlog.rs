//! The log as those watchers read it who have fallen behind the history in memory.
//!
//! A [`Backlog`] knows where in which segment the revisions are: [`Log`](crate::log::Log) and
//! [`recovery`](crate::recovery) tell it. Reading blocks, so [`Core`](crate::core::Core) does it beside the runtime;
//! writers and other watchers are not touched by it. A segment is read piece by piece; the state before an event is in
//! the event or, if the same segment has it, looked up there.

use crate::codec::{Previous, Record};
use crate::segment::{HEADER, Salt, frame_at};
use crate::{Batch, Event, EventKind, KeyValue, Revision, files};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A piece begins at the first frame behind so many bytes of the one before it.
const PIECE: u64 = 64 << 10;
/// So much of what was read last is kept: watchers that lag behind together read the same, and look up the same.
const KEPT_BYTES: usize = 4 << 20;

/// The segments of a log, the oldest first.
#[derive(Default)]
pub(crate) struct Backlog {
    segments: Mutex<VecDeque<Segment>>,
    read: Mutex<VecDeque<Arc<Piece>>>,
}

struct Segment {
    first: Revision,
    salt: Salt,
    file: Arc<File>,
    /// Where pieces begin, and with which revision.
    pieces: Vec<(Revision, u64)>,
    /// Behind the last frame.
    end: u64,
}

/// A stretch of the past for one watcher.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// What concerns it.
    pub(crate) batches: Vec<Batch>,
    /// Where to read on.
    pub(crate) next: Revision,
}

/// Why a stretch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BacklogError {
    /// Its segment has been removed.
    #[error("it is no longer there")]
    Gone,
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
    #[error("the log is damaged at revision {}", .0.0)]
    Damaged(Revision),
}

/// Frames of one segment, as they were read.
struct Piece {
    segment: Revision,
    salt: Salt,
    start: u64,
    bytes: Vec<u8>,
}

impl Backlog {
    /// A segment follows, whose records begin behind its header.
    pub(crate) fn begin(&self, first: Revision, salt: Salt, file: File) {
        let segment = Segment { first, salt, file: Arc::new(file), pieces: Vec::new(), end: HEADER as u64 };
        self.segments.lock().push_back(segment);
    }

    /// A frame with the revisions from `first` on is durable in the last segment.
    pub(crate) fn add(&self, first: Revision, start: u64, end: u64) {
        if let Some(segment) = self.segments.lock().back_mut() {
            if segment.pieces.last().is_none_or(|(_, begun)| start >= begun + PIECE) {
                segment.pieces.push((first, start));
            }
            segment.end = end;
        }
    }

    /// The segments before the one that begins with `first` are gone.
    pub(crate) fn forget_before(&self, first: Revision) {
        self.segments.lock().retain(|segment| segment.first >= first);
        self.read.lock().retain(|piece| piece.segment >= first);
    }

    /// The events under `prefix` from revision `from` on, up to and with `upto`: one piece of them.
    pub(crate) fn read(&self, prefix: &str, from: Revision, upto: Revision) -> Result<Stretch, BacklogError> {
        let piece = self.piece(from)?;
        let mut batches = Vec::new();
        let mut next = from;
        piece.each(|revision, records| {
            if revision < from || revision > upto {
                return Ok(());
            }
            let mut events = Vec::new();
            for record in records.iter().filter(|record| record.key.starts_with(prefix)) {
                events.push(Arc::new(self.event(&piece, revision, record)?));
            }
            if !events.is_empty() {
                batches.push(Batch { revision, events });
            }
            next = Revision(revision.0 + 1);
            Ok(())
        })?;
        if next == from { Err(BacklogError::Damaged(from)) } else { Ok(Stretch { batches, next }) }
    }

    fn event(&self, piece: &Piece, revision: Revision, record: &Record<'_>) -> Result<Event, BacklogError> {
        let Record { create_revision, version, .. } = *record;
        let key: crate::Key = record.key.into();
        let kind = if record.value.is_some() { EventKind::Put } else { EventKind::Delete };
        let previous = match record.previous {
            None => None,
            Some(Previous { mod_revision, value }) => Some(KeyValue {
                key: key.clone(),
                value: match value {
                    Some(value) => Bytes::copy_from_slice(value),
                    None => self.value(piece, record.key, mod_revision)?,
                },
                create_revision,
                mod_revision,
                // A delete has the version of what it deletes.
                version: version - u64::from(kind == EventKind::Put && version > 0),
            }),
        };
        let value = match (record.value, &previous) {
            (Some(value), _) => Bytes::copy_from_slice(value),
            (None, Some(previous)) => previous.value.clone(),
            (None, None) => return Err(BacklogError::Damaged(revision)),
        };
        Ok(Event { kv: KeyValue { key, value, create_revision, mod_revision: revision, version }, previous, kind })
    }

    /// What `key` was given at `revision`, which is in the segment of `near`.
    fn value(&self, near: &Piece, key: &str, revision: Revision) -> Result<Bytes, BacklogError> {
        if let Some(value) = near.value(key, revision)? {
            return Ok(value);
        }
        let piece = self.piece(revision)?;
        piece.value(key, revision)?.ok_or(BacklogError::Damaged(revision))
    }

    fn piece(&self, revision: Revision) -> Result<Arc<Piece>, BacklogError> {
        let (segment, salt, file, start, end) = {
            let segments = self.segments.lock();
            let index = segments.partition_point(|segment| segment.first <= revision);
            let segment = index.checked_sub(1).and_then(|index| segments.get(index)).ok_or(BacklogError::Gone)?;
            let index = segment.pieces.partition_point(|(first, _)| *first <= revision);
            let (_, start) =
                *index.checked_sub(1).and_then(|index| segment.pieces.get(index)).ok_or(BacklogError::Gone)?;
            let end = segment.pieces.get(index).map_or(segment.end, |(_, next)| *next);
            (segment.first, segment.salt, segment.file.clone(), start, end)
        };
        let length = (end - start) as usize;
        let known = |piece: &&Arc<Piece>| (piece.segment, piece.start, piece.bytes.len()) == (segment, start, length);
        if let Some(piece) = self.read.lock().iter().find(known) {
            return Ok(piece.clone());
        }
        let mut bytes = vec![0; length];
        files::read_at(&file, &mut bytes, start)?;
        let piece = Arc::new(Piece { segment, salt, start, bytes });
        let mut read = self.read.lock();
        read.push_front(piece.clone());
        let mut kept = 0;
        read.retain(|piece| {
            kept += piece.bytes.len();
            kept <= KEPT_BYTES
        });
        Ok(piece)
    }
}

impl Piece {
    /// Goes through its transactions.
    fn each<'a>(
        &'a self,
        mut each: impl FnMut(Revision, &[Record<'a>]) -> Result<(), BacklogError>,
    ) -> Result<(), BacklogError> {
        let mut offset = 0;
        while offset < self.bytes.len() {
            let damaged = || BacklogError::Damaged(self.segment);
            let (frame, end) = frame_at(&self.bytes, self.salt, offset).ok_or_else(damaged)?;
            for (revision, records) in frame.transactions().map_err(|_| damaged())? {
                each(revision, &records)?;
            }
            offset = end;
        }
        Ok(())
    }

    fn value(&self, key: &str, wanted: Revision) -> Result<Option<Bytes>, BacklogError> {
        let mut found = None;
        self.each(|revision, records| {
            if revision == wanted {
                let record = records.iter().find(|record| record.key == key);
                found = record.and_then(|record| record.value).map(Bytes::copy_from_slice);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
