//! A container's output: kept as lines with their times for `kubectl logs`, and passed on live to those attached.
//!
//! The newest [`CAPACITY`] bytes are kept; older lines go first. Writers never wait for readers.

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

/// How many bytes of output are kept per container run.
pub(crate) const CAPACITY: usize = 4 << 20;

/// How much of the output is shown to one who attaches late.
const REPLAY: usize = 64 << 10;

/// Who attaches so soon after the log has been read is taken for its reader, and is shown only what came since: kubectl 1.36 and
/// later print the log and then attach, older ones attach at once.
const SAME_READER: Duration = Duration::from_secs(2);

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 16 << 10;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When its first byte was written.
    pub(crate) at: Timestamp,
    /// The text with its line feed, if it had one.
    pub(crate) text: Bytes,
}

/// The output of one run of a container. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    grown: Notify,
    live: broadcast::Sender<Bytes>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// Number of the first line kept, counted from the container's start.
    first: u64,
    bytes: usize,
    /// The newest output as written, unfinished lines too, for those who attach.
    raw: VecDeque<u8>,
    /// How many bytes have been written, and how many of them are in lines, gone ones too.
    written: usize,
    in_lines: usize,
    /// When the log was last read, and how many bytes had been in lines then.
    read: Option<(Instant, usize)>,
    ended: bool,
}

impl Default for Log {
    fn default() -> Self {
        Log(Arc::new(Shared { state: Mutex::default(), grown: Notify::new(), live: broadcast::Sender::new(256) }))
    }
}

impl Log {
    /// A stream for a program to write to; `now` gives the time of each line.
    pub(crate) fn writer(&self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> LogWriter {
        LogWriter { log: self.clone(), partial: Vec::new(), began: None, now: Box::new(now) }
    }

    /// Marks the end: followers finish.
    pub(crate) fn end(&self) {
        self.0.state.lock().ended = true;
        self.0.grown.notify_waiters();
    }

    /// The lines kept from number `from` on, the number after the last, and whether no more will come.
    pub(crate) fn lines(&self, from: u64) -> (Vec<Line>, u64, bool) {
        let state = self.0.state.lock();
        let skip = from.saturating_sub(state.first) as usize;
        let lines = state.lines.iter().skip(skip).cloned().collect();
        (lines, state.first + state.lines.len() as u64, state.ended)
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
    pub(crate) fn attach(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let state = self.0.state.lock();
        let live = self.0.live.subscribe();
        let seen = state.read.filter(|(at, _)| at.elapsed() < SAME_READER).map_or(0, |(_, seen)| seen);
        let known = state.raw.len().saturating_sub(state.written - seen);
        (state.raw.iter().skip(known).copied().collect::<Vec<u8>>().into(), live)
    }

    fn push(&self, line: Line) {
        let mut state = self.0.state.lock();
        state.bytes += line.text.len();
        state.in_lines += line.text.len();
        state.lines.push_back(line);
        while state.bytes > CAPACITY {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.bytes -= oldest.text.len();
            state.first += 1;
        }
        drop(state);
        self.0.grown.notify_waiters();
    }
}

/// Cuts what a program writes into lines.
pub(crate) struct LogWriter {
    log: Log,
    partial: Vec<u8>,
    began: Option<Timestamp>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl LogWriter {
    fn flush_line(&mut self) {
        if !self.partial.is_empty() {
            let at = self.began.take().unwrap_or_else(|| (self.now)());
            let text = std::mem::take(&mut self.partial).into();
            self.log.push(Line { at, text });
        }
    }
}

impl AsyncWrite for LogWriter {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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
        let mut state = self.log.0.state.lock();
        state.raw.extend(data);
        state.written += data.len();
        let surplus = state.raw.len().saturating_sub(REPLAY);
        state.raw.drain(..surplus);
        // Under the lock, so that who attaches sees each byte once.
        let _ = self.log.0.live.send(Bytes::copy_from_slice(data));
        drop(state);
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
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn who_has_just_read_the_log_is_shown_only_what_came_since_when_attaching() {
        let log = Log::default();
        let mut writer = log.writer(|| Timestamp::UNIX_EPOCH);
        writer.write_all(b"one\ntw").await.expect("never fails");
        assert_eq!(log.attach().0, "one\ntw");
        log.mark_read();
        assert_eq!(log.attach().0, "tw", "the log shows whole lines only");
        writer.write_all(b"o\n").await.expect("never fails");
        assert_eq!(log.attach().0, "two\n");
        tokio::time::advance(SAME_READER).await;
        assert_eq!(log.attach().0, "one\ntwo\n", "somebody else");
    }

    #[tokio::test]
    async fn output_is_cut_into_lines_and_the_oldest_go_when_the_log_is_full() {
        let log = Log::default();
        let mut writer = log.writer(|| Timestamp::UNIX_EPOCH);
        writer.write_all(b"one\ntw").await.expect("never fails");
        writer.write_all(b"o\nthree").await.expect("never fails");
        assert_eq!(log.lines(0).0.iter().map(|line| line.text.clone()).collect::<Vec<_>>(), ["one\n", "two\n"]);
        drop(writer);
        assert_eq!(log.lines(2).0[0].text, "three");

        let mut writer = log.writer(|| Timestamp::UNIX_EPOCH);
        let block = vec![b'x'; LONGEST_LINE];
        for _ in 0..(CAPACITY / LONGEST_LINE + 1) {
            writer.write_all(&block).await.expect("never fails");
        }
        let (lines, next, ended) = log.lines(0);
        assert!(lines.iter().map(|line| line.text.len()).sum::<usize>() <= CAPACITY);
        assert!(next > lines.len() as u64, "older lines are counted though gone");
        assert!(!ended);
    }
}
