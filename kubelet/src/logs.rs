//! A container's output: kept as lines with their times for `kubectl logs`, and passed on live to those attached.
//!
//! The newest [`CAPACITY`] bytes are kept; older lines go first. Nobody who reads the log holds a writer up. Who is attached does, as a
//! terminal would: what a program says to somebody who listens is not lost.

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many bytes of output are kept per container run.
pub(crate) const CAPACITY: usize = 4 << 20;

/// What a line costs beside its text, so that a log of empty lines is bounded too.
const LINE_OVERHEAD: usize = 64;

/// How much of the output is shown to one who attaches late.
const REPLAY: usize = 64 << 10;

/// How far a program may be ahead of one who is attached.
const WINDOW: usize = 256 << 10;

/// Who attaches so soon after the log has been read is taken for its reader, and is shown only what came since: kubectl 1.36 and
/// later print the log and then attach, older ones attach at once.
const SAME_READER: Duration = Duration::from_secs(2);

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 16 << 10;

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When its first byte was written.
    pub(crate) at: Timestamp,
    pub(crate) source: Source,
    /// The text with its line feed, if it had one.
    pub(crate) text: Bytes,
}

/// The output of one run of a container. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// Number of the first line kept, counted from the container's start.
    first: u64,
    bytes: usize,
    /// The newest output as written, unfinished lines too, for those who attach; and which output each run of bytes went to.
    raw: VecDeque<u8>,
    runs: VecDeque<(Source, usize)>,
    /// How many bytes have been written, and how many of them are in lines, gone ones too.
    written: usize,
    in_lines: usize,
    /// When the log was last read, and how many bytes had been in lines then.
    read: Option<(Instant, usize)>,
    /// Those who are attached, and how many of the bytes written each has seen.
    attached: BTreeMap<u64, usize>,
    attachments: u64,
    /// Writers that wait for them.
    waiting: Vec<Waker>,
    ended: bool,
}

impl State {
    fn seen_by_all(&self) -> usize {
        self.attached.values().copied().min().unwrap_or(self.written)
    }

    fn write(&mut self, source: Source, data: &[u8]) {
        self.raw.extend(data);
        self.written += data.len();
        match self.runs.back_mut() {
            Some((last, length)) if *last == source => *length += data.len(),
            _ => self.runs.push_back((source, data.len())),
        }
        let unseen = self.written - self.seen_by_all();
        let mut surplus = self.raw.len() - self.raw.len().min(REPLAY.max(unseen));
        self.raw.drain(..surplus);
        while let Some((_, length)) = self.runs.front_mut().filter(|_| surplus > 0) {
            let part = surplus.min(*length);
            (surplus, *length) = (surplus - part, *length - part);
            if *length == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// What was written from byte `from` on, as far as it went to one output.
    fn piece(&self, from: usize, most: usize) -> (Source, Bytes) {
        // From the end: who is attached is near it.
        let mut end = self.written;
        let mut found = (Source::Stdout, self.written);
        for (source, length) in self.runs.iter().rev() {
            found = (*source, end);
            end -= length;
            if end <= from {
                break;
            }
        }
        let skip = self.raw.len() - (self.written - from);
        let length = (found.1 - from).min(most);
        (found.0, self.raw.range(skip..skip + length).copied().collect::<Vec<u8>>().into())
    }
}

impl Log {
    /// A stream for a program to write to; `now` gives the time of each line.
    pub(crate) fn writer(&self, source: Source, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> LogWriter {
        LogWriter { log: self.clone(), source, partial: Vec::new(), began: None, now: Box::new(now) }
    }

    /// Marks the end: followers finish.
    pub(crate) fn end(&self) {
        self.0.state.lock().ended = true;
        self.0.grown.notify_waiters();
    }

    /// The lines kept from number `from` on, of about `most` bytes; the number after the last of them, and whether no more will come.
    pub(crate) fn lines(&self, from: u64, most: usize) -> (Vec<Line>, u64, bool) {
        let state = self.0.state.lock();
        let from = from.max(state.first);
        let mut bytes = 0;
        let lines: Vec<Line> = state
            .lines
            .range((from - state.first) as usize..)
            .take_while(|line| {
                let fits = bytes < most;
                bytes += line.text.len();
                fits
            })
            .cloned()
            .collect();
        let next = from + lines.len() as u64;
        (lines, next, state.ended && next == state.first + state.lines.len() as u64)
    }

    /// The number after the last line, and how many of the lines kept are not older than `since`.
    pub(crate) fn extent(&self, since: Option<Timestamp>) -> (u64, u64) {
        let state = self.0.state.lock();
        let old = since.map_or(0, |since| state.lines.partition_point(|line| line.at < since));
        (state.first + state.lines.len() as u64, (state.lines.len() - old) as u64)
    }

    /// Waits until there are lines from number `from` on, or the end.
    pub(crate) async fn grown(&self, from: u64) {
        loop {
            let grown = self.0.grown.notified();
            {
                let state = self.0.state.lock();
                if state.ended || state.first + state.lines.len() as u64 > from {
                    return;
                }
            }
            grown.await;
        }
    }

    /// Notes that somebody has been shown all lines.
    pub(crate) fn mark_read(&self) {
        let mut state = self.0.state.lock();
        state.read = Some((Instant::now(), state.in_lines));
    }

    /// The newest output as written, as far as it has not just been read, and everything that comes.
    pub(crate) fn attach(&self) -> Attachment {
        let mut state = self.0.state.lock();
        let seen = state.read.filter(|(at, _)| at.elapsed() < SAME_READER).map_or(0, |(_, seen)| seen);
        let from = seen.max(state.written - state.raw.len()).min(state.written);
        state.attachments += 1;
        let id = state.attachments;
        state.attached.insert(id, from);
        Attachment { log: self.clone(), id }
    }

    fn push(&self, line: Line) {
        let mut state = self.0.state.lock();
        state.bytes += line.text.len() + LINE_OVERHEAD;
        state.in_lines += line.text.len();
        state.lines.push_back(line);
        while state.bytes > CAPACITY {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.bytes -= oldest.text.len() + LINE_OVERHEAD;
            state.first += 1;
        }
        drop(state);
        self.0.grown.notify_waiters();
    }
}

/// Somebody who sees what a program says as it says it. Dropping it lets the program go on.
pub(crate) struct Attachment {
    log: Log,
    id: u64,
}

impl Attachment {
    /// What comes next, and from which output; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(Source, Bytes)> {
        loop {
            let grown = self.log.0.grown.notified();
            if let Some(next) = self.ready() {
                return next;
            }
            grown.await;
        }
    }

    fn ready(&self) -> Option<Option<(Source, Bytes)>> {
        let mut state = self.log.0.state.lock();
        let from = state.attached.get(&self.id).copied().unwrap_or(state.written);
        if from == state.written {
            return state.ended.then_some(None);
        }
        let (source, piece) = state.piece(from, 32 << 10);
        state.attached.insert(self.id, from + piece.len());
        state.waiting.drain(..).for_each(Waker::wake);
        Some(Some((source, piece)))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut state = self.log.0.state.lock();
        state.attached.remove(&self.id);
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Cuts what a program writes into lines.
pub(crate) struct LogWriter {
    log: Log,
    source: Source,
    partial: Vec<u8>,
    began: Option<Timestamp>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl LogWriter {
    fn flush_line(&mut self) {
        if !self.partial.is_empty() {
            let at = self.began.take().unwrap_or_else(|| (self.now)());
            let text = std::mem::take(&mut self.partial).into();
            self.log.push(Line { at, source: self.source, text });
        }
    }
}

impl AsyncWrite for LogWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let data = &data[..data.len().min(WINDOW)];
        {
            let mut state = self.log.0.state.lock();
            if state.written - state.seen_by_all() >= WINDOW {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            // Under one lock, so that who attaches sees each byte once.
            state.write(self.source, data);
        }
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LONGEST_LINE) {
                if self.began.is_none() {
                    self.began = Some((self.now)());
                }
                self.partial.extend_from_slice(part);
                if part.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                    self.flush_line();
                }
            }
        }
        self.log.0.grown.notify_waiters();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush_line();
        Poll::Ready(Ok(()))
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::io::AsyncWriteExt;

    fn writer(log: &Log) -> LogWriter {
        log.writer(Source::Stdout, || Timestamp::UNIX_EPOCH)
    }

    /// What an attached client has been sent so far.
    fn shown(attachment: &mut Attachment) -> String {
        let mut text = String::new();
        while let Some(Some((_, piece))) = attachment.next().now_or_never() {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        text
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_read_the_log_is_shown_only_what_came_since_when_attaching() {
        let log = Log::default();
        let mut writer = writer(&log);
        writer.write_all(b"one\ntw").await.expect("never fails");
        assert_eq!(shown(&mut log.attach()), "one\ntw");
        log.mark_read();
        assert_eq!(shown(&mut log.attach()), "tw", "the log shows whole lines only");
        writer.write_all(b"o\n").await.expect("never fails");
        assert_eq!(shown(&mut log.attach()), "two\n");
        tokio::time::advance(SAME_READER).await;
        assert_eq!(shown(&mut log.attach()), "one\ntwo\n", "somebody else");
    }

    #[tokio::test]
    async fn output_is_cut_into_lines_and_the_oldest_go_when_the_log_is_full() {
        let log = Log::default();
        let mut first = writer(&log);
        first.write_all(b"one\ntw").await.expect("never fails");
        first.write_all(b"o\nthree").await.expect("never fails");
        let texts = |from| log.lines(from, 1000).0.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(0), ["one\n", "two\n"]);
        drop(first);
        assert_eq!(texts(2), ["three"]);
        assert_eq!(log.lines(0, 1).1, 1, "not more than asked for");

        let mut many = writer(&log);
        let block = vec![b'\n'; 1 << 20];
        for _ in 0..3 {
            many.write_all(&block).await.expect("never fails");
        }
        let (lines, next, ended) = log.lines(0, usize::MAX);
        assert!(lines.len() <= CAPACITY / LINE_OVERHEAD, "empty lines count, too");
        assert!(next > lines.len() as u64, "older lines are counted though gone");
        assert!(!ended);
    }

    #[tokio::test]
    async fn a_program_waits_for_who_is_attached_and_for_nobody_else() {
        let log = Log::default();
        let mut writer = writer(&log);
        let block = vec![b'x'; WINDOW];
        writer.write_all(&block).await.expect("never fails");
        let mut slow = log.attach();
        writer.write_all(&block).now_or_never().expect("there is room").expect("never fails");
        assert!(writer.write_all(b"more").now_or_never().is_none(), "it is a window ahead");
        assert!(!shown(&mut slow).is_empty());
        writer.write_all(b"more").now_or_never().expect("there is room again").expect("never fails");
        writer.write_all(&block[..WINDOW - 4]).now_or_never().expect("room").expect("never fails");
        assert!(writer.write_all(b"end").now_or_never().is_none());
        drop(slow);
        writer.write_all(b"end").now_or_never().expect("nobody listens").expect("never fails");
    }

    #[tokio::test]
    async fn who_is_attached_sees_each_output_by_itself_in_the_order_of_the_writes() {
        let log = Log::default();
        let (mut out, mut err) = (writer(&log), log.writer(Source::Stderr, || Timestamp::UNIX_EPOCH));
        let mut attached = log.attach();
        out.write_all(b"a").await.expect("never fails");
        out.write_all(b"b").await.expect("never fails");
        err.write_all(b"c").await.expect("never fails");
        out.write_all(b"d").await.expect("never fails");
        log.end();
        let mut pieces = Vec::new();
        while let Some(piece) = attached.next().await {
            pieces.push(piece);
        }
        let piece = |source, text: &'static str| (source, Bytes::from(text));
        assert_eq!(pieces, [piece(Source::Stdout, "ab"), piece(Source::Stderr, "c"), piece(Source::Stdout, "d")]);
    }
}
