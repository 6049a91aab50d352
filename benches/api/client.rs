//! The load's side of the wire: HTTP/1.1 over TLS with as little work as possible, since it shares the cores with the server.

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where a server is and how to speak to it.
#[derive(Clone)]
pub(crate) struct Address {
    socket: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Address {
    /// From PEM: the authority, the client's certificate and its key.
    pub(crate) fn new(socket: SocketAddr, authority: &str, certificate: &str, key: &str) -> Result<Address> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let connector = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Ok(Address { socket, http1: connector(b"http/1.1"), http2: connector(b"h2") })
    }

    async fn connect(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.socket).await.context("the server cannot be reached")?;
        stream.set_nodelay(true)?;
        Ok(tls.connect(ServerName::IpAddress(self.socket.ip().into()), stream).await?)
    }

    /// A connection whose protocol is HTTP/2.
    pub(crate) async fn http2(&self) -> Result<TlsStream<TcpStream>> {
        self.connect(&self.http2).await
    }
}

/// The head of an answer, and how long its body was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) length: usize,
}

/// One connection, one request at a time.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn new(address: &Address) -> Result<Connection> {
        Ok(Connection { stream: address.connect(&address.http1).await?, buffer: vec![0; 256 << 10] })
    }

    /// Sends a request and reads the whole answer, without keeping it.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let (code, body, mut filled, length) = self.head(request).await?;
        let Some(length) = length else { return self.chunked(code, body, filled).await };
        let mut left = (body + length).checked_sub(filled).context("more than one answer")?;
        while left > 0 {
            filled = self.stream.read(&mut self.buffer).await?;
            ensure!(filled > 0, "the server has closed the connection within an answer");
            left = left.checked_sub(filled).context("more than one answer")?;
        }
        Ok(Answer { code, length })
    }

    /// Sends a request and reads an answer that fits into the buffer.
    pub(crate) async fn text(&mut self, request: &[u8]) -> Result<String> {
        let (_, body, mut filled, length) = self.head(request).await?;
        let end = body + length.context("an answer without length")?;
        ensure!(end <= self.buffer.len(), "an answer of {end} bytes");
        while filled < end {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server has closed the connection within an answer");
            filled += read;
        }
        Ok(String::from_utf8(self.buffer[body..end].to_vec())?)
    }

    /// Sends a request and reads the head: the code, where the body begins in the buffer, how much the buffer holds, and the
    /// body's length if it says so.
    async fn head(&mut self, request: &[u8]) -> Result<(u16, usize, usize, Option<usize>)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server has closed the connection");
            filled += read;
            let Some(end) = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let code = head.get(9..12).context("no status")?.parse()?;
            let mut lines = head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: ")).map(str::parse).transpose()?;
            return Ok((code, end + 4, filled, length));
        }
    }

    async fn chunked(&mut self, code: u16, body: usize, mut filled: usize) -> Result<Answer> {
        const END: &[u8] = b"0\r\n\r\n";
        let mut length = filled - body;
        let mut last = self.buffer[body..filled].to_vec();
        while !last.ends_with(END) {
            filled = self.stream.read(&mut self.buffer).await?;
            ensure!(filled > 0, "the server has closed the connection within an answer");
            length += filled;
            last.extend_from_slice(&self.buffer[filled.saturating_sub(END.len())..filled]);
            last.drain(..last.len().saturating_sub(END.len()));
        }
        Ok(Answer { code, length })
    }

    /// Begins a watch and tells `event` of every line that comes, for ever.
    pub(crate) async fn watch(mut self, path: &str, began: impl FnOnce(), mut event: impl FnMut()) -> Result<()> {
        let (code, body, mut filled, _) = self.head(&get(path)).await?;
        ensure!(code == 200, "a watch of {path}: {code}");
        began();
        let mut lines = Lines::default();
        let mut from = body;
        loop {
            lines.feed(&self.buffer[from..filled], &mut event);
            filled = self.stream.read(&mut self.buffer).await?;
            from = 0;
            if filled == 0 {
                bail!("the server has ended a watch");
            }
        }
    }

    /// Only waits for the server to hang up.
    pub(crate) async fn idle(mut self) -> Result<()> {
        self.buffer = vec![0; 1];
        let read = self.stream.read(&mut self.buffer).await?;
        ensure!(read == 0, "the server says something unasked");
        Ok(())
    }
}

/// Counts a watch's events: each ends with `}` and a line feed, which stand together nowhere else.
#[derive(Default)]
pub(crate) struct Lines {
    brace: bool,
}

impl Lines {
    pub(crate) fn feed(&mut self, bytes: &[u8], event: &mut impl FnMut()) {
        for byte in bytes {
            if *byte == b'\n' && self.brace {
                event();
            }
            self.brace = *byte == b'}';
        }
    }
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nUser-Agent: bench\r\n\r\n")
        .into_bytes()
}

pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a closed loop of clients achieved.
pub(crate) struct Achieved {
    pub(crate) per_second: f64,
    /// p50 and p99 in µs.
    pub(crate) latency: [f64; 2],
}

/// How long a load goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Count(u64),
    Elapsed(Duration),
}

/// Each connection sends its next request as soon as it has the answer to the last; `request` makes the n-th of all.
///
/// # Errors
/// An answer with another code than `expected`.
pub(crate) async fn closed_loop(
    connections: &mut [Connection],
    until: Until,
    expected: u16,
    request: impl Fn(u64) -> Vec<u8>,
) -> Result<Achieved> {
    let (next, start, request) = (Cell::new(0), Instant::now(), &request);
    let clients = connections.iter_mut().map(|connection| {
        let next = &next;
        async move {
            let mut samples = Vec::new();
            loop {
                let number = next.get();
                let more = match until {
                    Until::Count(count) => number < count,
                    Until::Elapsed(time) => start.elapsed() < time,
                };
                if !more {
                    return Ok(samples);
                }
                next.set(number + 1);
                let request = request(number);
                let sent = Instant::now();
                let answer = connection.exchange(&request).await?;
                samples.push(sent.elapsed().as_nanos() as u64);
                ensure!(answer.code == expected, "request {number} was answered with {}", answer.code);
            }
        }
    });
    let samples = futures::future::try_join_all(clients).await?.concat();
    let per_second = samples.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Achieved { per_second, latency: crate::veth::percentiles(samples) })
}
