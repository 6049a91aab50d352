//! Streams to pods: exec, attach, logs, port-forward and the proxies, from HTTP to [`PodStreams`](crate::pod_streams::PodStreams).
//!
//! Which container is meant is settled here; what runs there is not known here.

mod channels;
mod forwarding;
mod log;
mod negotiation;
mod port_forward;
mod port_forward_channels;
mod proxy;
mod proxy_target;
mod proxy_tls;
mod remote_command;
mod spdy;
mod spdy_command;
mod spdy_connection;
pub(crate) mod watch_socket;

use crate::ApiServer;
use crate::authn::UserInfo;
use crate::authz::{Decision, refusal};
use crate::extension::Connector;
use crate::pod_streams::{ContainerRef, PodStreams};
use crate::request::{Query, RequestInfo};
use crate::status::Status;
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use forwarding::Forwarding;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use negotiation::{Agreed, negotiate, switch_to_spdy};
use proxy::ProxyConnector;
use remote_command::{RemoteCommand, Wanted};
use serde_json::Value;
use spdy_connection::{Connection, Transport};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// How often a quiet connection shows its client that the server lives. kubectl gives up after 61 s of silence.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a connection that is over waits for its client to close.
const LINGER: Duration = Duration::from_secs(5);

fn heartbeat() -> Interval {
    let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// A stream subresource of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
    Log,
    PortForward,
}

/// Connects the stream subresources of pods, and the proxies.
pub(crate) fn connect(server: &ApiServer) {
    for (name, kind) in
        [("exec", Kind::Exec), ("attach", Kind::Attach), ("log", Kind::Log), ("portforward", Kind::PortForward)]
    {
        server.set_connector("", "v1", &format!("pods/{name}"), Arc::new(PodConnector(kind)));
    }
    for (resource, connector) in
        [("services", ProxyConnector::Service), ("pods", ProxyConnector::Pod), ("nodes", ProxyConnector::Node)]
    {
        server.set_connector("", "v1", &format!("{resource}/proxy"), Arc::new(connector));
    }
}

struct PodConnector(Kind);

#[async_trait]
impl Connector for PodConnector {
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status> {
        let (mut parts, _) = request.into_parts();
        let info = parts.extensions.get::<RequestInfo>().cloned().unwrap_or_default();
        let user = parts.extensions.get::<UserInfo>().cloned().unwrap_or_default();
        let query = Query::new(&parts.uri);
        let streams = server.pod_streams().ok_or_else(|| Status::internal("no node is connected"))?;
        if self.0 == Kind::Log {
            let options = log::options(&query, server.now())?;
            let pod = pod(server, &info).await?;
            let container = container(&pod, &info, query.text("container"), self.0)?;
            if container.node.is_empty() {
                // As upstream: there is nothing to say yet, and nobody to ask.
                return Ok(answer(StatusCode::NO_CONTENT, String::new()));
            }
            return log::answer(&*streams, &container, options).await;
        }
        may_create(server, &user, &info).await?;
        let pod = pod(server, &info).await?;
        let container = container(&pod, &info, query.text("container"), self.0)?;
        if container.node.is_empty() {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
        }
        if self.0 == Kind::PortForward {
            let forwarding = Forwarding::new(server, streams, user, info, &pod, container).await;
            return forward(server, forwarding, &mut parts, &query).await;
        }
        let command: Vec<String> = query.values("command").map(str::to_owned).collect();
        let command = (self.0 == Kind::Exec).then_some(command);
        if command.as_ref().is_some_and(Vec::is_empty) {
            return Err(Status::bad_request("you must specify at least 1 command for the container"));
        }
        let command = RemoteCommand { streams, container, command, wanted: Wanted::new(&query)? };
        execute(server, command, &mut parts).await
    }
}

async fn execute(server: &ApiServer, command: RemoteCommand, parts: &mut Parts) -> Result<Response, Status> {
    let agreed = match negotiate(parts, channels::PROTOCOLS, spdy_command::PROTOCOLS).await {
        Ok(agreed) => agreed,
        Err(refusal) => return Ok(refusal),
    };
    let stopping = server.stopping();
    match agreed {
        Agreed::WebSocket(upgrade, protocol) => {
            Ok(upgrade.on_upgrade(move |socket| until(stopping, channels::run(socket, protocol, command))))
        }
        Agreed::Spdy(upgrade, protocol) => {
            // Over SPDY it is the node's answer, as text, that clients show after "unable to upgrade connection: ".
            let running = command.streams.check(&command.container, command.command.is_none()).await;
            if let Err(status) = running {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(answer(code, status.message));
            }
            Ok(switch_to_spdy(upgrade, protocol, move |connection| {
                let connection = Connection::new(Transport::Plain(connection));
                until(stopping, spdy_command::run(connection, protocol, command))
            }))
        }
    }
}

async fn forward(
    server: &ApiServer,
    forwarding: Forwarding,
    parts: &mut Parts,
    query: &Query,
) -> Result<Response, Status> {
    let protocols: Vec<&'static str> =
        [port_forward::TUNNEL].iter().chain(port_forward_channels::PROTOCOLS).copied().collect();
    let agreed = match negotiate(parts, &protocols, &[port_forward::SPDY]).await {
        Ok(agreed) => agreed,
        Err(refusal) => return Ok(refusal),
    };
    let stopping = server.stopping();
    match agreed {
        Agreed::WebSocket(upgrade, port_forward::TUNNEL) => Ok(upgrade.on_upgrade(move |socket| {
            let connection = Connection::new(Transport::Tunnel(Box::new(socket)));
            until(stopping, port_forward::run(connection, forwarding))
        })),
        Agreed::WebSocket(upgrade, protocol) => {
            let ports = port_forward_channels::ports(query.values("ports"))?;
            let base64 = protocol.contains("base64");
            Ok(upgrade.on_upgrade(move |socket| {
                until(stopping, port_forward_channels::run(socket, base64, forwarding, ports))
            }))
        }
        Agreed::Spdy(upgrade, protocol) => Ok(switch_to_spdy(upgrade, protocol, move |connection| {
            until(stopping, port_forward::run(Connection::new(Transport::Plain(connection)), forwarding))
        })),
    }
}

/// Runs a session until the server stops: the connection under it is no longer the listener's.
async fn until(mut stopping: watch::Receiver<bool>, session: impl Future<Output = ()>) {
    tokio::select! {
        () = session => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// A WebSocket begins with a GET, which is authorized as `get`; but to run a command is more than to read. As upstream since 1.35
/// (`AuthorizePodWebsocketUpgradeCreatePermission`), it takes `create` as well.
async fn may_create(server: &ApiServer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    if info.verb == "create" {
        return Ok(());
    }
    let request = RequestInfo { verb: "create".to_owned(), ..info.clone() };
    match server.inner.config.authorizer.authorize(user, &request).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) => {
            Err(Status::forbidden("", &info.resource, &info.name, &refusal(user, &request, &reason)))
        }
    }
}

fn answer(code: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn pod(server: &ApiServer, info: &RequestInfo) -> Result<Value, Status> {
    let kind = server.registry().lookup("", "v1", "pods").cloned();
    let kind = kind.ok_or_else(|| Status::internal("pods are not served"))?;
    let found = server.read(&kind, &info.namespace, &info.name).await?;
    found.map(|stored| stored.object).ok_or_else(|| Status::not_found("", "pods", &info.name))
}

/// The container that is meant; the only one if none is named. Its node is empty as long as the pod has none.
fn container(pod: &Value, info: &RequestInfo, wanted: Option<&str>, kind: Kind) -> Result<ContainerRef, Status> {
    let spec = &pod["spec"];
    let names = |field: &str| -> Vec<&str> {
        spec[field].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    };
    let main = names("containers");
    let others: Vec<&str> = names("initContainers").into_iter().chain(names("ephemeralContainers")).collect();
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    let annotated = annotated.filter(|name| main.contains(name));
    let name = match (wanted, main.as_slice()) {
        (Some(name), _) if main.contains(&name) || others.contains(&name) => name,
        (Some(name), _) => {
            return Err(Status::bad_request(format!("container {name} is not valid for pod {}", info.name)));
        }
        (None, [only]) => only,
        (None, [first, ..]) if kind == Kind::PortForward => first,
        (None, many) => match annotated {
            Some(name) => name,
            None => {
                let choice = many.join(" ");
                let text =
                    format!("a container name must be specified for pod {}, choose one of: [{choice}]", info.name);
                return Err(Status::bad_request(text));
            }
        },
    };
    Ok(ContainerRef {
        namespace: info.namespace.clone(),
        pod: info.name.clone(),
        uid: pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        node: spec["nodeName"].as_str().unwrap_or_default().to_owned(),
        container: name.to_owned(),
    })
}

type Streams = Arc<dyn PodStreams>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_with_several_containers_wants_one_named_unless_an_annotation_does() {
        let info = RequestInfo { name: "web".into(), namespace: "default".into(), ..RequestInfo::default() };
        let mut pod = json!({"metadata": {}, "spec": {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}]}});
        let choose = |pod: &Value, wanted| container(pod, &info, wanted, Kind::Exec).map(|found| found.container);
        assert_eq!(
            choose(&pod, None).expect_err("ambiguous").message,
            "a container name must be specified for pod web, choose one of: [a b]"
        );
        assert_eq!(choose(&pod, Some("b")), Ok("b".to_owned()));
        assert_eq!(choose(&pod, Some("c")).expect_err("unknown").message, "container c is not valid for pod web");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(choose(&pod, None), Ok("b".to_owned()));
    }
}
