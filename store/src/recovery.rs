//! From a directory to the state it holds: a checkpoint, and the log from there.
//!
//! Recovery begins at the oldest state there is, not at the newest checkpoint: the longer replay refills the watch
//! history, and the path taken when the newest checkpoint is lost is the path taken always. Younger checkpoints are
//! tried when the older will not do. A torn append at the very end was never acknowledged and is cut off; any other
//! damage is an error.

use crate::backlog::Backlog;
use crate::checkpoint::Generations;
use crate::codec::Record;
use crate::error::OpenError;
use crate::history::{History, Retention};
use crate::log;
use crate::segment::{SegmentReader, Tail};
use crate::snapshot::{Commit, Snapshot};
use crate::{Operation, Revision, Txn};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::time::Instant;
use tracing::{info, warn};

/// The state of a directory.
pub(crate) struct Recovered {
    pub(crate) snapshot: Snapshot,
    pub(crate) history: History,
    /// Where the history is on the disk.
    pub(crate) backlog: Backlog,
    /// How much log there is behind the newest checkpoint.
    pub(crate) log_bytes: u64,
    /// The last segment, and where its records end.
    end: Option<(PathBuf, u64)>,
}

/// Reads the state, and cuts off what stands behind the log's end. Of the history so many bytes are kept in memory.
pub(crate) fn recover(
    generations: &Generations,
    log_dir: &Path,
    retention: (Retention, usize),
) -> Result<Recovered, OpenError> {
    generations.clear_unfinished()?;
    let segments = log::segments(log_dir)?;
    let checkpoints = generations.list()?;
    let newest = checkpoints.last().map_or(Revision(0), |(revision, _)| *revision);
    let whole_log = segments.first().map_or(checkpoints.is_empty(), |(first, _)| first.0 == 1);
    let beginnings = whole_log.then_some(None).into_iter().chain(checkpoints.iter().map(|(_, path)| Some(path)));

    let mut failure = None;
    for beginning in beginnings {
        if let Some(error) = &failure {
            warn!(error = error as &dyn std::error::Error, "cannot recover from the oldest state; trying the next");
        }
        let base = match beginning {
            Some(path) => generations.load(path),
            None => Ok(Snapshot::default()),
        };
        match base.and_then(|base| replay(base, newest, &segments, retention)) {
            Ok(recovered) => {
                recovered.cut_behind_end()?;
                return Ok(recovered);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| OpenError::corrupt(log_dir, 0, "there is no checkpoint for the log to follow")))
}

fn replay(
    mut snapshot: Snapshot,
    newest_checkpoint: Revision,
    segments: &[(Revision, PathBuf)],
    (retention, ring_bytes): (Retention, usize),
) -> Result<Recovered, OpenError> {
    let mut history = History::with_log(retention, ring_bytes, snapshot.revision);
    let backlog = Backlog::default();
    let (mut log_bytes, mut end) = (0, None);
    let clock = (Instant::now(), SystemTime::now());
    // Segments before the one which holds the next revision are superseded, and only wait to be removed.
    let start = segments.iter().rposition(|(first, _)| first.0 <= snapshot.revision.0 + 1).unwrap_or(0);
    for (index, (first, path)) in segments.iter().enumerate().skip(start) {
        let mut segment = SegmentReader::open(path, *first)?;
        if first.0 > snapshot.revision.0 + 1 {
            let reason =
                format!("it begins at revision {}, but what is before it ends at {}", first.0, snapshot.revision.0);
            return Err(OpenError::corrupt(path, 0, reason));
        }
        let file = File::open(path).map_err(OpenError::io("open", path))?;
        backlog.begin(*first, segment.salt(), file);
        loop {
            let offset = segment.offset() as u64;
            let Some(frame) = segment.next_frame() else { break };
            let (begins, at) = (frame.first, instant_of(frame.time, clock));
            let transactions = frame.transactions().map_err(|error| OpenError::corrupt(path, offset, error))?;
            for (revision, records) in transactions {
                if revision <= snapshot.revision {
                    continue;
                }
                let Some(commit) = redo(&mut snapshot, revision, &records, at) else {
                    let reason = format!("revision {} does not follow from the one before", revision.0);
                    return Err(OpenError::corrupt(path, offset, reason));
                };
                drop(history.push(commit, &mut Vec::new()));
            }
            backlog.add(begins, offset, segment.offset() as u64);
            if snapshot.revision > newest_checkpoint {
                log_bytes += segment.offset() as u64 - offset;
            }
        }
        let (offset, last) = (segment.offset() as u64, index + 1 == segments.len());
        match segment.tail() {
            Tail::Clean => {}
            Tail::Torn if last => {
                warn!(segment = %path.display(), offset, "the last append is torn; it was never acknowledged");
            }
            Tail::Torn => {
                return Err(OpenError::corrupt(path, offset, "a record is damaged, and the log goes on after it"));
            }
            Tail::Damaged { next } => {
                let reason = format!("a record is damaged, and valid ones follow from byte {next} on");
                return Err(OpenError::corrupt(path, offset, reason));
            }
        }
        end = Some((path.clone(), offset));
    }
    if snapshot.revision < newest_checkpoint {
        let path = segments.last().map_or(Path::new("log"), |(_, path)| path);
        let reason = format!(
            "the log ends at revision {}, before the checkpoint of revision {}",
            snapshot.revision.0, newest_checkpoint.0
        );
        return Err(OpenError::corrupt(path, 0, reason));
    }
    info!(revision = snapshot.revision.0, keys = snapshot.keys.len(), "store recovered");
    Ok(Recovered { snapshot, history, backlog, log_bytes, end })
}

/// Does again what the log says; `None` if that is not what happens.
fn redo(snapshot: &mut Snapshot, revision: Revision, records: &[Record<'_>], at: Instant) -> Option<Commit> {
    let operations = records.iter().map(|record| match record.value {
        Some(value) => Operation::Put { key: record.key.into(), value: Bytes::copy_from_slice(value) },
        None => Operation::Delete { key: record.key.into() },
    });
    let txn = Txn { compares: Vec::new(), operations: operations.collect() };
    let commit = snapshot.apply(txn, at).ok()??;
    let same = commit.revision == revision
        && commit.events.len() == records.len()
        && commit.events.iter().zip(records).all(|(event, record)| {
            let previous = event.previous.as_ref().map(|previous| previous.mod_revision);
            (event.kv.create_revision, event.kv.version) == (record.create_revision, record.version)
                && previous == record.previous.map(|previous| previous.mod_revision)
        });
    same.then_some(commit)
}

/// When something happened on this process's clock; now, if that was before its beginning.
fn instant_of(time: SystemTime, (now, wall): (Instant, SystemTime)) -> Instant {
    let age = wall.duration_since(time).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

impl Recovered {
    /// Another segment will follow: a torn append would look like damage then, and zeros only take space.
    fn cut_behind_end(&self) -> Result<(), OpenError> {
        let Some((path, offset)) = &self.end else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(path).map_err(OpenError::io("open", path))?;
        file.set_len(*offset).and_then(|()| file.sync_all()).map_err(OpenError::io("truncate", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::sled_checkpoint::SledCheckpoint;
    use std::fs;
    use std::sync::Arc;
    use tempfile::TempDir;

    const SEGMENT: u64 = 4096;

    /// A directory whose log can be damaged in many ways, one after the other.
    struct Case {
        dir: TempDir,
        /// The log as it was written, file by file.
        written: Vec<(PathBuf, Vec<u8>)>,
        /// Where the group of each revision ends in its file.
        ends: Vec<usize>,
        states: Vec<Snapshot>,
    }

    impl Case {
        /// A log of `revisions` groups of one transaction each; a new segment begins after each of `changes`.
        fn new(revisions: u64, changes: &[u64]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("log")).unwrap();
            fs::create_dir_all(dir.path().join("checkpoints")).unwrap();
            let log_dir = dir.path().join("log");
            let mut log = Log::begin(&log_dir, Revision(1), SEGMENT, Arc::default()).unwrap();
            let (mut ends, mut end) = (vec![crate::segment::HEADER], crate::segment::HEADER);
            let mut states = vec![Snapshot::default()];
            for revision in 1..=revisions {
                let mut state = states.last().unwrap().clone();
                let key = format!("key {}", revision % 3).into();
                let value = vec![revision as u8; 10 + revision as usize].into();
                let operation =
                    if revision % 5 == 4 { Operation::Delete { key } } else { Operation::Put { key, value } };
                let txn = Txn { compares: vec![], operations: vec![operation] };
                let commit = state.apply(txn, Instant::now()).unwrap().unwrap();
                end += log.append(&[commit]).unwrap() as usize;
                ends.push(end);
                states.push(state);
                if changes.contains(&revision) {
                    drop(log);
                    log = Log::begin(&log_dir, Revision(revision + 1), SEGMENT, Arc::default()).unwrap();
                    end = crate::segment::HEADER;
                }
            }
            drop(log);
            let segments = log::segments(&log_dir).unwrap();
            let written = segments.into_iter().map(|(_, path)| (path.clone(), fs::read(path).unwrap())).collect();
            Self { dir, written, ends, states }
        }

        fn recover(&self) -> Result<Recovered, OpenError> {
            let (log_dir, checkpoints) = (self.dir.path().join("log"), self.dir.path().join("checkpoints"));
            let generations = Generations::new(Arc::new(SledCheckpoint::default()), checkpoints, log_dir.clone());
            recover(&generations, &log_dir, (Retention::default(), 64 << 20))
        }

        /// What is recovered once `damage` is done to a segment; the state is one that there was.
        fn recovered(&self, segment: usize, damage: impl FnOnce(&mut Vec<u8>)) -> Result<u64, OpenError> {
            for (path, bytes) in &self.written {
                fs::write(path, bytes).unwrap();
            }
            let (path, bytes) = &self.written[segment];
            let mut bytes = bytes.clone();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
            let recovered = self.recover()?;
            let revision = recovered.snapshot.revision;
            assert_eq!(recovered.snapshot.keys, self.states[revision.0 as usize].keys);
            // Whatever was cut off, the second recovery finds nothing to complain about.
            assert_eq!(self.recover().unwrap().snapshot.revision, revision);
            Ok(revision.0)
        }
    }

    #[test]
    fn a_log_cut_at_any_byte_keeps_every_group_before_the_cut() {
        let case = Case::new(6, &[]);
        for cut in case.ends[2]..=*case.ends.last().unwrap() {
            let whole = case.ends.iter().rposition(|end| *end <= cut).unwrap() as u64;
            // Padding is no part of what was acknowledged.
            let padded = case.ends.iter().rposition(|end| end - 7 <= cut).unwrap() as u64;
            let cut_off = case.recovered(0, |bytes| bytes.truncate(cut)).unwrap();
            assert!((whole..=padded).contains(&cut_off), "cut at {cut}: {cut_off}");
            // A group may end with zeros of its own.
            let bytes = &case.written[0].1;
            let same = |end: &usize| bytes[cut.min(*end)..*end].iter().all(|byte| *byte == 0);
            let same = case.ends.iter().rposition(same).unwrap() as u64;
            let zeros = case.recovered(0, |bytes| bytes[cut..].fill(0)).unwrap();
            assert!((whole..=same).contains(&zeros), "zeros from {cut} on: {zeros}");
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_group_is_reported_and_in_it_looks_torn() {
        let case = Case::new(6, &[]);
        let (last, end) = (case.ends[5], case.ends[6]);
        for at in 0..end + 64 {
            let result = case.recovered(0, |bytes| bytes[at] ^= 1 << (at % 8));
            match result {
                Ok(6) => {}
                Ok(5) => assert!((last..end).contains(&at), "byte {at}"),
                Ok(revision) => panic!("byte {at}: acknowledged groups after {revision} are lost"),
                Err(OpenError::Corrupt { .. }) => assert!(at < last, "byte {at}"),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }

    #[test]
    fn damage_before_the_last_segment_is_never_taken_for_a_torn_append() {
        let case = Case::new(9, &[3, 6]);
        for (segment, last) in [(0, 3), (1, 6)] {
            let (start, end) = (case.ends[last - 1], case.ends[last]);
            for at in start..end - 7 {
                let result = case.recovered(segment, |bytes| bytes[at] ^= 0x10);
                assert!(matches!(result, Err(OpenError::Corrupt { .. })), "byte {at} of {segment}: {result:?}");
                let result = case.recovered(segment, |bytes| bytes.truncate(at));
                assert!(matches!(result, Err(OpenError::Corrupt { .. })), "cut {segment} at {at}: {result:?}");
            }
        }
    }

    #[test]
    fn garbage_behind_the_log_is_cut_off() {
        let case = Case::new(4, &[]);
        let end = case.ends[4];
        for length in [1, 7, 8, 31, 32, 33, 100, 1000] {
            let garbage: Vec<u8> = (0..length).map(|byte| (byte * 37 + 11) as u8).collect();
            let recovered = case.recovered(0, |bytes| bytes[end..end + length].copy_from_slice(&garbage));
            assert_eq!(recovered.unwrap(), 4);
        }
        // Not even a frame of another time and place counts.
        let frame = case.written[0].1[case.ends[1]..case.ends[2]].to_vec();
        let other = Case::new(4, &[]);
        let recovered = other.recovered(0, |bytes| bytes[end..end + frame.len()].copy_from_slice(&frame));
        assert_eq!(recovered.unwrap(), 4);
    }

    #[test]
    fn a_missing_segment_is_reported() {
        let case = Case::new(9, &[3, 6]);
        fs::remove_file(&case.written[1].0).unwrap();
        let Err(error) = case.recover() else { panic!("revisions 4 to 6 are lost") };
        assert!(error.to_string().ends_with("it begins at revision 7, but what is before it ends at 3"), "{error}");
        fs::remove_file(&case.written[0].0).unwrap();
        assert!(matches!(case.recover(), Err(OpenError::Corrupt { .. })));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_damage_makes_up_a_state_or_a_panic(
            damages in proptest::collection::vec((0usize..3, 0usize..1200, 0usize..40, proptest::num::u8::ANY), 1..6),
        ) {
            thread_local! {
                static CASE: Case = Case::new(9, &[3, 6]);
            }
            CASE.with(|case| for segment in 0..3 {
                let result = case.recovered(segment, |bytes| for (kind, at, length, byte) in &damages {
                    let (at, end) = ((*at).min(bytes.len()), (at + length).min(bytes.len()));
                    match kind {
                        0 => bytes[at..end].fill(*byte),
                        1 => {
                            let (copy, to) = (bytes[at..end].to_vec(), bytes.len() / 3);
                            bytes.splice(to..to, copy);
                        }
                        _ => { bytes.drain(at..end); }
                    }
                });
                // `recovered` has compared the state with the one there was.
                assert!(matches!(result, Ok(_) | Err(OpenError::Corrupt { .. })), "{result:?}");
            });
        }
    }
}
