//! Standard streams as programs use them: shared handles, pipes, files and the devices of `/dev`.
//!
//! The shell gives one stream to many programs, so its descriptors are clones of [`SharedInput`] and [`SharedOutput`]. A pipe ends
//! when the last handle of its writing side is dropped; a write to a pipe nobody reads is "broken pipe", as in a kernel.

use crate::files::{Files, Kind, resolve};
use crate::program::{Container, ExitStatus, Input, Output};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Bytes a pipe holds before its writer waits, as on Linux.
const PIPE_CAPACITY: usize = 64 << 10;

/// Bytes of a file or stream a program may hold in memory at once, beside what is in its file tree.
pub(crate) const MEMORY: usize = 65 << 20;

/// What a tool ends with: its exit status, or the error that ended it.
pub(crate) type Outcome = io::Result<ExitStatus>;

/// A stream with several users. Each one that waits is woken.
struct Shared<T> {
    stream: Mutex<T>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T: Unpin> Shared<T> {
    fn new(stream: T) -> Arc<Self> {
        Arc::new(Shared { stream: Mutex::new(stream), waiting: Arc::default() })
    }

    fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        {
            // Registered before polling, so that a wake in between is not lost.
            let mut wakers = self.waiting.0.lock();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
        }
        let waker = Waker::from(self.waiting.clone());
        poll(Pin::new(&mut *self.stream.lock()), &mut Context::from_waker(&waker))
    }
}

/// A readable stream that several programs may read from, each byte by one of them.
#[derive(Clone)]
pub(crate) struct SharedInput(Arc<Shared<Input>>);

/// A writable stream that several programs may write to.
#[derive(Clone)]
pub(crate) struct SharedOutput(Arc<Shared<Output>>);

impl SharedInput {
    pub(crate) fn new(stream: impl AsyncRead + Send + Sync + Unpin + 'static) -> Self {
        SharedInput(Shared::new(Box::new(stream)))
    }

    pub(crate) fn null() -> Self {
        SharedInput::new(tokio::io::empty())
    }

    /// One line without taking a byte beyond it, as the shell's `read` must. `None` at the end. Stops at `limit` bytes.
    pub(crate) async fn line(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if self.read(&mut byte).await? == 0 {
                return Ok(if line.is_empty() { None } else { Some(line) });
            }
            line.push(byte[0]);
            if byte[0] == b'\n' || line.len() >= limit {
                return Ok(Some(line));
            }
        }
    }
}

impl SharedOutput {
    pub(crate) fn new(stream: impl AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        SharedOutput(Shared::new(Box::new(stream)))
    }

    pub(crate) fn null() -> Self {
        SharedOutput::new(tokio::io::sink())
    }
}

impl AsyncRead for SharedInput {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for SharedOutput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    /// Flushes only: other users may still write. The stream ends with its last handle.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// A pipe: what is written to one side is read from the other, with back-pressure.
pub(crate) fn pipe() -> (SharedOutput, SharedInput) {
    let (writer, reader) = tokio::io::duplex(PIPE_CAPACITY);
    (SharedOutput::new(writer), SharedInput::new(reader))
}

/// Writes to the end of a file of the tree.
struct Appender {
    files: Files,
    path: String,
}

impl AsyncWrite for Appender {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.files.append(&self.path, bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// `/dev/urandom`: reproducible, as everything here; not for keys.
struct Noise(SmallRng);

impl AsyncRead for Noise {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.initialize_unfilled();
        self.0.fill_bytes(filled);
        let length = filled.len();
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// A number that differs by its parts and is the same in every run.
pub(crate) fn seed(parts: impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Opens a path of the tree, or a device, for reading.
pub(crate) fn open_input(files: &Files, path: &str) -> io::Result<Input> {
    Ok(match path {
        "/dev/null" => Box::new(tokio::io::empty()),
        "/dev/zero" => Box::new(tokio::io::repeat(0)),
        "/dev/random" | "/dev/urandom" => Box::new(Noise(SmallRng::seed_from_u64(seed(path)))),
        _ => Box::new(io::Cursor::new(files.read(path)?)),
    })
}

/// Opens a path of the tree, or a device, for writing: emptied first unless `append`.
pub(crate) fn open_output(files: &Files, path: &str, append: bool) -> io::Result<Output> {
    match path {
        "/dev/null" => return Ok(Box::new(tokio::io::sink())),
        "/dev/full" => return Err(io::ErrorKind::StorageFull.into()),
        _ => {}
    }
    match files.kind(path) {
        Some(Kind::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
        Some(Kind::File { .. }) if append => files.append(path, b"")?,
        _ => {
            if !parent_exists(files, path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            files.write(path, Bytes::new())?;
        }
    }
    Ok(Box::new(Appender { files: files.clone(), path: path.to_owned() }))
}

/// Whether the directory that `path` is in exists. `/tmp` and the like always do.
pub(crate) fn parent_exists(files: &Files, path: &str) -> bool {
    let parent = match path.rfind('/') {
        None | Some(0) => return true,
        Some(slash) => &path[..slash],
    };
    matches!(parent, "/tmp" | "/var" | "/run" | "/root" | "/home" | "/etc" | "/dev" | "/dev/shm")
        || files.kind(parent) == Some(Kind::Directory)
}

/// What the C library says of an error.
pub(crate) fn reason(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let text = match error.kind() {
        Kind::NotFound => "No such file or directory",
        Kind::IsADirectory => "Is a directory",
        Kind::NotADirectory => "Not a directory",
        Kind::PermissionDenied => "Permission denied",
        Kind::ReadOnlyFilesystem => "Read-only file system",
        Kind::StorageFull => "No space left on device",
        Kind::AlreadyExists => "File exists",
        Kind::DirectoryNotEmpty => "Directory not empty",
        Kind::ConnectionRefused => "Connection refused",
        Kind::ConnectionReset => "Connection reset by peer",
        Kind::TimedOut => "Operation timed out",
        Kind::HostUnreachable => "Host is unreachable",
        Kind::NetworkUnreachable => "Network unreachable",
        Kind::AddrInUse => "Address in use",
        Kind::AddrNotAvailable => "Address not available",
        Kind::BrokenPipe => "Broken pipe",
        Kind::OutOfMemory => "Out of memory",
        _ => return error.to_string(),
    };
    text.to_owned()
}

impl Container {
    /// Writes to standard output.
    pub(crate) async fn print(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.stdout.write_all(text.as_ref()).await?;
        self.stdout.flush().await
    }

    /// Writes a line to standard error. Nobody may be there to read it.
    pub(crate) async fn complain(&mut self, message: impl AsRef<str>) {
        let line = format!("{}\n", message.as_ref());
        let _ = self.stderr.write_all(line.as_bytes()).await;
        let _ = self.stderr.flush().await;
    }

    /// An environment variable.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The absolute path of an operand.
    pub(crate) fn path(&self, operand: &str) -> String {
        resolve(&self.cwd, operand)
    }

    /// Takes standard input, leaving an empty one.
    pub(crate) fn take_stdin(&mut self) -> Input {
        std::mem::replace(&mut self.stdin, Box::new(tokio::io::empty()))
    }

    /// Opens an operand: `-` is standard input.
    pub(crate) fn open(&mut self, operand: &str) -> io::Result<Input> {
        match operand {
            "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0" => Ok(self.take_stdin()),
            _ => open_input(&self.files, &self.path(operand)),
        }
    }

    /// Opens an operand for writing.
    pub(crate) fn create(&mut self, operand: &str, append: bool) -> io::Result<Output> {
        open_output(&self.files, &self.path(operand), append)
    }

    /// All of an operand's bytes, within [`MEMORY`].
    pub(crate) async fn content(&mut self, operand: &str) -> io::Result<Vec<u8>> {
        read_all(self.open(operand)?).await
    }
}

/// All bytes of a stream, within [`MEMORY`].
pub(crate) async fn read_all(input: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MEMORY as u64).read_to_end(&mut bytes).await?;
    if bytes.len() >= MEMORY {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(bytes)
}
