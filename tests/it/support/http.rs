//! One HTTP/1.1 request over a TCP or unix socket of the machine: what `curl` would do, on machines that have none.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};

/// GETs a path; status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request(tokio::net::TcpStream::connect(address).await?, "GET", path, "").await.map_err(std::io::Error::other)
}

/// GETs a path over a connection that there is already.
pub(crate) async fn get_on<S>(stream: S, path: &str) -> std::io::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    request(stream, "GET", path, "").await.map_err(std::io::Error::other)
}

/// GETs a path of the server behind a unix socket.
pub(crate) async fn get_unix(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    send_unix(socket, "GET", path, "").await
}

/// Sends JSON to the server behind a unix socket.
pub(crate) async fn send_unix(socket: &Path, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    request(tokio::net::UnixStream::connect(socket).await?, method, path, body).await.map_err(std::io::Error::other)
}

async fn request<S>(stream: S, method: &str, path: &str, body: &str) -> Result<(u16, String), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(path).header("Host", "localhost");
    let request =
        request.header("Content-Type", "application/json").body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let answer = sender.send_request(request.expect("a method and a path")).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
