//! The health check ports of Services whose external traffic policy is `Local`: at every node, whether it has a ready endpoint.
//!
//! Load balancers ask there before they send to a node. The answers come from the table in force at the moment of the
//! question. Requests, answers and headers are kube-proxy's, down to the weight that some load balancers read.

use crate::service::{FrontendKind, ServiceName};
use crate::table::ExternalFrontends;
use crate::translator::Translator;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use netstack::{Host, TcpListener, TcpStream};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// A port that somebody else has on a node is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// How long a request's headers may take, the time between two requests included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of one port at a time.
const CONNECTIONS: usize = 256;

/// Which Service a port is for.
type Services = Arc<Mutex<HashMap<u16, ServiceName>>>;

/// Serves the health check ports of all nodes, until the proxy ends.
pub(crate) async fn serve(
    translator: Arc<Translator>,
    mut frontends: watch::Receiver<ExternalFrontends>,
    nodes: Vec<Host>,
) {
    let answers = Answers { translator, services: Services::default() };
    let mut open: HashMap<(usize, u16), Listening> = HashMap::new();
    loop {
        let wanted = wanted(&frontends.borrow_and_update(), &nodes);
        *answers.services.lock() = wanted.iter().map(|((_, port), service)| (*port, service.clone())).collect();
        let gone: Vec<_> = open.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for listening in gone.iter().filter_map(|key| open.remove(key)) {
            listening.close().await;
        }
        let mut refused = HashSet::new();
        for (key, service) in wanted.iter().filter(|(key, _)| !open.contains_key(*key)).collect::<Vec<_>>() {
            let (node, port) = *key;
            match nodes[node].tcp_listen(port) {
                Ok(listener) => {
                    open.insert(*key, Listening(tokio::spawn(answers.clone().listen(listener))));
                }
                Err(error) => {
                    warn!(%service, port, node = ?nodes[node].addresses(), %error, "health check port not served");
                    refused.insert(*key);
                }
            }
        }
        tokio::select! {
            changed = frontends.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !refused.is_empty() => {}
        }
    }
}

/// The Service of each port, by node.
fn wanted(frontends: &ExternalFrontends, nodes: &[Host]) -> HashMap<(usize, u16), ServiceName> {
    let of_node: HashMap<_, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.addresses().into_iter().map(move |ip| (ip, index)))
        .collect();
    let checks = frontends.iter().filter(|frontend| frontend.kind == FrontendKind::HealthCheck);
    checks
        .filter_map(|frontend| Some(((*of_node.get(&frontend.address)?, frontend.port), frontend.service.clone())))
        .collect()
}

/// A port that is served; dropping it closes it.
struct Listening(JoinHandle<()>);

impl Listening {
    /// Closes the port: when this returns, it is free.
    async fn close(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Answers {
    translator: Arc<Translator>,
    services: Services,
}

impl Answers {
    async fn listen(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                    let Ok((stream, _)) = accepted else { return };
                    connections.spawn(self.clone().serve(stream));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve(self, stream: TcpStream) {
        let asked = stream.local_addr();
        let answer = service_fn(move |_: Request<Incoming>| {
            let answer = self.answer(asked);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        // A client that speaks no HTTP, or hangs up: its own affair.
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    }

    /// To any method and path.
    fn answer(&self, asked: SocketAddr) -> Response<Full<Bytes>> {
        let service = self.services.lock().get(&asked.port()).cloned();
        let service = service.unwrap_or(ServiceName { namespace: String::new(), name: String::new() });
        let count = self.translator.table().local_endpoints(&service, asked.ip()).unwrap_or(0);
        let status = if count == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let ServiceName { namespace, name } = service;
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
        );
        let mut answer = Response::new(Full::new(Bytes::from(body)));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(WEIGHT, HeaderValue::from(count));
        answer
    }
}
