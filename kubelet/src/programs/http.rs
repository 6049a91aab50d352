//! HTTP/1.1 for the tools: one request over a stream of the container's host, and servers that answer with a function. hyper speaks it.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use netstack::{Host, TcpListener, TcpStream};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Connections that a server of this binary serves at once.
const CONNECTIONS: usize = 1024;

/// A stream of either kind: plain or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A response whose connection lives as long as it does.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    pub(super) connection: AbortOnDropHandle<()>,
}

/// Sends one request over a fresh connection.
pub(super) async fn send(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> hyper::Result<Exchange> {
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await?;
    Ok(Exchange { response, connection })
}

/// Connects to the first address that answers.
///
/// # Errors
/// That of the last address tried.
pub(super) async fn connect(host: &Host, addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match host.tcp_connect(SocketAddr::new(*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// `HTTP/1.1 200 OK`.
pub(super) fn status_line<T>(response: &Response<T>) -> String {
    let version = match response.version() {
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let status = response.status();
    let reason = match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    format!("HTTP/{version} {} {reason}", status.as_u16())
}

/// Headers as lines `Name: value`, names written as servers do: hyper hands them on in lower case.
pub(super) fn header_lines(headers: &HeaderMap) -> Vec<String> {
    headers
        .iter()
        .map(|(name, value)| format!("{}: {}", canonical(name.as_str()), String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

/// `content-type` as `Content-Type`.
pub(super) fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let c = if start { c.to_ascii_uppercase() } else { c };
            start = c == '-';
            c
        })
        .collect()
}

/// The answer of a server.
pub(super) type Answer = Response<Full<Bytes>>;

/// Answers requests: gets the request and the client's address.
pub(super) type Handler = Arc<dyn Fn(Request<Incoming>, SocketAddr) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Serves connections until dropped; all of them end with it.
pub(super) async fn serve(listener: TcpListener, handler: Handler) -> io::Error {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(serve_connection(stream, client, handler.clone()));
                }
                Err(error) => return error,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn serve_connection(stream: impl Stream, client: SocketAddr, handler: Handler) {
    let service = service_fn(move |request| {
        let answer = handler(request, client);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A plain-text answer.
pub(super) fn text(status: u16, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

/// An answer with a content type.
pub(super) fn answer(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}

/// The values of a query string (and of a form), decoded.
pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = match (*first, after) {
            (b'%', [high, low, ..]) => {
                std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        match (code, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            (None, b'+') => bytes.push(b' '),
            (None, byte) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text as a component of a query string.
pub(super) fn encoded(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => output.push(char::from(byte)),
            byte => output.push_str(&format!("%{byte:02X}")),
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_are_decoded() {
        let pairs = parameters("msg=hello+world%21&empty=&bad=%zz");
        assert_eq!(pairs[0], ("msg".to_owned(), "hello world!".to_owned()));
        assert_eq!(pairs[1].1, "");
        assert_eq!(pairs[2].1, "%zz");
        assert_eq!(encoded("a b&c"), "a%20b%26c");
        assert_eq!(canonical("content-type"), "Content-Type");
    }
}
