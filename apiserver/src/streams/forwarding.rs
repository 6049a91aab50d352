//! Where the connections of a port-forward go: to the pod it was opened for, and to whoever takes that pod's place.
//!
//! A session lasts longer than its pod may. The protocol says nothing of the pod after the request, and opens every connection anew; so
//! each new one goes to the pod of that name as it is then, on whatever node. If it is gone or going and its controller makes others in
//! its place that are as good (a ReplicaSet's and its Deployment's, a DaemonSet's), the session goes on to one of those, provided its
//! user may forward to it; if its controller will bring the same name back (a StatefulSet), connections wait for that. Unlike here,
//! with upstream a session is lost with its pod: `kubectl port-forward svc/NAME` has to be started again after each rollout.
//!
//! Connections that exist end with their pod: TCP has no way to move them.

use super::Streams;
use crate::ApiServer;
use crate::authn::UserInfo;
use crate::authz::Decision;
use crate::pod_streams::{ContainerRef, Duplex};
use crate::request::RequestInfo;
use crate::storage;
use parking_lot::Mutex;
use serde_json::Value;
use std::time::Duration;
use store::Range;
use tokio::time::Instant;

/// How long a connection waits for a pod to be replaced; clients of the connection have time-outs of their own.
const REPLACEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// Controllers whose pods are as good as each other.
const FUNGIBLE: [&str; 3] = ["ReplicaSet", "ReplicationController", "DaemonSet"];

/// Who made a pod and will replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    kind: String,
    uid: String,
    /// The Deployment above a ReplicaSet.
    above: Option<String>,
}

/// One session.
pub(super) struct Forwarding {
    server: ApiServer,
    streams: Streams,
    user: UserInfo,
    info: RequestInfo,
    controller: Option<Controller>,
    container: Mutex<ContainerRef>,
}

impl Forwarding {
    pub(super) async fn new(
        server: &ApiServer,
        streams: Streams,
        user: UserInfo,
        info: RequestInfo,
        pod: &Value,
        container: ContainerRef,
    ) -> Self {
        let controller = controller(server, pod).await;
        let container = Mutex::new(container);
        Forwarding { server: server.clone(), streams, user, info, controller, container }
    }

    /// A connection to the port; the text for the error stream if there can be none.
    pub(super) async fn dial(&self, port: u16) -> Result<Box<dyn Duplex>, String> {
        let deadline = Instant::now() + REPLACEMENT_TIMEOUT;
        let container = loop {
            match self.container().await {
                Some(container) => break container,
                None if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                None => break self.container.lock().clone(),
            }
        };
        let connected = self.streams.port_forward(&container, port).await;
        let ContainerRef { pod, uid, .. } = container;
        connected.map_err(|status| format!("error forwarding port {port} to pod {pod}, uid {uid}: {}", status.message))
    }

    /// Where a connection goes now; `None` while the pod is being replaced.
    async fn container(&self) -> Option<ContainerRef> {
        let known = self.container.lock().clone();
        let pod = self.pod(&known.pod).await;
        let usable = pod.as_ref().filter(|pod| is_up(pod));
        if let Some(pod) = usable
            && pod["metadata"]["deletionTimestamp"].is_null()
        {
            return Some(self.go_to(pod));
        }
        let Some(controller) = &self.controller else { return Some(known) };
        if FUNGIBLE.contains(&controller.kind.as_str()) {
            for other in self.pods().await {
                if is_ready(&other) && self.is_sibling(&other, controller).await && self.may_forward_to(&other).await {
                    return Some(self.go_to(&other));
                }
            }
        }
        // One that is going may still answer, while there is no other.
        usable.map(|pod| self.go_to(pod))
    }

    fn go_to(&self, pod: &Value) -> ContainerRef {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut container = self.container.lock();
        container.pod = text(&pod["metadata"]["name"]);
        container.uid = text(&pod["metadata"]["uid"]);
        container.node = text(&pod["spec"]["nodeName"]);
        container.clone()
    }

    async fn pod(&self, name: &str) -> Option<Value> {
        let kind = self.server.registry().lookup("", "v1", "pods").cloned()?;
        self.server.read(&kind, &self.info.namespace, name).await.ok().flatten().map(|stored| stored.object)
    }

    async fn pods(&self) -> Vec<Value> {
        let Some(kind) = self.server.registry().lookup("", "v1", "pods").cloned() else { return Vec::new() };
        let range = Range { prefix: storage::prefix(&kind, &self.info.namespace), ..Range::default() };
        let page = self.server.store().range(range).await;
        page.iter().flat_map(|page| &page.items).filter_map(|item| storage::decode(&kind, item).ok()).collect()
    }

    async fn is_sibling(&self, pod: &Value, of: &Controller) -> bool {
        match controller(&self.server, pod).await {
            Some(other) => other.uid == of.uid || other.above.is_some() && other.above == of.above,
            None => false,
        }
    }

    async fn may_forward_to(&self, pod: &Value) -> bool {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = RequestInfo { name, verb: "create".to_owned(), ..self.info.clone() };
        matches!(self.server.inner.config.authorizer.authorize(&self.user, &request).await, Decision::Allow(_))
    }
}

fn is_up(pod: &Value) -> bool {
    pod["status"]["phase"].as_str() == Some("Running")
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn owner(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

async fn controller(server: &ApiServer, pod: &Value) -> Option<Controller> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of_pod = owner(pod)?;
    let (kind, uid) = (text(&of_pod["kind"])?, text(&of_pod["uid"])?);
    let mut above = None;
    if kind == "ReplicaSet"
        && let Some(row) = server.registry().lookup("apps", "v1", "replicasets").cloned()
    {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = of_pod["name"].as_str().unwrap_or_default();
        let set = server.read(&row, namespace, name).await.ok().flatten();
        above = set.and_then(|set| text(&owner(&set.object)?["uid"]));
    }
    Some(Controller { kind, uid, above })
}
