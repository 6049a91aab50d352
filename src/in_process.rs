//! Clients and servers that need no socket: `kube` over the API's own router, the API on the cluster's network, DNS as a pod.

use apiserver::ApiServer;
use apiserver::authn::UserInfo;
use apiserver::server::Endpoint;
use async_trait::async_trait;
use axum::body::Body;
use dns::Dns;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kubelet::program::{Container, ExitStatus, Program};
use netstack::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Where the API listens inside the network, at the gateway's address.
pub(crate) const API_PORT: u16 = 6443;

/// A client of the API as this user, in process: same authentication, admission, validation and watch as any other.
pub(crate) fn client(api: &ApiServer, user: UserInfo) -> kube::Client {
    let router = api.router_as(user);
    let service = router.map_request(|request: http::Request<kube::client::Body>| request.map(Body::new));
    kube::Client::new(service, "default")
}

/// The API for pods: TLS on the gateway's own listener.
pub(crate) async fn serve_inside(listener: TcpListener, endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(endpoint.clone().serve_tls(stream));
                }
                Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The cluster's DNS server as a program in a pod.
pub(crate) struct DnsServer(pub(crate) Arc<Dns>);

/// Where the DNS pod tells its metrics, as CoreDNS does.
pub(crate) const DNS_METRICS_PORT: u16 = 9153;
/// Clients of the metrics at a time; more wait to be accepted.
const METRICS_CLIENTS: usize = 16;

#[async_trait]
impl Program for DnsServer {
    async fn run(&self, container: Container) -> ExitStatus {
        let metrics = async {
            match container.host.tcp_listen(DNS_METRICS_PORT) {
                Ok(listener) => serve_metrics(&listener, &self.0).await,
                Err(error) => tracing::warn!(%error, "the metrics of DNS are not served"),
            }
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = self.0.serve(container.host.clone()) => ended,
            never = metrics => never,
        };
        match ended {
            Ok(()) => 0,
            Err(error) => {
                // Its pod has been taken off the network, as a rule.
                tracing::debug!(%error, "DNS server ended");
                1
            }
        }
    }
}

/// `GET /metrics`, until the host is shut down.
async fn serve_metrics(listener: &TcpListener, dns: &Arc<Dns>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < METRICS_CLIENTS => {
                let Ok((stream, _)) = accepted else { return };
                let dns = dns.clone();
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let is_metrics = request.uri().path() == "/metrics";
                    let (code, text) = if is_metrics { (200, dns.metrics()) } else { (404, "404 page not found\n".to_owned()) };
                    let kind = if is_metrics { "text/plain; version=0.0.4" } else { "text/plain" };
                    let response = http::Response::builder().status(code).header(http::header::CONTENT_TYPE, kind);
                    std::future::ready(response.body(Body::from(text)))
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                // Whoever does not ask in time makes room for others.
                server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                connections.spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A DNS message that asks for the IPv4 addresses of `name` (RFC 1035, 4.1).
pub(crate) fn dns_question(name: &str) -> Vec<u8> {
    // Id, recursion desired, one question.
    let mut message = vec![0xC0, 0xDE, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    // The root, type A, class IN.
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Whether this is an answer to that question, without an error and with at least one record.
pub(crate) fn answers(question: &[u8], answer: &[u8]) -> bool {
    answer.len() > 12
        && answer[..2] == question[..2]
        && answer[2] & 0x80 != 0
        && answer[3] & 0x0F == 0
        && u16::from_be_bytes([answer[6], answer[7]]) > 0
}
