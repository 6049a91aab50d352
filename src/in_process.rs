//! Clients and servers that need no socket: `kube` over the API's own router, the API on the cluster's network, DNS as a pod.

use apiserver::ApiServer;
use apiserver::authn::UserInfo;
use apiserver::server::Endpoint;
use async_trait::async_trait;
use axum::body::Body;
use dns::Dns;
use kubelet::program::{Container, ExitStatus, Program};
use netstack::TcpListener;
use std::sync::Arc;
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

#[async_trait]
impl Program for DnsServer {
    async fn run(&self, container: Container) -> ExitStatus {
        match self.0.serve(container.host).await {
            Ok(()) => 0,
            Err(error) => {
                // Its pod has been taken off the network, as a rule.
                tracing::debug!(%error, "DNS server ended");
                1
            }
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
