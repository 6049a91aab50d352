//! The API on the wire: TLS over any byte stream, a TCP port, a unix socket.
//!
//! A connection's peer is known before its first request: by its client certificate, or as the owner on the unix socket (whose
//! directory only the owner may enter). Requests on it carry that [`UserInfo`]; all others are authenticated by their headers.

use crate::authentication::RefusedCertificate;
use crate::authn::UserInfo;
use crate::certs::Tls;
use crate::connection::{self, Protocol};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

/// A peer that does not finish its TLS handshake in this time is disconnected.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// After such a silence the kernel asks whether the peer is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves one router on any number of listeners; dropping it ends them with all their connections.
pub struct Server {
    endpoint: Endpoint,
    listeners: JoinSet<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server(..)")
    }
}

/// What serves one connection. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    router: Router,
    tls: Tls,
    peer: Option<SocketAddr>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoint(..)")
    }
}

impl Server {
    /// A server without listeners.
    pub fn new(router: Router, tls: Tls) -> Self {
        Server { endpoint: Endpoint { router, tls, peer: None }, listeners: JoinSet::new() }
    }

    /// For streams that are accepted elsewhere, such as on the cluster's own network.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// HTTPS on a TCP listener.
    pub fn listen_tcp(&mut self, listener: TcpListener) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let endpoint = self.endpoint.clone();
        self.listeners.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => {
                            // A socket that refuses has been reset already.
                            let _ = keep_alive(&stream);
                            let endpoint = Endpoint { peer: Some(peer), ..endpoint.clone() };
                            connections.spawn(endpoint.serve_tls(stream));
                        }
                        // Out of file descriptors, as a rule: what is open must end first.
                        Err(error) => {
                            debug!(%error, "accept failed");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(address)
    }

    /// Plain HTTP for the owner on a unix socket of mode 0600; an old socket file nobody listens on is replaced.
    pub fn listen_unix(&mut self, path: &Path) -> io::Result<()> {
        let listener = bind_unix(path)?;
        let endpoint = self.endpoint.clone();
        let remove = RemoveFile(path.to_owned());
        self.listeners.spawn(async move {
            let _remove = remove;
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(endpoint.clone().serve_plain(stream, UserInfo::admin()));
                        }
                        Err(error) => {
                            debug!(%error, "accept failed");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(())
    }

    /// Ends all listeners and connections.
    pub async fn stop(&mut self) {
        self.listeners.shutdown().await;
    }
}

struct RemoveFile(PathBuf);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(bound)
}

impl Endpoint {
    /// HTTPS on one stream, to its end.
    pub async fn serve_tls<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(self.tls.config()).accept(stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
            Err(_) => return debug!("TLS handshake timed out"),
        };
        let session = stream.get_ref().1;
        let user = self.tls.peer(session.peer_certificates());
        let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        serve(self.router, stream, protocol, user, self.peer).await;
    }

    /// HTTP on one stream whose peer is `user`, to its end.
    pub async fn serve_plain<S>(self, stream: S, user: UserInfo)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        serve(self.router, stream, Protocol::Either, Ok(Some(user)), self.peer).await;
    }
}

/// `user` is known by the connection, or not, or an error says why a certificate is not accepted.
async fn serve<S>(
    router: Router,
    stream: S,
    protocol: Protocol,
    user: Result<Option<UserInfo>, String>,
    peer: Option<SocketAddr>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        match &user {
            Ok(Some(user)) => drop(request.extensions_mut().insert(user.clone())),
            Ok(None) => {}
            Err(why) => drop(request.extensions_mut().insert(RefusedCertificate(why.clone()))),
        }
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        router.clone().oneshot(request.map(Body::new))
    });
    if let Err(error) = connection::serve(stream, protocol, service).await {
        debug!(%error, "connection ended");
    }
}

/// A peer that has gone without a word is noticed: after a silence, and when it acknowledges nothing of what is sent.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE / 4)?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, 2 * SILENCE.as_millis() as u32)?;
    Ok(())
}
