//! Streams to pods: exec, attach, logs, port-forward and the proxies, from HTTP to [`PodStreams`](crate::pod_streams::PodStreams).
//!
//! Which container is meant is settled here; what runs there is not known here.

mod channels;
mod log;
mod port_forward;
mod port_forward_channels;
mod proxy;
mod proxy_target;
mod spdy;

use crate::ApiServer;
use crate::extension::Connector;
use crate::pod_streams::{ContainerRef, PodStreams};
use crate::request::{Query, RequestInfo};
use crate::status::Status;
use async_trait::async_trait;
use axum::extract::{FromRequestParts, Request, WebSocketUpgrade};
use axum::response::Response;
use http::request::Parts;
use proxy::ProxyConnector;
use serde_json::Value;
use std::sync::Arc;

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
        let query = Query::new(&parts.uri);
        let streams = server.pod_streams().ok_or_else(|| Status::internal("no node is connected"))?;
        let pod = pod(server, &info).await?;
        let container = container(&pod, &info, query.text("container"), self.0)?;
        match self.0 {
            Kind::Log => log::answer(&*streams, &container, &query, server.now()).await,
            Kind::Exec => {
                let command: Vec<String> = query.values("command").map(str::to_owned).collect();
                if command.is_empty() {
                    return Err(Status::bad_request("you must specify at least 1 command for the container"));
                }
                let upgrade = upgrade(&mut parts).await?;
                Ok(channels::answer(upgrade, streams, container, Some(command), &query))
            }
            Kind::Attach => {
                let upgrade = upgrade(&mut parts).await?;
                Ok(channels::answer(upgrade, streams, container, None, &query))
            }
            Kind::PortForward => {
                let ports = query.values("ports").flat_map(|ports| ports.split(','));
                let ports =
                    ports.map(|port| port.trim().parse::<u16>().map_err(|_| port)).collect::<Result<Vec<_>, _>>();
                let ports = ports.map_err(|port| {
                    Status::bad_request(format!(
                        "ports: Invalid value: {port:?}: must be between 1 and 65535, inclusive"
                    ))
                })?;
                let upgrade = upgrade(&mut parts).await?;
                Ok(port_forward::answer(upgrade, streams, container, ports))
            }
        }
    }
}

async fn upgrade(parts: &mut Parts) -> Result<WebSocketUpgrade, Status> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    upgrade
        .map_err(|why| Status::bad_request(format!("Upgrade request required: this resource speaks WebSocket ({why})")))
}

async fn pod(server: &ApiServer, info: &RequestInfo) -> Result<Value, Status> {
    let kind = server.registry().lookup("", "v1", "pods").cloned();
    let kind = kind.ok_or_else(|| Status::internal("pods are not served"))?;
    let found = server.read(&kind, &info.namespace, &info.name).await?;
    found.map(|stored| stored.object).ok_or_else(|| Status::not_found("", "pods", &info.name))
}

/// The container that is meant; the only one if none is named.
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
    let node = spec["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
    }
    Ok(ContainerRef {
        namespace: info.namespace.clone(),
        pod: info.name.clone(),
        node: node.to_owned(),
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
        pod["spec"]["nodeName"] = Value::Null;
        assert_eq!(choose(&pod, None).expect_err("unbound").code, 400);
    }
}
