//! The write-ahead log: where a group of transactions becomes durable, with one sync.
//!
//! Called by the committer only. The directory holds segments named by the first revision they may contain. The next
//! one is filled with zeros in the background, so that changing over costs no wait. Reading back is
//! [`recovery`](crate::recovery)'s business, the bytes are [`segment`](crate::segment)'s.

use crate::Revision;
use crate::backlog::Backlog;
use crate::error::OpenError;
use crate::files;
use crate::segment::{HEADER, Salt, put_frame, segment_header};
use crate::snapshot::Commit;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

/// The first segment after opening is short, as filling it is a wait.
const SHORT_SEGMENT: u64 = 1 << 20;
/// A buffer that once held a huge group is not kept.
const KEPT_BUFFER: usize = 4 << 20;

/// The open end of the log.
pub(crate) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    file: File,
    /// The revision this segment begins with.
    since: Revision,
    salt: Salt,
    end: u64,
    capacity: u64,
    backlog: Arc<Backlog>,
    prepared: Option<JoinHandle<io::Result<Prepared>>>,
    buffer: Vec<u8>,
}

/// A segment without a header or a name.
struct Prepared {
    path: PathBuf,
    file: File,
    capacity: u64,
}

impl Log {
    /// Begins a new segment for the revisions from `next` on, and tells `backlog` of it and of all that is appended.
    pub(crate) fn begin(dir: &Path, next: Revision, segment_bytes: u64, backlog: Arc<Backlog>) -> io::Result<Self> {
        let prepared = prepare(dir, segment_bytes.min(SHORT_SEGMENT))?;
        let capacity = prepared.capacity;
        let (file, salt) = name_segment(dir, prepared, next, &backlog)?;
        Ok(Self {
            dir: dir.to_owned(),
            segment_bytes,
            file,
            since: next,
            salt,
            end: HEADER as u64,
            capacity,
            backlog,
            prepared: None,
            buffer: Vec::new(),
        })
    }

    /// Where its segments are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends `commits` as one group. When this returns they are on the disk; after an error nothing is known, and the
    /// log must not be used again. Returns the bytes written.
    pub(crate) fn append(&mut self, commits: &[Commit]) -> io::Result<u64> {
        let Some(first) = commits.first() else { return Ok(0) };
        let time = SystemTime::now();
        self.buffer.clear();
        put_frame(&mut self.buffer, self.salt, commits, self.since, time);
        if self.end > HEADER as u64 && self.end + self.buffer.len() as u64 > self.capacity {
            self.change_segment(first.revision)?;
            self.buffer.clear();
            put_frame(&mut self.buffer, self.salt, commits, self.since, time);
        }
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        let written = self.buffer.len() as u64;
        self.backlog.add(first.revision, self.end, self.end + written);
        self.end += written;
        self.buffer.shrink_to(KEPT_BUFFER);
        if self.prepared.is_none() && self.end > self.capacity / 2 {
            self.prepare_next();
        }
        Ok(written)
    }

    fn change_segment(&mut self, next: Revision) -> io::Result<()> {
        let prepared = match self.prepared.take().map(JoinHandle::join) {
            Some(Ok(Ok(prepared))) => prepared,
            // The disk may have been full for a moment.
            _ => prepare(&self.dir, self.segment_bytes)?,
        };
        self.capacity = prepared.capacity;
        (self.file, self.salt) = name_segment(&self.dir, prepared, next, &self.backlog)?;
        self.since = next;
        self.end = HEADER as u64;
        Ok(())
    }

    fn prepare_next(&mut self) {
        let (dir, bytes) = (self.dir.clone(), self.segment_bytes);
        // Without a thread, the change of segments does it and waits.
        self.prepared =
            std::thread::Builder::new().name("store-segment".into()).spawn(move || prepare(&dir, bytes)).ok();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(Ok(Ok(prepared))) = self.prepared.take().map(JoinHandle::join) {
            // If it stays, the next one to open the store overwrites it.
            let _ = std::fs::remove_file(prepared.path);
        }
    }
}

fn prepare(dir: &Path, capacity: u64) -> io::Result<Prepared> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let path = dir.join("prepared");
    let mut file = files::private().write(true).create(true).truncate(true).open(&path)?;
    let mut left = capacity;
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..part as usize])?;
        left -= part;
    }
    file.sync_all()?;
    Ok(Prepared { path, file, capacity })
}

/// Gives a prepared file its header and, once that is durable, its name.
fn name_segment(dir: &Path, prepared: Prepared, first: Revision, backlog: &Backlog) -> io::Result<(File, Salt)> {
    let Prepared { path, mut file, .. } = prepared;
    let (header, salt) = segment_header(first);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.sync_data()?;
    let named = segment_path(dir, first);
    std::fs::rename(path, &named)?;
    files::sync_dir(dir)?;
    backlog.begin(first, salt, File::open(named)?);
    Ok((file, salt))
}

fn segment_path(dir: &Path, first: Revision) -> PathBuf {
    dir.join(format!("{:020}.log", first.0))
}

/// The segments there are, the oldest first.
pub(crate) fn segments(dir: &Path) -> Result<Vec<(Revision, PathBuf)>, OpenError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(OpenError::io("read", dir))? {
        let path = entry.map_err(OpenError::io("read", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(first) = name.and_then(|name| name.parse().ok()) {
            segments.push((Revision(first), path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// Removes the segments which hold nothing after `revision`, the oldest first, so that a crash leaves no gap.
pub(crate) fn trim(dir: &Path, revision: Revision) -> Result<(), OpenError> {
    let segments = segments(dir)?;
    for window in segments.windows(2) {
        let [(_, path), (next, _)] = window else { continue };
        if next.0 > revision.0 + 1 {
            break;
        }
        std::fs::remove_file(path).map_err(OpenError::io("remove", path))?;
    }
    files::sync_dir(dir).map_err(OpenError::io("sync", dir))
}
