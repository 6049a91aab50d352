//! The HTTP proxy: CONNECT (RFC 9110, 9.3.6) for any protocol, and requests in absolute form (RFC 9112, 3.2.2) for plain HTTP.

use super::{Dialler, NotConnected, PATIENCE, carry};
use anyhow::Result;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use tokio::net::TcpStream;
use tracing::debug;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Serves one client.
pub(super) async fn serve(client: TcpStream, dialler: Dialler) -> Result<()> {
    let service = service_fn(move |request| {
        let dialler = dialler.clone();
        async move { Ok::<_, Infallible>(answer(request, &dialler).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).preserve_header_case(true);
    Ok(server.serve_connection(TokioIo::new(client), service).with_upgrades().await?)
}

async fn answer(request: Request<Incoming>, dialler: &Dialler) -> Answer {
    let connect = request.method() == Method::CONNECT;
    let place = request.uri().authority().map(|authority| {
        let port = authority.port_u16().or_else(|| (!connect).then_some(80));
        (authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(), port)
    });
    let (host, port) = match (place, request.uri().scheme_str()) {
        (Some((host, Some(port))), None | Some("http")) => (host, port),
        _ => {
            let why = "this is a proxy: send CONNECT HOST:PORT, or a request for http://HOST/PATH";
            return said(StatusCode::BAD_REQUEST, why);
        }
    };
    let stream = match dialler.connect(&host, port).await {
        Ok(stream) => stream,
        Err(why) => {
            let code = match why {
                NotConnected::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            return said(code, why.text());
        }
    };
    if connect {
        tokio::spawn(async move {
            let carried = match hyper::upgrade::on(request).await {
                Ok(client) => carry(TokioIo::new(client), stream).await.map_err(anyhow::Error::from),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = carried {
                debug!(error = format!("{error:#}"), "tunnel ended");
            }
        });
        return Response::new(Full::default().map_err(|never| match never {}).boxed());
    }
    match forward(request, stream).await {
        Ok(answer) => answer,
        Err(error) => said(StatusCode::BAD_GATEWAY, &format!("{host}:{port}: {error:#}")),
    }
}

/// Sends the request on, in origin form, on a connection of its own.
async fn forward(mut request: Request<Incoming>, stream: Box<dyn super::Stream>) -> Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    if let Some(authority) = request.uri().authority() {
        // RFC 9112 (3.2.2): the target's authority replaces whatever Host was received.
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    strip(request.headers_mut());
    let mut response = sender.send_request(request).await?;
    strip(response.headers_mut());
    Ok(response.map(BodyExt::boxed))
}

/// RFC 9110 (7.6.1): what belongs to one connection is not passed on.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed = [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE];
    let others = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    for name in named.into_iter().chain(fixed).chain(others) {
        headers.remove(name);
    }
}

fn said(code: StatusCode, text: &str) -> Answer {
    let body = Full::from(format!("{text}\n")).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic secret"),
            ("upgrade", "h2c"),
            ("authorization", "Bearer token"),
            ("content-length", "3"),
        ] {
            headers.append(name, value.parse().expect("a value"));
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["authorization", "content-length"]);
    }
}
