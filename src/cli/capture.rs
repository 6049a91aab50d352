//! `capture`: packets of the virtual network into a pcapng file, or live into Wireshark.

use super::remote::{self, Remote};
use super::signals::Signals;
use super::{Scope, get, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Write packets of the virtual network into a pcapng file
#[derive(Clone, Debug, Args)]
pub(crate) struct Capture {
    /// Whose packets: POD, NAMESPACE/POD, or svc/NAME for all its endpoints; may be repeated [default: everybody's]
    of: Vec<String>,
    /// The file; - is standard output: `coracle capture web -w - | wireshark -k -i -`
    #[arg(short, long)]
    write: PathBuf,
    /// Only packets that were not delivered; the reason is each packet's comment
    #[arg(long, conflicts_with = "of")]
    dropped: bool,
    /// End after this many seconds [default: at Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    scope: Scope,
}

impl Capture {
    pub(crate) async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let mut query = vec![format!("dropped={}", self.dropped)];
        for of in &self.of {
            for pod in self.pods(&remote, of).await? {
                query.push(format!("pod={}", remote::encode(&pod)));
            }
        }
        let path = format!("/apis/net.coracle.dev/v1alpha1/captures?{}", query.join("&"));
        let request = Request::post(path).body(kube::client::Body::empty())?;
        let mut signals = Signals::new()?;
        let answer = remote.client.send(request).await.map_err(remote::explain)?;
        if !answer.status().is_success() {
            let body = answer.into_body().collect_bytes().await?;
            let status: Value = serde_json::from_slice(&body).unwrap_or_default();
            bail!("{}", status["message"].as_str().unwrap_or("the cluster gave no reason"));
        }
        let shown = self.write.display().to_string();
        let mut out: Box<dyn AsyncWrite + Unpin + Send> = if shown == "-" {
            Box::new(tokio::io::stdout())
        } else {
            Box::new(File::create(&self.write).await.with_context(|| format!("cannot write {shown}"))?)
        };
        say("capturing (Ctrl-C ends it)");
        let end = async {
            match self.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut stream = answer.into_body().into_data_stream();
        let mut bytes = 0;
        loop {
            tokio::select! {
                chunk = stream.next() => match chunk {
                    Some(chunk) => {
                        let chunk = chunk.context("the capture broke off")?;
                        bytes += chunk.len();
                        // A reader that has gone, Wireshark closed, is the end of it.
                        let written = async {
                            out.write_all(&chunk).await?;
                            out.flush().await
                        };
                        match written.await {
                            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                            written => written.with_context(|| format!("cannot write {shown}"))?,
                        }
                    }
                    None => break,
                },
                () = &mut end => break,
                _ = signals.next() => break,
            }
        }
        out.flush().await.with_context(|| format!("cannot write {shown}"))?;
        say(&format!("{bytes} bytes written to {shown}"));
        Ok(())
    }

    /// The pods that are meant, as NAMESPACE/NAME.
    async fn pods(&self, remote: &Remote, of: &str) -> Result<Vec<String>> {
        let Some(service) = of.strip_prefix("svc/").or_else(|| of.strip_prefix("service/")) else {
            let whole = of.contains('/') && !of.starts_with("pod");
            let name = if whole { of } else { get::pod_name(of)? };
            return Ok(vec![if whole { name.to_owned() } else { format!("{}/{name}", self.scope.namespace) }]);
        };
        let (namespace, name) = service.split_once('/').unwrap_or((&self.scope.namespace, service));
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{name}"
        );
        let slices = remote.get(&path, "application/json").await.map_err(remote::explain)?;
        let endpoints = slices["items"].as_array().into_iter().flatten();
        let endpoints = endpoints.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let pods: Vec<String> = endpoints
            .filter(|endpoint| endpoint["targetRef"]["kind"] == "Pod")
            .filter_map(|endpoint| Some(format!("{namespace}/{}", endpoint["targetRef"]["name"].as_str()?)))
            .collect();
        if pods.is_empty() {
            bail!("Service {namespace}/{name} has no pod behind it");
        }
        Ok(pods)
    }
}
