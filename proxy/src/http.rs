//! The small HTTP servers that nodes have: one port, every request answered at once from what is known.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use netstack::{TcpListener, TcpStream};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

/// A port that somebody else has on a node is tried again after this time.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// How long a request's headers may take, the time between two requests included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of one port at a time.
const CONNECTIONS: usize = 256;

/// An answer, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Who answers.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// The answer to a request for `path` that came to the address `asked`.
    fn answer(&self, asked: SocketAddr, path: &str) -> Answer;
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: String) -> Answer {
    with_type(status, "application/json", body)
}

/// As Go's ServeMux answers what it has no handler for.
pub(crate) fn not_found() -> Answer {
    with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A port that is served; dropping it closes it.
pub(crate) struct Listening(JoinHandle<()>);

impl Listening {
    /// Serves a port.
    pub(crate) fn start(listener: TcpListener, answers: impl Answers) -> Listening {
        Listening(tokio::spawn(listen(listener, answers)))
    }

    /// Closes the port: when this returns, it is free.
    pub(crate) async fn close(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(listener: TcpListener, answers: impl Answers) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(serve(stream, answers.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, answers: impl Answers) {
    let asked = stream.local_addr();
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = answers.answer(asked, request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A client that speaks no HTTP, or hangs up: its own affair.
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
}
