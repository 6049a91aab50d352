//! Events of a node's pods: repeated ones are counted, as `kubectl describe` shows them (`Unhealthy (x3 over 20s)`).
//!
//! Written by one task in the background: nothing waits for an event. A full queue drops the newest.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::debug;

const QUEUE: usize = 4096;
/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;

pub(crate) struct Occurrence {
    pub(crate) pod: Arc<Pod>,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Occurrence>);

impl Recorder {
    /// The recorder, and the task that writes what it is told.
    pub(crate) fn new(client: kube::Client, node: String) -> (Recorder, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel::<Occurrence>(QUEUE);
        let task = async move {
            let mut known: HashMap<(String, &'static str, String), (String, i32)> = HashMap::new();
            let mut number = 0u64;
            while let Some(event) = receiver.recv().await {
                number += 1;
                if let Err(error) = write(&client, &node, &mut known, number, event).await {
                    debug!(%error, "event not written");
                }
            }
        };
        (Recorder(sender), task)
    }

    pub(crate) fn record(&self, event: Occurrence) {
        let _ = self.0.try_send(event);
    }
}

async fn write(
    client: &kube::Client,
    node: &str,
    known: &mut HashMap<(String, &'static str, String), (String, i32)>,
    number: u64,
    event: Occurrence,
) -> Result<(), kube::Error> {
    let metadata = &event.pod.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let uid = metadata.uid.clone().unwrap_or_default();
    let key = (uid.clone(), event.reason, event.message.clone());
    let at = Time(event.at);
    if let Some((name, count)) = known.get_mut(&key) {
        *count += 1;
        let patch = Patch::Merge(json!({"count": *count, "lastTimestamp": at}));
        if api.patch(name, &PatchParams::default(), &patch).await.is_ok() {
            return Ok(());
        }
    }
    let pod = metadata.name.as_deref().unwrap_or_default();
    // As kubelet names them: the object's name and a number that makes it unique.
    let name = format!("{pod}.{:x}{number:04x}", event.at.as_nanosecond());
    let object: Event = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod, "namespace": namespace, "uid": uid,
            "resourceVersion": metadata.resource_version},
        "reason": event.reason, "message": event.message, "type": event.kind, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": "kubelet", "host": node}, "reportingComponent": "kubelet", "reportingInstance": node,
    }))
    .map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await?;
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(key, (name, 1));
    Ok(())
}
