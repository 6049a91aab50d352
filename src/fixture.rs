//! What a test wants of a cluster beside a client: manifests applied, functions as pods, commands run in pods.

use crate::Cluster;
use anyhow::{Context, Result};
use apiserver::pod_streams::{ContainerRef, ExecStreams, PodStreams};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kubelet::FUNCTION_IMAGE;
use kubelet::program::{Container, ExitStatus, Program};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// An async function as a pod: what is known of it before it runs.
#[derive(Clone, Debug)]
pub struct FunctionPod {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    ports: Vec<u16>,
    node: Option<String>,
}

impl FunctionPod {
    /// A pod of this name in the namespace `default`.
    pub fn new(name: &str) -> Self {
        FunctionPod {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            node: None,
        }
    }

    /// In another namespace, which must exist.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a declared TCP port.
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// On this node; the scheduler is not asked.
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }
}

/// What a command in a container printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// 0 is success.
    pub code: i32,
}

struct Function<F>(F);

#[async_trait]
impl<F, Fut> Program for Function<F>
where
    F: Fn(Container) -> Fut + Send + Sync,
    Fut: Future<Output = ExitStatus> + Send,
{
    async fn run(&self, container: Container) -> ExitStatus {
        (self.0)(container).await
    }
}

static FUNCTIONS: AtomicU64 = AtomicU64::new(0);

impl Cluster {
    /// Runs an async function as a pod: with an address of its own, under the cluster's Services, DNS and policies. It runs once;
    /// what it returns is its exit status. Returns when the pod has been created; [`Cluster::settled`] waits for it to run.
    ///
    /// # Errors
    /// The API's answer if the pod is refused.
    pub async fn run_pod<F, Fut>(&self, pod: FunctionPod, function: F) -> Result<Pod>
    where
        F: Fn(Container) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ExitStatus> + Send + 'static,
    {
        let image = format!("{}-{}-{}", pod.namespace, pod.name, FUNCTIONS.fetch_add(1, Ordering::Relaxed));
        self.functions().insert(&image, Arc::new(Function(function)));
        let ports: Vec<Value> = pod.ports.iter().map(|port| json!({"containerPort": port})).collect();
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
            "spec": {"restartPolicy": "Never", "nodeName": pod.node, "terminationGracePeriodSeconds": 1, "containers": [
                {"name": "function", "image": format!("{FUNCTION_IMAGE}{image}"), "ports": ports}]},
        }))?;
        let api: Api<Pod> = Api::namespaced(self.client(), &pod.namespace);
        api.create(&PostParams::default(), &object).await.with_context(|| format!("creating pod {}", pod.name))
    }

    /// Applies manifests (YAML, several documents) as `coracle apply` does: by server-side apply. Objects without a namespace go
    /// to `default`.
    ///
    /// # Errors
    /// The first manifest that cannot be read or is refused.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).context("the manifests are not YAML")?;
        for manifest in documents.into_iter().filter(|document| !document.is_null()) {
            let name = manifest["metadata"]["name"].as_str().context("metadata.name: Required value")?;
            let path = self.object_path(&manifest)?;
            let request =
                http::Request::patch(format!("{path}/{name}?fieldManager=fixture&force=true&fieldValidation=Strict"))
                    .header("Content-Type", "application/apply-patch+yaml")
                    .header("Accept", "application/json")
                    .body(manifest.to_string().into_bytes())?;
            let kind = manifest["kind"].as_str().unwrap_or_default();
            self.client().request::<Value>(request).await.with_context(|| format!("applying {kind} {name:?}"))?;
        }
        Ok(())
    }

    fn object_path(&self, manifest: &Value) -> Result<String> {
        let api_version = manifest["apiVersion"].as_str().context("apiVersion: Required value")?;
        let kind = manifest["kind"].as_str().context("kind: Required value")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let registry = self.api().registry();
        let row = registry.by_kind(group, version, kind);
        let row = row.with_context(|| format!("no matches for kind {kind:?} in version {api_version:?}"))?;
        let prefix = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or("default");
        Ok(if row.namespaced {
            format!("{prefix}/namespaces/{namespace}/{}", row.plural)
        } else {
            format!("{prefix}/{}", row.plural)
        })
    }

    /// Runs a command in the first container of a pod, to its end.
    ///
    /// # Errors
    /// The pod does not run.
    pub async fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<Output> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        let object = api.get(pod).await?;
        let spec = object.spec.unwrap_or_default();
        let container = ContainerRef {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: object.metadata.uid.unwrap_or_default(),
            node: spec.node_name.with_context(|| format!("pod {pod} is not bound to a node yet"))?,
            container: spec.containers.into_iter().next().map(|container| container.name).unwrap_or_default(),
        };
        let nodes = self.nodes().context("the cluster has stopped")?;
        let ((mut out, stdout), (mut err, stderr)) = (tokio::io::duplex(64 << 10), tokio::io::duplex(64 << 10));
        let (_resize, resized) = mpsc::channel(1);
        let streams = ExecStreams {
            stdin: None,
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            tty: false,
            resize: resized,
        };
        let (mut text, mut errors) = (Vec::new(), Vec::new());
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let (code, ..) = tokio::join!(
            nodes.exec(&container, command, streams),
            out.read_to_end(&mut text),
            err.read_to_end(&mut errors)
        );
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { stdout: lossy(text), stderr: lossy(errors), code: code? })
    }
}
