//! The health check ports of Services whose external traffic policy is `Local`: at every node, whether it has a ready endpoint.
//!
//! Load balancers ask there before they send to a node. The answers come from the table in force at the moment of the
//! question. Requests, answers and headers are kube-proxy's, down to the weight that some load balancers read.

use crate::http::{self, Answer, Answers, Listening};
use crate::service::{FrontendKind, ServiceName};
use crate::table::ExternalFrontends;
use crate::translator::Translator;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use netstack::Host;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Which Service a port is for.
type Services = Arc<Mutex<HashMap<u16, ServiceName>>>;

/// Serves the health check ports of all nodes, until the proxy ends.
pub(crate) async fn serve(
    translator: Arc<Translator>,
    mut frontends: watch::Receiver<ExternalFrontends>,
    nodes: Vec<Host>,
) {
    let answers = HealthChecks { translator, services: Services::default() };
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
                    open.insert(*key, Listening::start(listener, answers.clone()));
                }
                Err(error) => {
                    warn!(%service, port, node = ?nodes[node].addresses(), %error, "health check port not served");
                    refused.insert(*key);
                }
            }
        }
        tokio::select! {
            changed = frontends.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(http::RETRY), if !refused.is_empty() => {}
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

#[derive(Clone)]
struct HealthChecks {
    translator: Arc<Translator>,
    services: Services,
}

impl Answers for HealthChecks {
    /// To any method and path.
    fn answer(&self, asked: SocketAddr, _: &str) -> Answer {
        let service = self.services.lock().get(&asked.port()).cloned();
        let service = service.unwrap_or(ServiceName { namespace: String::new(), name: String::new() });
        let count = self.translator.table().local_endpoints(&service, asked.ip()).unwrap_or(0);
        let status = if count == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let ServiceName { namespace, name } = service;
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
        );
        let mut answer = http::json(status, body);
        answer.headers_mut().insert(WEIGHT, HeaderValue::from(count));
        answer
    }
}
