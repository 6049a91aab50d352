//! The subresource `proxy` of services, pods and nodes: the HTTP request itself goes on to a pod, and its answer comes back.
//!
//! Whom the path means says [`super::proxy_target`]; what is between hops (RFC 9110, 7.6.1) and what the client owes to the API
//! alone (its credentials) goes no further. Follows upstream's `UpgradeAwareHandler` and `proxyutil.Transport`, of which the
//! rewriting of links in HTML is not here.

use super::Streams;
use super::proxy_target::{Target, unavailable};
use super::proxy_tls as tls;
use crate::ApiServer;
use crate::extension::Connector;
use crate::pod_streams::Duplex;
use crate::request::RequestInfo;
use crate::status::Status;
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, EXPECT, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinSet;

/// A pod that has not accepted a connection in this time is taken for unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// What belongs to one connection, beside what its `Connection` header names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whose proxy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyConnector {
    Service,
    Pod,
    Node,
}

#[async_trait]
impl Connector for ProxyConnector {
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status> {
        let info = request.extensions().get::<RequestInfo>().cloned().unwrap_or_default();
        let streams = server.pod_streams().ok_or_else(|| Status::internal("no node is connected"))?;
        let what = match self {
            ProxyConnector::Service => "service",
            ProxyConnector::Pod => "pod",
            ProxyConnector::Node => "node",
        };
        let invalid = || Status::bad_request(format!("invalid {what} request {:?}", info.name));
        let target = Target::new(&info.name).ok_or_else(invalid)?;
        let address = match self {
            ProxyConnector::Service => {
                let mut random = SmallRng::seed_from_u64(server.inner.identifiers.number());
                target.of_service(server, &info, &mut random).await?
            }
            ProxyConnector::Pod => target.of_pod(server, &info).await?,
            ProxyConnector::Node => return Err(no_kubelet(server, target.name).await),
        };
        let path = ProxyPath::new(request.uri(), *self != ProxyConnector::Node)?;
        if path.rest.is_empty() {
            return redirect(request.uri());
        }
        forward(server, streams, Hop { address, secure: target.secure }, &path, request).await
    }
}

async fn no_kubelet(server: &ApiServer, name: &str) -> Status {
    let kind = server.registry().lookup("", "v1", "nodes").cloned();
    match kind {
        Some(kind) if matches!(server.read(&kind, "", name).await, Ok(Some(_))) => {
            let text = format!("node {name:?} has no kubelet port to which requests could be passed");
            Status::failure(501, "NotImplemented", text)
        }
        _ => Status::not_found("", "nodes", name),
    }
}

/// A request's path as it was sent, at the end of what names the proxy.
#[derive(Debug, PartialEq, Eq)]
struct ProxyPath {
    /// `/api/v1/namespaces/NAMESPACE/services/NAME/proxy`
    prefix: String,
    /// What follows, from its slash on; empty without one.
    rest: String,
}

impl ProxyPath {
    fn new(uri: &Uri, namespaced: bool) -> Result<Self, Status> {
        let path = uri.path();
        let segments = if namespaced { 7 } else { 5 };
        let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let end = ends.nth(segments).unwrap_or(path.len());
        let (prefix, rest) = path.split_at(end);
        if !prefix.ends_with("/proxy") {
            return Err(Status::failure(404, "NotFound", "the server could not find the requested resource"));
        }
        Ok(ProxyPath { prefix: prefix.to_owned(), rest: rest.to_owned() })
    }

    /// Where the answer leads, as the client has to ask for it.
    fn location(&self, location: &str, host: Option<&str>) -> String {
        let own = location.strip_prefix("http://").or_else(|| location.strip_prefix("https://"));
        let path = match host.and_then(|host| own?.strip_prefix(host)) {
            Some("") => "/",
            Some(path) => path,
            None => location,
        };
        let on_host = path.starts_with('/') && !path.starts_with("//");
        if on_host && !path.starts_with(&self.prefix) { format!("{}{path}", self.prefix) } else { location.to_owned() }
    }
}

/// Relative links of an application need its root to be a directory.
fn redirect(uri: &Uri) -> Result<Response, Status> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, header(&format!("{}/{query}", uri.path()))?);
    Ok(response)
}

fn header(text: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(text).map_err(|error| Status::bad_request(format!("{text:?}: {error}")))
}

/// Where a request goes on to.
#[derive(Clone, Copy, Debug)]
struct Hop {
    address: SocketAddr,
    /// Whether it speaks TLS there.
    secure: bool,
}

async fn forward(
    server: &ApiServer,
    streams: Streams,
    Hop { address, secure }: Hop,
    path: &ProxyPath,
    mut request: Request,
) -> Result<Response, Status> {
    let failed = |why: String| unavailable(format!("error trying to reach service: {why}"));
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.version_mut() = Version::HTTP_11;
    *onward.uri_mut() = format!("{}{query}", path.rest)
        .parse()
        .map_err(|error| Status::bad_request(format!("{}: {error}", path.rest)))?;
    // HTTP/2 has the host in the URI.
    let authority = parts.uri.authority().map(ToString::to_string);
    let host = parts.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(authority.as_deref()?).ok());
    let host = host.map_or_else(|| header(&address.to_string()), Ok)?;
    let upgrade = parts.headers.get(UPGRADE).filter(|_| parts.version <= Version::HTTP_11).cloned();
    *onward.headers_mut() = onward_headers(parts.headers);
    let headers = onward.headers_mut();
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    headers.insert("x-forwarded-uri", header(&format!("{}{}", path.prefix, path.rest))?);
    headers.insert("x-forwarded-host", host.clone());
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(peer) = peer {
        let before = headers.get("x-forwarded-for").and_then(|known| known.to_str().ok());
        let all = before.map_or_else(|| peer.ip().to_string(), |before| format!("{before}, {}", peer.ip()));
        headers.insert("x-forwarded-for", header(&all)?);
    }
    let host_text = host.to_str().ok().map(str::to_owned);
    headers.insert(HOST, host);

    let dialed = tokio::time::timeout(DIAL_TIMEOUT, streams.dial(address)).await;
    let stream = dialed.map_err(|_| failed(format!("dial tcp {address}: i/o timeout")))?.map_err(|status| {
        let why = status.message.strip_prefix(&format!("error trying to reach {address}: ")).unwrap_or(&status.message);
        failed(format!("dial tcp {address}: {why}"))
    })?;
    let stream: Box<dyn Duplex> = if secure {
        tls::connect(stream, address.ip()).await.map_err(|error| failed(error.to_string()))?
    } else {
        stream
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(error.to_string()))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let mut response = sender.send_request(onward).await.map_err(|error| failed(error.to_string()))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let pod = hyper::upgrade::on(&mut response);
        tunnel(server, client, pod);
        return Ok(response.map(|_| Body::empty()));
    }
    remove_hop_by_hop(response.headers_mut());
    if let Some(location) = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()) {
        let location = header(&path.location(location, host_text.as_deref()))?;
        response.headers_mut().insert(LOCATION, location);
    }
    *response.version_mut() = Version::default();
    Ok(response.map(|body| Body::new(Answer { body, _driver: driver })))
}

/// What of a request's headers is for the pod.
fn onward_headers(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    headers.remove(AUTHORIZATION);
    headers.remove(EXPECT);
    let others = headers.keys().filter(|name| name.as_str().starts_with("impersonate-"));
    for name in others.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
    // Browsers hand tokens over as a protocol of the WebSocket.
    if let Some(protocols) = headers.remove("sec-websocket-protocol") {
        let protocols = protocols.to_str().unwrap_or_default().split(',').map(str::trim);
        let theirs: Vec<&str> = protocols.filter(|name| !name.contains("bearer.authorization.k8s.io")).collect();
        if let (false, Ok(value)) = (theirs.is_empty(), HeaderValue::from_str(&theirs.join(", "))) {
            headers.insert("sec-websocket-protocol", value);
        }
    }
    headers
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Joins two upgraded connections until both directions have ended, or the server stops.
fn tunnel(server: &ApiServer, client: hyper::upgrade::OnUpgrade, pod: hyper::upgrade::OnUpgrade) {
    let mut stopping = server.stopping();
    tokio::spawn(async move {
        let joined = async {
            let (client, pod) = tokio::try_join!(client, pod)?;
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(pod)).await;
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            _ = joined => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
}

/// A pod's answer, which keeps its connection going as long as somebody reads it.
struct Answer {
    body: Incoming,
    _driver: JoinSet<()>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    // The size is not told: what a pod sends is not compressed on its way.
    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_on_as_it_was_sent() {
        let read = |path: &str| ProxyPath::new(&path.parse().expect("a URI"), true).map(|path| path.rest);
        let prefix = "/api/v1/namespaces/a/services/web:80/proxy";
        assert_eq!(read(&format!("{prefix}/x%2Fy//z/?q=1")), Ok("/x%2Fy//z/".to_owned()));
        assert_eq!(read(&format!("{prefix}/")), Ok("/".to_owned()));
        assert_eq!(read(prefix), Ok(String::new()));
        assert!(read("/api/v1/watch/namespaces/a/services/web/proxy").is_err());
    }

    #[test]
    fn a_redirect_of_the_application_stays_behind_the_proxy() {
        let path = ProxyPath { prefix: "/p/proxy".to_owned(), rest: "/".to_owned() };
        let location = |text| path.location(text, Some("api"));
        assert_eq!(location("/login"), "/p/proxy/login");
        assert_eq!(location("http://api/login"), "/p/proxy/login");
        assert_eq!(location("https://api/login"), "/p/proxy/login");
        assert_eq!(location("http://elsewhere/login"), "http://elsewhere/login");
        assert_eq!(location("//elsewhere"), "//elsewhere");
        assert_eq!(location("login"), "login");
    }

    #[test]
    fn what_is_between_hops_and_what_is_the_apis_goes_no_further() {
        let mut headers = HeaderMap::new();
        let sent = [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("authorization", "Bearer t"),
            ("impersonate-user", "root"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dA, chat"),
            ("accept", "*/*"),
        ];
        for (name, value) in sent {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let headers = onward_headers(headers);
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
        left.sort();
        assert_eq!(left, ["accept: */*", "sec-websocket-protocol: chat"]);
    }
}
