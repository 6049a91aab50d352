//! `captures`: packets of the virtual network as they pass, as a pcapng stream: what `coracle capture` writes.
//!
//! `POST …/captures?pod=NAMESPACE/POD&pod=…` sees what these pods send and receive; without a pod every packet is seen once, and
//! with `dropped=true` only those that were not delivered. The stream ends when the client goes or the cluster stops. A client
//! that is too slow loses packets, not the network: the next packet's comment says how many.

use super::pcapng::Writer;
use super::place::full_name;
use super::{Asker, Sources, alive};
use apiserver::ApiServer;
use apiserver::extension::Connector;
use apiserver::request::Query;
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::{BoxStream, select_all};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use netstack::{Captured, PortTag, Tap};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const MEDIA_TYPE: &str = "application/x-pcapng";

pub(super) struct Captures(pub(super) Arc<Sources>);

/// One packet, and how many were lost before it.
struct Seen {
    captured: Captured,
    lost: u64,
    /// The pod whose capture it is; `None` for a capture of everything.
    port: Option<PortTag>,
}

#[async_trait]
impl Connector for Captures {
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status> {
        let sources = self.0.clone();
        let asker = Asker::of(server, request.extensions())?;
        let query = Query::new(request.uri());
        let only_dropped = query.flag("dropped");
        let mut ports = Vec::new();
        for name in query.values("pod") {
            asker.may_name(name, asker.home("")).await?;
            ports.push(sources.port_of(name, asker.home(""))?);
        }
        if ports.is_empty()
            && let Some(namespace) = asker.namespace()
        {
            let why = format!("pod: Required value: in a namespace pods are captured; name one of {namespace:?}");
            return Err(Status::bad_request(why));
        }
        let taps: Vec<BoxStream<'static, Seen>> = if ports.is_empty() {
            vec![packets(sources.network.tap(None), None)]
        } else {
            ports.iter().map(|port| packets(sources.network.tap(Some(*port)), Some(*port))).collect()
        };
        let mut names = Names { sources: Arc::downgrade(&sources), known: HashMap::new() };
        // Wall time is the start's and what the cluster's clock has counted since.
        let (wall, began) = (server.now(), Instant::now());
        let mut writer = Writer::default();
        let header = writer.header();
        let blocks = select_all(taps)
            .filter(move |seen| std::future::ready(!only_dropped || seen.captured.dropped.is_some()))
            .map(move |seen| Bytes::from(block(&mut writer, &mut names, &seen, (wall, began))));
        let stream = futures::stream::once(std::future::ready(Bytes::from(header))).chain(blocks);
        let mut stopping = server.stopping();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        let stream = stream.take_until(stopped).map(Ok::<_, std::convert::Infallible>);
        let mut response = Response::new(Body::from_stream(stream));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn packets(tap: Tap, port: Option<PortTag>) -> BoxStream<'static, Seen> {
    let stream = futures::stream::unfold((tap, 0), move |(mut tap, before)| async move {
        let captured = tap.next().await?;
        let lost = tap.lost();
        Some((Seen { captured, lost: lost - before, port }, (tap, lost)))
    });
    stream.boxed()
}

fn block(writer: &mut Writer, names: &mut Names, seen: &Seen, (wall, began): (Timestamp, Instant)) -> Vec<u8> {
    let Seen { captured, lost, port } = seen;
    // Everything: the interface is the sender's, since a dropped packet has no other.
    let interface = names.of(port.unwrap_or(captured.from));
    let start = Duration::from_nanos(u64::try_from(wall.as_nanosecond()).unwrap_or_default());
    let time = start + captured.at.saturating_duration_since(began);
    let mut comments = Vec::new();
    if let Some(reason) = captured.dropped {
        comments.push(format!("dropped: {}", policy::reason::code(reason)));
    }
    if *lost > 0 {
        comments.push(format!("{lost} packets before this one were lost by the capture"));
    }
    let comment = (!comments.is_empty()).then(|| comments.join("; "));
    writer.packet(&interface, time, &captured.packet, comment.as_deref())
}

/// The names of the network's ports.
struct Names {
    sources: std::sync::Weak<Sources>,
    known: HashMap<PortTag, String>,
}

impl Names {
    fn of(&mut self, port: PortTag) -> String {
        if !self.known.contains_key(&port)
            && let Some(sources) = self.sources.upgrade()
        {
            self.known.extend(sources.ports());
        }
        self.known.get(&port).cloned().unwrap_or_else(|| format!("port {}", port.0))
    }
}

impl Sources {
    /// The port of a pod that runs.
    fn port_of(&self, name: &str, home: &str) -> Result<PortTag, Status> {
        let (namespace, name) = name.split_once('/').unwrap_or((home, name));
        let pod = self.pods.get(namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
        let host = alive(&self.nodes)?.pod_host(&pod);
        let why =
            || Status::failure(409, "Conflict", format!("pod {namespace}/{name} does not run, so it has no packets"));
        host.map(|host| host.tag()).ok_or_else(why)
    }

    /// Every port that has a name.
    fn ports(&self) -> HashMap<PortTag, String> {
        let mut names = HashMap::from([(PortTag(0), "outside".to_owned())]);
        if let Ok(nodes) = alive(&self.nodes) {
            for pod in self.pods.list() {
                if let Some(host) = nodes.pod_host(&pod) {
                    names.insert(host.tag(), full_name(&pod));
                }
            }
            // Pods on the host's network share their node's port, which keeps the node's name.
            names.extend(nodes.node_ports());
        }
        names
    }
}
