//! Connections that misbehave: slow ones, silent ones, garbage. Each gets its answer or its end, and the server goes on.
//!
//! What depends on time runs under the paused clock over an in-memory stream with TLS; the rest over a real loopback socket.

use crate::support::{CONFIGMAPS, Server, config, configmap, with};
use apiserver::authn::UserInfo;
use apiserver::certs::{CertificateAuthority, ServingCertificate};
use apiserver::extension::{VirtualRequest, VirtualResource};
use apiserver::server::{Endpoint, Server as Listener};
use apiserver::status::Status;
use async_trait::async_trait;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A server behind TLS, and what its clients need.
struct Secure {
    server: Server,
    endpoint: Endpoint,
    connector: TlsConnector,
    connector2: TlsConnector,
}

impl Secure {
    async fn new() -> Secure {
        let server = with(config()).await;
        let authority = CertificateAuthority::generate().expect("an authority");
        let serving = ServingCertificate::new(&authority, vec!["localhost".to_owned()], Vec::new());
        let serving = serving.expect("a serving certificate");
        let client = authority.client("admin", &["system:masters"]).expect("a client certificate");
        let tls = authority.tls(Arc::new(serving)).expect("TLS settings");
        let mut roots = rustls::RootCertStore::empty();
        let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM");
        roots.add(pem(authority.certificate())).expect("a root");
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pem(&client.certificate)], key)
            .expect("a client");
        let connector = |protocol: &[u8]| {
            let mut settings = settings.clone();
            settings.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(settings))
        };
        let (connector, connector2) = (connector(b"http/1.1"), connector(b"h2"));
        let endpoint = Listener::new(server.api.router(), tls).endpoint();
        Secure { server, endpoint, connector, connector2 }
    }

    /// A connection whose two ends hold so many bytes between them, and the task that serves it.
    async fn over(&self, connector: &TlsConnector, bytes: usize) -> (TlsStream<DuplexStream>, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(bytes);
        let served = tokio::spawn(self.endpoint.clone().serve_tls(far));
        let name = ServerName::try_from("localhost").expect("a name");
        (connector.connect(name, near).await.expect("a handshake"), served)
    }

    async fn connect(&self) -> (TlsStream<DuplexStream>, JoinHandle<()>) {
        self.over(&self.connector, 64 << 10).await
    }
}

/// Reads until the server ends the connection, however it does that.
async fn to_the_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads one answer of known length: its head and its body.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (String, Value) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("ASCII");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a body");
    (head, serde_json::from_slice(&body).unwrap_or_default())
}

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_given_up_however_busily_it_comes() {
    let secure = Secure::new().await;
    let (mut stream, served) = secure.connect().await;
    let start = Instant::now();
    stream.write_all(b"GET /version HTTP/1.1\r\n").await.expect("the connection is open");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let trickle = tokio::spawn(async move {
        while writer.write_all(b"X: y\r\n").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    assert_eq!(to_the_end(&mut reader).await, "");
    served.await.expect("it ends");
    assert_eq!(start.elapsed().as_secs(), 32);
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_nothing_is_closed_after_a_while() {
    let secure = Secure::new().await;
    let (mut stream, served) = secure.connect().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    stream.write_all(b"GET /healthz/ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the connection is open");
    let start = Instant::now();
    let rest = to_the_end(&mut stream).await;
    served.await.expect("it ends");
    assert!(rest.starts_with("HTTP/1.1 "), "{rest}");
    assert_eq!(start.elapsed().as_secs(), 90, "counted from the last answer");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_idle_connections_leave_room_for_another_client_and_end_after_a_while() {
    let secure = Secure::new().await;
    let plain = |endpoint: Endpoint| {
        let (near, far) = tokio::io::duplex(512);
        (near, tokio::spawn(endpoint.serve_plain(far, UserInfo::admin())))
    };
    let ask = format!("GET {CONFIGMAPS}/none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let start = Instant::now();
    let mut idle = Vec::new();
    for number in 0..10_000 {
        let (mut stream, served) = plain(secure.endpoint.clone());
        // Every tenth one has had an answer; the others never say anything.
        if number % 10 == 0 {
            stream.write_all(ask.as_bytes()).await.expect("the connection is open");
            let (head, _) = answer(&mut stream).await;
            assert_eq!(codes(&head), ["404"]);
        }
        idle.push((stream, served));
    }
    let (mut stream, _served) = secure.connect().await;
    stream.write_all(ask.as_bytes()).await.expect("the connection is open");
    let (head, _) = answer(&mut stream).await;
    assert_eq!(codes(&head), ["404"], "one more is served like the first");
    for (mut stream, served) in idle {
        assert_eq!(to_the_end(&mut stream).await, "");
        served.await.expect("it ends");
    }
    assert!((90..=96).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_not_idle() {
    let secure = Secure::new().await;
    let (mut stream, _served) = secure.connect().await;
    let watch = format!("GET {CONFIGMAPS}?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(watch.as_bytes()).await.expect("the connection is open");
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    secure.server.post(CONFIGMAPS, configmap("late")).await.created();
    let mut read = String::new();
    while !read.contains(r#""name":"late""#) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("the watch goes on");
        assert!(count > 0, "the watch has ended after {read}");
        read.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_is_ended() {
    let secure = Secure::new().await;
    let (mut stream, served) = secure.over(&secure.connector, 8 << 10).await;
    let watch = format!("GET {CONFIGMAPS}?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(watch.as_bytes()).await.expect("the connection is open");
    // More than the stream and all buffers hold.
    let mut large = configmap("large");
    large["data"]["a"] = "x".repeat(500_000).into();
    for number in 0..5 {
        large["metadata"]["name"] = format!("large-{number}").into();
        secure.server.post(CONFIGMAPS, large.clone()).await.created();
    }
    let start = Instant::now();
    served.await.expect("it ends");
    assert!(matches!(start.elapsed().as_secs(), 59..=61), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_read_is_ended_too() {
    let secure = Secure::new().await;
    let mut large = configmap("large");
    large["data"]["a"] = "x".repeat(500_000).into();
    for number in 0..5 {
        large["metadata"]["name"] = format!("large-{number}").into();
        secure.server.post(CONFIGMAPS, large.clone()).await.created();
    }
    let (mut stream, served) = secure.over(&secure.connector, 8 << 10).await;
    let list = format!("GET {CONFIGMAPS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(list.as_bytes()).await.expect("the connection is open");
    let start = Instant::now();
    served.await.expect("it ends");
    assert!(matches!(start.elapsed().as_secs(), 59..=61), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_2_that_does_not_answer_pings_is_ended() {
    let secure = Secure::new().await;
    let (mut stream, served) = secure.over(&secure.connector2, 64 << 10).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("the connection is open");
    let start = Instant::now();
    to_the_end(&mut stream).await;
    served.await.expect("it ends");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_timed_out() {
    let secure = Secure::new().await;
    for (query, seconds) in [("", 60), ("?timeout=5s", 5), ("?timeout=1h", 60)] {
        let (mut stream, _served) = secure.connect().await;
        let start = Instant::now();
        let half = format!("{}{{\"metadata\":", post(&format!("{CONFIGMAPS}{query}"), 1000));
        stream.write_all(half.as_bytes()).await.expect("the connection is open");
        let (head, status) = answer(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
        assert_eq!((&status["reason"], &status["code"]), (&json!("Timeout"), &json!(504)));
        assert_eq!(start.elapsed().as_secs(), seconds, "{query}");
    }
    let refused = secure.server.get(&format!("{CONFIGMAPS}?timeout=soon")).await.expect(400);
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("invalid timeout specified")), "{refused}");
}

/// A server on a real socket, whose clients are the administrator.
async fn listening(server: &Server) -> std::net::SocketAddr {
    let authority = CertificateAuthority::generate().expect("an authority");
    let serving = ServingCertificate::new(&authority, vec!["localhost".to_owned()], Vec::new());
    let tls = authority.tls(Arc::new(serving.expect("a serving certificate"))).expect("TLS settings");
    let endpoint = Listener::new(server.api.router(), tls).endpoint();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(endpoint.clone().serve_plain(stream, UserInfo::admin()));
        }
    });
    address
}

/// What the server says to these bytes, to the end of the connection.
async fn said(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    // It may hang up before everything is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    to_the_end(&mut stream).await
}

/// The status codes of the answers.
fn codes(said: &str) -> Vec<&str> {
    said.match_indices("HTTP/1.").filter_map(|(at, _)| said.get(at + 9..at + 12)).collect()
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_connection_ends() {
    let server = with(config()).await;
    let address = listening(&server).await;
    let host = "Host: localhost\r\n";
    let good = format!("GET /api/v1/namespaces/default HTTP/1.1\r\n{host}\r\n");
    let chunked = format!("POST {CONFIGMAPS} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("garbage", b"\x16\x03\x01 no HTTP at all\r\n\r\n".to_vec(), &["400"]),
        ("no version", b"GET /version\r\n\r\n".to_vec(), &["400"]),
        ("a version to come", format!("GET /version HTTP/9.9\r\n{host}\r\n").into(), &["400"]),
        ("HTTP/1.0", b"GET /api/v1/namespaces/default HTTP/1.0\r\n\r\n".to_vec(), &["200"]),
        ("garbage behind a request", format!("{good}\0\0\0\r\n\r\n").into(), &["200", "400"]),
        ("two requests at once", format!("{good}{good}").into(), &["200", "200"]),
        ("a header without a name", format!("GET /version HTTP/1.1\r\n{host}: x\r\n\r\n").into(), &["400"]),
        ("a space before the colon", format!("GET /version HTTP/1.1\r\n{host}A : x\r\n\r\n").into(), &["400"]),
        ("a folded header", format!("GET /version HTTP/1.1\r\n{host}A: x\r\n y\r\n\r\n").into(), &["400"]),
        ("a NUL in a header", format!("GET /version HTTP/1.1\r\n{host}A: x\0y\r\n\r\n").into(), &["400"]),
        (
            "a long header",
            format!("GET /version HTTP/1.1\r\n{host}A: {}\r\n\r\n", "x".repeat(1 << 20)).into(),
            &["431"],
        ),
        ("many headers", format!("GET /version HTTP/1.1\r\n{host}{}\r\n", "A: x\r\n".repeat(1000)).into(), &["431"]),
        ("a long URI", format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(70_000)).into(), &["414"]),
        (
            "two lengths",
            format!("POST {CONFIGMAPS} HTTP/1.1\r\n{host}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}").into(),
            &["400"],
        ),
        (
            "a negative length",
            format!("POST {CONFIGMAPS} HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n").into(),
            &["400"],
        ),
        (
            "a coding that is not the last",
            format!("{}, gzip\r\n\r\n{{}}", &chunked[..chunked.len() - 2]).into(),
            &["400"],
        ),
        (
            "chunks in HTTP/1.0",
            format!("POST {CONFIGMAPS} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").into(),
            &["400"],
        ),
        ("a chunk whose size is none", format!("{chunked}\r\nxyz\r\n{{}}\r\n0\r\n\r\n").into(), &["400"]),
        ("a chunk without end", format!("{chunked}\r\nfffffffffffffffff\r\n{{}}").into(), &["400"]),
    ];
    for (what, bytes, expected) in cases {
        let said = said(address, &bytes).await;
        assert_eq!(codes(&said), expected, "{what}: {said}");
        let after = self::said(address, good.as_bytes()).await;
        assert_eq!(codes(&after), ["200"], "after {what}");
    }
}

#[tokio::test]
async fn what_follows_a_body_of_two_lengths_is_never_a_request() {
    let server = with(config()).await;
    let address = listening(&server).await;
    let smuggled = "DELETE /api/v1/namespaces/default HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for headers in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
    ] {
        let request = format!("POST {CONFIGMAPS} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        let said = said(address, request.as_bytes()).await;
        assert!(codes(&said).len() <= 1, "{headers}: {said}");
    }
    let namespace = server.get("/api/v1/namespaces/default").await.ok();
    assert!(namespace["metadata"]["deletionTimestamp"].is_null(), "{namespace}");
}

#[tokio::test]
async fn streams_that_are_opened_to_be_reset_end_the_connection() {
    let server = with(config()).await;
    let address = listening(&server).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..4001_u32).step_by(2) {
        // HEADERS with `GET http://a/`, then RST_STREAM with CANCEL.
        let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
        bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&[0, 0, 4, 3, 0]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
    }
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let _ = stream.write_all(&bytes).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    // GOAWAY (7) with ENHANCE_YOUR_CALM (11), if it was read before the connection was reset.
    let calm = said.windows(17).any(|frame| frame[..5] == [0, 0, 8, 7, 0] && frame[13..] == [0, 0, 0, 11]);
    assert!(calm || said.len() < 4096, "{} bytes and no GOAWAY", said.len());
    let good = self::said(address, b"GET /api/v1/namespaces/default HTTP/1.0\r\n\r\n").await;
    assert_eq!(codes(&good), ["200"]);
}

struct Panics;

#[async_trait]
impl VirtualResource for Panics {
    async fn answer(&self, _: VirtualRequest<'_>) -> Result<Value, Status> {
        panic!("as a test wants it")
    }
}

#[tokio::test]
async fn a_request_that_panics_takes_nothing_else_with_it() {
    let server = with(config()).await;
    server.api.set_virtual_resource("", "v1", "configmaps", Arc::new(Panics));
    let address = listening(&server).await;
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    for (path, code) in [(CONFIGMAPS, "500"), ("/api/v1/namespaces/default", "200")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the connection stays open");
        let (head, status) = answer(&mut stream).await;
        assert_eq!(codes(&head), [code], "{status}");
    }
}
