//! What the commands that ask the network share: sending a question to `net.coracle.dev`, and its answer's form.

use super::remote::{self, Remote};
use super::{ClusterName, Files, apply, print, say};
use anyhow::{Context, Result};
use clap::ValueEnum;
use http::Request;
use serde_json::{Value, json};
use std::path::PathBuf;

const GROUP: &str = "/apis/net.coracle.dev/v1alpha1";

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// The whole answer
    Json,
}

/// Asks a question and returns the answer's `status`.
pub(crate) async fn ask(cluster: &ClusterName, (kind, plural): (&str, &str), spec: Value) -> Result<Value> {
    let remote = Remote::connect(cluster)?;
    let body = json!({"apiVersion": "net.coracle.dev/v1alpha1", "kind": kind, "spec": spec});
    let request = Request::post(format!("{GROUP}/{plural}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .body(body.to_string().into_bytes())?;
    let mut answer = remote.json(request).await.map_err(remote::explain)?;
    for warning in answer["status"]["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(&format!("warning: {warning}"));
    }
    Ok(answer["status"].take())
}

/// A list of the group, as JSON or as the server's table.
pub(crate) async fn list(cluster: &ClusterName, resource: &str, query: &str, accept: &str) -> Result<Value> {
    let remote = Remote::connect(cluster)?;
    remote.get(&format!("{GROUP}/{resource}?{query}"), accept).await.map_err(remote::explain)
}

/// Kinds of policies that questions can be asked about.
const POLICY_KINDS: [&str; 4] =
    ["NetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/// The policies in `files` as the API would store them: checked and with their defaults, by a dry run of applying them. Other
/// kinds of manifests are left aside.
pub(crate) async fn policies(cluster: &ClusterName, files: &[PathBuf], namespace: &str) -> Result<Vec<Value>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let remote = Remote::connect(cluster)?;
    let resources = remote.resources().await?;
    let mut policies = Vec::new();
    for (_, mut manifest) in apply::read(&Files { files: files.to_vec() })? {
        if !manifest["kind"].as_str().is_some_and(|kind| POLICY_KINDS.contains(&kind)) {
            continue;
        }
        let resource = Remote::of_manifest(&resources, &manifest)?;
        let name = manifest["metadata"]["name"].as_str().context("metadata.name: Required value")?.to_owned();
        let place = manifest["metadata"]["namespace"].as_str().unwrap_or(namespace).to_owned();
        if resource.namespaced {
            manifest["metadata"]["namespace"] = place.as_str().into();
        }
        let path = resource.path(Some(&place));
        let request = Request::patch(format!(
            "{path}/{}?fieldManager=coracle&force=true&dryRun=All&fieldValidation=Strict",
            remote::encode(&name)
        ))
        .header("Content-Type", "application/apply-patch+yaml")
        .header("Accept", "application/json")
        .body(manifest.to_string().into_bytes())?;
        policies.push(remote.json(request).await.map_err(remote::explain)?);
    }
    Ok(policies)
}

/// Prints the whole answer.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}
