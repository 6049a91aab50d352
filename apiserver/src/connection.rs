//! What one connection may keep waiting: a head that does not come to its end, nothing at all, a client that does not read.
//!
//! [`serve`] is the way every connection is served, whatever it runs on. One timer per connection sees to all of it, so that an idle one
//! costs little and ends, and none holds memory for a peer that has gone or does not want to read. Of slow bodies of requests the
//! deadline of the request disposes ([`crate::middleware`]).
//!
//! Values are those of kube-apiserver (`IdleTimeout`, `ReadHeaderTimeout`) where it has them.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// A connection without requests is closed after this time.
const IDLE: Duration = Duration::from_secs(90);
/// The head of a request has to be there after this time.
const HEAD: Duration = Duration::from_secs(32);
/// A client that takes nothing of what is sent to it for so long has gone, or might as well have.
const STALL: Duration = Duration::from_secs(60);
/// For a connection that is asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// HTTP/2: how often a silent client is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// HTTP/2: enough for the many watches of one client on one connection.
const STREAMS: u32 = 1000;
/// HTTP/2: what a stream buffers beyond what the client has room for.
const STREAM_BUFFER: usize = 128 << 10;
/// HTTP/2: streams that a client may open and give up at once before the connection is ended (CVE-2023-44487).
const RESETS: usize = 20;
/// HTTP/2: the longest head of a request; longer ones get 431. HTTP/1.1 has its own, hyper's.
const HEAD_BYTES: u32 = 64 << 10;

/// Which versions of HTTP a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What TLS has agreed on.
    Http1,
    Http2,
    /// Whatever it begins with.
    Either,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S, T>(stream: S, protocol: Protocol, service: T) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: Service<http::Request<Incoming>, Response = http::Response<Body>> + Send + 'static,
    T::Error: Into<Error>,
    T::Future: Send + 'static,
{
    let activity = Arc::new(Activity::new(protocol == Protocol::Http1));
    let mut builder = match protocol {
        Protocol::Http1 => Builder::new(TokioExecutor::new()).http1_only(),
        Protocol::Http2 => Builder::new(TokioExecutor::new()).http2_only(),
        Protocol::Either => Builder::new(TokioExecutor::new()),
    };
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(STREAM_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(HEAD_BYTES);
    let stream = TokioIo::new(Observed { stream, activity: activity.clone() });
    let service = Counting { service, activity: activity.clone() };
    let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
    let mut timer = pin!(sleep_until(Instant::now() + IDLE));
    let mut ending = false;
    poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        if let Some(due) = activity.deadline().filter(|due| *due < timer.deadline() && !ending) {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            match activity.deadline().filter(|due| *due <= now) {
                // What other tasks do to the deadline is noticed then.
                None => timer.as_mut().reset(activity.deadline().unwrap_or(now + IDLE).min(now + IDLE)),
                Some(_) if activity.is_idle() && !ending => {
                    ending = true;
                    timer.as_mut().reset(now + GRACE);
                    connection.as_mut().graceful_shutdown();
                    if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                        return Poll::Ready(ended);
                    }
                }
                Some(_) => return Poll::Ready(Err("the client keeps the connection waiting".into())),
            }
        }
        Poll::Pending
    })
    .await
}

/// Why a connection ended.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What goes on on a connection. Times are in milliseconds since its start, from 1; 0 is not so.
struct Activity {
    start: Instant,
    /// Whether it has one request at a time, and bytes without one are the head of the next; in HTTP/2 they may be anything.
    heads: bool,
    /// Requests whose answers have not been sent whole.
    requests: AtomicUsize,
    /// Since when there are none.
    idle_since: AtomicU64,
    /// Since when there is a part of a head.
    head_since: AtomicU64,
    /// Since when the stream has not taken what is written.
    stalled_since: AtomicU64,
    /// Bodies of which the client has not yet taken what it was sent last.
    untaken: AtomicUsize,
    /// When the last body was sent something.
    sent_at: AtomicU64,
}

impl Activity {
    fn new(heads: bool) -> Self {
        Activity {
            start: Instant::now(),
            heads,
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            untaken: AtomicUsize::new(0),
            sent_at: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// When somebody will have been kept waiting for too long.
    fn deadline(&self) -> Option<Instant> {
        let at = |since: &AtomicU64, patience: Duration| {
            let since = since.load(Ordering::Relaxed);
            (since > 0).then(|| self.start + Duration::from_millis(since) + patience)
        };
        let stalled = at(&self.stalled_since, STALL);
        // Elsewhere a client that takes little at a time is seen to take it; here one stream's may hide behind the others'.
        let untaken = !self.heads && self.untaken.load(Ordering::Relaxed) > 0;
        let untaken = untaken.then(|| at(&self.sent_at, STALL)).flatten();
        let quiet = match self.requests.load(Ordering::Relaxed) {
            0 => at(&self.head_since, HEAD).or_else(|| at(&self.idle_since, IDLE)),
            _ => None,
        };
        [stalled, untaken, quiet].into_iter().flatten().min()
    }

    /// Whether nothing at all goes on.
    fn is_idle(&self) -> bool {
        let quiet = |since: &AtomicU64| since.load(Ordering::Relaxed) == 0;
        self.requests.load(Ordering::Relaxed) == 0 && quiet(&self.head_since) && quiet(&self.stalled_since)
    }

    fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    fn end(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn has_read(&self) {
        let is_head =
            self.heads && self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0;
        if is_head {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn has_written(&self, pending: bool) {
        let stalled = self.stalled_since.load(Ordering::Relaxed) > 0;
        if pending != stalled {
            self.stalled_since.store(if pending { self.now() } else { 0 }, Ordering::Relaxed);
        }
    }
}

/// A stream whose reads and writes are noted.
struct Observed<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if into.filled().len() > before {
            self.activity.has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.has_written(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.activity.has_written(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.activity.has_written(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.activity.has_written(ended.is_pending());
        ended
    }
}

/// A service whose requests are counted, to the ends of their answers.
struct Counting<T> {
    service: T,
    activity: Arc<Activity>,
}

impl<T> Service<http::Request<Incoming>> for Counting<T>
where
    T: Service<http::Request<Incoming>, Response = http::Response<Body>>,
    T::Future: Send + 'static,
{
    type Response = http::Response<Counted>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        self.activity.begin();
        let counted = Request(self.activity.clone());
        let answer = self.service.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Counted::new(body, counted))) })
    }
}

/// One request, as long as its answer is not whole.
struct Request(Arc<Activity>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer. What it has given away is the client's to take, until it is asked for more.
pub(crate) struct Counted {
    body: Body,
    untaken: bool,
    request: Request,
}

impl Counted {
    fn new(body: Body, request: Request) -> Self {
        let mut counted = Counted { body, untaken: false, request };
        counted.given();
        counted
    }

    fn given(&mut self) {
        let activity = &self.request.0;
        activity.sent_at.store(activity.now(), Ordering::Relaxed);
        activity.untaken.fetch_add(1, Ordering::Relaxed);
        self.untaken = true;
    }

    fn taken(&mut self) {
        if std::mem::take(&mut self.untaken) {
            self.request.0.untaken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.taken();
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.taken();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_some() {
            this.given();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
