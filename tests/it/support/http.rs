//! One HTTP/1.1 request over a TCP or unix socket of the machine: what `curl` would do, on machines that have none.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};

/// GETs a path; status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request(tokio::net::TcpStream::connect(address).await?, path).await.map_err(std::io::Error::other)
}

/// GETs a path of the server behind a unix socket.
pub(crate) async fn get_unix(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    request(tokio::net::UnixStream::connect(socket).await?, path).await.map_err(std::io::Error::other)
}

async fn request<S>(stream: S, path: &str) -> Result<(u16, String), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path).header("Host", "localhost").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.expect("a path")).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
