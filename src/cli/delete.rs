//! `delete`: by name, by label or by manifest; waits until the objects are gone.

use super::remote::{self, Remote, Resource};
use super::{Files, Scope, apply, print, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use http::Request;
use serde_json::{Value, json};
use std::time::Duration;

/// Delete objects
#[derive(Clone, Debug, Args)]
pub(crate) struct Delete {
    /// Resource type, or TYPE/NAME
    kind: Option<String>,
    /// Names
    names: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    scope: Scope,
    /// Those with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// All of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// Seconds that a pod is given to end
    #[arg(long)]
    grace_period: Option<u32>,
    /// Things that do not exist are no error
    #[arg(long)]
    ignore_not_found: bool,
}

impl Delete {
    pub(crate) async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let mut targets: Vec<(Resource, String, String)> = Vec::new();
        match &self.kind {
            None => {
                let resources = remote.resources().await?;
                for (source, manifest) in apply::read(&self.files)? {
                    let resource = Remote::of_manifest(&resources, &manifest).with_context(|| source.clone())?;
                    let name = manifest["metadata"]["name"]
                        .as_str()
                        .with_context(|| format!("{source}: metadata.name: Required value"))?;
                    let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or(&self.scope.namespace);
                    targets.push((resource.clone(), namespace.to_owned(), name.to_owned()));
                }
            }
            Some(kind) => {
                let (kind, mut names) = match kind.split_once('/') {
                    Some((kind, name)) => (kind, vec![name.to_owned()]),
                    None => (kind.as_str(), Vec::new()),
                };
                names.extend(self.names.iter().cloned());
                for resource in remote.find(kind).await? {
                    let mut wanted = names.clone();
                    if self.all || self.selector.is_some() {
                        wanted.extend(self.listed(&remote, &resource).await?);
                    } else if names.is_empty() {
                        bail!("resource(s) were provided, but no name was specified");
                    }
                    targets
                        .extend(wanted.into_iter().map(|name| (resource.clone(), self.scope.namespace.clone(), name)));
                }
            }
        }
        for (resource, namespace, name) in &targets {
            self.one(&remote, resource, namespace, name).await?;
        }
        if !self.no_wait {
            for (resource, namespace, name) in &targets {
                let path = format!("{}/{}", resource.path(Some(namespace)), remote::encode(name));
                while !matches!(remote.get(&path, "application/json").await, Err(kube::Error::Api(status)) if status.code == 404)
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(())
    }

    async fn listed(&self, remote: &Remote, resource: &Resource) -> Result<Vec<String>> {
        let mut path = resource.path(Some(&self.scope.namespace));
        if let Some(selector) = &self.selector {
            path.push_str(&format!("?labelSelector={}", remote::encode(selector)));
        }
        let list = remote.get(&path, "application/json").await.map_err(remote::explain)?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect())
    }

    async fn one(&self, remote: &Remote, resource: &Resource, namespace: &str, name: &str) -> Result<()> {
        let path = format!("{}/{}", resource.path(Some(namespace)), remote::encode(name));
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if let Some(seconds) = self.grace_period {
            options["gracePeriodSeconds"] = seconds.into();
        }
        let request =
            Request::delete(path).header("Content-Type", "application/json").body(options.to_string().into_bytes())?;
        match remote.json(request).await {
            Ok(Value::Object(_) | Value::Null) => print(&format!("{} {name:?} deleted\n", resource.qualified())),
            Ok(other) => bail!("an unexpected answer: {other}"),
            Err(kube::Error::Api(status)) if status.code == 404 && self.ignore_not_found => {
                say(&format!("{} {name:?} does not exist", resource.qualified()));
            }
            Err(error) => return Err(remote::explain(error)),
        }
        Ok(())
    }
}
