//! What the commands that show a log of the cluster's network share: reading its lines, and of whom is to be told.

use super::ClusterName;
use super::remote::{self, Remote};
use super::signals::Signals;
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::Write;

/// Opens a log of `net.coracle.dev` and writes what `show` makes of each line, until it ends, Ctrl-C, or nobody reads any more.
pub(crate) async fn stream(
    cluster: &ClusterName,
    resource: &str,
    mut show: impl FnMut(&str) -> Result<String>,
) -> Result<()> {
    let remote = Remote::connect(cluster)?;
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{resource}"));
    let mut signals = Signals::new()?;
    let answer = remote.client.send(request.body(kube::client::Body::empty())?).await.map_err(remote::explain)?;
    if !answer.status().is_success() {
        let body = answer.into_body().collect_bytes().await?;
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        bail!("{}", status["message"].as_str().unwrap_or("the cluster gave no reason"));
    }
    let mut stream = answer.into_body().into_data_stream();
    let mut rest = Vec::new();
    loop {
        let chunk = tokio::select! {
            chunk = stream.next() => chunk,
            _ = signals.next() => return Ok(()),
        };
        let Some(chunk) = chunk else { return Ok(()) };
        rest.extend_from_slice(&chunk.context("the log broke off")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = show(String::from_utf8_lossy(&line).trim_end())?;
            let mut out = std::io::stdout();
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
}

/// The part of a query that says of whom is to be told: a pod (`POD` or `NAMESPACE/POD`), or those of a namespace.
pub(crate) fn whose(pod: Option<&str>, namespace: Option<&str>) -> Option<String> {
    match (pod, namespace) {
        (Some(pod), _) if pod.contains('/') => Some(format!("pod={}", remote::encode(pod))),
        (Some(pod), home) => Some(format!("pod={}", remote::encode(&format!("{}/{pod}", home.unwrap_or("default"))))),
        (None, Some(namespace)) => Some(format!("namespace={}", remote::encode(namespace))),
        (None, None) => None,
    }
}

/// A line's time, to the millisecond.
pub(crate) fn time(event: &Value) -> String {
    let mut time = event["time"].as_str().unwrap_or_default().replace('T', " ");
    time.truncate(23);
    time
}

/// What a line that only tells of lost ones says.
pub(crate) fn lost(event: &Value) -> Option<String> {
    let lost = event["lost_events"]["num_events_lost"].as_u64()?;
    Some(format!("{lost} events were lost: they came faster than they were read\n"))
}
