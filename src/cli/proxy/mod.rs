//! `proxy`: a way into the cluster for programs of this machine, without root: SOCKS5 and HTTP on one loopback port.
//!
//! A connection's first byte says which: 5 is SOCKS. Names and addresses of the cluster are reached through a tunnel of its API
//! (`net.coracle.dev`, `tunnels`); everything else is connected to from this machine, so that a browser may be pointed here.

mod http;
mod socks5;

use super::remote;
use super::signals::Signals;
use super::{ClusterName, Hint, paths, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tracing::debug;

/// The port that SOCKS has (RFC 1928).
const PORT: u16 = 1080;
/// A client that does not say what it wants in this time is disconnected.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections at a time; more wait.
const MOST: usize = 1024;
const SOCKS5: u8 = 5;

/// Reach names and addresses of the cluster from this machine
#[derive(Clone, Debug, Args)]
pub(crate) struct Proxy {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = PORT)]
    port: u16,
    #[command(flatten)]
    cluster: ClusterName,
}

/// A byte stream to wherever somebody wanted to go.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why somebody was not connected.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// There is no such host.
    NoHost(String),
    Refused(String),
    TimedOut(String),
    Failed(String),
}

impl NotConnected {
    pub(super) fn text(&self) -> &str {
        let (NotConnected::NoHost(text)
        | NotConnected::Refused(text)
        | NotConnected::TimedOut(text)
        | NotConnected::Failed(text)) = self;
        text
    }

    fn of_machine(error: &std::io::Error, to: &str) -> Self {
        let text = format!("{to}: {error}");
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => NotConnected::Refused(text),
            std::io::ErrorKind::TimedOut => NotConnected::TimedOut(text),
            _ => NotConnected::NoHost(text),
        }
    }
}

/// Connects to places, in the cluster or beyond. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dialler {
    socket: PathBuf,
}

impl Proxy {
    pub(crate) async fn run(self) -> Result<()> {
        let socket = match std::env::var_os("CORACLE_SOCKET") {
            Some(socket) => PathBuf::from(socket),
            None => paths::running(&self.cluster.name)?.socket,
        };
        let mut signals = Signals::new()?;
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(wanted).await.map_err(|error| {
            let hint = Hint("choose another port with `--port`; 0 takes a free one".to_owned());
            anyhow::Error::new(hint).context(error).context(format!("cannot listen on {wanted}"))
        })?;
        let address = listener.local_addr().context("the listener has no address")?;
        say(&format!("SOCKS5 and HTTP proxy on {address}"));
        say(&format!("next: curl --proxy socks5h://{address} http://api-service.default\n(Ctrl-C ends it)"));
        let dialler = Dialler { socket };
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if clients.len() < MOST => match accepted {
                    Ok((stream, _)) => {
                        clients.spawn(serve(stream, dialler.clone()));
                    }
                    Err(error) => {
                        debug!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
                _ = signals.next() => return Ok(()),
            }
        }
    }
}

/// Serves one client to its end.
async fn serve(client: TcpStream, dialler: Dialler) {
    let _ = client.set_nodelay(true);
    let mut first = [0];
    let peeked = tokio::time::timeout(PATIENCE, client.peek(&mut first)).await;
    let served = match peeked {
        Ok(Ok(1)) if first[0] == SOCKS5 => socks5::serve(client, &dialler).await,
        Ok(Ok(1)) => http::serve(client, dialler).await,
        _ => return,
    };
    if let Err(error) = served {
        debug!(error = format!("{error:#}"), "client ended");
    }
}

/// Carries bytes both ways until both sides are done.
pub(super) async fn carry(mut client: impl Stream, mut to: Box<dyn Stream>) -> std::io::Result<()> {
    copy_bidirectional(&mut client, &mut to).await.map(drop)
}

impl Dialler {
    /// Connects to `host`, which is asked for in the cluster first.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, NotConnected> {
        let to = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match tunnel(&self.socket, &to).await {
            Ok(Tunnel::Inside(stream)) => Ok(stream),
            Ok(Tunnel::NotConnected(why)) => Err(why),
            Ok(Tunnel::Elsewhere) => match TcpStream::connect((host, port)).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    Ok(Box::new(stream))
                }
                Err(error) => Err(NotConnected::of_machine(&error, &to)),
            },
            Err(error) => Err(NotConnected::Failed(format!("{error:#}"))),
        }
    }
}

/// How the cluster took a request for a tunnel.
enum Tunnel {
    Inside(Box<dyn Stream>),
    /// It is no place of the cluster.
    Elsewhere,
    NotConnected(NotConnected),
}

async fn tunnel(socket: &Path, to: &str) -> Result<Tunnel> {
    use ::http::{Request, StatusCode};
    use http_body_util::{BodyExt, Empty};
    let stream =
        UnixStream::connect(socket).await.with_context(|| format!("cannot connect to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let path = format!("/apis/net.coracle.dev/v1alpha1/tunnels?to={}", remote::encode(to));
    let request = Request::post(path)
        .header("Host", "localhost")
        .header("Connection", "Upgrade")
        .header("Upgrade", "tcp")
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Tunnel::Inside(Box::new(TokioIo::new(hyper::upgrade::on(answer).await?))));
    }
    let body = answer.into_body().collect().await?.to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = status["message"].as_str().unwrap_or("the cluster gave no reason").to_owned();
    Ok(match code {
        StatusCode::NOT_FOUND => Tunnel::Elsewhere,
        StatusCode::SERVICE_UNAVAILABLE => Tunnel::NotConnected(NotConnected::Refused(text)),
        StatusCode::GATEWAY_TIMEOUT => Tunnel::NotConnected(NotConnected::TimedOut(text)),
        _ => bail!("the cluster answers {code}: {text}"),
    })
}
